//! Events of a connection, for programs that report them to people.

use std::time::Duration;

use ciphermq_crypto::identity::RevocationList;
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::credentials::CertificateEnd;
use crate::error::ConnectError;
use crate::keys::{AnnounceError, Registration};
use crate::revocation::RevocationError;

/// Capacity of the event channel: a listener that falls further behind misses the oldest events.
pub(crate) const BACKLOG: usize = 64;

/// A change in the state of a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The connection is established and set up.
    Connected,
    /// The connection was lost. Unanswered commands are sent again on the next one.
    Disconnected {
        /// The cause.
        reason: ConnectError,
    },
    /// The client reconnects after a pause.
    Reconnecting {
        /// The length of the pause.
        after: Duration,
        /// The number of the attempt since the last good connection, from 1.
        attempt: u32,
    },
    /// An attempt to connect failed; the next one follows.
    ConnectFailed {
        /// The cause.
        reason: ConnectError,
    },
    /// The server takes this client's messages more slowly than they are sent (`rate_limited`).
    ///
    /// Publishers wait as they are told, and send what was refused again, in order and under the
    /// same ids. This is told once, until the server has asked for no pause for some seconds.
    RateLimited {
        /// The pause that the server asks for.
        pause: Duration,
    },
    /// This client's keys were registered again: the server had none, or older ones, or they were
    /// about to expire.
    KeysAnnounced {
        /// The keys that the server returns now.
        registration: Registration,
    },
    /// This client's keys are not registered as they should be, so others cannot send to it, or use
    /// older keys. The client retries.
    KeysNotAnnounced {
        /// The cause.
        reason: AnnounceError,
    },
    /// The connection uses this client's new certificate, or its new authorities: their files have
    /// changed. What was unanswered is sent again, under the same ids.
    CertificateRenewed {
        /// The end of the certificate's validity.
        until: Timestamp,
    },
    /// The files of this client's certificate have changed, and the new ones are not used: they
    /// cannot be, or the server refuses them. The connection goes on with the old ones, and the
    /// client tries the new ones again.
    CertificateNotRenewed {
        /// The cause.
        reason: ConnectError,
    },
    /// A certificate of this client or of its authority ends soon, or has ended. This is told 14
    /// days and one day before the end, or when a third and a tenth of a shorter life are left.
    CertificateEnds {
        /// The certificate.
        end: CertificateEnd,
    },
    /// A new revocation list of an authority is in force: what it revokes is refused from now on.
    RevocationListUsed {
        /// The list.
        list: RevocationList,
    },
    /// A revocation list of the server is not used, or is not kept.
    RevocationListRefused {
        /// The cause.
        reason: RevocationError,
    },
    /// Messages of a sender wait unopened, because there is no revocation list of an authority
    /// above it that is as new as this client requires, or the server has not said which there are.
    /// They are opened once it is known, by this consumer or the next. Those beyond half of the
    /// prefetch are [`Unopenable`](crate::Unopenable).
    MessagesWait {
        /// The sender that they name. Nothing proves that it is the sender.
        sender: ClientId,
        /// The cause, of the kind `OldRevocationList`.
        reason: ConnectError,
    },
    /// The connection was closed by its owner. This is the last event.
    Closed,
}

/// A stream of a connection's events, from the subscription on. A listener that falls far behind
/// misses the oldest ones; the connection never waits for it.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// Returns the next event; `None` once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
