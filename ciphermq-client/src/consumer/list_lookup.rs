//! Provides what is missing to decide about a sender: its authorities, or newer revocation lists.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ciphermq_crypto::OpenError;
use ciphermq_protocol::Delivery;
use jiff::Timestamp;

use super::{ConsumeError, Consumer, Item, Unopenable, UnopenableReason};
use crate::driver::Handle;
use crate::revocation::{Fetcher, Needs, Tries};

/// A delivery that waits until the server's revocation lists have been asked for, or until its
/// sender's authorities are known.
pub(super) struct ListLookup(Pin<Box<dyn Future<Output = Held> + Send + Sync>>);

/// A delivery that has waited.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    pub(super) tries: Tries,
    /// Why it cannot be opened now, if nothing more could be provided.
    pub(super) refused: Option<OpenError>,
}

impl ListLookup {
    /// Asks for lists because this client's own are too old.
    pub(super) fn start(lists: Fetcher, handle: Handle, delivery: Delivery) -> Self {
        Self(Box::pin(async move {
            lists.renew(&handle).await;
            Held {
                delivery,
                tries: Tries::default(),
                refused: None,
            }
        }))
    }

    /// Provides what opening the delivery needs, as its `error` says.
    pub(super) fn provide(
        (lists, handle): (Fetcher, Handle),
        delivery: Delivery,
        (error, needs): (OpenError, Needs),
        mut tries: Tries,
    ) -> Self {
        Self(Box::pin(async move {
            let is_provided = lists.provide(&handle, Some(needs), &mut tries).await;
            Held {
                delivery,
                tries,
                refused: (!is_provided).then_some(error),
            }
        }))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Held> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ListLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListLookup")
    }
}

impl Consumer {
    /// Opens by the authorities in use. After a change, what was postponed is tried again, before
    /// the `next` delivery, which is returned if it is to be opened now.
    pub(super) fn follow_authority(&mut self, mut next: Option<Delivery>) -> Option<Delivery> {
        if let Some(authority) = self.trust.changed() {
            self.opener.set_authority(authority);
            self.postponed.clear();
            next = self.shared.queued.retry_postponed(next);
        }
        let times = self.trust.lists_made_in(Timestamp::now());
        self.opener.require_lists_made_in(times);
        next
    }

    /// Provides what opening a delivery needs, as its error says, and keeps it until then.
    pub(super) fn provide(&mut self, delivery: Delivery, reason: (OpenError, Needs), tries: Tries) {
        let asked = (self.lists.clone(), self.shared.handle.clone());
        self.held = Some(ListLookup::provide(asked, delivery, reason, tries));
    }

    /// Opens a delivery that has waited, or lets it wait for a change of the lists in force. Beyond
    /// half of the prefetch it is handed out as unopenable, so that others are delivered.
    pub(super) fn open_held(&mut self, held: Held) -> Option<Item> {
        let Held {
            delivery,
            tries,
            refused,
        } = held;
        if let Some(error) = refused {
            return self.postpone(delivery, error);
        }
        // Also if merely one more authority is known, which is no change for others.
        self.opener.set_authority(self.trust.current());
        self.open_delivery(delivery, tries)
    }

    fn postpone(&mut self, delivery: Delivery, error: OpenError) -> Option<Item> {
        let envelope = delivery.parse_envelope().ok();
        if let Err(Delivery {
            message_id,
            envelope,
        }) = self.shared.queued.postpone(delivery)
        {
            let reason = UnopenableReason::Sealed(error);
            let shared = self.shared.clone();
            let refused = Unopenable::new(message_id, envelope.to_bytes(), reason, shared)?;
            return Some(Err(ConsumeError::Unopenable(refused)));
        }
        let sender = envelope.and_then(|envelope| envelope.sender_client_id);
        let event = self.postponed.add(sender, &error, &self.trust);
        event
            .into_iter()
            .for_each(|event| self.shared.handle.emit(event));
        None
    }

    /// Keeps a delivery until the server's revocation lists have been asked for.
    pub(super) fn hold(&mut self, delivery: Delivery) {
        let (lists, handle) = (self.lists.clone(), self.shared.handle.clone());
        self.held = Some(ListLookup::start(lists, handle, delivery));
    }
}
