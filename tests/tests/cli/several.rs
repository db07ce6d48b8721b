//! One run of `send` for several receivers.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ciphermq_tests::{Fixture, received};

use ciphermq_tests::workspace::{Workspace, error_parts};

/// The time limit for a long file: a receiver syncs, and other tests run at the same time.
const LIMIT: Duration = Duration::from_secs(300);

/// Returns workspaces of two receivers of one sender; the tests send from the first one.
async fn two_workspaces(fixture: &Fixture) -> (Workspace, Workspace) {
    let sender = fixture.id("sender");
    let first = Workspace::named(&fixture.server, &sender, &fixture.id("first"));
    let second = Workspace::named(&fixture.server, &sender, &fixture.id("second"));
    tokio::join!(first.register_receiver(), second.register_receiver());
    (first, second)
}

pub(crate) async fn each_of_several_receivers_gets_every_message(fixture: Fixture) {
    let (first, second) = two_workspaces(&fixture).await;
    let send = || first.send().args(["--to", &second.receiver]);
    first.write("lines", "a\n\nb\n");
    let sent = send().args(["--file", "lines"]).run().await.success();
    assert_eq!(sent.stdout, "");
    assert!(
        sent.stderr
            .contains("4 sent, 4 acknowledged, 0 unacknowledged"),
        "{}",
        sent.stderr
    );
    assert!(
        sent.stderr
            .contains("to 2 receivers, 1 empty line left out"),
        "{}",
        sent.stderr
    );
    // The receivers' progress differs: each is resumed separately.
    first.write("lines", "a\n\nb\nc\n");
    first.send().args(["--file", "lines"]).run().await.success();
    let sent = send().args(["--file", "lines"]).run().await.success();
    assert!(
        sent.stderr.contains("1 sent, 1 acknowledged"),
        "{}",
        sent.stderr
    );
    let sent = send().arg("-v").input("d\n").run().await.success();
    for receiver in [&first.receiver, &second.receiver] {
        let lines = sent
            .stderr
            .lines()
            .filter(|line| line.ends_with(&format!(" for {receiver}")));
        assert_eq!(lines.count(), 2, "encrypted and acknowledged");
    }
    send().args(["--message", "e"]).run().await.success();
    for workspace in [&first, &second] {
        workspace.receive(5).await;
        assert_eq!(workspace.texts(), ["a", "b", "c", "d", "e"]);
        workspace.expect_empty_queue(&fixture.server).await;
    }
    let ids = |workspace: &Workspace| {
        workspace
            .received()
            .into_iter()
            .map(|line| line.message_id)
            .collect::<Vec<_>>()
    };
    assert!(
        ids(&first).iter().all(|id| !ids(&second).contains(id)),
        "the ids differ"
    );
}

