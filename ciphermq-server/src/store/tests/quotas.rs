//! What senders hold: each commit says how it changes that, and a start counts the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ciphermq_protocol::ClientId;
use ciphermq_protocol::message_id::StreamId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::fixture::*;
use crate::model::{
    Amount, Change, ChangeOutcome, HeldBySender, Publish, PublishOutcome, QueueId, Refusal,
    Rejection, SenderHeld, Transaction,
};
use crate::quota::{Excess, Quota, Room, Rooms};
use crate::store::{Retention, Store};

on_both! {
    what_senders_hold_is_what_a_start_counts,
    a_sender_without_room_stores_nothing_new,
    whoever_has_made_enough_makes_no_more,
    old_rejected_messages_are_removed_and_counted,
    sizes_of_the_version_before_are_found,
}

/// Ids of a sender's stream, in order.
fn ids(stream: u64) -> impl Iterator<Item = String> {
    let stream = StreamId::new(1_757_315_000_000, stream);
    (0..).map(move |position| stream.message_id(position).unwrap().to_string())
}

fn rejection(message_id: &str, by: &str) -> Rejection {
    Rejection {
        ack: ack(message_id, by),
        reason: "no".to_owned(),
    }
}

fn room(sender: &str, room: Room) -> Rooms {
    let mut rooms = Rooms::default();
    rooms.insert(client(sender), room);
    rooms
}

/// Returns what each sender holds, without what is nothing.
fn sorted(held: &HeldBySender) -> BTreeMap<ClientId, SenderHeld> {
    let without_nothing = |(sender, held): (&ClientId, &SenderHeld)| {
        let mut held = held.clone();
        held.rejected
            .retain(|_, amount| *amount != Amount::default());
        (held != SenderHeld::default()).then(|| (sender.clone(), held))
    };
    held.iter().filter_map(without_nothing).collect()
}

/// Whatever is published, acked, rejected, deleted and removed: the changes that the commits and
/// the maintenance report add up to what the database holds.
async fn what_senders_hold_is_what_a_start_counts(database: &Database) {
    let mut store = database.open().await;
    let mut queue = queues(&mut store, &["a", "b", "c"]).await;
    let mut random = StdRng::seed_from_u64(15);
    let mut sum = HeldBySender::default();
    let mut streams = [("s", ids(1)), ("t", ids(2))];
    let mut waiting: Vec<(String, &str)> = Vec::new();
    for round in 0..40 {
        let mut transaction = Transaction::default();
        for (sender, ids) in &mut streams {
            let count = random.random_range(0..40);
            // Of packed messages and older ones, in one queue and in several.
            let (packs, copies) = (random.random(), random.random_range(1..=queue.len()));
            for id in ids.take(count) {
                let payload = "A".repeat(random.random_range(1..20) * 4);
                // To oneself as well.
                let receiver = ["r", "s", "u"][random.random_range(0..3)];
                let envelope = envelope(&id, receiver, packs, &payload);
                let to: Vec<QueueId> = queue.iter().copied().take(copies).collect();
                transaction.publishes.push(publish(sender, &to, envelope));
                waiting.push((id, receiver));
            }
        }
        // Also some of this very commit, and some for the second time.
        for _ in 0..random.random_range(0..60) {
            let Some((id, receiver)) = waiting.get(random.random_range(0..waiting.len().max(1)))
            else {
                continue;
            };
            match random.random_range(0..6) {
                0 => transaction.rejections.push(rejection(id, receiver)),
                1 => transaction.acks.push(ack(id, "nobody")),
                _ => transaction.acks.push(ack(id, receiver)),
            }
        }
        let again = transaction.publishes.first().cloned();
        transaction.publishes.extend(again);
        sum.extend(commit(&mut store, transaction).await.held);
        if round % 10 == 9 {
            let doomed = queue.remove(0);
            let transaction = Transaction {
                changes: vec![delete(doomed, false, "admin")],
                ..Transaction::default()
            };
            sum.extend(commit(&mut store, transaction).await.held);
            maintain(&mut store, &Retention::default(), &mut sum).await;
            queue.extend(queues(&mut store, &[&format!("q{round}")]).await);
        }
        let counted = store.reader.held().await.unwrap();
        assert_eq!(sorted(&sum), sorted(&counted), "round {round}");
    }
    for held in sorted(&sum).values() {
        assert!(held.sum.waiting_messages > 0, "{sum:?}");
        assert_eq!(held.rejected.len(), 3, "{sum:?}");
        let of = |number: fn(&Amount) -> i64| held.rejected.values().map(number).sum::<i64>();
        assert_eq!(held.sum.rejected_messages, of(|amount| amount.messages));
        assert_eq!(held.sum.rejected_bytes, of(|amount| amount.bytes));
    }
    // The rejected ones of one sender are removed, whoever has rejected them.
    let retention = Retention {
        rejected_before: vec![(client("s"), time("2100-01-01T00:00:00Z"))],
        ..Retention::default()
    };
    assert!(maintain(&mut store, &retention, &mut sum).await > 0);
    let counted = store.reader.held().await.unwrap();
    assert_eq!(sorted(&sum), sorted(&counted));
    let left = sorted(&sum);
    assert!(left[&client("s")].rejected.is_empty());
    assert!(!left[&client("t")].rejected.is_empty());
    close(store).await;

    let store = database.open().await;
    let counted = store.reader.held().await.unwrap();
    assert_eq!(sorted(&sum), sorted(&counted));
    close(store).await;
}

