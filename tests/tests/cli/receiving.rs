//! When `receive` ends, and what it does with its output.

use std::io::Write as _;

use ciphermq_tests::{PATIENCE, Received, Scene, received};
use rustix::process::Signal;

use super::desk::{Desk, failed};

pub(crate) async fn a_count_leaves_the_rest(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.send_messages(&["1", "2", "3", "4", "5"]).await;
    let numbers = || -> Vec<String> {
        let lines = desk.received();
        lines
            .iter()
            .map(|line| line.json().unwrap().to_owned())
            .collect()
    };
    desk.receive(2).await;
    assert_eq!(numbers(), ["1", "2"]);
    desk.receive(3).await;
    assert_eq!(numbers(), ["1", "2", "3", "4", "5"]);
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn an_idle_end(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.send_messages(&["one"]).await;
    // Long enough for a busy machine to deliver within.
    let receive = desk
        .cli("receive")
        .args(["--idle-exit", "3", "--count", "2"]);
    let ended = receive.run().await.code(4);
    assert_eq!(ended.stdout, "");
    assert_eq!(
        desk.texts(),
        ["one"],
        "less than was asked for, but what was there"
    );
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn signals_end_it_well(scene: Scene) {
    let desk = Desk::of(&scene);
    for (signal, text) in [
        (Signal::TERM, "one"),
        (Signal::INT, "two"),
        (Signal::HUP, "three"),
    ] {
        let receiver = desk.cli("receive").arg("-v");
        // Whoever runs the tests may have them ignore it.
        let mut receiver = receiver
            .under(&["env", "--default-signal=HUP"].map(str::to_owned))
            .spawn();
        receiver.stderr.expect("Receiving from").await;
        desk.send_messages(&[text]).await;
        receiver.stderr.expect("Stored message").await;
        receiver.signal(signal);
        assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0), "{signal:?}");
        // Acked before the end: nothing comes again.
        desk.expect_empty_queue(&scene.server).await;
    }
    assert_eq!(desk.texts(), ["one", "two", "three"]);
}

pub(crate) async fn signals_that_do_not_end_it(scene: Scene) {
    let desk = Desk::of(&scene);
    let receiver = desk.cli("receive").arg("-v");
    // As nohup starts it.
    let mut receiver = receiver
        .under(&["env", "--ignore-signal=HUP"].map(str::to_owned))
        .spawn();
    receiver.stderr.expect("Receiving from").await;
    for signal in [Signal::HUP, Signal::PIPE, Signal::XFSZ] {
        receiver.signal(signal);
    }
    desk.send_messages(&["after them"]).await;
    receiver.stderr.expect("Server confirmed ACK").await;
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    assert_eq!(desk.texts(), ["after them"]);
}

