//! The end of `receive`, and its output.

use std::io::Write as _;

use ciphermq_tests::{Fixture, PATIENCE, Received, received};
use rustix::process::Signal;

use ciphermq_tests::workspace::{Workspace, failed};

pub(crate) async fn a_count_leaves_the_other_messages(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["1", "2", "3", "4", "5"]).await;
    let numbers = || -> Vec<String> {
        let lines = workspace.received();
        lines
            .iter()
            .map(|line| line.json().unwrap().to_owned())
            .collect()
    };
    workspace.receive(2).await;
    assert_eq!(numbers(), ["1", "2"]);
    workspace.receive(3).await;
    assert_eq!(numbers(), ["1", "2", "3", "4", "5"]);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn an_idle_receiver_exits(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["one"]).await;
    // Long enough for the delivery, even on a busy machine.
    let receive = workspace
        .cli("receive")
        .args(["--idle-exit", "3", "--count", "2"]);
    let ended = receive.run().await.code(4);
    assert_eq!(ended.stdout, "");
    assert_eq!(
        workspace.texts(),
        ["one"],
        "fewer than requested, but all that were waiting"
    );
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn signals_end_a_receiver_gracefully(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    for (signal, text) in [
        (Signal::TERM, "one"),
        (Signal::INT, "two"),
        (Signal::HUP, "three"),
    ] {
        let receiver = workspace.cli("receive").arg("-v");
        // The tests may run with SIGHUP ignored.
        let mut receiver = receiver
            .under(&["env", "--default-signal=HUP"].map(str::to_owned))
            .spawn();
        receiver.stderr.expect("Receiving from").await;
        workspace.send_messages(&[text]).await;
        receiver.stderr.expect("Stored message").await;
        receiver.signal(signal);
        assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0), "{signal:?}");
        // The messages were acked before the end.
        workspace.expect_empty_queue(&fixture.server).await;
    }
    assert_eq!(workspace.texts(), ["one", "two", "three"]);
}

pub(crate) async fn ignored_signals(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let receiver = workspace.cli("receive").arg("-v");
    // As under nohup.
    let mut receiver = receiver
        .under(&["env", "--ignore-signal=HUP"].map(str::to_owned))
        .spawn();
    receiver.stderr.expect("Receiving from").await;
    for signal in [Signal::HUP, Signal::PIPE, Signal::XFSZ] {
        receiver.signal(signal);
    }
    workspace.send_messages(&["after them"]).await;
    receiver.stderr.expect("Server confirmed ACK").await;
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    assert_eq!(workspace.texts(), ["after them"]);
}

