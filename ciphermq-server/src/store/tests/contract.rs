//! The contract of both databases.

use std::sync::Arc;

use ciphermq_protocol::{
    CertificateChain, Envelope, ExchangeName, Fingerprint, QueueName, RoutingKey,
};

use super::fixture::*;
use crate::model::{
    AckOutcome, Binding, Change, CommitNumber, MessageState, PageLimit, Publish, PublishOutcome,
    QueueId, Rejection, RouteLimits, SealedRow, Seq, Transaction,
};
use crate::store::{Error, Store, open};

on_both! {
    everything_is_there_after_a_restart,
    pages_are_in_order_and_limited,
    a_message_to_several_queues_is_stored_once,
    a_repeated_id_is_a_retry_or_in_use,
    acks_have_outcomes,
    times_never_go_backwards,
    rejected_messages_are_kept,
    envelopes_are_found_once_over_all_queues,
    continues_after_reopening,
    a_second_server_is_refused,
    large_envelopes_are_kept_byte_for_byte,
    old_metadata_is_forgotten_and_nothing_else,
    a_schema_from_the_future_is_refused,
    a_large_transaction,
}

fn sealed(mark: &str, algorithm: Option<&str>) -> SealedRow {
    let text = |what: &str| format!("{what}-{mark}");
    SealedRow {
        ciphertext: text("c"),
        nonce: text("n"),
        tag: text("t"),
        algorithm: algorithm.map(str::to_owned),
    }
}

fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn certificate(byte: u8, chain: &str) -> Change {
    Change::Certificate {
        client_id: client("r"),
        fingerprint: fingerprint(byte),
        chain: CertificateChain::from_text(chain),
        seen: time("2025-09-08T07:00:00Z"),
    }
}

async fn everything_is_there_after_a_restart(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q", "other", "q"]).await;
    assert_eq!((queue[0], queue.len()), (queue[2], 3));
    let exchange = ExchangeName::new("e").unwrap();
    let bind = Change::Bind {
        binding: Binding {
            exchange: exchange.clone(),
            routing_key: RoutingKey::new("k").unwrap(),
            queue: queue[0],
        },
        made_by: client("s"),
        limits: RouteLimits {
            queues: 1,
            of_client: 1,
        },
    };
    let declare_exchange = Change::DeclareExchange {
        exchange: exchange.clone(),
        made_by: client("s"),
    };
    let changes = vec![
        declare_exchange.clone(),
        declare_exchange,
        bind.clone(),
        bind,
        Change::PublicKey(client("r"), sealed("old", None)),
        Change::PublicKey(client("r"), sealed("new", Some("aes-256-gcm"))),
        Change::SignedKey {
            client_id: client("r2"),
            signed: sealed("signed", Some("chacha20-poly1305")),
            bare: Some(sealed("bare", Some("aes-256-gcm"))),
        },
        Change::PublicKey(client("r3"), sealed("forgotten", None)),
        Change::SignedKey {
            client_id: client("r3"),
            signed: sealed("signed", None),
            bare: None,
        },
    ];
    commit(
        &mut store,
        Transaction {
            changes,
            ..Transaction::default()
        },
    )
    .await;
    for (fingerprint, chain) in [(1, "first,ca"), (2, "second"), (1, "first,ca")] {
        commit(
            &mut store,
            Transaction {
                changes: vec![certificate(fingerprint, chain)],
                ..Transaction::default()
            },
        )
        .await;
    }
    publish_all(
        &mut store,
        vec![
            message("a", queue[0]),
            message("b", queue[0]),
            message("c", queue[0]),
        ],
    )
    .await;
    let last = ack_all(&mut store, vec![ack("b", "r")]).await.commit;
    close(store).await;

    let mut store = database.open().await;
    let topology = store.reader.topology().await.unwrap();
    let names: Vec<(QueueId, &str)> = topology
        .queues
        .iter()
        .map(|(id, name)| (*id, name.as_str()))
        .collect();
    assert_eq!(names, [(queue[0], "q"), (queue[1], "other")]);
    assert_eq!(topology.exchanges, std::slice::from_ref(&exchange));
    assert_eq!(
        topology.bindings,
        [Binding {
            exchange,
            routing_key: RoutingKey::new("k").unwrap(),
            queue: queue[0],
        }]
    );
    assert_eq!(waiting(&store, queue[0], "r").await, ["a", "c"]);
    assert_eq!(waiting(&store, queue[1], "r").await, [""; 0]);
    assert_eq!(waiting(&store, queue[0], "somebody").await, [""; 0]);
    let reader = &store.reader;
    assert_eq!(
        reader.public_key(&client("r")).await.unwrap(),
        Some(sealed("new", Some("aes-256-gcm")))
    );
    assert_eq!(reader.public_key(&client("s")).await.unwrap(), None);
    // A signed key brings its bare key with it, or removes it.
    assert_eq!(reader.public_key(&client("r3")).await.unwrap(), None);
    assert_eq!(
        reader.signed_key(&client("r3")).await.unwrap(),
        Some(sealed("signed", None))
    );
    assert_eq!(
        reader.public_key(&client("r2")).await.unwrap(),
        Some(sealed("bare", Some("aes-256-gcm")))
    );
    assert_eq!(
        reader.signed_key(&client("r2")).await.unwrap(),
        Some(sealed("signed", Some("chacha20-poly1305")))
    );
    assert_eq!(reader.signed_key(&client("s")).await.unwrap(), None);
    assert_eq!(
        reader.certificate(&client("r"), None).await.unwrap(),
        Some(CertificateChain::from_text("first,ca"))
    );
    assert_eq!(
        reader
            .certificate(&client("r"), Some(&fingerprint(2)))
            .await
            .unwrap(),
        Some(CertificateChain::from_text("second"))
    );
    assert_eq!(
        reader
            .certificate(&client("r"), Some(&fingerprint(3)))
            .await
            .unwrap(),
        None
    );
    assert_eq!(reader.certificate(&client("s"), None).await.unwrap(), None);

    // Sequence numbers continue.
    let outcomes = publish_all(&mut store, vec![message("d", queue[0])]).await;
    assert_eq!(outcomes.commit, CommitNumber(last.0 + 1));
    assert_eq!(
        outcomes.publishes,
        [PublishOutcome::Stored { first: Seq(4) }]
    );
    assert_eq!(waiting(&store, queue[0], "r").await, ["a", "c", "d"]);
    close(store).await;
}