pub(crate) async fn the_failure_of_one_receiver_does_not_affect_the_others(fixture: Fixture) {
    let (first, second) = two_workspaces(&fixture).await;
    let stranger = fixture.id("stranger");
    first.write("lines", "a\nb\n");
    let send = |to: &str| {
        first
            .send()
            .args(["--to", to, "--to", &second.receiver, "--file", "lines"])
    };
    let sent = send(&stranger).run().await.code(1);
    assert_eq!(sent.stdout, "");
    let (what, advice) = error_parts(&sent);
    assert!(
        what.contains("1 of 3 receivers") && what.contains(&stranger),
        "{what}"
    );
    assert!(
        advice.contains("no public key") && advice.contains("register-key"),
        "{advice}"
    );
    assert!(
        sent.stderr
            .contains(&format!("{}: 2 sent, 2 acknowledged", second.receiver)),
        "{}",
        sent.stderr
    );
    // It has no checkpoint, as nothing could be sent to it.
    assert!(
        !first
            .path(&format!("lines.{stranger}.ciphermq-send"))
            .exists()
    );

    // An unusable checkpoint affects only its receiver.
    fs::write(first.path("broken"), "x").unwrap();
    first.write("lines", "a\nb\nc\n");
    let sent = first
        .send()
        .args(["--to", &second.receiver, "--file", "lines"])
        .args(["--checkpoint", "broken", "--checkpoint"])
        .arg(format!("lines.{}.ciphermq-send", second.receiver))
        .run()
        .await
        .code(1);
    let (what, advice) = error_parts(&sent);
    assert!(
        what.contains("1 of 2 receivers") && what.contains(&first.receiver),
        "{what}"
    );
    assert!(advice.contains("broken"), "{advice}");

    // Without a route for all, the list names the receiver of each message.
    let sent = first
        .send()
        .args(["--to", &second.receiver, "--message", "x", "--routing-key"])
        .arg(fixture.id("nowhere"))
        .run()
        .await
        .code(3);
    let mut receivers: Vec<&str> = sent
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1))
        .collect();
    receivers.sort_unstable();
    assert_eq!(receivers, [&first.receiver, &second.receiver]);

    first.receive(2).await;
    assert_eq!(first.texts(), ["a", "b"]);
    second.receive(3).await;
    assert_eq!(second.texts(), ["a", "b", "c"]);
}

pub(crate) async fn sending_to_several_receivers_resumes_after_a_kill(fixture: Fixture) {
    let (first, second) = two_workspaces(&fixture).await;
    let lines: Vec<String> = (0..8_000)
        .map(|number| format!("\"{number} {}\"", "x".repeat(300)))
        .collect();
    first.write("lines", lines.join("\n"));
    let send = || {
        first
            .send()
            .args(["--to", &second.receiver, "--file", "lines"])
    };
    for receiver in [&first.receiver, &second.receiver] {
        let mut sender = send().args(["--batch-size", "1", "-v"]).spawn();
        let acknowledged = |line: &str| {
            let is_of_receiver =
                line.contains("Server ACK received") && line.ends_with(receiver.as_str());
            is_of_receiver.then_some(())
        };
        let acknowledged = sender.stderr.find(0, LIMIT, acknowledged).await;
        assert!(acknowledged.is_some());
        sender.kill().await;
    }
    send().limit(LIMIT).run().await.success();
    for workspace in [&first, &second] {
        let count = lines.len().to_string();
        let receive = workspace
            .cli("receive")
            .args(["--count", &count])
            .limit(LIMIT);
        receive.run().await.success();
        received::assert_exactly(&workspace.received(), lines.iter().map(String::as_str));
        workspace.expect_empty_queue(&fixture.server).await;
    }
}

pub(crate) async fn sending_again_is_tracked_per_receiver(fixture: Fixture) {
    let (first, second) = two_workspaces(&fixture).await;
    first.write("lines", "a\nb\n");
    let send = || {
        let send = first.send().args(["--to", &second.receiver]);
        send.args(["--file", "lines"])
    };
    let pins = || -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(first.path("certs")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.display().to_string().ends_with(".pin.json"))
            .collect()
    };
    first.send().args(["--file", "lines"]).run().await.success();
    let of_first = pins();
    send().run().await.success();
    let pin = pins().difference(&of_first).next().unwrap().clone();
    let known = fs::read(&pin).unwrap();
    fs::write(&pin, "damaged").unwrap();
    let sent = send().arg("--again").run().await.code(1);
    let expected = format!("{}: 2 sent, 2 acknowledged", first.receiver);
    assert!(sent.stderr.contains(&expected), "{}", sent.stderr);
    fs::write(&pin, known).unwrap();
    let sent = send().run().await.success();
    assert!(
        sent.stderr
            .contains(&format!("already sent to {}", first.receiver))
            && sent.stderr.contains("2 sent, 2 acknowledged"),
        "{}",
        sent.stderr
    );
    for workspace in [&first, &second] {
        workspace.receive(4).await;
        workspace.expect_empty_queue(&fixture.server).await;
    }
}