/// Maintains until there is nothing more to do, and returns how many messages were removed.
async fn maintain(store: &mut Store, retention: &Retention, sum: &mut HeldBySender) -> u64 {
    let mut removed = 0;
    loop {
        let maintained = store.committer.maintain(retention).await.unwrap();
        sum.extend(maintained.held);
        removed += maintained
            .removed
            .iter()
            .map(|(_, count)| count)
            .sum::<u64>();
        if !maintained.more {
            return removed;
        }
    }
}

async fn a_sender_without_room_stores_nothing_new(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let all: Vec<String> = ids(1).take(6).collect();
    let messages: Vec<Arc<Publish>> = all.iter().map(|id| message(id, queue)).collect();
    let size = messages[0].envelope.raw().len();
    let own = messages[0].envelope.raw().own().len();
    let with = |rooms, publishes: &[Arc<Publish>]| Transaction {
        publishes: publishes.to_vec(),
        rooms,
        ..Transaction::default()
    };
    let few = Room {
        messages: 2,
        ..Room::default()
    };
    let outcomes = commit(&mut store, with(room("s", few), &messages[..3])).await;
    let full = PublishOutcome::Excess(Excess::Quota(Quota::WaitingMessages));
    assert!(matches!(
        outcomes.publishes[1],
        PublishOutcome::Stored { .. }
    ));
    assert_eq!(outcomes.publishes[2], full);
    assert_eq!(waiting(&store, queue, "r").await, all[..2]);

    // What is stored is a retry, room or not; another sender has room of its own. The same id for
    // the second time is refused for the second time.
    let none = Room {
        refuses: Some(Excess::DiskShare),
        ..Room::default()
    };
    let other = publish("t", &[queue], envelope("t1", "r", true, "AAAA"));
    let publishes = [&messages[..3], &messages[2..3], &[other]].concat();
    let outcomes = commit(&mut store, with(room("s", none), &publishes)).await;
    let refused = PublishOutcome::Excess(Excess::DiskShare);
    let retried = PublishOutcome::Duplicate;
    assert_eq!(outcomes.publishes[..2], [retried.clone(), retried]);
    assert_eq!(outcomes.publishes[2..4], [refused.clone(), refused]);
    assert!(matches!(
        outcomes.publishes[4],
        PublishOutcome::Stored { .. }
    ));

    // Only messages to one receiver are refused, and no retry of one.
    let for_one = Room {
        refuses_for: [(client("r"), Quota::RejectedBytes)].into(),
        ..Room::default()
    };
    let to_another = publish("s", &[queue], envelope("u1", "u", true, "AAAA"));
    let publishes = [&messages[1..3], &[to_another]].concat();
    let outcomes = commit(&mut store, with(room("s", for_one), &publishes)).await;
    let refused = Excess::Receiver(Quota::RejectedBytes, client("r"));
    assert_eq!(outcomes.publishes[0], PublishOutcome::Duplicate);
    assert_eq!(outcomes.publishes[1], PublishOutcome::Excess(refused));
    assert!(matches!(
        outcomes.publishes[2],
        PublishOutcome::Stored { .. }
    ));
    let settled = Transaction {
        acks: vec![ack("u1", "u")],
        ..Transaction::default()
    };
    commit(&mut store, settled).await;

    // Messages that share a piece take it once.
    let bytes = Room {
        bytes: (size + 2 * own) as u64,
        ..Room::default()
    };
    let outcomes = commit(&mut store, with(room("s", bytes), &messages[2..])).await;
    let full = PublishOutcome::Excess(Excess::Quota(Quota::WaitingBytes));
    assert!(matches!(
        outcomes.publishes[2],
        PublishOutcome::Stored { .. }
    ));
    assert_eq!(outcomes.publishes[3], full);
    let held = store.reader.held().await.unwrap().of(&client("s"));
    assert_eq!(held.waiting_messages, 5);
    assert_eq!(
        usize::try_from(held.waiting_bytes),
        Ok(2 * (size - own) + 5 * own)
    );
    close(store).await;
}

