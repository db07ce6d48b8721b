//! Deletions and purges: which messages are rejected, and which are spared.

use super::*;

on_both! {
    messages_of_a_deleted_queue_are_rejected,
    a_message_in_several_queues_is_rejected_with_its_last_one,
    a_purge_spares_what_comes_after_it,
    a_deletion_goes_on_after_a_restart,
    publishes_under_way_lose_only_the_deleted_queue,
    a_new_queue_of_the_same_name_has_none_of_the_old_messages,
    keys_of_messages_are_found_in_the_queues_that_are_left,
}

async fn messages_of_a_deleted_queue_are_rejected(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q", "other"]).await;
    let stream = StreamId::new(1, 1);
    let ids: Vec<String> = (0..300)
        .map(|position| stream.message_id(position).unwrap().to_string())
        .collect();
    let mut publishes: Vec<_> = ids.iter().map(|id| to(&[queue[0]], id)).collect();
    publishes.push(publish(
        "s",
        &[queue[0]],
        envelope("single", "r2", false, "BBBB"),
    ));
    publishes.push(to(&[queue[1]], "stays"));
    let bytes = publishes[300].envelope.raw().to_bytes();
    publish_all(&mut store, publishes).await;
    ack_all(&mut store, vec![ack(&ids[7], "r"), ack(&ids[130], "r")]).await;
    let deliveries = vec![(id(&ids[8]), time("2025-09-08T07:30:00Z"))];
    commit(
        &mut store,
        Transaction {
            deliveries,
            ..Transaction::default()
        },
    )
    .await;
    let outcome = change(&mut store, delete(queue[0], false, "admin")).await;
    assert_eq!(outcome, ChangeOutcome::QueueDeleted(Vec::new()));
    // A message of the deleted queue may still be acknowledged by who has it.
    let outcomes = ack_all(&mut store, vec![ack(&ids[9], "r")]).await;
    assert!(matches!(outcomes.acks[..], [AckOutcome::Done(_)]));
    finish(&mut store).await;

    let wanted: Vec<String> = (0..300)
        .filter(|at| ![7, 9, 130].contains(at))
        .map(|at| ids[at].clone())
        .collect();
    let found = rejected(&store, "r").await;
    assert_eq!(
        found.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(),
        wanted
    );
    assert!(
        found
            .iter()
            .all(|(_, reason)| reason == "queue 'doomed' was deleted by admin"),
        "{found:?}"
    );
    let envelopes = format!(
        "SELECT {} FROM rejected_messages WHERE message_id = 'single'",
        database.text_of("envelope")
    );
    assert_eq!(
        database.texts(&envelopes).await[0].as_deref(),
        Some(std::str::from_utf8(&bytes).unwrap())
    );
    // Nothing is left of it but its metadata, and other queues have all that they had.
    assert_eq!(waiting(&store, queue[0], "r").await, [""; 0]);
    assert_eq!(waiting(&store, queue[1], "r").await, ["stays"]);
    for (table, rows) in [("removals", "0"), ("waiting", "1"), ("envelopes", "1")] {
        let count = format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}");
        assert_eq!(
            database.texts(&count).await[0].as_deref(),
            Some(rows),
            "{table}"
        );
    }
    let outcomes = ack_all(
        &mut store,
        vec![ack(&ids[8], "r"), ack(&ids[0], "r"), ack(&ids[7], "r")],
    )
    .await;
    assert_eq!(outcomes.acks, [const { AckOutcome::AlreadyDone }; 3]);
    let times = format!(
        "SELECT delivered_time FROM message_metadata WHERE message_id = '{}'",
        ids[8]
    );
    assert_eq!(
        database.texts(&times).await[0].as_deref(),
        Some("2025-09-08T07:30:00.000000Z")
    );
    // A retry of a message that was rejected is recognised.
    let again = publish_all(&mut store, vec![to(&[queue[1]], &ids[0])]).await;
    assert_eq!(again.publishes, [PublishOutcome::Duplicate]);
    close(store).await;
}

