//! Applies commits to the inboxes, and logs their messages.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::{ClientId, QueueName};

use super::Dispatcher;
use super::dispatcher::Emptied;
use crate::model::{
    Ack, AckOutcome, Change, ChangeOutcome, HeldBySender, Publish, Seq, Time, Transaction,
};
use crate::quota::{Ledger, Rooms};
use crate::store::Space;
use crate::store::writer::{CommitObserver, Settled};
use ciphermq_logging::MessageLog;

/// An observer that delivers committed messages and forgets acked ones.
pub struct CommitDispatcher {
    dispatcher: Arc<Dispatcher>,
    ledger: Arc<Ledger>,
    messages: MessageLog,
}

/// The part of a commit that concerns one receiver.
#[derive(Default)]
struct ReceiverCommit<'a> {
    publishes: Vec<&'a (Arc<Publish>, Seq)>,
    settled: Vec<&'a Settled<'a>>,
}

impl CommitObserver for CommitDispatcher {
    fn rooms(&self, transaction: &Transaction, space: Space) -> Rooms {
        let publishes = &transaction.publishes;
        let of_senders = publishes.chunk_by(|one, other| one.sender == other.sender);
        let senders = of_senders.filter_map(|of| Some(&of.first()?.sender));
        let makers = transaction.changes.iter().filter_map(Change::maker);
        let makers = makers.map(|maker| (maker, self.dispatcher.topology.made(maker)));
        self.ledger.rooms(senders, makers, space == Space::Short)
    }

    fn held(&self, changes: &HeldBySender) {
        self.ledger.apply(changes);
    }

    fn rejected_before(&self, now: Time) -> Vec<(ClientId, Time)> {
        self.ledger.rejected_before(now)
    }

    fn committed(
        &self,
        publishes: &[(Arc<Publish>, Seq)],
        acks: &[Settled<'_>],
        rejections: &[Settled<'_>],
    ) {
        let dispatcher = &self.dispatcher;
        let mut by_receiver: HashMap<&ClientId, ReceiverCommit<'_>> = HashMap::new();
        for publish in publishes {
            by_receiver
                .entry(&publish.0.envelope.receiver_client_id)
                .or_default()
                .publishes
                .push(publish);
        }
        for ack in acks.iter().chain(rejections) {
            let (Ack { client_id, .. }, _) = ack;
            by_receiver.entry(client_id).or_default().settled.push(ack);
        }
        for (receiver, commit) in by_receiver {
            // If nothing of a receiver is in memory, its messages are found in the store.
            if !dispatcher.inboxes.contains_key(receiver) {
                continue;
            }
            dispatcher.with_inbox(receiver, |inbox, now| {
                for (publish, first) in commit.publishes {
                    for (seq, queue) in (first.0..).zip(&*publish.queues) {
                        inbox.committed(
                            *queue,
                            Seq(seq),
                            &publish.envelope.message_id,
                            publish.envelope.raw(),
                        );
                    }
                }
                for (ack, outcome) in commit.settled {
                    inbox.ack_committed(&ack.message_id, outcome, now);
                }
            });
        }
        self.log(publishes, acks);
    }

    fn changed(&self, changes: &[Change], outcomes: &[ChangeOutcome]) {
        self.dispatcher.topology.changed(changes, outcomes);
        let blocked = self.dispatcher.blocks.changed(changes, outcomes);
        self.dispatcher.end_blocked(&blocked);
        for (change, outcome) in changes.iter().zip(outcomes) {
            match (change, outcome) {
                (
                    Change::DeleteQueue {
                        queue, connection, ..
                    },
                    ChangeOutcome::QueueDeleted(_),
                ) => {
                    let how = Emptied::Deleted { by: *connection };
                    self.dispatcher.emptied(*queue, how);
                }
                (Change::PurgeQueue { queue, .. }, ChangeOutcome::Purged(up_to)) => {
                    let how = Emptied::Purged { up_to: *up_to };
                    self.dispatcher.emptied(*queue, how);
                }
                _ => {}
            }
        }
    }
}

impl CommitDispatcher {
    /// Creates the observer through which a dispatcher delivers what the store commits.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>, ledger: Arc<Ledger>, messages: MessageLog) -> Self {
        Self {
            dispatcher,
            ledger,
            messages,
        }
    }

    /// Logs a line for the messages of each route, and one for the acknowledgements of each
    /// receiver, as far as they come one after another.
    fn log(&self, publishes: &[(Arc<Publish>, Seq)], acks: &[Settled<'_>]) {
        self.messages.write(|lines| {
            for together in publishes.chunk_by(|(one, _), (other, _)| is_together(one, other)) {
                let Some((first, _)) = together.first() else {
                    continue;
                };
                let names: Vec<Option<QueueName>> = first
                    .queues
                    .iter()
                    .map(|&queue| self.dispatcher.topology.queue_name(queue))
                    .collect();
                let names: Vec<&str> = names
                    .iter()
                    .map(|name| name.as_ref().map_or("", |name| name.as_str()))
                    .collect();
                let ids: Vec<_> = together
                    .iter()
                    .map(|(publish, _)| &publish.envelope.message_id)
                    .collect();
                lines.published(&ids, &names, &first.exchange, &first.routing_key);
            }
            let done: Vec<&Ack> = acks
                .iter()
                .filter(|(_, outcome)| matches!(outcome, AckOutcome::Done(_)))
                .map(|(ack, _)| *ack)
                .collect();
            for together in done.chunk_by(|one, other| one.client_id == other.client_id) {
                let ids: Vec<_> = together.iter().map(|ack| &ack.message_id).collect();
                if let Some(first) = together.first() {
                    lines.acknowledged(&ids, &first.client_id);
                }
            }
        });
    }
}

/// Whether two messages came from one sender by one route.
fn is_together(one: &Publish, other: &Publish) -> bool {
    one.sender == other.sender
        && one.exchange == other.exchange
        && one.routing_key == other.routing_key
        && one.queues == other.queues
}
