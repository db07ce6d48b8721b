//! Receivers that share a client id, each with its own output.

use std::fmt::Write as _;

use ciphermq_tests::{Backend, PATIENCE, received};
use rustix::process::Signal;

use ciphermq_tests::workspace::Workspace;

pub(crate) async fn two_outputs_contain_each_message_once(backend: Backend) {
    let server = backend.server().await;
    let workspace = Workspace::named(&server, "sender", "receiver");
    // A small prefetch, so that both receive messages even if one is faster.
    let mut first = workspace
        .receiving(&["--output", "first.jsonl", "--prefetch", "50"])
        .await;
    let mut second = workspace
        .receiving(&["--output", "second.jsonl", "--prefetch", "50"])
        .await;
    let lines: Vec<String> = (0..6000)
        .map(|number| format!("{{\"number\":{number}}}"))
        .collect();
    let mut file = String::new();
    for line in &lines {
        writeln!(file, "{line}").unwrap();
    }
    workspace.write("numbers.jsonl", file);
    workspace
        .send()
        .args(["--file", "numbers.jsonl"])
        .run()
        .await
        .success();
    let database = server.database().await;
    database
        .eventually(ciphermq_tests::Database::ACKNOWLEDGED, 6000)
        .await;
    for receiver in [&mut first, &mut second] {
        receiver.signal(Signal::TERM);
        assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    }
    let [one, two] =
        ["first.jsonl", "second.jsonl"].map(|name| received::read(&workspace.path(name)));
    assert!(
        !one.is_empty() && !two.is_empty(),
        "{} and {}",
        one.len(),
        two.len()
    );
    let both = [one, two].concat();
    received::assert_exactly(&both, lines.iter().map(String::as_str));
}
