//! A file that changes, or is set back, before, while and after it is sent: what is acknowledged is
//! what was given.

use std::fs;
use std::time::Duration;

use ciphermq_tests::process::Process;
use ciphermq_tests::{Cli, Scene, received};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use super::desk::{Desk, failed};

/// How long a long file may take: a receiver syncs, and others run beside it.
const LIMIT: Duration = Duration::from_secs(300);

/// More bytes than may be read ahead of what is acknowledged, each line another.
fn long_file() -> String {
    let padding = "x".repeat(2000);
    let lines: Vec<String> = (0..12_000)
        .map(|number| format!("\"{number} {padding}\"\n"))
        .collect();
    lines.concat()
}

fn send(desk: &Desk, file: &str) -> Cli {
    desk.send().args(["--file", file]).limit(LIMIT)
}

fn checkpoint(desk: &Desk, file: &str) -> String {
    let path = desk.path(&format!("{file}.{}.ciphermq-send", desk.receiver));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of a line of a checkpoint.
fn value<'a>(checkpoint: &'a str, name: &str) -> &'a str {
    let mut lines = checkpoint.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {name} in:\n{checkpoint}"))
}

/// A sender that has something acknowledged, and stands still in the middle.
async fn halfway(desk: &Desk, file: &str) -> Process {
    let sender = send(desk, file).args(["--batch-size", "1", "-v"]).spawn();
    sender.stderr.expect("Server ACK received").await;
    sender.signal(Signal::STOP);
    sender
}

