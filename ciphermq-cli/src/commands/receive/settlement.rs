//! Acks and rejects of what was written, and their confirmations.

use std::collections::BTreeSet;

use ciphermq_client::error::{AckError, RequestError};
use ciphermq_client::{Acker, MessageId, Rejection, Unopenable};
use tokio::task::JoinSet;

use super::batch::Written;
use crate::connection::ConnectionSettings;
use crate::console::{Console, Messages};
use crate::exit::{Exit, Failure};

/// So many messages may wait for the server's word at most, and so many of them with their
/// envelopes. An honest server bounds them to twice the consumer's prefetch; another one could
/// deliver without end, and confirm nothing.
const MAX_ACKS: usize = 262_144;
const MAX_REJECTS: usize = 1024;

/// What becomes of acks and rejects that are under way.
pub(super) struct Settling {
    acker: Acker,
    console: Console,
    under_way: JoinSet<Settled>,
    acks: usize,
    rejects: usize,
    confirmed: u64,
    /// What cannot be opened and stands in the quarantine.
    set_aside: u64,
    /// Written, but not confirmed in any of the tries. The server may deliver them again: they are
    /// recognised then.
    unconfirmed: BTreeSet<MessageId>,
    reason: Option<AckError>,
}

enum Settled {
    Acks(Vec<(MessageId, Result<(), AckError>)>),
    Reject(MessageId, Result<Rejection, RequestError>),
}

impl Settling {
    pub(super) fn new(acker: Acker, console: Console) -> Self {
        Self {
            acker,
            console,
            under_way: JoinSet::new(),
            acks: 0,
            rejects: 0,
            confirmed: 0,
            set_aside: 0,
            unconfirmed: BTreeSet::new(),
            reason: None,
        }
    }

    /// Acks and rejects what was written.
    pub(super) fn begin(&mut self, written: Written) {
        for message in &written.messages {
            self.console.message(format_args!(
                "Stored message {}, ACK sent",
                message.message_id()
            ));
        }
        if !written.messages.is_empty() {
            let acker = self.acker.clone();
            self.acks += written.messages.len();
            self.under_way
                .spawn(async move { Settled::Acks(acker.ack_all(written.messages).await) });
        }
        for unopenable in written.unopenable {
            self.set_aside += 1;
            self.rejects += 1;
            self.under_way.spawn(reject(unopenable));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether so much is under way that nothing more should be taken.
    pub(super) fn is_full(&self) -> bool {
        self.acks >= MAX_ACKS || self.rejects >= MAX_REJECTS
    }

    /// Waits for some of it to be settled, and tells what became of it. Safe to cancel.
    pub(super) async fn next(&mut self) {
        match self.under_way.join_next().await {
            Some(Ok(Settled::Acks(results))) => {
                self.acks = self.acks.saturating_sub(results.len());
                for (message_id, result) in results {
                    self.note_ack(message_id, result);
                }
            }
            Some(Ok(Settled::Reject(message_id, result))) => {
                self.rejects = self.rejects.saturating_sub(1);
                self.note_rejection(&message_id, result);
            }
            Some(Err(error)) => self
                .console
                .warn(format_args!("An ack was given up: {error}")),
            None => {}
        }
    }

    /// Waits until everything is settled.
    pub(super) async fn all(&mut self) {
        while !self.under_way.is_empty() {
            self.next().await;
        }
    }

    fn note_rejection(&self, message_id: &MessageId, result: Result<Rejection, RequestError>) {
        match result {
            Ok(Rejection::Copy) => self.console.message(format_args!(
                "Another message {message_id} could be opened, so the server is not told to set it \
                 aside"
            )),
            Ok(_) => self
                .console
                .message(format_args!("Server has set message {message_id} aside")),
            Err(error) => self.console.warn(format_args!(
                "Message {message_id} was not rejected, and will come again: {error}"
            )),
        }
    }

    fn note_ack(&mut self, message_id: MessageId, result: Result<(), AckError>) {
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

    /// Acks once more what was not confirmed, on a new connection: while the receiver went on, the
    /// server may have come back. Returns what is still not confirmed.
    pub(super) async fn ack_once_more(&mut self, settings: &ConnectionSettings) -> Vec<MessageId> {
        let ids: Vec<MessageId> = std::mem::take(&mut self.unconfirmed).into_iter().collect();
        if ids.is_empty() {
            return ids;
        }
        let Ok(client) = settings.connect().await else {
            return ids;
        };
        for (message_id, result) in client.ack(&ids).await {
            self.note_ack(message_id, result);
        }
        client.close().await;
        std::mem::take(&mut self.unconfirmed).into_iter().collect()
    }

    /// What to tell if acks stayed without confirmation.
    pub(super) fn failure(&self, unconfirmed: &[MessageId]) -> Option<Failure> {
        let reason = self.reason.as_ref()?;
        if unconfirmed.is_empty() {
            return None;
        }
        let ids: Vec<&str> = unconfirmed.iter().map(MessageId::as_str).collect();
        let messages = Messages(ids.len() as u64);
        let what = format!(
            "{messages} {} written, but not confirmed as acknowledged: {reason}",
            messages.verb("was", "were")
        );
        let advice = format!(
            "Run the receiver again: it knows what it has written, and only acknowledges it. The \
             messages:\n{}",
            ids.join("\n")
        );
        Some(Failure::new(what, advice).with_exit(Exit::Unacknowledged))
    }
}

async fn reject(unopenable: Unopenable) -> Settled {
    let message_id = unopenable.message_id().clone();
    let result = unopenable.reject(None).await;
    Settled::Reject(message_id, result)
}
