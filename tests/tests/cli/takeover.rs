//! A receiver that starts while the server still considers its dead predecessor connected.

use std::time::{Duration, Instant};

use ciphermq_tests::faults::proxy::{NetworkConditions, Proxy};
use ciphermq_tests::{Backend, PATIENCE, Server, received};
use rustix::process::Signal;

use ciphermq_tests::workspace::Workspace;

/// Far longer than the test may take, so that the test cannot wait for it.
const REDELIVERY_TIMEOUT: &str = "1h";

pub(crate) async fn a_restarted_receiver_takes_over_immediately(backend: Backend) {
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
    database
        .eventually(ciphermq_tests::Database::ACKNOWLEDGED, 1)
        .await;

    // From here on no delivery reaches it, and the server does not notice its end.
    proxy.set_conditions(NetworkConditions {
        frozen: true,
        ..NetworkConditions::default()
    });
    workspace.send_messages(&["b", "c"]).await;
    first.signal(Signal::KILL);
    first.ended(PATIENCE).await;
    assert_eq!(proxy.open(), 1, "the server has noticed its end");

    let started = Instant::now();
    workspace.receive(2).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let lines = received::read(&workspace.path("data/received_messages.jsonl"));
    received::assert_exactly(&lines, [r#""a""#, r#""b""#, r#""c""#]);
}
