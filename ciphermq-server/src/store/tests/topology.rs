//! Queues, exchanges and bindings: who made them, what may be removed, and where messages go.

use std::borrow::Cow;
use std::sync::Arc;

use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::topology::BindingCursor;
use ciphermq_protocol::{ExchangeName, QueueName, RoutingKey};
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::fixture::*;
use crate::model::{
    AckOutcome, Binding, Change, ChangeOutcome, ConnectionId, ListScope, Publish, PublishOutcome,
    QueueId, Refusal, Requester, RouteLimits, Seq, Transaction,
};
use crate::store::{Retention, Store};

on_both! {
    a_route_has_a_bounded_number_of_queues,
    only_who_made_it_removes_it,
    what_others_use_stays,
    messages_of_a_deleted_queue_are_rejected,
    a_message_in_several_queues_is_rejected_with_its_last_one,
    a_purge_spares_what_comes_after_it,
    a_deletion_goes_on_after_a_restart,
    publishes_under_way_lose_only_the_deleted_queue,
    a_queue_of_the_same_name_is_a_new_one,
    keys_of_messages_are_found_in_the_queues_that_are_left,
    lists_show_what_a_client_may_see,
    a_database_of_the_version_before_opens,
}

const NO_LIMITS: RouteLimits = RouteLimits {
    queues: 0,
    of_client: 0,
};

fn by(name: &str) -> Requester {
    Requester {
        client_id: client(name),
        is_administrator: name == "admin",
    }
}

fn exchange(name: &str) -> ExchangeName {
    ExchangeName::new(name).unwrap()
}

fn binding(queue: QueueId, exchange_name: &str, key: &str) -> Binding {
    Binding {
        exchange: exchange(exchange_name),
        routing_key: RoutingKey::new(key).unwrap(),
        queue,
    }
}

fn declare_exchange(name: &str, made_by: &str) -> Change {
    Change::DeclareExchange {
        exchange: exchange(name),
        made_by: client(made_by),
    }
}

fn bind(queue: QueueId, exchange: &str, key: &str, made_by: &str, limits: RouteLimits) -> Change {
    Change::Bind {
        binding: binding(queue, exchange, key),
        made_by: client(made_by),
        limits,
    }
}

fn unbind(queue: QueueId, exchange: &str, key: &str, who: &str) -> Change {
    Change::Unbind {
        binding: binding(queue, exchange, key),
        by: by(who),
    }
}

fn delete(queue: QueueId, if_empty: bool, who: &str) -> Change {
    Change::DeleteQueue {
        queue,
        name: QueueName::new("doomed").unwrap(),
        if_empty,
        by: by(who),
        connection: ConnectionId(1),
        time: time("2025-09-08T08:00:00Z"),
    }
}

fn delete_exchange(name: &str, if_unused: bool, who: &str) -> Change {
    Change::DeleteExchange {
        exchange: exchange(name),
        if_unused,
        by: by(who),
    }
}

fn purge(queue: QueueId, who: &str) -> Change {
    Change::PurgeQueue {
        queue,
        name: QueueName::new("doomed").unwrap(),
        by: by(who),
        time: time("2025-09-08T08:00:00Z"),
    }
}

async fn change(store: &mut Store, change: Change) -> ChangeOutcome {
    let transaction = Transaction {
        changes: vec![change],
        ..Transaction::default()
    };
    commit(store, transaction).await.changes.remove(0)
}

async fn done(store: &mut Store, given: Change) {
    let outcome = change(store, given).await;
    assert!(!matches!(outcome, ChangeOutcome::Refused(_)), "{outcome:?}");
}

