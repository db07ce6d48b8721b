//! `fetch`: one message at a time, leased.

use ciphermq_tests::Fixture;

pub(super) async fn fetch_leases_and_does_not_remove(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let envelope = fixture.envelope("m");
    fixture.publish_acked(&mut sender, "m", &envelope).await;
    let fetch = format!("fetch {}", fixture.id("q"));
    let delivery = fixture.delivery("m", &envelope);
    let mut one = fixture.client("receiver").await;
    one.ask(&fetch, &delivery).await;
    one.ask(&fetch, "No messages").await;
    // No other connection gets it meanwhile, and its sender never does.
    let mut two = fixture.client("receiver").await;
    two.ask(&fetch, "No messages").await;
    sender.ask(&fetch, "No messages").await;
    one.close().await.unwrap();
    // The server releases the lease a little later, when it notices the end of the connection.
    let mut line = "No messages".to_owned();
    while line == "No messages" {
        two.send_line(&fetch).await;
        line = two.line().await;
    }
    assert_eq!(line, delivery);
    two.ack(&fixture.id("m")).await;
    drop(two);
    let mut three = fixture.client("receiver").await;
    three.ask(&fetch, "No messages").await;
    three
        .ask(
            &format!("fetch {}", fixture.id("undeclared")),
            "No messages",
        )
        .await;
}

pub(super) async fn fetch_is_refused_on_a_consuming_connection(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.receiver(1).await;
    let fetch = format!("fetch {}", fixture.id("q"));
    receiver
        .ask(
            &fetch,
            "Error: consuming: this connection consumes; fetch on another one",
        )
        .await;
    receiver
        .ask(
            &format!("fetch {}", fixture.id("other")),
            "Error: consuming: this connection consumes; fetch on another one",
        )
        .await;
    // The consumer is not affected.
    let envelope = fixture.envelope("m");
    fixture.publish_acked(&mut sender, "m", &envelope).await;
    receiver.expect(&fixture.delivery("m", &envelope)).await;
}

pub(super) async fn fetch_takes_messages_in_order(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let envelopes: Vec<_> = (0..50)
        .map(|index| fixture.envelope(&format!("m{index}")))
        .collect();
    sender.send_line(&fixture.publish_batch(&envelopes)).await;
    for index in 0..50 {
        sender
            .expect(&format!("ACK {}", fixture.id(&format!("m{index}"))))
            .await;
    }
    let mut receiver = fixture.client("receiver").await;
    receiver
        .send_bytes(format!("fetch {}\n", fixture.id("q")).repeat(51))
        .await;
    for (index, envelope) in envelopes.iter().enumerate() {
        receiver
            .expect(&fixture.delivery(&format!("m{index}"), envelope))
            .await;
    }
    receiver.expect("No messages").await;
}
