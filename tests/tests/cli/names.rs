//! Exchanges, routing keys and queues: default names match, custom ones work, and errors in them
//! are explained.

use ciphermq_tests::{Fixture, PATIENCE, Received, received};

use ciphermq_tests::workspace::{Workspace, error_parts, failed};

pub(crate) async fn default_names_fit_together(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let mut receiver = workspace.receiving(&["--count", "2"]).await;
    let sent = workspace.send_messages(&["21.5 °C", "second"]).await;
    assert_eq!(sent.stdout, "");
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));

    let lines = workspace.received();
    assert_eq!(workspace.texts(), ["21.5 °C", "second"]);
    for line in &lines {
        assert_eq!(line.sender.as_deref(), Some(workspace.sender.as_str()));
        assert_eq!(
            uuid::Uuid::parse_str(&line.message_id)
                .unwrap()
                .get_version_num(),
            8
        );
        let [sent, received] =
            [line.sent_time.as_deref().unwrap(), &line.received_time].map(|time| {
                time.parse::<ciphermq_client::Timestamp>()
                    .unwrap_or_else(|error| panic!("{error}: {time}"))
            });
        assert!(sent <= received, "{line:?}");
    }
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn custom_names(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let [queue, exchange] = [fixture.id("alarms"), fixture.id("plant")];
    let names = ["--exchange", &exchange, "--routing-key", "alarm"];
    let mut receiver = workspace
        .cli("receive")
        .args([
            "--queue",
            &queue,
            "--output",
            "alarms.jsonl",
            "--count",
            "1",
        ])
        .args(names)
        .spawn();
    receiver.stderr.expect("Receiving from").await;
    workspace
        .send()
        .args(names)
        .args(["--message", "fire"])
        .run()
        .await
        .success();
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    let lines = received::read(&workspace.path("alarms.jsonl"));
    assert_eq!(
        lines.iter().map(Received::text).collect::<Vec<_>>(),
        ["fire"]
    );
    assert!(!workspace.path("data").exists(), "no other file is written");
}

pub(crate) async fn an_unregistered_receiver(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let (what, advice) = failed(workspace.send().args(["--message", "x"]).run().await);
    assert!(
        what.contains(&workspace.receiver) && what.contains("no public key"),
        "{what}"
    );
    for command in ["ciphermq-cli receive", "ciphermq-cli register-key"] {
        assert!(advice.contains(command), "{advice}");
    }
    // Running `receive`, as advised, helps.
    workspace.register_receiver().await;
    workspace.send_messages(&["x"]).await;
    workspace.receive(1).await;
    assert_eq!(workspace.texts(), ["x"]);
}

pub(crate) async fn a_routing_key_without_queue(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let sent = workspace
        .send()
        .args([
            "--routing-key",
            &fixture.id("nowhere"),
            "--message",
            "one",
            "--message",
            "two",
        ])
        .run()
        .await
        .code(3);
    let (what, advice) = error_parts(&sent);
    assert!(what.contains("no_route"), "{what}");
    assert!(advice.contains("ciphermq-cli receive"), "{advice}");
    assert!(
        (1..=2).contains(&sent.stdout.lines().count()),
        "{}",
        sent.stdout
    );
    for id in sent.stdout.lines() {
        uuid::Uuid::parse_str(id).unwrap_or_else(|error| panic!("{error}: {id}"));
    }
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn an_unknown_exchange(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let exchange = fixture.id("nowhere");
    let sent = workspace
        .send()
        .args(["--exchange", &exchange, "--message", "one"])
        .run()
        .await
        .code(3);
    let (what, advice) = error_parts(&sent);
    assert!(
        what.contains("not_found") && what.contains(&exchange),
        "{what}"
    );
    assert!(advice.contains("ciphermq-cli receive"), "{advice}");
    assert_eq!(sent.stdout.lines().count(), 1, "{}", sent.stdout);
}

/// Every run starts a stream with a different id, even at the same time.
pub(crate) async fn simultaneous_senders_use_different_streams(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let send = |text: &'static str| workspace.send().args(["--message", text]).run();
    let (one, two, three) = tokio::join!(send("one"), send("two"), send("three"));
    for sent in [one, two, three] {
        sent.success();
    }
    workspace.receive(3).await;
    let mut texts = workspace.texts();
    texts.sort();
    assert_eq!(texts, ["one", "three", "two"]);
}