/// A closed terminal sends SIGHUP, and its shell sends it again: the program ends gracefully once.
pub(crate) async fn a_closed_terminal_ends_a_sender_gracefully(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    for (signal, code) in [(Signal::HUP, 129), (Signal::TERM, 143), (Signal::INT, 130)] {
        let pipe = workspace.path(&format!("pipe-{code}"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let sender = workspace.send().arg("-v").arg("--file").arg(&pipe);
        let mut sender = sender
            .under(&["env", "--default-signal=HUP"].map(str::to_owned))
            .spawn();
        let mut input = std::fs::File::create(&pipe).expect("the other end");
        std::io::Write::write_all(&mut input, format!("sent {code}\n").as_bytes()).expect("a line");
        sender.stderr.expect("Encrypted message").await;
        sender.signal(signal);
        if signal == Signal::HUP && sender.try_ended().is_none() {
            sender.signal(signal);
        }
        assert_eq!(
            sender.ended(PATIENCE).await.code(),
            Some(code),
            "{signal:?}"
        );
        // The result of the sent messages is awaited and reported.
        let output = sender.stderr.text();
        assert!(
            output.contains("1 sent, 1 acknowledged, 0 unacknowledged"),
            "{output}"
        );
    }
    workspace.receive(3).await;
}

pub(crate) async fn one_output_has_one_receiver(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let first = workspace.receiving(&[]).await;
    let (what, advice) = failed(workspace.cli("receive").run().await);
    assert!(what.contains("received_messages.jsonl"), "{what}");
    assert!(advice.contains("--output"), "{advice}");
    // Another path to the same file is refused as well.
    std::fs::create_dir(workspace.path("elsewhere")).unwrap();
    let path = workspace.path("elsewhere/out.jsonl");
    std::fs::hard_link(workspace.path("data/received_messages.jsonl"), path).unwrap();
    failed(
        workspace
            .cli("receive")
            .args(["--output", "elsewhere/out.jsonl"])
            .run()
            .await,
    );
    drop(workspace.receiving(&["--output", "other.jsonl"]).await);
    // The lock is released when its holder ends in any way.
    drop(first);
    drop(workspace.receiving(&[]).await);
}

pub(crate) async fn a_reader_that_stops_reading(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let script = format!(
        "{{ '{}' receive --output -; echo $? >code; }} | head -1",
        program.display()
    );
    let address = format!("localhost:{}", fixture.server.address().port());
    let mut shell = ciphermq_tests::Cli::program("sh")
        .args(["-c", &script])
        .current_dir(&workspace.path("."))
        .env("CIPHERMQ_SERVER", address)
        .spawn();
    // The reader takes only the first line.
    let mut sent = 0;
    while shell.try_ended().is_none() {
        sent += 1;
        assert!(sent < 100, "it continues to write without a reader");
        workspace.send_messages(&[&format!("text {sent}")]).await;
    }
    assert_eq!(shell.ended(PATIENCE).await.code(), Some(0));
    let lines: Vec<Received> = shell
        .stdout
        .lines()
        .iter()
        .map(|line| Received::parse(line))
        .collect();
    assert_eq!(
        lines.iter().map(Received::text).collect::<Vec<_>>(),
        ["text 1"]
    );
    let code = std::fs::read_to_string(workspace.path("code")).unwrap();
    assert_eq!(code, "0\n", "{}", shell.stderr.text());
}

/// The server redelivers a message in the output whose ack it never got, as after a crash between
/// the write and the ack.
pub(crate) async fn messages_in_the_output_are_not_written_again(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["one", "two", "three"]).await;
    // The state that a receiver leaves if it is killed before its acks: the lines, but no ack.
    let mut lines = String::new();
    for _ in 0..2 {
        let fetched = workspace.cli("fetch").run().await.success().stdout;
        lines = fetched;
    }
    let first = Received::parse(lines.trim_end());
    assert_eq!(
        first.text(),
        "one",
        "without an ack, the first message is fetched again"
    );
    std::fs::create_dir_all(workspace.path("data")).unwrap();
    std::fs::write(workspace.path("data/received_messages.jsonl"), &lines).unwrap();

    let receive = workspace.cli("receive").args(["--count", "2", "-v"]);
    receive.run().await.success();
    assert_eq!(workspace.texts(), ["one", "two", "three"]);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn an_incomplete_last_line_is_cut_off(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["one", "two"]).await;
    workspace.receive(1).await;
    let path = workspace.path("data/received_messages.jsonl");
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.write_all(b"{\"message_id\":\"0198").unwrap();
    drop(file);
    let received = workspace.receive(1).await;
    assert!(
        received.stderr.contains("unfinished line"),
        "{}",
        received.stderr
    );
    assert_eq!(workspace.texts(), ["one", "two"]);
    let aside = std::fs::read(workspace.path("data/received_messages.jsonl.damaged-1")).unwrap();
    assert_eq!(aside, b"{\"message_id\":\"0198");
}

pub(crate) async fn a_last_line_without_its_ending_is_kept(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let path = workspace.path("data/received_messages.jsonl");
    // After a graceful end, and after a kill.
    for (kills, texts) in [(false, ["one", "two"]), (true, ["three", "four"])] {
        let mut receiver = workspace.receiving(&["-v"]).await;
        workspace.send_messages(&texts[..1]).await;
        receiver.stderr.expect("Server confirmed ACK").await;
        receiver.signal(if kills { Signal::KILL } else { Signal::TERM });
        receiver.ended(PATIENCE).await;
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 1]).unwrap();
        workspace.send_messages(&texts[1..]).await;
        let received = workspace.receive(1).await;
        assert!(!received.stderr.contains("Warning"), "{}", received.stderr);
    }
    assert_eq!(workspace.texts(), ["one", "two", "three", "four"]);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn a_quarantine_without_its_last_line_ending(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let path = workspace.path("data/received_messages.jsonl.quarantine.jsonl");
    std::fs::write(&path, "{\"message_id\":\"earlier\"}").unwrap();
    workspace.send_messages(&["for a key that is gone"]).await;
    workspace.new_key_pair();
    let receiver = workspace.receiving(&["-v"]).await;
    receiver.stderr.expect("Server has set message").await;
    drop(receiver);
    let ids: Vec<_> = workspace
        .quarantine()
        .iter()
        .map(|line| line["message_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), ids[0].as_str()), (2, "earlier"));
}

pub(crate) async fn an_output_that_is_moved_away(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let mut receiver = workspace.receiving(&[]).await;
    let (from, to) = (
        workspace.path("data/received_messages.jsonl"),
        workspace.path("moved.jsonl"),
    );
    std::fs::rename(from, &to).unwrap();
    workspace.send_messages(&["one"]).await;
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(1));
    let error = receiver.stderr.text();
    assert!(
        error.contains("error: ") && error.contains("moved"),
        "{error}"
    );
    assert!(received::read(&to).is_empty());
    // Nothing was acked that was not written. The moved file contains everything that the receiver
    // may have written, so it has to be put back.
    let (what, advice) = failed(workspace.cli("receive").args(["--count", "1"]).run().await);
    assert!(what.contains("moved"), "{what}");
    assert!(advice.contains("put it back"), "{advice}");
    std::fs::rename(to, workspace.path("data/received_messages.jsonl")).unwrap();
    workspace.receive(1).await;
    assert_eq!(workspace.texts(), ["one"]);
}

/// Any sender can send control characters that JSON does not escape.
pub(crate) async fn a_message_with_control_characters_is_kept(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["one"]).await;
    workspace.receive(1).await;
    let messages = [
        "\"a\u{7f}b\"",
        "{\"\u{7f}\u{85}\u{2028}\u{feff}\":1}",
        "last",
    ];
    workspace.send_messages(&messages).await;
    let mut receiver = workspace.receiving(&["-v"]).await;
    for _ in messages {
        receiver.stderr.expect("Server confirmed ACK").await;
    }
    receiver.kill().await;
    let path = workspace.path("data/received_messages.jsonl");
    let text = std::fs::read(&path).unwrap();
    let idle = workspace.cli("receive").args(["--idle-exit", "0.05"]);
    let output = idle.run().await.success().stderr;
    assert!(
        !output.contains("damaged") && !output.contains("cut off"),
        "{output}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), text);
    assert_eq!(workspace.received().len(), 4);
}
