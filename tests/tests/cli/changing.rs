//! Files that change or are restored before, during or after sending: every line is sent once, as
//! it was read.

use std::fs;
use std::time::Duration;

use ciphermq_tests::process::Process;
use ciphermq_tests::{Cli, Fixture, received};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use ciphermq_tests::workspace::{Workspace, failed};

/// The time limit for a long file: a receiver syncs, and other tests run at the same time.
const LIMIT: Duration = Duration::from_secs(300);

/// Returns more text than `send` reads ahead of the acknowledgements; all lines differ.
fn long_file() -> String {
    let padding = "x".repeat(2000);
    let lines: Vec<String> = (0..12_000)
        .map(|number| format!("\"{number} {padding}\"\n"))
        .collect();
    lines.concat()
}

fn send(workspace: &Workspace, file: &str) -> Cli {
    workspace.send().args(["--file", file]).limit(LIMIT)
}

fn checkpoint(workspace: &Workspace, file: &str) -> String {
    let path = workspace.path(&format!("{file}.{}.ciphermq-send", workspace.receiver));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the value of a field of a checkpoint.
fn value<'a>(checkpoint: &'a str, name: &str) -> &'a str {
    let mut lines = checkpoint.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {name} in:\n{checkpoint}"))
}

/// Starts a sender, and suspends it once something is acknowledged.
async fn suspended_sender(workspace: &Workspace, file: &str) -> Process {
    let sender = send(workspace, file)
        .args(["--batch-size", "1", "-v"])
        .spawn();
    sender.stderr.expect("Server ACK received").await;
    sender.signal(Signal::STOP);
    sender
}

