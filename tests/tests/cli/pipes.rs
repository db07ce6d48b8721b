//! Output to a pipe: a message is acknowledged once its line has been read, and is redelivered
//! otherwise.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use ciphermq_tests::cli::Outcome;
use ciphermq_tests::{Cli, Fixture, PATIENCE, Received};
use rustix::process::Signal;

use ciphermq_tests::workspace::Workspace;

/// Runs `ciphermq-cli` in the workspace with its output piped into a shell command.
///
/// Returns the outcome of the shell command; the exit code of `ciphermq-cli` is written to the file
/// `code`.
async fn piped(workspace: &Workspace, fixture: &Fixture, command: &str, reader: &str) -> Outcome {
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let script = format!(
        "{{ '{}' {command}; echo $? >code; }} | {{ {reader}; }}",
        program.display()
    );
    let address = format!("localhost:{}", fixture.server.address().port());
    let shell = Cli::program("sh")
        .args(["-c", &script])
        .current_dir(&workspace.path("."))
        .env("CIPHERMQ_SERVER", address);
    shell.run().await.success()
}

#[track_caller]
fn assert_code(workspace: &Workspace, code: &str) {
    let text = std::fs::read_to_string(workspace.path("code")).unwrap();
    assert_eq!(text.trim_end(), code);
}

/// Returns the texts of the lines that a reader has printed.
fn texts(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.stdout.lines();
    lines.map(|line| Received::parse(line).text()).collect()
}

/// Returns a workspace whose receiver has `count` waiting messages.
async fn workspace_with_messages(fixture: &Fixture, count: usize) -> Workspace {
    let workspace = Workspace::of(fixture);
    workspace.register_receiver().await;
    let messages: Vec<String> = (1..=count).map(text).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    workspace.send_messages(&messages).await;
    workspace
}

fn text(number: usize) -> String {
    format!("text {number}")
}

/// Expects that exactly these messages are still waiting, and arrive in order.
async fn expect_rest(
    workspace: &Workspace,
    fixture: &Fixture,
    numbers: std::ops::RangeInclusive<usize>,
) {
    workspace.receive(numbers.clone().count()).await;
    assert_eq!(workspace.texts(), numbers.map(text).collect::<Vec<_>>());
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn a_reader_takes_what_it_reads_after_any_number_of_restarts(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 100).await;
    // More runs than deliveries after which a message is deferred.
    for number in 1..=12 {
        let read = piped(&workspace, &fixture, "receive --output -", "head -1").await;
        assert_eq!(texts(&read), [text(number)]);
        assert_code(&workspace, "0");
    }
    let read = piped(&workspace, &fixture, "receive --output -", "head -20").await;
    assert_eq!(texts(&read), (13..=32).map(text).collect::<Vec<_>>());
    expect_rest(&workspace, &fixture, 33..=100).await;
}

pub(crate) async fn a_killed_reader_loses_nothing(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 20).await;
    let reader =
        "read -r a; printf '%s\\n' \"$a\"; sleep 0.1; read -r b; printf '%s\\n' \"$b\"; kill -9 $$";
    let script = format!("sh -c '{}' || true", reader.replace('\'', "'\\''"));
    let read = piped(&workspace, &fixture, "receive --output -", &script).await;
    assert_eq!(texts(&read), [text(1), text(2)]);
    assert_code(&workspace, "0");
    expect_rest(&workspace, &fixture, 3..=20).await;
}

pub(crate) async fn the_receiver_waits_until_the_last_line_is_read(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 5).await;
    let reader = "while read -r line; do sleep 0.05; printf '%s\\n' \"$line\"; done";
    let read = piped(&workspace, &fixture, "receive --output - --count 3", reader).await;
    assert_eq!(texts(&read), [text(1), text(2), text(3)]);
    let read = piped(
        &workspace,
        &fixture,
        "receive --output - --idle-exit 3",
        reader,
    )
    .await;
    assert_eq!(texts(&read), [text(4), text(5)]);
    assert_code(&workspace, "0");
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn the_end_of_the_reader_is_noticed_without_a_further_message(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 1).await;
    let read = piped(&workspace, &fixture, "receive --output -", "head -1").await;
    assert_eq!(texts(&read), [text(1)]);
    assert_code(&workspace, "0");
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn lines_of_any_length_pass(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let long = "x".repeat(100_000);
    workspace.send_messages(&[&long, "short", &long]).await;
    let read = piped(&workspace, &fixture, "receive --output - --count 3", "cat").await;
    assert_eq!(texts(&read), [&long, "short", &long]);
    workspace.expect_empty_queue(&fixture.server).await;
}

/// Opens a named pipe in the workspace for reading.
async fn open_pipe(workspace: &Workspace, name: &str) -> File {
    let path = workspace.path(name);
    let opened = tokio::task::spawn_blocking(move || File::open(path));
    opened.await.unwrap().unwrap()
}

pub(crate) async fn a_named_pipe_that_is_read_in_part(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 30).await;
    rustix::fs::mkfifoat(rustix::fs::CWD, workspace.path("pipe"), 0o600.into()).unwrap();
    let mut receiver = workspace.cli("receive").args(["--output", "pipe"]).spawn();
    let pipe = open_pipe(&workspace, "pipe").await;
    let lines = tokio::task::spawn_blocking(move || {
        let lines: Vec<String> = BufReader::new(pipe)
            .lines()
            .take(3)
            .map(Result::unwrap)
            .collect();
        lines
    });
    let lines = lines.await.unwrap();
    let read: Vec<_> = lines
        .iter()
        .map(|line| Received::parse(line).text())
        .collect();
    assert_eq!(read, [text(1), text(2), text(3)]);
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    expect_rest(&workspace, &fixture, 4..=30).await;
}

pub(crate) async fn a_signal_ends_a_receiver_that_has_no_reader(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 3).await;
    rustix::fs::mkfifoat(rustix::fs::CWD, workspace.path("pipe"), 0o600.into()).unwrap();
    let mut receiver = workspace
        .cli("receive")
        .args(["--output", "pipe", "-v"])
        .spawn();
    let pipe = open_pipe(&workspace, "pipe").await;
    receiver.stderr.expect("Decrypted message").await;
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    drop(pipe);
    expect_rest(&workspace, &fixture, 1..=3).await;
}

pub(crate) async fn a_signal_ends_a_receiver_that_waits_for_a_reader(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 1).await;
    rustix::fs::mkfifoat(rustix::fs::CWD, workspace.path("pipe"), 0o600.into()).unwrap();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut receiver = workspace.cli("receive").args(["--output", "pipe"]).spawn();
        receiver
            .stderr
            .expect("Waiting for a reader of the pipe pipe")
            .await;
        receiver.signal(signal);
        assert_eq!(receiver.ended(PATIENCE).await.code(), Some(code));
    }
    expect_rest(&workspace, &fixture, 1..=1).await;
}

pub(crate) async fn fetch_acknowledges_what_was_read(fixture: Fixture) {
    let workspace = workspace_with_messages(&fixture, 2).await;
    piped(&workspace, &fixture, "fetch --ack", "sleep 0.3").await;
    assert_code(&workspace, "0");
    let read = piped(&workspace, &fixture, "fetch --ack", "cat").await;
    assert_eq!(texts(&read), [text(1)]);
    expect_rest(&workspace, &fixture, 2..=2).await;
}
