//! A receiver that starts again where another one has died without a word.

use std::time::{Duration, Instant};

use ciphermq_tests::faults::proxy::{NetworkConditions, Proxy};
use ciphermq_tests::{Backend, PATIENCE, Server, received};
use rustix::process::Signal;

use super::workspace::Workspace;

/// Far longer than the test may take: nobody waits for it.
const REDELIVERY_TIMEOUT: &str = "1h";

pub(crate) async fn a_restarted_receiver_takes_over_at_once(backend: Backend) {
    let options = backend.options().await;
    let server =
        Server::start(options.set("limits", "redelivery_timeout", REDELIVERY_TIMEOUT)).await;
    let workspace = Workspace::named(&server, "sender", "receiver");
    let proxy = Proxy::start(server.address()).await;
    let far = format!("localhost:{}", proxy.address().port());
    let mut first = workspace
        .cli("receive")
        .env("CIPHERMQ_SERVER", &far)
        .spawn();
    first.stderr.expect("Receiving from").await;
    workspace.send_messages(&["a"]).await;
    let database = server.database().await;
    let acknowledged = "SELECT count(*) FROM message_metadata WHERE acknowledged_time IS NOT NULL";
    database.eventually(acknowledged, 1).await;

    // What is delivered from here on never comes to it, and the server does not learn that it is
    // gone.
    proxy.conditions(NetworkConditions {
        frozen: true,
        ..NetworkConditions::default()
    });
    workspace.send_messages(&["b", "c"]).await;
    first.signal(Signal::KILL);
    first.ended(PATIENCE).await;
    assert_eq!(proxy.open(), 1, "the server knows that it is gone");

    let started = Instant::now();
    workspace.receive(2).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let lines = received::read(&workspace.path("data/received_messages.jsonl"));
    received::assert_exactly(&lines, [r#""a""#, r#""b""#, r#""c""#]);
}
