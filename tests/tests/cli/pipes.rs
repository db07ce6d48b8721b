//! What goes into a pipe: a message is acknowledged when its line was read, and comes again when it
//! was not.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use ciphermq_tests::cli::Outcome;
use ciphermq_tests::{Cli, PATIENCE, Received, Scene};
use rustix::process::Signal;

use super::desk::Desk;

/// Runs the program in the desk's folder with its output piped into a shell command. What the
/// command prints is the outcome's; the program's own exit code stands in the file `code`.
async fn piped(desk: &Desk, scene: &Scene, command: &str, reader: &str) -> Outcome {
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let script = format!(
        "{{ '{}' {command}; echo $? >code; }} | {{ {reader}; }}",
        program.display()
    );
    let address = format!("localhost:{}", scene.server.address().port());
    let shell = Cli::program("sh")
        .args(["-c", &script])
        .current_dir(&desk.path("."))
        .env("CIPHERMQ_SERVER", address);
    shell.run().await.success()
}

#[track_caller]
fn assert_code(desk: &Desk, code: &str) {
    let text = std::fs::read_to_string(desk.path("code")).unwrap();
    assert_eq!(text.trim_end(), code);
}

/// The texts of the lines that a reader has printed.
fn texts(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.stdout.lines();
    lines.map(|line| Received::parse(line).text()).collect()
}

/// A desk whose receiver has so many messages waiting.
async fn desk_with(scene: &Scene, count: usize) -> Desk {
    let desk = Desk::of(scene);
    desk.introduce().await;
    let messages: Vec<String> = (1..=count).map(text).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    desk.send_messages(&messages).await;
    desk
}

fn text(number: usize) -> String {
    format!("text {number}")
}

/// Nothing was acknowledged from this message on: it all comes, in order.
async fn expect_rest(desk: &Desk, scene: &Scene, numbers: std::ops::RangeInclusive<usize>) {
    desk.receive(numbers.clone().count()).await;
    assert_eq!(desk.texts(), numbers.map(text).collect::<Vec<_>>());
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn a_reader_takes_what_it_reads_however_often_it_begins_anew(scene: Scene) {
    let desk = desk_with(&scene, 100).await;
    // More often than a message may be delivered before it steps aside.
    for number in 1..=12 {
        let read = piped(&desk, &scene, "receive --output -", "head -1").await;
        assert_eq!(texts(&read), [text(number)]);
        assert_code(&desk, "0");
    }
    let read = piped(&desk, &scene, "receive --output -", "head -20").await;
    assert_eq!(texts(&read), (13..=32).map(text).collect::<Vec<_>>());
    expect_rest(&desk, &scene, 33..=100).await;
}

pub(crate) async fn a_reader_that_dies_takes_nothing_with_it(scene: Scene) {
    let desk = desk_with(&scene, 20).await;
    let reader =
        "read -r a; printf '%s\\n' \"$a\"; sleep 0.1; read -r b; printf '%s\\n' \"$b\"; kill -9 $$";
    let script = format!("sh -c '{}' || true", reader.replace('\'', "'\\''"));
    let read = piped(&desk, &scene, "receive --output -", &script).await;
    assert_eq!(texts(&read), [text(1), text(2)]);
    assert_code(&desk, "0");
    expect_rest(&desk, &scene, 3..=20).await;
}

pub(crate) async fn the_last_line_is_waited_for(scene: Scene) {
    let desk = desk_with(&scene, 5).await;
    let reader = "while read -r line; do sleep 0.05; printf '%s\\n' \"$line\"; done";
    let read = piped(&desk, &scene, "receive --output - --count 3", reader).await;
    assert_eq!(texts(&read), [text(1), text(2), text(3)]);
    let read = piped(&desk, &scene, "receive --output - --idle-exit 3", reader).await;
    assert_eq!(texts(&read), [text(4), text(5)]);
    assert_code(&desk, "0");
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn the_end_of_the_reader_is_seen_without_a_further_message(scene: Scene) {
    let desk = desk_with(&scene, 1).await;
    let read = piped(&desk, &scene, "receive --output -", "head -1").await;
    assert_eq!(texts(&read), [text(1)]);
    assert_code(&desk, "0");
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn lines_of_any_length_go_through(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let long = "x".repeat(100_000);
    desk.send_messages(&[&long, "short", &long]).await;
    let read = piped(&desk, &scene, "receive --output - --count 3", "cat").await;
    assert_eq!(texts(&read), [&long, "short", &long]);
    desk.expect_empty_queue(&scene.server).await;
}

/// A named pipe in the desk's folder, open for reading.
async fn open_pipe(desk: &Desk, name: &str) -> File {
    let path = desk.path(name);
    let opened = tokio::task::spawn_blocking(move || File::open(path));
    opened.await.unwrap().unwrap()
}

pub(crate) async fn a_named_pipe_that_is_read_a_little(scene: Scene) {
    let desk = desk_with(&scene, 30).await;
    rustix::fs::mkfifoat(rustix::fs::CWD, desk.path("pipe"), 0o600.into()).unwrap();
    let mut receiver = desk.cli("receive").args(["--output", "pipe"]).spawn();
    let pipe = open_pipe(&desk, "pipe").await;
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
    expect_rest(&desk, &scene, 4..=30).await;
}

pub(crate) async fn a_signal_ends_it_though_nobody_reads(scene: Scene) {
    let desk = desk_with(&scene, 3).await;
    rustix::fs::mkfifoat(rustix::fs::CWD, desk.path("pipe"), 0o600.into()).unwrap();
    let mut receiver = desk.cli("receive").args(["--output", "pipe", "-v"]).spawn();
    let pipe = open_pipe(&desk, "pipe").await;
    receiver.stderr.expect("Decrypted message").await;
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    drop(pipe);
    expect_rest(&desk, &scene, 1..=3).await;
}

pub(crate) async fn fetch_acknowledges_what_was_read(scene: Scene) {
    let desk = desk_with(&scene, 2).await;
    piped(&desk, &scene, "fetch --ack", "sleep 0.3").await;
    assert_code(&desk, "0");
    let read = piped(&desk, &scene, "fetch --ack", "cat").await;
    assert_eq!(texts(&read), [text(1)]);
    expect_rest(&desk, &scene, 2..=2).await;
}
