//! Publishing: one copy for all queues, and repeated ids.

use super::*;

on_both! {
    a_message_to_several_queues_is_stored_once,
    a_repeated_id_is_a_retry_or_in_use,
}

async fn a_message_to_several_queues_is_stored_once(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2", "q3"]).await;
    let all = publish("s", &queue, envelope("all", "r", true, "AAAA"));
    let outcomes = publish_all(
        &mut store,
        vec![message("before", queue[1]), all, message("after", queue[1])],
    )
    .await;
    let stored = |first| PublishOutcome::Stored { first: Seq(first) };
    assert_eq!(outcomes.publishes, [stored(1), stored(2), stored(5)]);
    assert_eq!(waiting(&store, queue[0], "r").await, ["all"]);
    assert_eq!(
        waiting(&store, queue[1], "r").await,
        ["before", "all", "after"]
    );
    let envelopes = database
        .texts(
            "SELECT CAST((SELECT COUNT(*) FROM envelopes) AS TEXT), CAST(COUNT(*) AS TEXT) FROM \
                messages",
        )
        .await;
    assert_eq!(
        envelopes,
        [Some(String::from("3")), Some(String::from("5"))]
    );
    let limit = PageLimit {
        messages: 9,
        bytes: 1 << 20,
    };
    let page = store
        .reader
        .lane(&lane(queue[2], "r"), Seq(0), limit)
        .await
        .unwrap();
    assert_eq!((page.messages[0].seq, page.messages.len()), (Seq(4), 1));
    assert_eq!(
        page.messages[0].envelope,
        *envelope("all", "r", true, "AAAA").raw()
    );

    let state = store.reader.message_state(&id("all")).await.unwrap();
    let places = vec![(queue[0], Seq(2)), (queue[1], Seq(3)), (queue[2], Seq(4))];
    let expected = MessageState {
        sender: client("s"),
        receiver: Some(client("r")),
        waiting: places.clone(),
    };
    assert_eq!(state, Some(expected));
    let mut outcome = ack_all(&mut store, vec![ack("all", "r")]).await.acks;
    if let AckOutcome::Done(places) = &mut outcome[0] {
        places.sort_by_key(|(_, seq)| *seq);
    }
    assert_eq!(outcome, [AckOutcome::Done(places)]);
    assert_eq!(waiting(&store, queue[1], "r").await, ["before", "after"]);
    assert_eq!(waiting(&store, queue[2], "r").await, [""; 0]);
    assert!(
        store
            .reader
            .message_state(&id("all"))
            .await
            .unwrap()
            .unwrap()
            .waiting
            .is_empty()
    );
    assert_eq!(
        store.reader.message_state(&id("never")).await.unwrap(),
        None
    );
    close(store).await;
}

