//! Applies commits to the inboxes, and logs their messages.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::{ClientId, QueueName};

use super::Dispatcher;
use super::dispatcher::Emptied;
use crate::logging::MessageLog;
use crate::model::{Ack, AckOutcome, Change, ChangeOutcome, Publish, QueueId, Seq};
use crate::store::writer::{CommitObserver, Settled};

/// An observer that delivers committed messages and forgets acked ones.
pub(super) struct CommitDispatcher {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) messages: MessageLog,
}

/// The part of a commit that concerns one receiver.
#[derive(Default)]
struct ReceiverCommit<'a> {
    publishes: Vec<&'a (Arc<Publish>, Seq)>,
    settled: Vec<&'a Settled<'a>>,
}

impl CommitObserver for CommitDispatcher {
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
    /// Logs a line for each message and queue, and one for each acknowledgement.
    fn log(&self, publishes: &[(Arc<Publish>, Seq)], acks: &[Settled<'_>]) {
        self.messages.write(|lines| {
            // The name of the last message's queue, which is nearly always the next one's, too.
            let mut known: Option<(QueueId, Option<QueueName>)> = None;
            for (publish, _) in publishes {
                for &queue in &*publish.queues {
                    let (_, name) = known
                        .take_if(|(id, _)| *id == queue)
                        .unwrap_or_else(|| (queue, self.dispatcher.topology.queue_name(queue)));
                    let text = name.as_ref().map_or("", |name| name.as_str());
                    lines.published(&publish.envelope.message_id, text, &publish.exchange);
                    known = Some((queue, name));
                }
            }
            for (ack, outcome) in acks {
                if matches!(outcome, AckOutcome::Done(_)) {
                    lines.acknowledged(&ack.message_id);
                }
            }
        });
    }
}
