//! `fetch`: one message at a time, leased.

use ciphermq_tests::Scene;

pub(super) async fn fetch_leases_and_does_not_remove(scene: Scene) {
    let mut sender = scene.sender().await;
    let envelope = scene.envelope("m");
    sender
        .ask(&scene.publish(&envelope), &format!("ACK {}", scene.id("m")))
        .await;
    let fetch = format!("fetch {}", scene.id("q"));
    let delivery = scene.delivery("m", &envelope);
    let mut one = scene.client("receiver").await;
    one.ask(&fetch, &delivery).await;
    one.ask(&fetch, "No messages").await;
    // Nobody else gets it meanwhile, and its sender never.
    let mut two = scene.client("receiver").await;
    two.ask(&fetch, "No messages").await;
    sender.ask(&fetch, "No messages").await;
    one.close().await.unwrap();
    // Its end is noticed when it has been read; the lease is back at some moment soon.
    let mut line = "No messages".to_owned();
    while line == "No messages" {
        two.send_line(&fetch).await;
        line = two.line().await;
    }
    assert_eq!(line, delivery);
    two.ask(
        &format!("ack {}", scene.id("m")),
        &format!("ACK_CONFIRMED {}", scene.id("m")),
    )
    .await;
    drop(two);
    let mut three = scene.client("receiver").await;
    three.ask(&fetch, "No messages").await;
    three
        .ask(&format!("fetch {}", scene.id("undeclared")), "No messages")
        .await;
}

pub(super) async fn fetch_is_refused_where_one_consumes(scene: Scene) {
    let mut sender = scene.sender().await;
    let mut receiver = scene.receiver(1).await;
    let fetch = format!("fetch {}", scene.id("q"));
    receiver
        .ask(
            &fetch,
            "Error: consuming: this connection consumes; fetch on another one",
        )
        .await;
    receiver
        .ask(
            &format!("fetch {}", scene.id("other")),
            "Error: consuming: this connection consumes; fetch on another one",
        )
        .await;
    // And the consumer goes on.
    let envelope = scene.envelope("m");
    sender
        .ask(&scene.publish(&envelope), &format!("ACK {}", scene.id("m")))
        .await;
    receiver.expect(&scene.delivery("m", &envelope)).await;
}

pub(super) async fn fetch_takes_messages_in_order(scene: Scene) {
    let mut sender = scene.sender().await;
    let envelopes: Vec<_> = (0..50)
        .map(|index| scene.envelope(&format!("m{index}")))
        .collect();
    sender.send_line(&scene.publish_batch(&envelopes)).await;
    for index in 0..50 {
        sender
            .expect(&format!("ACK {}", scene.id(&format!("m{index}"))))
            .await;
    }
    let mut receiver = scene.client("receiver").await;
    receiver
        .send_bytes(format!("fetch {}\n", scene.id("q")).repeat(51))
        .await;
    for (index, envelope) in envelopes.iter().enumerate() {
        receiver
            .expect(&scene.delivery(&format!("m{index}"), envelope))
            .await;
    }
    receiver.expect("No messages").await;
}
