//! Settling: acks, times, rejections, and forgetting.

use super::*;

on_both! {
    acks_have_outcomes,
    times_never_go_backwards,
    rejected_messages_are_kept,
    old_metadata_is_forgotten_and_nothing_else,
}

async fn acks_have_outcomes(database: &Database) {
    use AckOutcome::{AlreadyDone, NotAuthorized, NotFound};
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    publish_all(
        &mut store,
        ["a", "b", "c", "d"].map(|id| message(id, queue)).to_vec(),
    )
    .await;
    let done = |seq| AckOutcome::Done(vec![(queue, Seq(seq))]);
    let acks = vec![
        ack("c", "r"),
        ack("a", "r"),
        ack("a", "r"),
        ack("never", "r"),
        ack("never", "r"),
        ack("b", "stranger"),
        ack("b", "r"),
        ack("b", "stranger"),
        ack("d", "s"),
    ];
    let outcomes = ack_all(&mut store, acks).await.acks;
    assert_eq!(
        outcomes,
        [
            done(3),
            done(1),
            AlreadyDone,
            NotFound,
            NotFound,
            NotAuthorized,
            done(2),
            NotAuthorized,
            NotAuthorized
        ]
    );
    assert_eq!(waiting(&store, queue, "r").await, ["d"]);
    let outcomes = ack_all(
        &mut store,
        vec![ack("a", "r"), ack("a", "stranger"), ack("d", "r")],
    )
    .await
    .acks;
    assert_eq!(outcomes, [AlreadyDone, NotAuthorized, done(4)]);
    // Published and acked in one commit.
    let transaction = Transaction {
        publishes: vec![message("e", queue)],
        acks: vec![ack("e", "r")],
        ..Transaction::default()
    };
    let outcomes = commit(&mut store, transaction).await;
    assert_eq!(outcomes.acks, [done(5)]);
    assert_eq!(
        database
            .texts("SELECT CAST(COUNT(*) AS TEXT) FROM messages")
            .await,
        [Some(String::from("0"))]
    );
    close(store).await;
}

async fn times_never_go_backwards(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    // Sent at 07:03:00.
    publish_all(
        &mut store,
        ["plain", "told", "early", "recorded"]
            .map(|id| message(id, queue))
            .to_vec(),
    )
    .await;
    let deliveries = [
        (id("recorded"), time("2025-09-08T07:03:01.5Z")),
        (id("recorded"), time("2025-09-08T07:03:09Z")),
        (id("never"), time("2025-09-08T07:03:09Z")),
    ];
    commit(
        &mut store,
        Transaction {
            deliveries: deliveries[..1].to_vec(),
            ..Transaction::default()
        },
    )
    .await;
    commit(
        &mut store,
        Transaction {
            deliveries: deliveries[1..].to_vec(),
            ..Transaction::default()
        },
    )
    .await;
    let at = |id, delivered: Option<&str>, acked| {
        let mut ack = ack(id, "r");
        (ack.delivered_time, ack.time) = (delivered.map(time), time(acked));
        ack
    };
    let acks = vec![
        at("plain", None, "2025-09-08T07:03:05Z"),
        at(
            "told",
            Some("2025-09-08T07:03:02Z"),
            "2025-09-08T07:03:05.25Z",
        ),
        at(
            "early",
            Some("2025-09-08T06:00:00Z"),
            "2025-09-08T06:00:01Z",
        ),
        at(
            "recorded",
            Some("2025-09-08T07:03:04Z"),
            "2025-09-08T07:03:05Z",
        ),
    ];
    ack_all(&mut store, acks).await;
    for (id, delivered, acknowledged) in [
        ("plain", "07:03:05.000000", "07:03:05.000000"),
        ("told", "07:03:02.000000", "07:03:05.250000"),
        ("early", "07:03:00.000000", "07:03:00.000000"),
        ("recorded", "07:03:01.500000", "07:03:05.000000"),
    ] {
        let row = database
            .texts(&format!(
                "SELECT client_id, exchange_name, routing_key, sent_time, delivered_time, \
                 acknowledged_time \
                 FROM message_metadata WHERE message_id = '{id}'"
            ))
            .await;
        let day = |time: &str| Some(format!("2025-09-08T{time}Z"));
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            text("s"),
            text("e"),
            text("k"),
            day("07:03:00.000000"),
            day(delivered),
            day(acknowledged),
        ];
        assert_eq!(row, expected, "{id}");
    }
    close(store).await;
}