async fn refused(store: &mut Store, given: Change) -> Refusal {
    match change(store, given).await {
        ChangeOutcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// Sets aside everything that has to be; returns the number of steps.
async fn finish(store: &mut Store) -> usize {
    let mut steps = 0;
    while store
        .committer
        .maintain(&Retention::default())
        .await
        .unwrap()
        .more
    {
        steps += 1;
    }
    steps
}

/// Returns all rejected messages of a receiver, each with the reason.
async fn rejected(store: &Store, receiver: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .reader
            .rejected(&client(receiver), after.as_ref(), 1000)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        all.extend(
            page.into_iter()
                .map(|message| (message.message_id.to_string(), message.reason)),
        );
    }
    all.sort();
    all
}

async fn rejected_ids(store: &Store, receiver: &str) -> Vec<String> {
    let all = rejected(store, receiver).await;
    all.into_iter().map(|(id, _)| id).collect()
}

fn to(queues: &[QueueId], message_id: &str) -> Arc<Publish> {
    publish("s", queues, envelope(message_id, "r", true, "AAAA"))
}

async fn a_route_has_a_bounded_number_of_queues(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["a", "b", "c", "d"]).await;
    let limits = RouteLimits {
        queues: 3,
        of_client: 2,
    };
    assert_eq!(
        refused(&mut store, bind(queue[0], "e", "k", "s", limits)).await,
        Refusal::NoExchange
    );
    done(&mut store, declare_exchange("e", "s")).await;
    assert_eq!(
        refused(&mut store, bind(QueueId(999), "e", "k", "s", limits)).await,
        Refusal::NoQueue
    );
    for at in [0, 1, 0] {
        done(&mut store, bind(queue[at], "e", "k", "s", limits)).await;
    }
    assert_eq!(
        refused(&mut store, bind(queue[2], "e", "k", "s", limits)).await,
        Refusal::RouteIsFullOfClient
    );
    done(&mut store, bind(queue[2], "e", "other", "s", limits)).await;
    done(&mut store, bind(queue[2], "e", "k", "t", limits)).await;
    assert_eq!(
        refused(&mut store, bind(queue[3], "e", "k", "t", limits)).await,
        Refusal::RouteIsFull
    );
    // What is bound stays, and binding it again changes nothing, whatever the limit is now.
    let one = RouteLimits {
        queues: 1,
        of_client: 1,
    };
    done(&mut store, bind(queue[1], "e", "k", "t", one)).await;
    done(&mut store, bind(queue[3], "e", "k", "t", NO_LIMITS)).await;
    assert_eq!(store.reader.topology().await.unwrap().bindings.len(), 5);
    close(store).await;
}

async fn only_who_made_it_removes_it(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q", "older"]).await;
    done(&mut store, declare_exchange("e", "s")).await;
    // To declare it again does not make it another client's.
    done(&mut store, declare("q", "t")).await;
    done(&mut store, declare_exchange("e", "t")).await;
    done(&mut store, bind(queue[0], "e", "k", "s", NO_LIMITS)).await;
    done(&mut store, bind(queue[0], "e", "k", "t", NO_LIMITS)).await;
    for change in [
        unbind(queue[0], "e", "k", "t"),
        delete(queue[0], false, "t"),
        delete_exchange("e", false, "t"),
        purge(queue[0], "t"),
    ] {
        assert_eq!(refused(&mut store, change).await, Refusal::MadeByAnother);
    }
    assert_eq!(
        refused(&mut store, unbind(queue[0], "e", "other", "s")).await,
        Refusal::NoBinding
    );
    done(&mut store, purge(queue[0], "s")).await;
    done(&mut store, unbind(queue[0], "e", "k", "s")).await;
    done(&mut store, delete(queue[0], false, "s")).await;
    done(&mut store, delete_exchange("e", true, "s")).await;
    assert_eq!(
        refused(&mut store, delete(queue[0], false, "s")).await,
        Refusal::NoQueue
    );
    assert_eq!(
        refused(&mut store, delete_exchange("e", false, "s")).await,
        Refusal::NoExchange
    );
    assert_eq!(
        refused(&mut store, purge(queue[0], "s")).await,
        Refusal::NoQueue
    );
    // What an older server has stored is nobody's.
    close(store).await;
    database.execute("UPDATE queues SET made_by = NULL").await;
    let mut store = database.open().await;
    assert_eq!(
        refused(&mut store, delete(queue[1], false, "s")).await,
        Refusal::MadeByAnother
    );
    done(&mut store, delete(queue[1], false, "admin")).await;
    let topology = store.reader.topology().await.unwrap();
    assert!(topology.queues.is_empty() && topology.exchanges.is_empty());
    assert!(topology.bindings.is_empty());
    close(store).await;
}

