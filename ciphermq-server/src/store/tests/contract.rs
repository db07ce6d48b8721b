//! The contract of both databases: what a restart finds again, and which databases are refused.

mod publishing;
mod reading;
mod settling;

use std::sync::Arc;

use ciphermq_protocol::{
    CertificateChain, Envelope, ExchangeName, Fingerprint, QueueName, RoutingKey,
};

use super::fixture::*;
use crate::model::{
    AckOutcome, Binding, Change, CommitNumber, MessageState, PageLimit, Publish, PublishOutcome,
    QueueId, Rejection, RouteLimits, SealedRow, Seq, Transaction,
};
use crate::store::{Error, Retention, Store, open};

on_both! {
    everything_is_there_after_a_restart,
    continues_after_reopening,
    a_second_server_is_refused,
    large_envelopes_are_kept_byte_for_byte,
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
        .map(|(id, name, _)| (*id, name.as_str()))
        .collect();
    assert_eq!(names, [(queue[0], "q"), (queue[1], "other")]);
    let by = Some(client("s"));
    assert!(topology.queues.iter().all(|(.., made_by)| *made_by == by));
    assert_eq!(topology.exchanges, [(exchange.clone(), by.clone())]);
    assert_eq!(
        topology.bindings,
        [(
            Binding {
                exchange,
                routing_key: RoutingKey::new("k").unwrap(),
                queue: queue[0],
            },
            by
        )]
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
    while store
        .committer
        .maintain(&Retention::default())
        .await
        .unwrap()
        .more
    {}
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
