//! Server failures in mid-stream, while a sender and a receiver are active.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use ciphermq_tests::process::Process;
use ciphermq_tests::{Backend, Cli, PATIENCE, Received, data, received};
use rustix::process::Signal;

use ciphermq_tests::workspace::{Workspace, console_text};

/// The time limit for the sender and the receiver.
const LIMIT: Duration = Duration::from_secs(100);

/// Waits for the next new line that contains a text.
async fn next_line(process: &Process, text: &str) {
    let mark = process.stderr.mark();
    let found = process
        .stderr
        .find(mark, PATIENCE, |line| line.contains(text).then_some(()));
    assert!(
        found.await.is_some(),
        "no further {text:?}:\n{}",
        process.stderr.text()
    );
}

pub(crate) async fn a_server_that_is_killed_and_restarted_in_mid_stream(backend: Backend) {
    let mut server = backend.server().await;
    let workspace = Workspace::named(&server, "sender", "receiver");
    // Twice the readings, in small batches, so that the stream lasts long enough.
    let readings = std::fs::read_to_string(data::readings()).unwrap().repeat(2);
    workspace.write("readings.jsonl", &readings);
    let count = (data::READINGS * 2).to_string();
    let mut receiver = workspace.receiving(&["--count", &count, "-v"]).await;
    let mut sender = workspace
        .send()
        .args(["--file", "readings.jsonl", "--batch-size", "5", "-v"])
        .spawn();
    for signal in [Signal::KILL, Signal::TERM] {
        next_line(&sender, "Server ACK received").await;
        // Suspended, so that it cannot complete before the server ends.
        sender.signal(Signal::STOP);
        if signal == Signal::KILL {
            server.kill9().await;
        } else {
            server.terminate().await;
        }
        server.restart().await;
        let mark = sender.stderr.mark();
        sender.signal(Signal::CONT);
        let again = |line: &str| line.contains("Connected again").then_some(());
        let again = sender.stderr.find(mark, PATIENCE, again).await;
        assert!(again.is_some(), "{signal:?} was not in mid-stream");
    }

    assert_eq!(sender.ended(LIMIT).await.code(), Some(0));
    assert_eq!(receiver.ended(LIMIT).await.code(), Some(0));
    let lost = sender.stderr.text().matches("Connection lost").count();
    assert!(
        lost >= 2,
        "the sender has lost its connection only {lost} times"
    );
    received::assert_exactly(&workspace.received(), readings.lines());
    assert_eq!(sender.stdout.text(), "", "nothing stayed unacknowledged");
    workspace.expect_empty_queue(&server).await;
}

pub(crate) async fn a_server_that_does_not_come_back(backend: Backend) {
    let mut server = backend.server().await;
    let workspace = Workspace::named(&server, "sender", "receiver");
    workspace.register_receiver().await;
    let lines: Vec<String> = (0..30_000).map(|number| format!("\"{number}\"")).collect();
    workspace.write("numbers.jsonl", lines.join("\n"));
    let mut sender = workspace
        .send()
        .args(["--file", "numbers.jsonl", "--batch-size", "5", "-v"])
        .args(["--retries", "2", "--retry-timeout", "0.5"])
        .spawn();
    next_line(&sender, "Server ACK received").await;
    server.kill9().await;
    assert_eq!(sender.ended(PATIENCE).await.code(), Some(3));

    let console = sender.stderr.lines();
    let ids = |prefix: &str| -> BTreeSet<String> {
        let texts = console
            .iter()
            .filter(|line| line.starts_with('['))
            .map(|line| console_text("SENDER", line));
        texts
            .filter_map(|text| text.strip_prefix(prefix)?.split(' ').next())
            .map(str::to_owned)
            .collect()
    };
    let (encrypted, acked) = (
        ids("Encrypted message "),
        ids("Server ACK received for message "),
    );
    let listed = sender.stdout.lines();
    let unacknowledged: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(unacknowledged.len(), listed.len(), "each is listed once");
    assert!(!acked.is_empty() && !unacknowledged.is_empty());
    assert!(acked.is_disjoint(&unacknowledged));
    let all: BTreeSet<String> = acked.union(&unacknowledged).cloned().collect();
    assert_eq!(
        all, encrypted,
        "every message is either acknowledged or listed"
    );
    let error = sender.stderr.text();
    assert!(
        error.contains("error: ") && error.contains(" not acknowledged; "),
        "{error}"
    );

    // Acknowledged messages are stored; others may be stored, once.
    server.restart().await;
    workspace
        .cli("receive")
        .args(["--idle-exit", "1"])
        .limit(LIMIT)
        .run()
        .await
        .success();
    let received = workspace.received();
    let stored: BTreeSet<String> = received
        .iter()
        .map(|line| line.message_id.clone())
        .collect();
    assert_eq!(stored.len(), received.len(), "no message is duplicated");
    assert!(acked.is_subset(&stored));
    assert!(stored.is_subset(&encrypted));
}

/// The output is a pipe that is read only after the server was killed, so the message is written
/// but its ack never confirmed.
pub(crate) async fn acks_that_are_never_confirmed(backend: Backend) {
    let mut server = backend.server().await;
    let workspace = Workspace::named(&server, "sender", "receiver");
    workspace.register_receiver().await;
    // More than a pipe holds.
    let text = "x".repeat(200_000);
    workspace.send().input(text.as_str()).run().await.success();
    let pipe = workspace.path("pipe");
    Cli::program("mkfifo").arg(&pipe).run().await.success();
    let mut receiver = workspace
        .cli("receive")
        .args(["--output", "pipe", "--count", "1", "-v"])
        .args(["--retries", "2", "--retry-timeout", "0.5"])
        .spawn();
    let reading = tokio::task::spawn_blocking(move || std::fs::File::open(pipe).unwrap());
    let mut reader = reading.await.unwrap();
    receiver.stderr.expect("Decrypted message").await;
    server.kill9().await;
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        reader.read_to_string(&mut line).unwrap();
        line
    });
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(3));
    let line = Received::parse(line.await.unwrap().trim_end());
    assert_eq!(line.text(), text);
    let console = receiver.stderr.text();
    let (_, error) = console
        .split_once("error: ")
        .unwrap_or_else(|| panic!("no error in:\n{console}"));
    assert!(
        error.contains("not confirmed") && error.contains(&line.message_id),
        "{error}"
    );

    // It would be redelivered, unless it is acked.
    server.restart().await;
    workspace
        .cli("ack")
        .arg(&line.message_id)
        .run()
        .await
        .success();
    workspace.expect_empty_queue(&server).await;
}