async fn a_repeated_id_is_a_retry_or_in_use(database: &Database) {
    use PublishOutcome::{Duplicate, IdInUse};
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let given = |sender: &str, id: &str, suite: bool, payload: &str| {
        publish(sender, &[queue], envelope(id, "r", suite, payload))
    };
    let by = |publish: Arc<Publish>, exchange: &str, routing_key: &str| {
        let exchange = ExchangeName::new(exchange).unwrap();
        let routing_key = RoutingKey::new(routing_key).unwrap();
        Arc::new(Publish {
            exchange,
            routing_key,
            ..Arc::unwrap_or_clone(publish)
        })
    };
    // (the stored message, the publish, its outcome)
    let cases: Vec<(Arc<Publish>, Arc<Publish>, PublishOutcome)> = vec![
        (
            given("s", "id", true, "AAAA"),
            given("s", "id", true, "AAAA"),
            Duplicate,
        ),
        (
            given("s", "id", true, "AAAA"),
            given("s", "id", true, "BBBB"),
            Duplicate,
        ),
        (
            given("s", "id", true, "AAAA"),
            given("s", "id", false, "AAAA"),
            IdInUse,
        ),
        (
            given("s", "id", false, "AAAA"),
            given("s", "id", true, "AAAA"),
            IdInUse,
        ),
        (
            given("s", "id", false, "AAAA"),
            given("s", "id", false, "AAAA"),
            Duplicate,
        ),
        (
            given("s", "id", false, "AAAA"),
            given("s", "id", false, "BBBB"),
            IdInUse,
        ),
        (
            given("s", "id", true, "AAAA"),
            given("x", "id", true, "AAAA"),
            IdInUse,
        ),
        (
            given("s", "id", false, "AAAA"),
            given("x", "id", false, "AAAA"),
            IdInUse,
        ),
        // By another route, or to another receiver, it would not arrive.
        (
            given("s", "id", true, "AAAA"),
            by(given("s", "id", true, "AAAA"), "e2", "k"),
            IdInUse,
        ),
        (
            given("s", "id", false, "AAAA"),
            by(given("s", "id", false, "AAAA"), "e", "k2"),
            IdInUse,
        ),
        (
            given("s", "id", true, "AAAA"),
            publish("s", &[queue], envelope("id", "r2", true, "AAAA")),
            IdInUse,
        ),
    ];
    let renamed = |of: &Publish, id: &str| {
        let fields = of.envelope.fields().unwrap();
        let (receiver, payload) = (&fields.receiver_client_id, &fields.ciphertext.text());
        let envelope = envelope(id, receiver, of.envelope.has_suite, payload);
        let sealed = publish(of.sender.as_str(), &[queue], envelope);
        by(sealed, of.exchange.as_str(), of.routing_key.as_str())
    };
    for (number, (first, second, expected)) in cases.iter().enumerate() {
        // In one transaction, with others around them; twice.
        let id = format!("together-{number}");
        let (first_one, second_one) = (renamed(first, &id), renamed(second, &id));
        let others = [
            message(&format!("{id}-a"), queue),
            message(&format!("{id}-b"), queue),
        ];
        let outcomes = publish_all(
            &mut store,
            vec![
                Arc::clone(&others[0]),
                Arc::clone(&first_one),
                Arc::clone(&second_one),
                Arc::clone(&others[1]),
                Arc::clone(&second_one),
            ],
        )
        .await
        .publishes;
        assert!(
            matches!(
                &outcomes[..],
                [_, PublishOutcome::Stored { .. }, a, _, b] if a == expected && b == expected
            ),
            "{id}: {outcomes:?}"
        );

        // In two transactions; and the second one with a third that repeats it.
        let id = format!("apart-{number}");
        publish_all(&mut store, vec![renamed(first, &id)]).await;
        let (second_one, fresh) = (renamed(second, &id), message(&format!("{id}-c"), queue));
        let outcomes = publish_all(&mut store, vec![Arc::clone(&second_one), second_one, fresh])
            .await
            .publishes;
        assert!(
            matches!(
                &outcomes[..],
                [a, b, PublishOutcome::Stored { .. }] if a == expected && b == expected
            ),
            "{id}: {outcomes:?}"
        );

        // Also when it has been acknowledged in between.
        ack_all(&mut store, vec![ack(&id, "r")]).await;
        let outcomes = publish_all(&mut store, vec![renamed(second, &id)])
            .await
            .publishes;
        assert_eq!(outcomes, *std::slice::from_ref(expected), "{id}");
    }
    // The first one is stored, once, and those around it are in order.
    let page = store
        .reader
        .lane(
            &lane(queue, "r"),
            Seq(0),
            PageLimit {
                messages: 3,
                bytes: usize::MAX,
            },
        )
        .await
        .unwrap();
    let ids: Vec<&str> = page
        .messages
        .iter()
        .map(|message| message.message_id.as_str())
        .collect();
    assert_eq!(ids, ["together-0-a", "together-0", "together-0-b"]);
    assert_eq!(
        page.messages[1].envelope,
        *renamed(&cases[0].0, "together-0").envelope.raw()
    );
    // A refused publish leaves no trace: the id belongs to another sender, and so does its retry.
    let taken = renamed(&cases[6].1, "apart-6");
    assert_eq!(
        publish_all(&mut store, vec![taken]).await.publishes,
        [IdInUse]
    );
    close(store).await;
}