async fn what_others_use_stays(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q", "mine"]).await;
    done(&mut store, declare_exchange("e", "s")).await;
    publish_all(&mut store, vec![to(&[queue[0]], "m")]).await;
    for change in [delete(queue[0], false, "s"), purge(queue[0], "s")] {
        assert_eq!(
            refused(&mut store, change).await,
            Refusal::HoldsMessagesOfOthers
        );
    }
    assert_eq!(
        refused(&mut store, delete(queue[0], true, "admin")).await,
        Refusal::NotEmpty
    );
    ack_all(&mut store, vec![ack("m", "r")]).await;
    done(&mut store, bind(queue[0], "e", "k", "t", NO_LIMITS)).await;
    assert_eq!(
        refused(&mut store, delete(queue[0], true, "s")).await,
        Refusal::BoundByAnother
    );
    assert_eq!(
        refused(&mut store, delete_exchange("e", false, "s")).await,
        Refusal::BoundByAnother
    );
    assert_eq!(
        refused(&mut store, delete_exchange("e", true, "admin")).await,
        Refusal::Bound
    );
    done(&mut store, delete_exchange("e", false, "admin")).await;
    assert!(store.reader.topology().await.unwrap().bindings.is_empty());
    done(&mut store, delete(queue[0], true, "s")).await;
    // Messages for who has made it are its own.
    let own = publish("t", &[queue[1]], envelope("own", "s", true, "AAAA"));
    publish_all(&mut store, vec![own]).await;
    done(&mut store, delete(queue[1], false, "s")).await;
    finish(&mut store).await;
    assert_eq!(rejected_ids(&store, "s").await, ["own"]);
    close(store).await;
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

async fn a_queue_of_the_same_name_is_a_new_one(database: &Database) {
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

async fn lists_show_what_a_client_may_see(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2", "q3"]).await;
    done(&mut store, declare("q4", "t")).await;
    done(&mut store, declare_exchange("e1", "s")).await;
    done(&mut store, declare_exchange("e2", "t")).await;
    done(&mut store, bind(queue[1], "e1", "k", "t", NO_LIMITS)).await;
    done(&mut store, bind(queue[0], "e1", "k", "s", NO_LIMITS)).await;
    done(&mut store, bind(queue[2], "e2", "k", "s", NO_LIMITS)).await;
    publish_all(
        &mut store,
        vec![to(&queue, "m"), to(&queue[..1], "n"), to(&queue[..1], "o")],
    )
    .await;
    ack_all(&mut store, vec![ack("n", "r")]).await;
    let scope = |client_id: Option<&str>, limit| ListScope {
        visible_to: client_id.map(client),
        limit,
    };
    let all = store
        .reader
        .list_queues(&scope(None, 100), None, None)
        .await
        .unwrap();
    assert_eq!(all.next, None);
    let shown: Vec<_> = all
        .rows
        .iter()
        .map(|queue| {
            let maker = queue.made_by.as_ref().unwrap().as_str();
            (queue.name.as_str(), maker, queue.bindings, queue.messages)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("q1", "s", 1, 2),
            ("q2", "s", 1, 1),
            ("q3", "s", 1, 1),
            ("q4", "t", 0, 0)
        ]
    );
    for (who, wanted) in [
        // What it made, or has bound.
        ("t", vec![("q2", 0), ("q4", 0)]),
        // Where messages wait for it, which are all that it learns of.
        ("r", vec![("q1", 2), ("q2", 1), ("q3", 1)]),
        ("s", vec![("q1", 2), ("q2", 1), ("q3", 1)]),
        ("nobody", vec![]),
    ] {
        let listed = store
            .reader
            .list_queues(&scope(Some(who), 100), None, None)
            .await
            .unwrap();
        assert_eq!(listed.rows.len(), 4);
        let visible = listed.rows.iter().filter(|queue| queue.is_visible);
        let shown: Vec<_> = visible
            .map(|queue| (queue.name.as_str(), queue.messages))
            .collect();
        assert_eq!(shown, wanted, "{who}");
    }
    // Page by page, and one alone.
    let mut names = Vec::new();
    let mut after: Option<QueueName> = None;
    loop {
        let page = scope(None, 3);
        let page = store
            .reader
            .list_queues(&page, after.as_ref(), None)
            .await
            .unwrap();
        names.extend(page.rows.iter().map(|queue| queue.name.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["q1", "q2", "q3", "q4"]);
    let only = QueueName::new("q2").unwrap();
    let one = store
        .reader
        .list_queues(&scope(None, 9), None, Some(&only))
        .await
        .unwrap();
    assert_eq!(
        (one.rows.len(), &one.rows[0].name, one.next),
        (1, &only, None)
    );

    for (who, wanted) in [
        (None, vec![("e1", 2), ("e2", 1)]),
        (Some("s"), vec![("e1", 2), ("e2", 1)]),
        (Some("t"), vec![("e1", 2), ("e2", 1)]),
        (Some("r"), vec![]),
    ] {
        let listed = store
            .reader
            .list_exchanges(&scope(who, 9), None, None)
            .await
            .unwrap();
        let shown: Vec<_> = listed
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.bindings))
            .collect();
        assert_eq!(shown, wanted, "{who:?}");
    }
    let bindings = async |who, limit, only: Option<&str>, queue: Option<&str>| {
        let (mut shown, mut after): (Vec<(String, String)>, Option<BindingCursor>) =
            Default::default();
        loop {
            let (only, queue) = (
                only.map(exchange),
                queue.map(|q| QueueName::new(q).unwrap()),
            );
            let scope = scope(who, limit);
            let page = store
                .reader
                .list_bindings(&scope, after.as_ref(), only.as_ref(), queue.as_ref())
                .await
                .unwrap();
            let row = page.rows.into_iter();
            shown.extend(row.map(|row| (row.exchange.to_string(), row.queue.to_string())));
            after = page.next;
            if after.is_none() {
                return shown;
            }
        }
    };
    let pair = |exchange: &str, queue: &str| (exchange.to_owned(), queue.to_owned());
    for limit in [1, 2, 9] {
        assert_eq!(
            bindings(None, limit, None, None).await,
            [pair("e1", "q1"), pair("e1", "q2"), pair("e2", "q3")]
        );
        assert_eq!(
            bindings(None, limit, Some("e2"), None).await,
            [pair("e2", "q3")]
        );
        assert_eq!(bindings(None, limit, Some("e"), None).await, []);
        assert_eq!(
            bindings(None, limit, None, Some("q2")).await,
            [pair("e1", "q2")]
        );
        assert_eq!(
            bindings(Some("t"), limit, None, None).await,
            [pair("e1", "q2"), pair("e2", "q3")],
            "made by it, or to its exchange"
        );
        assert_eq!(bindings(Some("r"), limit, None, None).await, []);
    }
    close(store).await;
}

/// Creates a database with the migrations of the version before, and something in it.
async fn older(database: &Database) {
    const ROWS: &str = "INSERT INTO queues (queue_name) VALUES ('a'), ('b'); \
        INSERT INTO exchanges (exchange_name) VALUES ('e'); \
        INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES ('e', 'k', 1), ('e', \
        'k', 2)";
    let before = |all: Migrator| Migrator {
        migrations: Cow::Owned(all.iter().filter(|one| one.version <= 2).cloned().collect()),
        ..Migrator::DEFAULT
    };
    match database {
        Database::Sqlite(folder) => {
            let path = folder.path().join("data/mq.db");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let url = format!("sqlite://{}?mode=rwc", path.display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            let migrations = before(sqlx::migrate!("src/store/sqlite/migrations"));
            migrations.run(&mut connection).await.unwrap();
            sqlx::raw_sql(ROWS).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
        Database::Postgres(postgres, name) => {
            let mut connection = PgConnection::connect(&postgres.url(name)).await.unwrap();
            let migrations = before(sqlx::migrate!("src/store/postgres/migrations"));
            migrations.run(&mut connection).await.unwrap();
            sqlx::raw_sql(ROWS).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

async fn a_database_of_the_version_before_opens(database: &Database) {
    older(database).await;
    let mut store = database.open().await;
    let topology = store.reader.topology().await.unwrap();
    let (a, b) = (topology.queues[0].0, topology.queues[1].0);
    assert_eq!((topology.queues.len(), topology.bindings.len()), (2, 2));
    let all = ListScope {
        visible_to: None,
        limit: 10,
    };
    let listed = store.reader.list_queues(&all, None, None).await.unwrap();
    assert!(listed.rows.iter().all(|queue| queue.made_by.is_none()));
    publish_all(&mut store, vec![to(&[a, b], "m")]).await;
    assert_eq!(
        refused(&mut store, delete(b, false, "s")).await,
        Refusal::MadeByAnother
    );
    done(&mut store, delete(b, false, "admin")).await;
    finish(&mut store).await;
    assert_eq!(waiting(&store, a, "r").await, ["m"]);
    let c = queues(&mut store, &["c"]).await[0];
    assert!(c > b);
    close(store).await;
}
