//! The settings of a connection.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use ciphermq_protocol::Command;

use crate::backoff::Backoff;

/// Limits and timing of a connection. [`ClientBuilder`](crate::ClientBuilder) explains them.
#[derive(Debug, Clone)]
pub(crate) struct DriverSettings {
    /// The attempts of each operation.
    pub(crate) retry: Retry,
    /// The time without outgoing traffic after which a ping is sent.
    pub(crate) ping_interval: Duration,
    /// The time that a connection may be silent while an ack is unanswered.
    pub(crate) stall_timeout: Duration,
    /// The pauses between attempts to connect.
    pub(crate) backoff: Backoff,
    /// The length of the longest line that the client accepts from the server.
    pub(crate) max_reply_bytes: usize,
    /// The program's name and version, as hello reports them.
    pub(crate) program: String,
}

/// Number and duration of the attempts of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// At least 1.
    pub(crate) attempts: u32,
    /// The time limit of each attempt.
    pub(crate) timeout: Duration,
}

impl Retry {
    /// Returns the time that all attempts take together.
    pub(crate) fn total(self) -> Duration {
        self.timeout.saturating_mul(self.attempts)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            timeout: Duration::from_secs(10),
        }
    }
}

/// The commands that follow hello on every new connection.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Identifies the consumer across its connections.
    pub(crate) consumer: Option<String>,
    pub(crate) commands: Vec<Command>,
    /// The current prefetch, which overrides that of the `consume` command.
    pub(crate) prefetch: Option<Arc<AtomicU32>>,
}

impl Setup {
    /// Returns the set-up of a connection for requests and publishing: hello is enough.
    pub(crate) fn client() -> Self {
        Self {
            consumer: None,
            commands: Vec::new(),
            prefetch: None,
        }
    }
}

/// Limits on a batch. It is sent when one of them is reached, and at once while nothing is in
/// flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most messages in one batch, at least 1. Default: 250.
    pub messages: usize,
    /// The most bytes in one batch; a larger message is sent alone. The server's limit on lines
    /// applies as well. Default: 256 KiB.
    pub bytes: usize,
    /// The longest time that a message waits for a full batch while earlier ones are in flight.
    /// Default: 5 ms.
    ///
    /// A busy server answers later than it did before: then it is the time by which the last answer
    /// was later than the fastest one on the connection, up to a second, so that batches stay large
    /// when many clients share a server. Zero: no message waits.
    pub time: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            messages: 250,
            bytes: 256 * 1024,
            time: Duration::from_millis(5),
        }
    }
}
