//! The console output of the programs: the format of the lines, and their verbosity levels.

use std::io::Read as _;
use std::time::Duration;

use ciphermq_tests::cli::Outcome;
use ciphermq_tests::{Cli, Fixture, PATIENCE, Received};
use rustix::process::Signal;

use ciphermq_tests::workspace::{Workspace, console_text, error_parts, screen};

/// Returns the command in a shell, with its output redirected.
fn redirected(cli: Cli, to: &str) -> Cli {
    let script = format!("exec \"$0\" \"$@\" {to}");
    cli.under(&["sh".to_owned(), "-c".to_owned(), script])
}

/// Nobody reads a pipe that is open for reading: it is full after some lines.
pub(crate) async fn a_signal_ends_programs_whose_standard_error_nobody_reads(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("lines", "x\n".repeat(5000));
    let pipe = workspace.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let reader = std::fs::File::options().read(true).write(true).open(&pipe);
    let reader = reader.unwrap();
    for command in [
        workspace.send().args(["--file", "lines", "-v"]),
        workspace.cli("receive").arg("-v"),
    ] {
        let mut program = redirected(command, "2> pipe").spawn();
        let held_up = tokio::time::timeout(PATIENCE, async {
            while rustix::io::ioctl_fionread(&reader).unwrap() < 50_000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        held_up.await.unwrap();
        program.signal(Signal::TERM);
        assert!(program.ended(PATIENCE).await.code().is_some());
        let mut bytes =
            vec![0; usize::try_from(rustix::io::ioctl_fionread(&reader).unwrap()).unwrap()];
        (&reader).read_exact(&mut bytes).unwrap();
        // The rest, for the receiver.
        let rest = workspace.send().args(["--file", "lines"]);
        rest.run().await.success();
    }
}

pub(crate) async fn unacknowledged_messages_are_counted_if_they_cannot_be_listed(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    for to in [">&-", ">/dev/full"] {
        let send = workspace.send().args(["--routing-key", "nowhere"]);
        let send = send.args(["--message", "a"]);
        let outcome = redirected(send, to).run().await.code(1);
        assert!(
            outcome
                .stderr
                .contains("1 sent, 0 acknowledged, 1 unacknowledged"),
            "{}",
            outcome.stderr
        );
        let (what, advice) = error_parts(&outcome);
        assert!(what.contains("1 message was not acknowledged"), "{what}");
        assert!(
            advice.contains("Standard output cannot be written"),
            "{advice}"
        );
    }
}

/// Sends and receives two messages with these flags, and returns the outcomes of both programs and
/// the messages.
async fn two_messages(workspace: &Workspace, flags: &[&str]) -> (Outcome, Outcome, Vec<Received>) {
    workspace.register_receiver().await;
    let sent = workspace
        .send()
        .args(["--message", "secret one", "--message", "secret two"])
        .args(flags)
        .run()
        .await
        .success();
    let received = workspace
        .cli("receive")
        .args(["--count", "2"])
        .args(flags)
        .run()
        .await
        .success();
    assert_eq!(workspace.texts(), ["secret one", "secret two"]);
    (sent, received, workspace.received())
}

/// Returns the texts of all lines about a message, in order.
#[track_caller]
fn lines_about<'a>(outcome: &'a Outcome, speaker: &str, message_id: &str) -> Vec<&'a str> {
    let lines = outcome
        .stderr
        .lines()
        .map(|line| console_text(speaker, line));
    lines.filter(|text| text.contains(message_id)).collect()
}

pub(crate) async fn a_line_for_every_step_of_a_message(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let (sent, received, lines) = two_messages(&workspace, &["-v"]).await;
    for Received { message_id: id, .. } in &lines {
        assert_eq!(
            lines_about(&sent, "SENDER", id),
            [
                format!("Encrypted message {id} for {}", workspace.receiver),
                format!("Server ACK received for message {id}"),
            ]
        );
        assert_eq!(
            lines_about(&received, "RECEIVER", id),
            [
                format!("Decrypted message {id}"),
                format!("Stored message {id}, ACK sent"),
                format!("Server confirmed ACK for message {id}"),
            ]
        );
    }
    assert!(!sent.stderr.contains("secret") && !received.stderr.contains("secret"));
    assert_eq!((sent.stdout.as_str(), received.stdout.as_str()), ("", ""));
}

