//! A message that waits, and what is known of its earlier deliveries.

use std::time::Instant;

use ciphermq_protocol::MessageId;

use super::ConnectionId;
use crate::model::Time;

/// A message that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message_id: MessageId,
    /// The number of times that it was delivered and came back, other than by lapsing.
    pub(super) attempts: u32,
    /// The number of times that it was not answered in time.
    pub(super) lapses: Lapses,
    /// Its first delivery; `None` if it has not been delivered.
    pub(super) first: Option<FirstDelivery>,
    /// The connection that may have discarded it before.
    pub(super) missed_by: Option<ConnectionId>,
}

/// The first delivery of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstDelivery {
    pub(super) time: Time,
    /// Whether the store knows the time.
    pub(super) recorded: bool,
}

/// How often a message was not answered in time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lapses {
    count: u32,
    /// The first of the last ones, if they were all at one connection.
    first: Option<FirstLapse>,
}

/// The first of a message's lapses at a connection that has answered nothing since.
#[derive(Debug, Clone, Copy)]
struct FirstLapse {
    holder: ConnectionId,
    delivery_tag: u64,
    /// The number of lapses before it.
    before: u32,
}

impl Lapses {
    pub(super) fn count(self) -> u32 {
        self.count
    }

    /// Returns the tag of the first lapsed delivery to a connection that has answered deliveries up
    /// to `answered_tag`, if the message has lapsed there since.
    pub(super) fn first_tag(self, connection: ConnectionId, answered_tag: u64) -> Option<u64> {
        Some(self.first_since(connection, answered_tag)?.delivery_tag)
    }

    fn first_since(self, connection: ConnectionId, answered_tag: u64) -> Option<FirstLapse> {
        self.first
            .filter(|first| first.holder == connection && first.delivery_tag > answered_tag)
    }

    /// Counts another one, at a connection that has answered deliveries up to `answered_tag`.
    pub(super) fn another(self, lapse: &Lapse, answered_tag: u64) -> Self {
        let first = self.first_since(lapse.holder, answered_tag);
        let first = first.unwrap_or(FirstLapse {
            holder: lapse.holder,
            delivery_tag: lapse.delivery_tag,
            before: self.count,
        });
        Self {
            count: self.count.saturating_add(1),
            first: Some(first),
        }
    }

    /// Takes back those at the connection of deliveries after the `answered_tag`: it was busy.
    pub(super) fn without(self, connection: ConnectionId, answered_tag: u64) -> Self {
        let first = self.first_since(connection, answered_tag);
        first.map_or(self, |first| Self {
            count: first.before,
            first: None,
        })
    }
}

/// The delivery that a deferred message was not answered in.
#[derive(Debug, Clone)]
pub(super) struct Lapse {
    /// The connection that did not answer it.
    pub(super) holder: ConnectionId,
    /// The time of the delivery.
    pub(super) since: Instant,
    /// Until then the message stays with its holder, which may be slow: nobody else gets it.
    pub(super) kept_until: Instant,
    /// The delivery's number among all of the inbox.
    pub(super) delivery_tag: u64,
}
