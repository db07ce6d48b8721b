//! Exchange, routing key and queue: the default names fit together, others are as good, wrong ones
//! are explained.

use ciphermq_tests::{PATIENCE, Received, Scene, received};

use super::desk::{Desk, failed, two_parts};

pub(crate) async fn default_names_fit_together(scene: Scene) {
    let desk = Desk::of(&scene);
    let mut receiver = desk.receiving(&["--count", "2"]).await;
    let sent = desk.send_messages(&["21.5 °C", "second"]).await;
    assert_eq!(sent.stdout, "");
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));

    let lines = desk.received();
    assert_eq!(desk.texts(), ["21.5 °C", "second"]);
    for line in &lines {
        assert_eq!(line.sender.as_deref(), Some(desk.sender.as_str()));
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
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn chosen_names(scene: Scene) {
    let desk = Desk::of(&scene);
    let [queue, exchange] = [scene.id("alarms"), scene.id("plant")];
    let names = ["--exchange", &exchange, "--routing-key", "alarm"];
    let mut receiver = desk
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
    desk.send()
        .args(names)
        .args(["--message", "fire"])
        .run()
        .await
        .success();
    assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
    let lines = received::read(&desk.path("alarms.jsonl"));
    assert_eq!(
        lines.iter().map(Received::text).collect::<Vec<_>>(),
        ["fire"]
    );
    assert!(!desk.path("data").exists(), "nothing is written elsewhere");
}

pub(crate) async fn an_unregistered_receiver(scene: Scene) {
    let desk = Desk::of(&scene);
    let (what, advice) = failed(desk.send().args(["--message", "x"]).run().await);
    assert!(
        what.contains(&desk.receiver) && what.contains("no public key"),
        "{what}"
    );
    for command in ["ciphermq-cli receive", "ciphermq-cli register-key"] {
        assert!(advice.contains(command), "{advice}");
    }
    // It helps.
    desk.introduce().await;
    desk.send_messages(&["x"]).await;
    desk.receive(1).await;
    assert_eq!(desk.texts(), ["x"]);
}

pub(crate) async fn a_routing_key_without_queue(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let sent = desk
        .send()
        .args([
            "--routing-key",
            &scene.id("nowhere"),
            "--message",
            "one",
            "--message",
            "two",
        ])
        .run()
        .await
        .code(3);
    let (what, advice) = two_parts(&sent);
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
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn an_unknown_exchange(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let exchange = scene.id("nowhere");
    let sent = desk
        .send()
        .args(["--exchange", &exchange, "--message", "one"])
        .run()
        .await
        .code(3);
    let (what, advice) = two_parts(&sent);
    assert!(
        what.contains("not_found") && what.contains(&exchange),
        "{what}"
    );
    assert!(advice.contains("ciphermq-cli receive"), "{advice}");
    assert_eq!(sent.stdout.lines().count(), 1, "{}", sent.stdout);
}

/// Two calls at the same moment are two streams.
pub(crate) async fn the_same_id_is_not_sent_for_two_messages(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let send = |text: &'static str| desk.send().args(["--message", text]).run();
    let (one, two, three) = tokio::join!(send("one"), send("two"), send("three"));
    for sent in [one, two, three] {
        sent.success();
    }
    desk.receive(3).await;
    let mut texts = desk.texts();
    texts.sort();
    assert_eq!(texts, ["one", "three", "two"]);
}
