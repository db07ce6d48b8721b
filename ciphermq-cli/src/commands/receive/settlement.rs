//! Acks and rejects of written messages, and their confirmations.

use std::collections::BTreeSet;

use ciphermq_client::error::{AckError, RequestError};
use ciphermq_client::{Acker, MessageId, Rejection, Unopenable};
use tokio::task::JoinSet;

use super::batch::WrittenBatch;
use crate::connection::ConnectionSettings;
use crate::console::{Console, Count};
use crate::exit::{Exit, Failure};

/// The limits of acks and rejects that wait for confirmation. A reject holds its envelope.
///
/// With an honest server twice the consumer's prefetch bounds them; a malicious one could deliver
/// without end and confirm nothing.
const MAX_ACKS: usize = 262_144;
const MAX_REJECTS: usize = 1024;

/// Acks and rejects in progress, and the counts of their results.
pub(super) struct Settlement {
    acker: Acker,
    console: Console,
    in_progress: JoinSet<SettlementResult>,
    acks: usize,
    rejects: usize,
    confirmed: u64,
    /// The number of messages in the quarantine.
    set_aside: u64,
    /// Written messages whose acks were not confirmed in any try. If the server delivers them
    /// again, they are recognised as duplicates.
    unconfirmed: BTreeSet<MessageId>,
    reason: Option<AckError>,
}

enum SettlementResult {
    Acks(Vec<(MessageId, Result<(), AckError>)>),
    Reject(MessageId, Result<Rejection, RequestError>),
}

impl Settlement {
    pub(super) fn new(acker: Acker, console: Console) -> Self {
        Self {
            acker,
            console,
            in_progress: JoinSet::new(),
            acks: 0,
            rejects: 0,
            confirmed: 0,
            set_aside: 0,
            unconfirmed: BTreeSet::new(),
            reason: None,
        }
    }

    /// Begins to ack and reject written messages.
    pub(super) fn begin(&mut self, written: WrittenBatch) {
        for message in &written.messages {
            self.console.message(format_args!(
                "Stored message {}, ACK sent",
                message.message_id()
            ));
        }
        if !written.messages.is_empty() {
            let acker = self.acker.clone();
            self.acks += written.messages.len();
            self.in_progress.spawn(async move {
                SettlementResult::Acks(acker.ack_all(written.messages).await)
            });
        }
        for unopenable in written.unopenable {
            self.set_aside += 1;
            self.rejects += 1;
            self.in_progress.spawn(reject(unopenable));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_progress.is_empty()
    }

    /// Whether no more messages should be taken until some are settled.
    pub(super) fn is_full(&self) -> bool {
        self.acks >= MAX_ACKS || self.rejects >= MAX_REJECTS
    }

    /// Waits until some messages are settled, and reports the results. Cancel safe.
    pub(super) async fn next(&mut self) {
        match self.in_progress.join_next().await {
            Some(Ok(SettlementResult::Acks(results))) => {
                self.acks = self.acks.saturating_sub(results.len());
                for (message_id, result) in results {
                    self.record_ack(message_id, result);
                }
            }
            Some(Ok(SettlementResult::Reject(message_id, result))) => {
                self.rejects = self.rejects.saturating_sub(1);
                self.record_rejection(&message_id, result);
            }
            Some(Err(error)) => self
                .console
                .warn(format_args!("An acknowledgement failed: {error}")),
            None => {}
        }
    }

    /// Waits until everything is settled.
    pub(super) async fn complete(&mut self) {
        while !self.in_progress.is_empty() {
            self.next().await;
        }
    }

    fn record_rejection(&self, message_id: &MessageId, result: Result<Rejection, RequestError>) {
        match result {
            Ok(Rejection::Copy) => self.console.message(format_args!(
                "Another message {message_id} could be opened, so this copy is not rejected"
            )),
            Ok(_) => self
                .console
                .message(format_args!("Server has set message {message_id} aside")),
            Err(error) => self.console.warn(format_args!(
                "Message {message_id} was not rejected, and will be delivered again: {error}"
            )),
        }
    }

    fn record_ack(&mut self, message_id: MessageId, result: Result<(), AckError>) {
        match result {
            Ok(()) => {
                self.confirmed += 1;
                self.console.message(format_args!(
                    "Server confirmed ACK for message {message_id}"
                ));
            }
            Err(error) => {
                self.console.message(format_args!(
                    "No confirmation of the ACK for message {message_id}: {error}"
                ));
                self.reason = Some(error);
                self.unconfirmed.insert(message_id);
            }
        }
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn set_aside(&self) -> u64 {
        self.set_aside
    }

    /// Repeats unconfirmed acks over a new connection, because the server may be available again.
    /// Returns the messages that are still unconfirmed.
    pub(super) async fn retry_acks(&mut self, settings: &ConnectionSettings) -> Vec<MessageId> {
        let ids: Vec<MessageId> = std::mem::take(&mut self.unconfirmed).into_iter().collect();
        if ids.is_empty() {
            return ids;
        }
        let Ok(client) = settings.connect().await else {
            return ids;
        };
        for (message_id, result) in client.ack(&ids).await {
            self.record_ack(message_id, result);
        }
        client.close().await;
        std::mem::take(&mut self.unconfirmed).into_iter().collect()
    }

    /// The error if acks stayed unconfirmed.
    pub(super) fn failure(&self, unconfirmed: &[MessageId]) -> Option<Failure> {
        let reason = self.reason.as_ref()?;
        if unconfirmed.is_empty() {
            return None;
        }
        let ids: Vec<&str> = unconfirmed.iter().map(MessageId::as_str).collect();
        let messages = Count::messages(ids.len() as u64);
        let what = format!(
            "{messages} {} written, but not confirmed as acknowledged: {reason}",
            messages.verb("was", "were")
        );
        let advice = format!(
            "Run the receiver again: it knows which messages it has written, and only acknowledges \
             them. They are:\n{}",
            ids.join("\n")
        );
        Some(Failure::new(what, advice).with_exit(Exit::Unacknowledged))
    }
}

async fn reject(unopenable: Unopenable) -> SettlementResult {
    let message_id = unopenable.message_id().clone();
    let result = unopenable.reject(None).await;
    SettlementResult::Reject(message_id, result)
}