async fn pages_are_in_order_and_limited(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let ids: Vec<String> = (0..250).map(|n| format!("m-{n:03}")).collect();
    // Another receiver's messages are stored between them.
    let mut publishes = Vec::new();
    for id in &ids {
        publishes.push(message(id, queue));
        publishes.push(publish(
            "s",
            &[queue],
            envelope(&format!("x-{id}"), "other", true, "AAAA"),
        ));
    }
    publish_all(&mut store, publishes).await;
    let size = message("m-000", queue).envelope.raw().len();
    let (reader, lane) = (&store.reader, lane(queue, "r"));
    let mut after = Seq(0);
    let mut seen = Vec::new();
    loop {
        let page = reader
            .lane(
                &lane,
                after,
                PageLimit {
                    messages: 100,
                    bytes: usize::MAX,
                },
            )
            .await
            .unwrap();
        after = page.messages.last().unwrap().seq;
        seen.extend(
            page.messages
                .iter()
                .map(|message| message.message_id.to_string()),
        );
        if !page.more {
            break;
        }
        assert_eq!(page.messages.len(), 100);
    }
    assert_eq!(seen, ids);

    for (messages, bytes, expected, more) in [
        (100, 3 * size, 3, true),
        (100, 3 * size - 1, 3, true),
        (100, 3 * size + 1, 4, true),
        (100, 0, 1, true),
        (250, usize::MAX, 250, false),
        (1000, 250 * size, 250, false),
        (0, usize::MAX, 0, true),
    ] {
        let page = reader
            .lane(&lane, Seq(0), PageLimit { messages, bytes })
            .await
            .unwrap();
        assert_eq!(
            (page.messages.len(), page.more),
            (expected, more),
            "{messages} {bytes}"
        );
    }
    let nothing = reader
        .lane(
            &lane,
            after,
            PageLimit {
                messages: 10,
                bytes: 10,
            },
        )
        .await
        .unwrap();
    assert_eq!((nothing.messages.len(), nothing.more), (0, false));

    let seqs = [Seq(9), Seq(3), Seq(1), Seq(10_000), Seq(5)];
    let page = reader.messages(&seqs, usize::MAX).await.unwrap();
    let found: Vec<(i64, &str)> = page
        .messages
        .iter()
        .map(|m| (m.seq.0, m.message_id.as_str()))
        .collect();
    assert_eq!(
        found,
        [(1, "m-000"), (3, "m-001"), (5, "m-002"), (9, "m-004")]
    );
    assert_eq!(
        &page.messages[0].envelope,
        message("m-000", queue).envelope.raw()
    );
    assert!(!page.more);
    let page = reader.messages(&seqs, size).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (1, true));
    assert!(reader.messages(&[], 10).await.unwrap().messages.is_empty());
    close(store).await;
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
        let (receiver, payload) = (&fields.receiver_client_id, &fields.ciphertext);
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
            matches!(outcomes[..], [_, PublishOutcome::Stored { .. }, a, _, b] if a == *expected && b == *expected),
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
            matches!(outcomes[..], [a, b, PublishOutcome::Stored { .. }] if a == *expected && b == *expected),
            "{id}: {outcomes:?}"
        );

        // Also when it has been acknowledged in between.
        ack_all(&mut store, vec![ack(&id, "r")]).await;
        let outcomes = publish_all(&mut store, vec![renamed(second, &id)])
            .await
            .publishes;
        assert_eq!(outcomes, [*expected], "{id}");
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

