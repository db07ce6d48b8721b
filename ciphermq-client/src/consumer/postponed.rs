//! Messages that wait for newer revocation lists about their senders.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ciphermq_crypto::{OpenError, SenderError};
use ciphermq_protocol::ClientId;

use crate::credentials::Trust;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::event::Event;

/// The most senders that are remembered, so that each is reported once.
const MAX_REPORTED: usize = 64;

/// What is known of messages that wait: the senders that were reported, and the next change of the
/// authorities and lists in force.
#[derive(Default)]
pub(super) struct Postponed {
    reported: BTreeSet<ClientId>,
    change: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Postponed {
    /// Learns of a message that waits, and returns the event to report, if it is the first of this
    /// sender.
    pub(super) fn add(
        &mut self,
        sender: Option<ClientId>,
        error: &OpenError,
        trust: &Trust,
    ) -> Option<Event> {
        if self.change.is_none() {
            self.change = Some(Box::pin(trust.next_change()));
        }
        let sender = sender?;
        let is_new = self.reported.len() < MAX_REPORTED && self.reported.insert(sender.clone());
        is_new.then(|| Event::MessagesWait {
            reason: waiting(&sender, error),
            sender,
        })
    }

    /// Learns that what waited is tried again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Waits until what was postponed is to be tried again; forever if nothing was.
    pub(super) fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(change) = &mut self.change else {
            return Poll::Pending;
        };
        std::task::ready!(change.as_mut().poll(cx));
        self.change = None;
        Poll::Ready(())
    }
}

impl fmt::Debug for Postponed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postponed")
            .field("reported", &self.reported)
            .finish_non_exhaustive()
    }
}

fn waiting(sender: &ClientId, error: &OpenError) -> ConnectError {
    let advice = match error {
        OpenError::Sender(SenderError::Certificate(error)) => Some(error.advice()),
        _ => None,
    };
    let what = format!("Messages of `{sender}` wait unopened: {error}.");
    ConnectError::new(ConnectErrorKind::OldRevocationList, what)
        .advise_if(advice)
        .caused_by(error.clone())
}