async fn whoever_has_made_enough_makes_no_more(database: &Database) {
    let mut store = database.open().await;
    let exchange = |name: &str| Change::DeclareExchange {
        exchange: name.parse().unwrap(),
        made_by: client("c"),
    };
    let queue = queues(&mut store, &["old"]).await[0];
    let bind = |key: &str| Change::Bind {
        binding: crate::model::Binding {
            exchange: "e1".parse().unwrap(),
            routing_key: key.parse().unwrap(),
            queue,
        },
        made_by: client("c"),
        limits: crate::model::RouteLimits {
            queues: 0,
            of_client: 0,
        },
    };
    let one = Room {
        queues: 1,
        exchanges: 1,
        bindings: 1,
        ..Room::default()
    };
    let transaction = Transaction {
        changes: vec![
            declare("old", "c"),
            declare("q1", "c"),
            declare("q2", "c"),
            declare("q1", "c"),
            exchange("e1"),
            exchange("e2"),
            exchange("e1"),
            bind("k1"),
            bind("k2"),
            bind("k1"),
        ],
        rooms: room("c", one),
        ..Transaction::default()
    };
    let outcomes = commit(&mut store, transaction).await.changes;
    let refused = |quota| ChangeOutcome::Refused(Refusal::Quota(quota));
    assert_eq!(outcomes[0], ChangeOutcome::Queue(queue), "it exists");
    assert!(outcomes[1].queue().is_some());
    assert_eq!(outcomes[2], refused(Quota::Queues));
    assert_eq!(outcomes[3], outcomes[1]);
    let done = ChangeOutcome::Done;
    assert_eq!(
        outcomes[4..7],
        [done.clone(), refused(Quota::Exchanges), done.clone()]
    );
    assert_eq!(
        outcomes[7..],
        [done.clone(), refused(Quota::Bindings), done]
    );
    let topology = store.reader.topology().await.unwrap();
    assert_eq!(topology.queues.len(), 2);
    assert_eq!((topology.exchanges.len(), topology.bindings.len()), (1, 1));
    close(store).await;
}

async fn old_rejected_messages_are_removed_and_counted(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let mut sum = HeldBySender::default();
    let names: Vec<String> = ids(1).take(150).collect();
    let publishes = names.iter().map(|id| message(id, queue)).collect();
    sum.extend(publish_all(&mut store, publishes).await.held);
    let reject = |names: &[String], at: &str| Transaction {
        rejections: names
            .iter()
            .map(|id| {
                let mut rejection = rejection(id, "r");
                rejection.ack.time = time(at);
                rejection
            })
            .collect(),
        ..Transaction::default()
    };
    let old = reject(&names[..100], "2025-09-08T08:00:00Z");
    sum.extend(commit(&mut store, old).await.held);
    let new = reject(&names[100..], "2025-09-08T09:00:00Z");
    sum.extend(commit(&mut store, new).await.held);
    let retention = |sender: &str| Retention {
        rejected_before: vec![(client(sender), time("2025-09-08T08:30:00Z"))],
        ..Retention::default()
    };
    assert_eq!(maintain(&mut store, &retention("t"), &mut sum).await, 0);
    assert_eq!(maintain(&mut store, &retention("s"), &mut sum).await, 100);
    let held = store.reader.held().await.unwrap();
    assert_eq!(held.of(&client("s")).rejected_messages, 50);
    assert_eq!(sorted(&held), sorted(&sum));
    close(store).await;
}

/// The schema before sizes were stored, with a batch of which something waits and one of which
/// nothing does.
async fn sizes_of_the_version_before_are_found(database: &Database) {
    older(database).await;
    let store = database.open().await;
    let held = store.reader.held().await.unwrap().of(&client("s"));
    assert_eq!((held.waiting_messages, held.waiting_bytes), (1, 9));
    assert_eq!((held.rejected_messages, held.rejected_bytes), (1, 3));
    close(store).await;
}

async fn older(database: &Database) {
    let rows = "INSERT INTO queues (queue_name) VALUES ('a');
        INSERT INTO batches (first_seq, messages, queues, id_stream, id_position, client_id,
            exchange_name, routing_key, receiver_client_id, sent_time, has_suite)
        VALUES (1, 2, '[1]', '0198c0de-0000-8abc-8abc-000000', 0, 's', 'e', 'k', 'r', '2025', TRUE),
            (3, 1, '[1]', '0198c0de-0000-8abc-8abd-000000', 0, 's', 'e', 'k', 'r', '2025', TRUE);
        INSERT INTO envelopes (first_seq, ends, envelopes, shared)
        VALUES (1, '[3,6]', 'abcdef', 'ghi');
        INSERT INTO waiting (queue_id, receiver_client_id, first_seq, copy) VALUES (1, 'r', 1, 0);
        INSERT INTO fates (first_seq, from_index, messages, delivered_time, acknowledged_time)
        VALUES (1, 0, 1, '2025', '2025'), (3, 0, 1, '2025', '2025');
        INSERT INTO rejected_messages (message_id, client_id, receiver_client_id, exchange_name,
            routing_key, reason, rejected_time, envelope)
        VALUES ('m', 's', 'r', 'e', 'k', 'no', '2025', 'abc');";
    let before = |all: Migrator| Migrator {
        migrations: Cow::Owned(all.iter().filter(|one| one.version < 6).cloned().collect()),
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
            sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
        Database::Postgres(postgres, name) => {
            let mut connection = PgConnection::connect(&postgres.url(name)).await.unwrap();
            let migrations = before(sqlx::migrate!("src/store/postgres/migrations"));
            migrations.run(&mut connection).await.unwrap();
            sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}