async fn envelopes_are_found_once_over_all_queues(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["empty", "q1", "other", "q2", "last"]).await;
    let (q1, q2) = (queue[1], queue[3]);
    let sealed = |id: &str| envelope(id, "r", true, &"A".repeat(100));
    publish_all(
        &mut store,
        vec![
            publish("s", &[q2, q1], sealed("a")),
            publish("s", &[q1], sealed("b")),
            publish("s", &[q1, q2], sealed("c")),
            publish("s", &[queue[2]], envelope("x", "stranger", true, "AAAA")),
        ],
    )
    .await;
    let reader = &store.reader;
    let lanes = async |receiver: &str, from: QueueId, limit: u32| {
        let lanes = reader.lanes(&client(receiver), from, limit).await.unwrap();
        (lanes.queues, lanes.next)
    };
    assert_eq!(
        lanes("r", QueueId(i64::MIN), 100).await,
        (vec![q1, q2], None)
    );
    assert_eq!(lanes("r", QueueId(i64::MIN), 5).await, (vec![q1, q2], None));
    assert_eq!(lanes("r", queue[0], 3).await, (vec![q1], Some(q2)));
    assert_eq!(lanes("r", queue[0], 1).await, (vec![], Some(q1)));
    assert_eq!(lanes("r", q2, 1).await, (vec![q2], Some(queue[4])));
    assert_eq!(lanes("r", QueueId(i64::MAX), 1).await, (vec![], None));
    assert_eq!(lanes("nobody", queue[0], 100).await, (vec![], None));

    let read = async |queue: QueueId, after: i64, messages: usize, bytes: usize| {
        let limit = PageLimit { messages, bytes };
        let found = reader
            .envelopes(&lane(queue, "r"), Seq(after), limit)
            .await
            .unwrap();
        let ids: Vec<String> = found
            .envelopes
            .iter()
            .map(|(time, bytes)| {
                assert_eq!(time.as_deref(), Some("2025-09-08T07:03:00.000000Z"));
                Envelope::parse(bytes.to_bytes())
                    .unwrap()
                    .message_id
                    .to_string()
            })
            .collect();
        (ids.join(" "), found.seen, found.last, found.more)
    };
    let all = usize::MAX;
    // The copies of a are 1 and 2, b is 3, those of c are 4 and 5.
    assert_eq!(
        read(q1, 0, 10, all).await,
        ("b c".to_owned(), 3, Some(Seq(4)), false)
    );
    assert_eq!(
        read(q2, 0, 10, all).await,
        ("a".to_owned(), 2, Some(Seq(5)), false)
    );
    assert_eq!(
        read(q1, 0, 1, all).await,
        (String::new(), 1, Some(Seq(2)), true),
        "a stands in the other lane"
    );
    assert_eq!(
        read(q1, 2, 1, all).await,
        ("b".to_owned(), 1, Some(Seq(3)), true)
    );
    assert_eq!(
        read(q1, 2, 10, 1).await,
        ("b".to_owned(), 1, Some(Seq(3)), true),
        "one at least"
    );
    assert_eq!(
        read(q1, 3, 10, 1).await,
        ("c".to_owned(), 1, Some(Seq(4)), false)
    );
    assert_eq!(read(q1, 4, 10, all).await, (String::new(), 0, None, false));
    ack_all(&mut store, vec![ack("a", "r"), ack("b", "r")]).await;
    let reader = &store.reader;
    let left = reader.lanes(&client("r"), queue[0], 100).await.unwrap();
    assert_eq!(left.queues, [q1, q2], "c has a copy in both");
    close(store).await;
}