async fn a_message_in_several_queues_is_rejected_with_its_last_one(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["a", "b", "c"]).await;
    publish_all(
        &mut store,
        vec![
            to(&queue, "everywhere"),
            to(&queue[..2], "twice"),
            to(&queue[1..2], "once"),
        ],
    )
    .await;
    done(&mut store, delete(queue[1], false, "admin")).await;
    finish(&mut store).await;
    assert_eq!(rejected_ids(&store, "r").await, ["once"]);
    assert_eq!(
        waiting(&store, queue[0], "r").await,
        ["everywhere", "twice"]
    );
    assert_eq!(waiting(&store, queue[1], "r").await, [""; 0]);
    assert_eq!(waiting(&store, queue[2], "r").await, ["everywhere"]);
    // Both of its queues are deleted before a step is made.
    done(&mut store, delete(queue[0], false, "admin")).await;
    done(&mut store, delete(queue[2], false, "admin")).await;
    finish(&mut store).await;
    assert_eq!(
        rejected_ids(&store, "r").await,
        ["everywhere", "once", "twice"]
    );
    close(store).await;
}

async fn a_purge_spares_what_comes_after_it(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q", "other"]).await;
    let before: Vec<String> = (0..900).map(|n| format!("before-{n:03}")).collect();
    publish_all(
        &mut store,
        before.iter().map(|id| to(&queue[..1], id)).collect(),
    )
    .await;
    let last = publish_all(&mut store, vec![to(&queue, "both")]).await;
    assert_eq!(last.publishes, [PublishOutcome::Stored { first: Seq(901) }]);
    let outcome = change(&mut store, purge(queue[0], "admin")).await;
    assert_eq!(outcome, ChangeOutcome::Purged(Seq(902)));
    let topology = store.reader.topology().await.unwrap();
    assert_eq!(topology.purged, [(queue[0], Seq(902))]);
    // It counts as empty already.
    publish_all(&mut store, vec![to(&queue[..1], "after")]).await;
    assert!(
        store
            .committer
            .maintain(&Retention::default())
            .await
            .unwrap()
            .more
    );
    publish_all(&mut store, vec![to(&queue[..1], "later")]).await;
    assert!(finish(&mut store).await > 1);
    assert_eq!(rejected_ids(&store, "r").await, before);
    assert_eq!(waiting(&store, queue[0], "r").await, ["after", "later"]);
    assert_eq!(waiting(&store, queue[1], "r").await, ["both"]);
    assert!(store.reader.topology().await.unwrap().purged.is_empty());
    // While a purge is under way the queue counts as empty.
    done(&mut store, purge(queue[0], "admin")).await;
    done(&mut store, delete(queue[0], true, "s")).await;
    finish(&mut store).await;
    assert_eq!(rejected_ids(&store, "r").await.len(), 902);
    assert!(
        rejected(&store, "r")
            .await
            .iter()
            .all(|(_, reason)| reason.contains("purged")),
        "what was purged first keeps that reason"
    );
    close(store).await;
}

async fn a_deletion_goes_on_after_a_restart(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let ids: Vec<String> = (0..2000).map(|n| format!("m-{n:04}")).collect();
    publish_all(&mut store, ids.iter().map(|id| to(&[queue], id)).collect()).await;
    done(&mut store, delete(queue, false, "admin")).await;
    for _ in 0..2 {
        assert!(
            store
                .committer
                .maintain(&Retention::default())
                .await
                .unwrap()
                .more
        );
        let rejected = rejected_ids(&store, "r").await.len();
        assert!((1..2000).contains(&rejected), "{rejected}");
        close(store).await;
        store = database.open().await;
        assert!(store.reader.topology().await.unwrap().queues.is_empty());
    }
    finish(&mut store).await;
    assert_eq!(rejected_ids(&store, "r").await, ids);
    close(store).await;
}

