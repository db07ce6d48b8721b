//! The inputs of `send`, and its errors about unusable input.

use std::io::Write as _;

use ciphermq_tests::cli::Outcome;
use ciphermq_tests::{Cli, Fixture, Received};

use ciphermq_tests::workspace::{Workspace, error_parts, failed};

/// Returns the counts in the summary: sent, acknowledged, unacknowledged.
#[track_caller]
fn counts(outcome: &Outcome) -> [u64; 3] {
    let line = outcome
        .stderr
        .lines()
        .find(|line| line.contains(" unacknowledged in "))
        .unwrap_or_else(|| panic!("no summary in:\n{}", outcome.stderr));
    let numbers: Vec<u64> = line
        .split("[SENDER] ")
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .take(3)
        .collect();
    numbers
        .try_into()
        .unwrap_or_else(|_| panic!("the summary is {line:?}"))
}

pub(crate) async fn lines_of_a_file(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("lines.txt", b"one\n two \r\n\n\r\nthree\r\r\nlast");
    let sent = workspace
        .send()
        .args(["--file", "lines.txt"])
        .run()
        .await
        .success();
    assert_eq!(sent.stdout, "");
    assert_eq!(counts(&sent), [4, 4, 0]);
    assert!(
        sent.stderr.contains("2 empty lines left out"),
        "{}",
        sent.stderr
    );
    workspace.receive(4).await;
    assert_eq!(workspace.texts(), ["one", " two ", "three\r", "last"]);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn messages_on_the_command_line(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["two\nlines", "", "-v"]).await;
    workspace.receive(3).await;
    assert_eq!(workspace.texts(), ["two\nlines", "", "-v"]);
}

pub(crate) async fn lines_on_standard_input(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let sent = workspace.send().input("a\nb").run().await.success();
    assert_eq!(counts(&sent), [2, 2, 0]);
    workspace
        .send()
        .args(["--file", "-"])
        .input("c\n")
        .run()
        .await
        .success();
    let nothing = workspace.send().input("").run().await.success();
    assert_eq!(counts(&nothing), [0, 0, 0]);
    workspace.receive(3).await;
    assert_eq!(workspace.texts(), ["a", "b", "c"]);
}

pub(crate) async fn batches_of_any_size(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let mut expected = Vec::new();
    for size in ["1", "7", "100000"] {
        let lines: Vec<String> = (0..500).map(|number| format!("{size}: {number}")).collect();
        let name = format!("{size}.txt");
        workspace.write(&name, lines.join("\n"));
        let sent = workspace
            .send()
            .args(["--file", &name, "--batch-size", size])
            .run()
            .await
            .success();
        assert_eq!(counts(&sent), [500, 500, 0]);
        expected.extend(lines);
    }
    workspace.receive(expected.len()).await;
    assert_eq!(
        workspace.texts(),
        expected,
        "in the order in which they were sent"
    );
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn files_that_cannot_be_read(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let (what, advice) = failed(workspace.send().args(["--file", "nowhere.txt"]).run().await);
    assert!(what.contains("nowhere.txt"), "{what}");
    assert!(advice.contains("Check"), "{advice}");
    // Root can read any file, but no user can read a folder as a file.
    let (what, advice) = failed(workspace.send().args(["--file", "certs"]).run().await);
    assert!(what.contains("certs"), "{what}");
    assert!(advice.contains("Check"), "{advice}");
    workspace.expect_empty_queue(&fixture.server).await;
}

/// Returns the command in a shell, with its standard input redirected.
fn redirected(cli: Cli, from: &str) -> Cli {
    let script = format!("exec \"$0\" \"$@\" {from}");
    cli.under(&["sh".to_owned(), "-c".to_owned(), script])
}

pub(crate) async fn a_closed_standard_input_is_an_error(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    for options in [
        &[][..],
        &["--file", "-"],
        &["--file", "/dev/stdin"],
        &["--file", "/dev/fd/0"],
        &["--file", "/dev/fd/0", "--checkpoint", "c"],
    ] {
        let send = redirected(workspace.send().args(options), "<&-");
        let (what, _) = failed(send.run().await);
        assert!(what.contains("it is closed"), "{options:?}: {what}");
    }
    // No input is not an error, and a message needs none.
    let nothing = redirected(workspace.send(), "</dev/null");
    assert_eq!(counts(&nothing.run().await.success()), [0, 0, 0]);
    redirected(workspace.send().args(["--message", "a"]), "<&-")
        .run()
        .await
        .success();
    workspace.receive(1).await;
}

/// What another program has read from a descriptor is not sent, as with standard input.
pub(crate) async fn a_descriptor_is_read_from_where_it_is(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("lines", "header\na\n");
    for options in [&[][..], &["--file", "/dev/stdin"], &["--file", "/dev/fd/0"]] {
        let script = "{ read -r header; \"$0\" \"$@\"; } <lines".to_owned();
        let send = workspace.send().args(options);
        let send = send.under(&["bash".to_owned(), "-c".to_owned(), script]);
        assert_eq!(
            counts(&send.run().await.success()),
            [1, 1, 0],
            "{options:?}"
        );
    }
    workspace.receive(3).await;
    assert_eq!(workspace.texts(), ["a", "a", "a"]);
}

/// A file in `/proc` may have other contents each time it is read.
pub(crate) async fn a_file_of_the_system_is_read_once(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    for options in [&[][..], &["--no-checkpoint"]] {
        let send = workspace.send().args(["--file", "/proc/uptime"]);
        let sent = send.args(options).run().await.success();
        assert_eq!(counts(&sent), [1, 1, 0]);
    }
    workspace.receive(2).await;
}

/// The line has 20 MiB, and the server accepts at most 16 MiB.
pub(crate) async fn an_endless_line(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let path = workspace.write("endless.txt", "one\ntwo\n");
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| {
            let part = vec![b'x'; 1 << 20];
            (0..20).try_for_each(|_| file.write_all(&part))
        })
        .unwrap();
    let (what, advice) = failed(workspace.send().args(["--file", "endless.txt"]).run().await);
    assert!(
        what.contains("endless.txt") && what.contains("line 3"),
        "{what}"
    );
    assert!(what.contains("16777216"), "{what}");
    assert!(advice.contains("Everything before it was sent"), "{advice}");
    workspace.receive(2).await;
    assert_eq!(workspace.texts(), ["one", "two"]);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn an_endless_device(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let (what, _) = failed(workspace.send().args(["--file", "/dev/zero"]).run().await);
    assert!(what.contains("/dev/zero"), "{what}");
    workspace.expect_empty_queue(&fixture.server).await;
}

/// The payload is within the limit on lines, but its base64 is not.
pub(crate) async fn a_message_that_is_too_large_once_sealed(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let large = "x".repeat(15 << 20);
    workspace.write("large.txt", format!("one\n{large}\nthree\n"));
    let sent = workspace
        .send()
        .args(["--file", "large.txt"])
        .run()
        .await
        .code(1);
    let (what, advice) = error_parts(&sent);
    assert!(
        what.contains("Line 2 of large.txt") && what.contains("too large"),
        "{what}"
    );
    assert!(!what.contains("xxxx"), "the message itself is not printed");
    assert!(advice.contains("Everything before it was sent"), "{advice}");
    workspace.receive(1).await;
    assert_eq!(
        workspace
            .received()
            .iter()
            .map(Received::text)
            .collect::<Vec<_>>(),
        ["one"]
    );
    workspace.expect_empty_queue(&fixture.server).await;
}