async fn rejected_messages_are_kept(database: &Database) {
    use AckOutcome::{AlreadyDone, NotAuthorized, NotFound};
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2"]).await;
    publish_all(
        &mut store,
        vec![
            publish("s", &queue, envelope("bad", "r", true, "AAAA")),
            message("good", queue[0]),
            message("done", queue[0]),
        ],
    )
    .await;
    ack_all(&mut store, vec![ack("done", "r")]).await;
    let reject = |id, by| Rejection {
        ack: ack(id, by),
        reason: String::from("cannot open it: \u{0}\u{1}ä"),
    };
    let rejections = vec![
        reject("bad", "stranger"),
        reject("bad", "r"),
        reject("bad", "r"),
        reject("never", "r"),
        reject("done", "r"),
    ];
    let outcomes = commit(
        &mut store,
        Transaction {
            rejections,
            ..Transaction::default()
        },
    )
    .await
    .rejections;
    let done = AckOutcome::Done(vec![(queue[0], Seq(1)), (queue[1], Seq(2))]);
    assert_eq!(
        outcomes,
        [NotAuthorized, done, AlreadyDone, NotFound, NotFound]
    );
    assert_eq!(
        ack_all(&mut store, vec![ack("bad", "r")]).await.acks,
        [AlreadyDone]
    );
    assert_eq!(waiting(&store, queue[0], "r").await, ["good"]);
    assert_eq!(waiting(&store, queue[1], "r").await, [""; 0]);
    let row = database
        .texts(
            "SELECT message_id, client_id, receiver_client_id, exchange_name, routing_key, \
                rejected_time FROM rejected_messages",
        )
        .await;
    let expected = ["bad", "s", "r", "e", "k", "2025-09-08T07:04:00.000000Z"]
        .map(|text| Some(text.to_owned()));
    assert_eq!(row, expected);
    let size = database
        .texts("SELECT CAST(LENGTH(envelope) AS TEXT) FROM rejected_messages")
        .await;
    assert_eq!(
        size,
        [Some(
            envelope("bad", "r", true, "AAAA").raw().len().to_string()
        )]
    );
    let times = database
        .texts(
            "SELECT rejected_time, acknowledged_time FROM message_metadata WHERE message_id = \
                'bad'",
        )
        .await;
    assert_eq!(
        times,
        [Some(String::from("2025-09-08T07:04:00.000000Z")), None]
    );
    // Published and rejected in one commit, beside a message that waits and a change.
    let outcomes = commit(
        &mut store,
        Transaction {
            changes: vec![declare("q3", "s")],
            publishes: vec![message("at-once", queue[0]), message("later", queue[0])],
            rejections: vec![reject("at-once", "r")],
            ..Transaction::default()
        },
    )
    .await;
    assert!(outcomes.changes[0].queue().is_some(), "{outcomes:?}");
    assert!(
        matches!(outcomes.rejections[..], [AckOutcome::Done(_)]),
        "{outcomes:?}"
    );
    assert_eq!(waiting(&store, queue[0], "r").await, ["good", "later"]);
    assert_eq!(
        database
            .texts(
                "SELECT message_id FROM rejected_messages WHERE message_id <> 'bad' AND \
                 LENGTH(envelope) > 0"
            )
            .await,
        [Some(String::from("at-once"))]
    );
    close(store).await;
}

async fn old_metadata_is_forgotten_and_nothing_else(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    // Rows that were adopted from an older server may have no time: their age is unknown.
    let timeless = if matches!(database, Database::Postgres(..)) {
        600
    } else {
        0
    };
    if timeless > 0 {
        let rows = format!(
            "INSERT INTO batches (first_seq, messages, queues, id_stream, id_position, has_suite) \
             SELECT -i, 1, '[]', 'timeless-' || i, -1, FALSE FROM generate_series(1, {timeless}) i"
        );
        database.execute(&rows).await;
    }
    // Messages that still wait are skipped, however many they are.
    let kept: Vec<String> = (0..1100).map(|n| format!("kept-{n:04}")).collect();
    publish_all(
        &mut store,
        kept.iter().map(|id| message(id, queue)).collect(),
    )
    .await;
    let publishes = (0..2500)
        .map(|n| message(&format!("old-{n:04}"), queue))
        .collect();
    publish_all(&mut store, publishes).await;
    let acks = (0..2498)
        .map(|n| ack(&format!("old-{n:04}"), "r"))
        .collect();
    ack_all(&mut store, acks).await;
    let rejection = Rejection {
        ack: ack("old-2498", "r"),
        reason: String::from("x"),
    };
    commit(
        &mut store,
        Transaction {
            rejections: vec![rejection],
            ..Transaction::default()
        },
    )
    .await;
    let count = "SELECT CAST(COUNT(*) AS TEXT) FROM message_metadata";
    let left = |left: u32| [Some((left + timeless).to_string())];
    // Sent at 07:03:00; nothing is older than that.
    forget(&mut store, "2025-09-08T07:03:00Z").await;
    assert_eq!(database.texts(count).await, left(3600));
    let steps = forget(&mut store, "2025-09-08T07:03:01Z").await;
    assert!(steps >= 3, "in steps that do not hold up commits");
    assert_eq!(database.texts(count).await, left(1101));
    let mut waits = kept.clone();
    waits.push(String::from("old-2499"));
    assert_eq!(waiting(&store, queue, "r").await, waits);
    // Once they wait no more, they are forgotten the next time.
    ack_all(&mut store, kept.iter().map(|id| ack(id, "r")).collect()).await;
    forget(&mut store, "2025-09-08T07:03:01Z").await;
    assert_eq!(database.texts(count).await, left(1));
    assert_eq!(
        database
            .texts("SELECT CAST(COUNT(*) AS TEXT) FROM rejected_messages")
            .await,
        [Some("1".to_owned())]
    );
    // A forgotten message counts as never accepted.
    assert!(matches!(
        publish_all(&mut store, vec![message("old-0000", queue)])
            .await
            .publishes[..],
        [PublishOutcome::Stored { .. }]
    ));
    close(store).await;
}

/// Maintains until there is nothing more to do. Returns the number of steps.
async fn forget(store: &mut Store, before: &str) -> usize {
    let mut steps = 1;
    let retention = Retention {
        metadata_before: Some(time(before)),
        ..Retention::default()
    };
    while store.committer.maintain(&retention).await.unwrap().more {
        steps += 1;
    }
    steps
}