async fn publishes_under_way_lose_only_the_deleted_queue(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["a", "b"]).await;
    // In the same transaction: stored, and then rejected.
    let transaction = Transaction {
        changes: vec![delete(queue[0], false, "admin"), declare("c", "s")],
        publishes: vec![to(&queue[..1], "with"), to(&queue, "with-both")],
        ..Transaction::default()
    };
    let outcomes = commit(&mut store, transaction).await;
    assert!(outcomes.narrowed.is_empty());
    assert!(matches!(
        outcomes.publishes[..],
        [PublishOutcome::Stored { .. }, PublishOutcome::Stored { .. }]
    ));
    let third = outcomes.changes[1].queue().unwrap();
    // Later ones had found it before it was deleted.
    let outcomes = publish_all(
        &mut store,
        vec![
            to(&queue[..1], "late"),
            to(&queue, "late-both"),
            to(&[third], "elsewhere"),
            to(&[third], "late"),
            to(&queue[..1], "with"),
        ],
    )
    .await;
    let [
        PublishOutcome::NoQueue,
        PublishOutcome::Stored { first },
        ..,
    ] = outcomes.publishes[..]
    else {
        panic!("{outcomes:?}")
    };
    let stored = |next| PublishOutcome::Stored {
        first: Seq(first.0 + next),
    };
    // The third one takes the number that follows: no number is left for the deleted queue.
    assert_eq!(
        outcomes.publishes[2..],
        [stored(1), stored(2), PublishOutcome::Duplicate]
    );
    let narrowed: Vec<(usize, &[QueueId])> = outcomes
        .narrowed
        .iter()
        .map(|(at, publish)| (*at, &*publish.queues))
        .collect();
    assert_eq!(narrowed, [(0, &[][..]), (1, &queue[1..]), (4, &[][..])]);
    finish(&mut store).await;
    assert_eq!(rejected_ids(&store, "r").await, ["with"]);
    assert_eq!(waiting(&store, queue[0], "r").await, [""; 0]);
    assert_eq!(
        waiting(&store, queue[1], "r").await,
        ["with-both", "late-both"]
    );
    assert_eq!(waiting(&store, third, "r").await, ["elsewhere", "late"]);
    close(store).await;
}

async fn a_new_queue_of_the_same_name_has_none_of_the_old_messages(database: &Database) {
    let mut store = database.open().await;
    let first = queues(&mut store, &["q"]).await[0];
    done(&mut store, declare_exchange("e", "s")).await;
    done(&mut store, bind(first, "e", "k", "s", NO_LIMITS)).await;
    publish_all(&mut store, vec![to(&[first], "m")]).await;
    let outcome = change(&mut store, delete(first, false, "admin")).await;
    let key = RoutingKey::new("k").unwrap();
    assert_eq!(
        outcome,
        ChangeOutcome::QueueDeleted(vec![(exchange("e"), key)])
    );
    let second = queues(&mut store, &["q"]).await[0];
    assert!(second > first);
    publish_all(&mut store, vec![to(&[second], "n")]).await;
    finish(&mut store).await;
    done(&mut store, delete(second, false, "admin")).await;
    close(store).await;
    let mut store = database.open().await;
    let third = queues(&mut store, &["q"]).await[0];
    assert!(
        third > second,
        "not even after a restart is a number given again"
    );
    finish(&mut store).await;
    assert_eq!(rejected_ids(&store, "r").await, ["m", "n"]);
    assert_eq!(waiting(&store, third, "r").await, [""; 0]);
    close(store).await;
}

/// An envelope is counted once over all queues, and is not overlooked when the first of them is
/// gone: its receiver would destroy the key.
async fn keys_of_messages_are_found_in_the_queues_that_are_left(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["a", "b", "c"]).await;
    publish_all(&mut store, vec![to(&queue, "m")]).await;
    for (deleted, wanted) in [
        (None, [1, 0, 0]),
        (Some(0), [0, 1, 0]),
        (Some(1), [0, 0, 1]),
    ] {
        if let Some(at) = deleted {
            done(&mut store, delete(queue[at], false, "admin")).await;
            finish(&mut store).await;
        }
        let limit = crate::model::PageLimit {
            messages: 10,
            bytes: usize::MAX,
        };
        for (queue, wanted) in queue.iter().zip(wanted) {
            let found = store
                .reader
                .envelopes(&lane(*queue, "r"), Seq(0), limit)
                .await
                .unwrap();
            assert_eq!(found.envelopes.len(), wanted, "{queue:?} after {deleted:?}");
        }
    }
    close(store).await;
}