/// Expects that each line of `text` arrives once, and nothing else.
async fn expect_exactly(fixture: &Fixture, workspace: &Workspace, text: &str) {
    let count = text.lines().count().to_string();
    let receive = workspace
        .cli("receive")
        .args(["--count", &count])
        .limit(LIMIT);
    receive.run().await.success();
    received::assert_exactly(&workspace.received(), text.lines());
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn a_file_that_changes_while_it_is_sent(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let text = long_file();
    let path = workspace.write("c.jsonl", &text);
    let changed = {
        let mut changed = text.clone().into_bytes();
        let last = changed.len() - 10;
        changed[last] = b'y';
        changed
    };
    // The inode stays the same, as with logrotate's `copytruncate`.
    let changes = [
        ("has become shorter", Vec::new()),
        ("was changed", b"other\n".repeat(5_000_000)),
        ("was changed", changed),
    ];
    for (cause, contents) in changes {
        let mut sender = suspended_sender(&workspace, "c.jsonl").await;
        fs::write(&path, contents).unwrap();
        sender.signal(Signal::CONT);
        assert_eq!(sender.ended(LIMIT).await.code(), Some(1));
        let error = sender.stderr.text();
        assert!(
            error.contains("c.jsonl") && error.contains(cause),
            "{error}"
        );
        assert!(error.contains("same command again"), "{error}");
        let checkpoint = checkpoint(&workspace, "c.jsonl");
        assert_eq!(value(&checkpoint, "complete"), "no");
        // As long as the file differs, nothing is sent.
        failed(send(&workspace, "c.jsonl").run().await);
        fs::write(&path, &text).unwrap();
    }
    send(&workspace, "c.jsonl").run().await.success();
    assert_eq!(value(&checkpoint(&workspace, "c.jsonl"), "complete"), "yes");
    expect_exactly(&fixture, &workspace, &text).await;
}

pub(crate) async fn a_change_is_noticed_without_a_checkpoint(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let path = workspace.write("c.jsonl", long_file());
    let mut sender = send(&workspace, "c.jsonl")
        .args(["--no-checkpoint", "--batch-size", "1", "-v"])
        .spawn();
    sender.stderr.expect("Server ACK received").await;
    sender.signal(Signal::STOP);
    fs::write(&path, "").unwrap();
    sender.signal(Signal::CONT);
    assert_eq!(sender.ended(LIMIT).await.code(), Some(1));
    let error = sender.stderr.text();
    assert!(error.contains("has become shorter"), "{error}");
}

pub(crate) async fn a_file_that_is_renamed_while_it_is_sent(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let text = long_file();
    let path = workspace.write("log", &text);
    let mut sender = suspended_sender(&workspace, "log").await;
    fs::rename(&path, workspace.path("log.1")).unwrap();
    workspace.write("log", "new\n");
    sender.signal(Signal::CONT);
    assert_eq!(sender.ended(LIMIT).await.code(), Some(0));
    expect_exactly(&fixture, &workspace, &text).await;
}

/// The old file is renamed, sent or not, and a new one begun.
pub(crate) async fn a_rotated_file_takes_its_checkpoint_along(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let sidecar = format!(".{}.ciphermq-send", workspace.receiver);
    let move_to = |from: &str, to: &str| {
        fs::rename(workspace.path(from), workspace.path(to)).unwrap();
    };
    workspace.write("log", "one\ntwo\n");
    send(&workspace, "log").run().await.success();
    move_to("log", "log.1");
    workspace.write("log", "new\n");
    let (_, advice) = failed(send(&workspace, "log").run().await);
    let ending = format!("<its new name>{sidecar}");
    assert!(advice.contains(&ending), "{advice}");
    move_to(&format!("log{sidecar}"), &format!("log.1{sidecar}"));
    for file in ["log", "log", "log.1"] {
        send(&workspace, file).run().await.success();
    }
    // What a program still writes into the old file belongs to that.
    workspace.write("log.1", "one\ntwo\nthree\n");
    send(&workspace, "log.1").run().await.success();
    workspace.receive(4).await;
    assert_eq!(workspace.texts(), ["one", "two", "new", "three"]);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn a_checkpoint_that_is_removed_while_it_is_in_use(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let text = long_file();
    workspace.write("log", &text);
    let path = workspace.path(&format!("log.{}.ciphermq-send", workspace.receiver));
    let aside = workspace.path("aside");
    let mut sender = suspended_sender(&workspace, "log").await;
    fs::rename(&path, &aside).unwrap();
    sender.signal(Signal::CONT);
    assert_eq!(sender.ended(LIMIT).await.code(), Some(1));
    let error = sender.stderr.text();
    assert!(
        error.contains("moved away or removed") && error.contains("Put it back"),
        "{error}"
    );
    assert!(
        error.contains("sends the whole file as new messages"),
        "{error}"
    );
    fs::rename(&aside, &path).unwrap();
    send(&workspace, "log").run().await.success();
    expect_exactly(&fixture, &workspace, &text).await;
}

pub(crate) async fn lines_appended_to_a_partially_sent_file(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let mut text = long_file();
    let path = workspace.write("log", &text);
    let mut sender = suspended_sender(&workspace, "log").await;
    text += "\"appended while it was sent\"\n";
    fs::write(&path, &text).unwrap();
    sender.kill().await;
    let begun = checkpoint(&workspace, "log");
    text += "\"appended after the crash\"\n";
    fs::write(&path, &text).unwrap();
    send(&workspace, "log").run().await.success();
    let next = checkpoint(&workspace, "log");
    assert_ne!(value(&begun, "stream"), value(&next, "stream"));
    assert_eq!(
        value(&next, "earlier"),
        format!("12000 {}", long_file().len())
    );
    assert_eq!(value(&next, "acknowledged"), format!("2 {}", text.len()));
    expect_exactly(&fixture, &workspace, &text).await;
}

/// The file and its checkpoint are restored or copied, and different lines are appended to each
/// copy.
pub(crate) async fn a_restored_folder_loses_nothing(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let sidecar = format!(".{}.ciphermq-send", workspace.receiver);
    workspace.write("log", "a\nb");
    send(&workspace, "log").run().await.success();
    let first = checkpoint(&workspace, "log");
    for (name, appended) in [
        ("log", "\nc here\n"),
        ("clone", "\r\nc there\n"),
        ("restored", "\nc again"),
    ] {
        workspace.write(name, format!("a\nb{appended}"));
        workspace.write(&format!("{name}{sidecar}"), &first);
        let sent = send(&workspace, name).run().await.success();
        assert!(
            sent.stderr.contains("1 sent, 1 acknowledged"),
            "{}",
            sent.stderr
        );
        let again = send(&workspace, name).run().await.success();
        assert!(again.stderr.contains("already sent to"), "{}", again.stderr);
    }
    // A file that was sent in part: the rest arrives once.
    let body = first
        .replace("acknowledged 2 3", "acknowledged 1 2")
        .replace("complete yes", "complete no");
    workspace.write("part", "a\nb\nd\n");
    workspace.write(&format!("part{sidecar}"), with_checksum(&body));
    let sent = send(&workspace, "part").run().await.success();
    assert!(
        sent.stderr.contains("2 sent, 2 acknowledged"),
        "{}",
        sent.stderr
    );
    workspace.receive(6).await;
    assert_eq!(
        workspace.texts(),
        ["a", "b", "c here", "c there", "c again", "d"]
    );
    workspace.expect_empty_queue(&fixture.server).await;
}

/// Returns the checkpoint with a valid checksum.
fn with_checksum(checkpoint: &str) -> String {
    let body = checkpoint
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("sha256 "));
    let body: String = body.collect();
    let hash = hex::encode(Sha256::digest(&body));
    format!("{body}sha256 {hash}\n")
}

/// The previous version used one stream for all appended lines.
pub(crate) async fn a_checkpoint_of_the_previous_version(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let sidecar = format!(".{}.ciphermq-send", workspace.receiver);
    workspace.write("log", "one\ntwo\nthree\n");
    send(&workspace, "log").run().await.success();
    let now = checkpoint(&workspace, "log");
    let version_1 = |acknowledged: &str, complete: &str| {
        let lines = now.lines().filter(|line| !line.starts_with("earlier "));
        let lines: Vec<String> = lines
            .map(|line| match line.split(' ').next() {
                Some("ciphermq-stream") => "ciphermq-stream 1\n".to_owned(),
                Some("acknowledged") => format!("acknowledged {acknowledged}\n"),
                Some("complete") => format!("complete {complete}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        with_checksum(&lines.concat())
    };
    let resume = async |text: &str, checkpoint: String| {
        workspace.write("log", text);
        workspace.write(&format!("log{sidecar}"), checkpoint);
        let sent = send(&workspace, "log").run().await.success();
        assert_eq!(
            value(&self::checkpoint(&workspace, "log"), "complete"),
            "yes"
        );
        sent.stderr
    };
    let all = "one\ntwo\nthree\n";
    assert!(
        resume(all, version_1("3 14", "yes"))
            .await
            .contains("already sent to")
    );
    // The rest has arrived before, and is recognised; the appended lines have their own ids each
    // time.
    let output = resume("one\ntwo\nthree\nfour a\n", version_1("1 4", "no")).await;
    assert!(output.contains("3 sent, 3 acknowledged"), "{output}");
    let output = resume("one\ntwo\nthree\nfour b\n", version_1("3 14", "yes")).await;
    assert!(output.contains("1 sent, 1 acknowledged"), "{output}");
    // The file was truncated while it was sent, and recorded as complete: between two lines, and
    // within one.
    let output = resume(all, version_1("2 8", "yes")).await;
    assert!(output.contains("1 sent, 1 acknowledged"), "{output}");
    let output = resume(all, version_1("3 10", "yes")).await;
    assert!(output.contains("1 sent, 1 acknowledged"), "{output}");
    workspace.receive(6).await;
    assert_eq!(
        workspace.texts(),
        ["one", "two", "three", "four a", "four b", "three"]
    );
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn input_that_cannot_be_read_again_has_no_checkpoint(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let refused = workspace
        .send()
        .args(["--file", "-", "--checkpoint", "c"])
        .input("x\n")
        .run()
        .await;
    assert!(refused.code(2).stderr.contains("No checkpoint can be kept"));
    let refused = send(&workspace, "/dev/null")
        .args(["--checkpoint", "c"])
        .run()
        .await;
    assert!(refused.code(2).stderr.contains("/dev/null"));
    assert!(!workspace.path("c").exists());
    // A file behind a descriptor is sent whole, and no checkpoint is kept for it.
    workspace.write("lines", "a\nb\n");
    let script = r#""$0" "$@" --file /dev/stdin < lines"#;
    let sent = Cli::program("sh")
        .args(["-c", script])
        .arg(ciphermq_tests::binaries::binary("ciphermq-cli"))
        .args(["send", "--to", &workspace.receiver])
        .current_dir(&workspace.path(""))
        .env(
            "CIPHERMQ_SERVER",
            format!("localhost:{}", fixture.server.address().port()),
        );
    for _ in 0..2 {
        sent.clone().run().await.success();
    }
    workspace.receive(4).await;
    assert_eq!(workspace.texts(), ["a", "b", "a", "b"]);
}

/// The last line of a live log may be incomplete when it is read.
pub(crate) async fn a_line_that_is_being_written_is_deferred(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let padding = "x".repeat(2000);
    let mut text = String::new();
    // Incomplete within the line, and between the two bytes of the line ending.
    for (written, rest) in [
        ("\"torn", " and whole\"\n"),
        ("\"dos\"\r", "\n"),
        ("\"last\"\r", "\n\"x\"\n"),
    ] {
        // Enough lines before it that the sender is suspended while it sends them.
        for number in 0..12_000 {
            text += &format!("\"{number} before {} {padding}\"\n", written.len());
        }
        let path = workspace.write("log", text.clone() + written);
        let mut sender = send(&workspace, "log")
            .args(["--batch-size", "1", "-v"])
            .spawn();
        sender.stderr.expect("Stream").await;
        sender.signal(Signal::STOP);
        text = text + written + rest;
        fs::write(&path, &text).unwrap();
        sender.signal(Signal::CONT);
        assert_eq!(sender.ended(LIMIT).await.code(), Some(0));
        let output = sender.stderr.text();
        let is_left_out = output.contains("still being written");
        assert_eq!(value(&checkpoint(&workspace, "log"), "complete"), "no");
        assert!(is_left_out, "{output}");
    }
    send(&workspace, "log").run().await.success();
    assert_eq!(value(&checkpoint(&workspace, "log"), "complete"), "yes");
    let again = send(&workspace, "log").run().await.success();
    assert!(again.stderr.contains("already sent to"), "{}", again.stderr);
    expect_exactly(&fixture, &workspace, &text).await;
}

pub(crate) async fn a_line_completed_after_a_kill_is_sent_whole(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let mut text = long_file();
    for (written, rest) in [("\"torn", " and whole\"\n"), ("\"dos\"\r", "\n")] {
        let path = workspace.write("log", text.clone() + written);
        let mut sender = suspended_sender(&workspace, "log").await;
        sender.kill().await;
        text = text + written + rest;
        fs::write(&path, &text).unwrap();
        let sent = send(&workspace, "log").run().await.success();
        assert!(!sent.stderr.contains("left out"), "{}", sent.stderr);
        assert_eq!(value(&checkpoint(&workspace, "log"), "complete"), "yes");
        // Once more, with a new checkpoint.
        text += &long_file();
    }
    fs::write(workspace.path("log"), &text).unwrap();
    send(&workspace, "log").run().await.success();
    expect_exactly(&fixture, &workspace, &text).await;
}
