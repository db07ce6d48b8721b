//! What happens to a connection, for those who want to tell people.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::ConnectError;
use crate::keys::{AnnounceError, Registration};

/// How many events a slow listener may be behind before it misses the oldest.
pub(crate) const BACKLOG: usize = 64;

/// Something that happened to a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The connection stands and is set up: commands flow.
    Connected,
    /// The connection was lost. What was not answered is sent again on the next one.
    Disconnected {
        /// Why.
        reason: ConnectError,
    },
    /// The next connection is tried after a pause.
    Reconnecting {
        /// How long the pause is.
        after: Duration,
        /// The how-manieth try since the last good connection this will be, from 1.
        attempt: u32,
    },
    /// A try to connect failed; the next one follows.
    ConnectFailed {
        /// Why.
        reason: ConnectError,
    },
    /// The server had no keys of this client, or older ones, or they were about to run out: they
    /// were registered again.
    KeysAnnounced {
        /// What the server hands out now.
        registration: Registration,
    },
    /// This client's keys are not registered as they should be, so that others cannot send to it,
    /// or send for older keys. It is tried again.
    KeysNotAnnounced {
        /// Why.
        reason: AnnounceError,
    },
    /// The connection was closed by its owner. Nothing follows.
    Closed,
}

/// The events of one connection, from the moment of subscribing. A listener that is far behind
/// misses the oldest ones; nothing waits for it.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the connection is closed for good.
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