pub(crate) async fn payloads_are_printed_only_on_request(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let (sent, received, lines) = two_messages(&workspace, &["-vv"]).await;
    for line in &lines {
        let (id, text) = (&line.message_id, line.text());
        let encrypted = format!(
            "[SENDER] Encrypted message {id} for {}: {text}\n",
            workspace.receiver
        );
        assert!(sent.stderr.contains(&encrypted), "{}", sent.stderr);
        let decrypted = format!("[RECEIVER] Decrypted message {id}: {text}\n");
        assert!(received.stderr.contains(&decrypted), "{}", received.stderr);
    }
}

pub(crate) async fn no_messages_are_listed_by_default(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let (sent, received, lines) = two_messages(&workspace, &[]).await;
    let summary = sent
        .stderr
        .lines()
        .map(|line| console_text("SENDER", line))
        .next_back()
        .unwrap();
    let (counts, time) = summary.split_once(" in ").unwrap();
    assert_eq!(counts, "2 sent, 2 acknowledged, 0 unacknowledged");
    assert!(time.contains(" s (") && time.ends_with("/s)"), "{summary}");
    let summary = received
        .stderr
        .lines()
        .map(|line| console_text("RECEIVER", line))
        .next_back()
        .unwrap();
    assert!(
        summary.starts_with("2 received, 2 confirmed, 0 duplicates left out, 0 set aside in "),
        "{summary}"
    );
    for Received { message_id, .. } in &lines {
        assert!(!sent.stderr.contains(message_id) && !received.stderr.contains(message_id));
    }
    // Neither stderr is a terminal: there are no progress bars and no cursor movements.
    assert!(!sent.stderr.contains(['\r', '\x1b']) && !received.stderr.contains(['\r', '\x1b']));
}

pub(crate) async fn quiet_prints_nothing(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let (sent, received, _) = two_messages(&workspace, &["-q"]).await;
    for outcome in [sent, received] {
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    }
}

pub(crate) async fn only_data_on_standard_output(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["one", "two"]).await;
    let received = workspace
        .cli("receive")
        .args(["--output", "-", "--count", "2", "-v"])
        .run()
        .await
        .success();
    let lines: Vec<Received> = received.stdout.lines().map(Received::parse).collect();
    assert_eq!(
        lines.iter().map(Received::text).collect::<Vec<_>>(),
        ["one", "two"]
    );
    for line in received.stderr.lines() {
        console_text("RECEIVER", line);
    }
    assert!(
        !workspace.path("data/received_messages.jsonl").exists() || workspace.received().is_empty()
    );
}

pub(crate) async fn a_progress_bar_is_erased(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let lines: String = (0..3_000).map(|n| format!("message {n}\n")).collect();
    workspace.write("lines.txt", lines);
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let line = format!(
        "stty cols 200; '{}' send --to {} --file lines.txt",
        program.display(),
        workspace.receiver
    );
    let shown = workspace.in_a_terminal(&line).run().await.success();
    assert!(
        shown.stdout.contains(" acknowledged, "),
        "no bar was shown: {:?}",
        shown.stdout
    );
    let lines = screen(&shown.stdout);
    for line in &lines {
        console_text("SENDER", line);
    }
    assert!(
        lines
            .last()
            .expect("a summary")
            .contains("3000 sent, 3000 acknowledged"),
        "{lines:?}"
    );
    // Log lines appear while the bar is shown.
    let line = format!(
        "stty cols 200; '{}' receive --count 3000 --idle-exit 20",
        program.display()
    );
    let shown = workspace.in_a_terminal(&line).run().await.success();
    assert!(
        shown.stdout.contains(" received, "),
        "no bar was shown: {:?}",
        shown.stdout
    );
    for line in screen(&shown.stdout) {
        console_text("RECEIVER", &line);
    }
}

pub(crate) async fn the_log_is_coloured_on_a_terminal_only(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let line = format!("'{}' status -vvv", program.display());
    let terminal = workspace
        .in_a_terminal(&line)
        .env("NO_COLOR", "")
        .run()
        .await
        .success();
    assert!(terminal.stdout.contains("\x1b["), "{:?}", terminal.stdout);
    let plain = workspace
        .in_a_terminal(&line)
        .env("NO_COLOR", "1")
        .run()
        .await
        .success();
    assert!(!plain.stdout.contains('\x1b'), "{:?}", plain.stdout);
    let piped = workspace.cli("status").arg("-vvv").run().await.success();
    assert!(!piped.stderr.contains('\x1b'), "{:?}", piped.stderr);
    for log in [&terminal.stdout, &plain.stdout, &piped.stderr] {
        assert!(log.contains("Connected"), "{log:?}");
    }
}