/// Every line of `text` has arrived, once, and nothing else.
async fn expect_exactly(scene: &Scene, desk: &Desk, text: &str) {
    let count = text.lines().count().to_string();
    let receive = desk.cli("receive").args(["--count", &count]).limit(LIMIT);
    receive.run().await.success();
    received::assert_exactly(&desk.received(), text.lines());
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn a_file_that_changes_while_it_is_sent(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let text = long_file();
    let path = desk.write("c.jsonl", &text);
    let changed = {
        let mut changed = text.clone().into_bytes();
        let last = changed.len() - 10;
        changed[last] = b'y';
        changed
    };
    // It stays the same file, as with `copytruncate`.
    let changes = [
        ("has become shorter", Vec::new()),
        ("was changed", b"other\n".repeat(5_000_000)),
        ("was changed", changed),
    ];
    for (told, now) in changes {
        let mut sender = halfway(&desk, "c.jsonl").await;
        fs::write(&path, now).unwrap();
        sender.signal(Signal::CONT);
        assert_eq!(sender.ended(LIMIT).await.code(), Some(1));
        let error = sender.stderr.text();
        assert!(error.contains("c.jsonl") && error.contains(told), "{error}");
        assert!(error.contains("same command again"), "{error}");
        let checkpoint = checkpoint(&desk, "c.jsonl");
        assert_eq!(value(&checkpoint, "complete"), "no");
        // While it is not what it was, nothing is sent of it.
        failed(send(&desk, "c.jsonl").run().await);
        fs::write(&path, &text).unwrap();
    }
    send(&desk, "c.jsonl").run().await.success();
    assert_eq!(value(&checkpoint(&desk, "c.jsonl"), "complete"), "yes");
    expect_exactly(&scene, &desk, &text).await;
}

pub(crate) async fn without_a_checkpoint_a_change_is_noticed_as_well(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let path = desk.write("c.jsonl", long_file());
    let mut sender = send(&desk, "c.jsonl")
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

pub(crate) async fn a_file_that_is_renamed_while_it_is_sent(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let text = long_file();
    let path = desk.write("log", &text);
    let mut sender = halfway(&desk, "log").await;
    fs::rename(&path, desk.path("log.1")).unwrap();
    desk.write("log", "new\n");
    sender.signal(Signal::CONT);
    assert_eq!(sender.ended(LIMIT).await.code(), Some(0));
    expect_exactly(&scene, &desk, &text).await;
}

pub(crate) async fn what_is_appended_to_a_file_that_is_sent_in_part(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let mut text = long_file();
    let path = desk.write("log", &text);
    let mut sender = halfway(&desk, "log").await;
    text += "\"appended while it was sent\"\n";
    fs::write(&path, &text).unwrap();
    sender.kill().await;
    let begun = checkpoint(&desk, "log");
    text += "\"appended after the crash\"\n";
    fs::write(&path, &text).unwrap();
    send(&desk, "log").run().await.success();
    let next = checkpoint(&desk, "log");
    assert_ne!(value(&begun, "stream"), value(&next, "stream"));
    assert_eq!(
        value(&next, "earlier"),
        format!("12000 {}", long_file().len())
    );
    assert_eq!(value(&next, "acknowledged"), format!("2 {}", text.len()));
    expect_exactly(&scene, &desk, &text).await;
}

/// File and checkpoint are restored, or copied, and each copy gets lines of its own.
pub(crate) async fn a_folder_that_is_set_back_loses_nothing(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let sidecar = format!(".{}.ciphermq-send", desk.receiver);
    desk.write("log", "a\nb");
    send(&desk, "log").run().await.success();
    let first = checkpoint(&desk, "log");
    for (name, appended) in [
        ("log", "\nc here\n"),
        ("clone", "\r\nc there\n"),
        ("restored", "\nc again"),
    ] {
        desk.write(name, format!("a\nb{appended}"));
        desk.write(&format!("{name}{sidecar}"), &first);
        let sent = send(&desk, name).run().await.success();
        assert!(
            sent.stderr.contains("1 sent, 1 acknowledged"),
            "{}",
            sent.stderr
        );
        let again = send(&desk, name).run().await.success();
        assert!(again.stderr.contains("already sent to"), "{}", again.stderr);
    }
    // One that was sent in part: whoever sends the rest, it arrives once.
    let body = first
        .replace("acknowledged 2 3", "acknowledged 1 2")
        .replace("complete yes", "complete no");
    desk.write("part", "a\nb\nd\n");
    desk.write(&format!("part{sidecar}"), sealed(&body));
    let sent = send(&desk, "part").run().await.success();
    assert!(
        sent.stderr.contains("2 sent, 2 acknowledged"),
        "{}",
        sent.stderr
    );
    desk.receive(6).await;
    assert_eq!(
        desk.texts(),
        ["a", "b", "c here", "c there", "c again", "d"]
    );
    desk.expect_empty_queue(&scene.server).await;
}

/// The same checkpoint with a checksum that is right.
fn sealed(checkpoint: &str) -> String {
    let body = checkpoint
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("sha256 "));
    let body: String = body.collect();
    let hash: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{body}sha256 {hash}\n")
}

/// As the version before wrote it: one stream for all that is appended.
pub(crate) async fn a_checkpoint_of_the_version_before(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let sidecar = format!(".{}.ciphermq-send", desk.receiver);
    desk.write("log", "one\ntwo\nthree\n");
    send(&desk, "log").run().await.success();
    let now = checkpoint(&desk, "log");
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
        sealed(&lines.concat())
    };
    let go_on = async |text: &str, checkpoint: String| {
        desk.write("log", text);
        desk.write(&format!("log{sidecar}"), checkpoint);
        let sent = send(&desk, "log").run().await.success();
        assert_eq!(value(&self::checkpoint(&desk, "log"), "complete"), "yes");
        sent.stderr
    };
    let all = "one\ntwo\nthree\n";
    assert!(
        go_on(all, version_1("3 14", "yes"))
            .await
            .contains("already sent to")
    );
    // The rest of it has arrived, and is recognised; what was appended has ids of its own, twice.
    let told = go_on("one\ntwo\nthree\nfour a\n", version_1("1 4", "no")).await;
    assert!(told.contains("3 sent, 3 acknowledged"), "{told}");
    let told = go_on("one\ntwo\nthree\nfour b\n", version_1("3 14", "yes")).await;
    assert!(told.contains("1 sent, 1 acknowledged"), "{told}");
    // It was cut while it was sent, and called complete: between two lines, and in one.
    let told = go_on(all, version_1("2 8", "yes")).await;
    assert!(told.contains("1 sent, 1 acknowledged"), "{told}");
    let told = go_on(all, version_1("3 10", "yes")).await;
    assert!(told.contains("1 sent, 1 acknowledged"), "{told}");
    desk.receive(6).await;
    assert_eq!(
        desk.texts(),
        ["one", "two", "three", "four a", "four b", "three"]
    );
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn what_cannot_be_read_twice_has_no_checkpoint(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let refused = desk
        .send()
        .args(["--file", "-", "--checkpoint", "c"])
        .input("x\n")
        .run()
        .await;
    assert!(refused.code(2).stderr.contains("No checkpoint can be kept"));
    let refused = send(&desk, "/dev/null")
        .args(["--checkpoint", "c"])
        .run()
        .await;
    assert!(refused.code(2).stderr.contains("/dev/null"));
    assert!(!desk.path("c").exists());
    // A file that a descriptor leads to is sent whole, and nothing is kept of it beside the
    // descriptor.
    desk.write("lines", "a\nb\n");
    let script = r#""$0" "$@" --file /dev/stdin < lines"#;
    let sent = Cli::program("sh")
        .args(["-c", script])
        .arg(ciphermq_tests::binaries::binary("ciphermq-cli"))
        .args(["send", "--to", &desk.receiver])
        .current_dir(&desk.path(""))
        .env(
            "CIPHERMQ_SERVER",
            format!("localhost:{}", scene.server.address().port()),
        );
    for _ in 0..2 {
        sent.clone().run().await.success();
    }
    desk.receive(4).await;
    assert_eq!(desk.texts(), ["a", "b", "a", "b"]);
}