/// A terminal that is closed sends SIGHUP, and the shell in it sends it again: one end, and a clean
/// one.
pub(crate) async fn a_closed_terminal_ends_a_sender_well(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    for (signal, code) in [(Signal::HUP, 129), (Signal::TERM, 143), (Signal::INT, 130)] {
        let pipe = desk.path(&format!("pipe-{code}"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let sender = desk.send().arg("-v").arg("--file").arg(&pipe);
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
        // What was sent is settled, and told.
        let said = sender.stderr.text();
        assert!(
            said.contains("1 sent, 1 acknowledged, 0 unacknowledged"),
            "{said}"
        );
    }
    desk.receive(3).await;
}

pub(crate) async fn one_output_has_one_receiver(scene: Scene) {
    let desk = Desk::of(&scene);
    let first = desk.receiving(&[]).await;
    let (what, advice) = failed(desk.cli("receive").run().await);
    assert!(what.contains("received_messages.jsonl"), "{what}");
    assert!(advice.contains("--output"), "{advice}");
    // By another path it is the same output.
    std::fs::create_dir(desk.path("elsewhere")).unwrap();
    let path = desk.path("elsewhere/out.jsonl");
    std::fs::hard_link(desk.path("data/received_messages.jsonl"), path).unwrap();
    failed(
        desk.cli("receive")
            .args(["--output", "elsewhere/out.jsonl"])
            .run()
            .await,
    );
    drop(desk.receiving(&["--output", "other.jsonl"]).await);
    // The lock goes with its holder, however it ends.
    drop(first);
    drop(desk.receiving(&[]).await);
}

pub(crate) async fn a_reader_that_has_had_enough(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let script = format!(
        "{{ '{}' receive --output -; echo $? >code; }} | head -1",
        program.display()
    );
    let address = format!("localhost:{}", scene.server.address().port());
    let mut shell = ciphermq_tests::Cli::program("sh")
        .args(["-c", &script])
        .current_dir(&desk.path("."))
        .env("CIPHERMQ_SERVER", address)
        .spawn();
    // Its reader takes the first one, whenever that comes.
    let mut sent = 0;
    while shell.try_ended().is_none() {
        sent += 1;
        assert!(sent < 100, "it goes on writing where nobody reads");
        desk.send_messages(&[&format!("text {sent}")]).await;
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
    let code = std::fs::read_to_string(desk.path("code")).unwrap();
    assert_eq!(code, "0\n", "{}", shell.stderr.text());
}

/// Redelivered by the server, which has never heard of an ack: as after a crash between the write
/// and the ack.
pub(crate) async fn what_the_output_holds_is_not_written_again(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.send_messages(&["one", "two", "three"]).await;
    // What a receiver that was killed before its acks would have left: the lines, and no ack.
    let mut lines = String::new();
    for _ in 0..2 {
        let fetched = desk.cli("fetch").run().await.success().stdout;
        lines = fetched;
    }
    let first = Received::parse(lines.trim_end());
    assert_eq!(
        first.text(),
        "one",
        "without an ack the first message stays the first"
    );
    std::fs::create_dir_all(desk.path("data")).unwrap();
    std::fs::write(desk.path("data/received_messages.jsonl"), &lines).unwrap();

    let receive = desk.cli("receive").args(["--count", "2", "-v"]);
    receive.run().await.success();
    assert_eq!(desk.texts(), ["one", "two", "three"]);
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn a_torn_last_line_is_cut_off(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.send_messages(&["one", "two"]).await;
    desk.receive(1).await;
    let path = desk.path("data/received_messages.jsonl");
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.write_all(b"{\"message_id\":\"0198").unwrap();
    drop(file);
    let received = desk.receive(1).await;
    assert!(
        received.stderr.contains("unfinished line"),
        "{}",
        received.stderr
    );
    assert_eq!(desk.texts(), ["one", "two"]);
    let aside = std::fs::read(desk.path("data/received_messages.jsonl.damaged-1")).unwrap();
    assert_eq!(aside, b"{\"message_id\":\"0198");
}

pub(crate) async fn a_last_line_without_its_ending_stays(scene: Scene) {
    let desk = Desk::of(&scene);
    let path = desk.path("data/received_messages.jsonl");
    // A receiver that has ended, and one that was killed.
    for (kills, texts) in [(false, ["one", "two"]), (true, ["three", "four"])] {
        let mut receiver = desk.receiving(&["-v"]).await;
        desk.send_messages(&texts[..1]).await;
        receiver.stderr.expect("Server confirmed ACK").await;
        receiver.signal(if kills { Signal::KILL } else { Signal::TERM });
        receiver.ended(PATIENCE).await;
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 1]).unwrap();
        desk.send_messages(&texts[1..]).await;
        let received = desk.receive(1).await;
        assert!(!received.stderr.contains("Warning"), "{}", received.stderr);
    }
    assert_eq!(desk.texts(), ["one", "two", "three", "four"]);
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn a_quarantine_without_its_last_line_ending(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let path = desk.path("data/received_messages.jsonl.quarantine.jsonl");
    std::fs::write(&path, "{\"message_id\":\"earlier\"}").unwrap();
    desk.send_messages(&["for a key that is gone"]).await;
    desk.new_key_pair();
    let receiver = desk.receiving(&["-v"]).await;
    receiver.stderr.expect("Server has set message").await;
    drop(receiver);
    let ids: Vec<_> = desk
        .quarantine()
        .iter()
        .map(|line| line["message_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), ids[0].as_str()), (2, "earlier"));
}

pub(crate) async fn an_output_that_is_moved_away(scene: Scene) {
    let desk = Desk::of(&scene);
    let mut receiver = desk.receiving(&[]).await;
    let (from, to) = (
        desk.path("data/received_messages.jsonl"),
        desk.path("moved.jsonl"),
    );
    std::fs::rename(from, &to).unwrap();
    desk.send_messages(&["one"]).await;
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(1));
    let error = receiver.stderr.text();
    assert!(
        error.contains("error: ") && error.contains("moved"),
        "{error}"
    );
    assert!(received::read(&to).is_empty());
    // Nothing was acked that stands nowhere. What that receiver may have written stands in the
    // moved file alone, so it is wanted back.
    let (what, advice) = failed(desk.cli("receive").args(["--count", "1"]).run().await);
    assert!(what.contains("moved"), "{what}");
    assert!(advice.contains("put it back"), "{advice}");
    std::fs::rename(to, desk.path("data/received_messages.jsonl")).unwrap();
    desk.receive(1).await;
    assert_eq!(desk.texts(), ["one"]);
}
