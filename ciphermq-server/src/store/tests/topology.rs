//! Queues, exchanges and bindings: who made them, what may be removed, and where messages go.

mod lists;
mod older;
mod removal;

use std::sync::Arc;

use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::topology::BindingCursor;
use ciphermq_protocol::{ExchangeName, QueueName, RoutingKey};

use super::fixture::*;
use crate::model::{
    AckOutcome, Binding, Change, ChangeOutcome, ListScope, Publish, PublishOutcome, QueueId,
    Refusal, RouteLimits, Seq, Transaction,
};
use crate::store::{Retention, Store};

on_both! {
    a_route_has_a_bounded_number_of_queues,
    only_its_maker_removes_a_queue_exchange_or_binding,
    queues_and_exchanges_that_others_use_are_kept,
}

const NO_LIMITS: RouteLimits = RouteLimits {
    queues: 0,
    of_client: 0,
};

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

async fn only_its_maker_removes_a_queue_exchange_or_binding(database: &Database) {
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

async fn queues_and_exchanges_that_others_use_are_kept(database: &Database) {
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