async fn continues_after_reopening(database: &Database) {
    let mut store = database.open().await;
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(0));
    let queue = queues(&mut store, &["q"]).await[0];
    let last = publish_all(&mut store, vec![message("a", queue)])
        .await
        .commit;
    for _ in 0..3 {
        assert_eq!(store.committer.reopen().await.unwrap(), last);
    }
    let next = publish_all(&mut store, vec![message("a", queue), message("b", queue)]).await;
    assert_eq!(next.commit, CommitNumber(last.0 + 1));
    assert_eq!(next.publishes[0], PublishOutcome::Duplicate);
    assert_eq!(waiting(&store, queue, "r").await, ["a", "b"]);
    close(store).await;
}

async fn a_second_server_is_refused(database: &Database) {
    let mut first = database.open().await;
    let refused = open(&database.settings()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Unusable(text) if text.contains("another \
            server") && text.contains("stop \
            it")),
        "{refused}"
    );
    // That did the first one no harm, nor does reopening let anybody in.
    queues(&mut first, &["q"]).await;
    first.committer.reopen().await.unwrap();
    assert!(matches!(
        open(&database.settings()).await,
        Err(Error::Unusable(_))
    ));
    close(first).await;
    close(database.open().await).await;
}

async fn large_envelopes_are_kept_byte_for_byte(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2"]).await;
    let payload = "A".repeat(16 << 20);
    let large: Vec<_> = (0..3)
        .map(|n| {
            publish(
                "s",
                &queue,
                envelope(&format!("large-{n}"), "r", true, &payload),
            )
        })
        .collect();
    for one in &large {
        publish_all(
            &mut store,
            vec![
                Arc::clone(one),
                message(&format!("small-{}", one.envelope.message_id), queue[1]),
            ],
        )
        .await;
    }
    let page = store
        .reader
        .lane(
            &lane(queue[1], "r"),
            Seq(0),
            PageLimit {
                messages: 100,
                bytes: 17 << 20,
            },
        )
        .await
        .unwrap();
    // Until the limit is reached: one large, one small, one large.
    assert_eq!((page.messages.len(), page.more), (3, true));
    assert_eq!(&page.messages[0].envelope, large[0].envelope.raw());
    assert_eq!(&page.messages[2].envelope, large[1].envelope.raw());
    let acks = (0..3).map(|n| ack(&format!("large-{n}"), "r")).collect();
    assert!(
        ack_all(&mut store, acks)
            .await
            .acks
            .iter()
            .all(|outcome| matches!(outcome, AckOutcome::Done(places) if places.len() == 2))
    );
    while store.committer.maintain(None).await.unwrap() {}
    if let Database::Sqlite(folder) = database {
        let size = std::fs::metadata(folder.path().join("data/mq.db"))
            .unwrap()
            .len();
        assert!(
            size < 20 << 20,
            "what is free beyond a spare is given back, and {size} bytes are left"
        );
        assert_eq!(
            std::fs::metadata(folder.path().join("data/mq.db-wal"))
                .unwrap()
                .len(),
            0
        );
    }
    close(store).await;
}

/// Maintains until there is nothing more to do. Returns the number of steps.
async fn forget(store: &mut Store, before: &str) -> usize {
    let mut steps = 1;
    while store.committer.maintain(Some(time(before))).await.unwrap() {
        steps += 1;
    }
    steps
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

async fn a_schema_from_the_future_is_refused(database: &Database) {
    close(database.open().await).await;
    database
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
             execution_time) \
             VALUES (9999, 'future', TRUE, '', 0)",
        )
        .await;
    let refused = open(&database.settings()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Unusable(text) if text.contains("newer \
            version") && text.contains("9999")),
        "{refused}"
    );
}

async fn a_large_transaction(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let ids: Vec<String> = (0..5237).map(|n| format!("m-{n:05}")).collect();
    let outcomes = publish_all(
        &mut store,
        ids.iter().map(|id| message(id, queue)).collect(),
    )
    .await;
    let numbers: Vec<PublishOutcome> = (1..=5237)
        .map(|n| PublishOutcome::Stored { first: Seq(n) })
        .collect();
    assert_eq!(outcomes.publishes, numbers);
    // In another order than they were published.
    let outcomes = ack_all(
        &mut store,
        ids.iter().rev().skip(1).map(|id| ack(id, "r")).collect(),
    )
    .await;
    let places: Vec<AckOutcome> = (1..5237)
        .rev()
        .map(|n| AckOutcome::Done(vec![(queue, Seq(n))]))
        .collect();
    assert_eq!(outcomes.acks, places);
    assert_eq!(waiting(&store, queue, "r").await, ["m-05236"]);
    assert_eq!(
        QueueName::new("q").unwrap(),
        store.reader.topology().await.unwrap().queues[0].1
    );
    close(store).await;
}
