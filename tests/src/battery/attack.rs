//! The names of the attacks, and their two extents.

use clap::ValueEnum;

/// An attack, under its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Binds 2,000 queues of its own to the victim's route.
    BoundQueues,
    /// Publishes batches of 2,000 unrelated ids to a route of 2,000 queues.
    UnrelatedIds,
    /// Publishes lines of 16 MiB with 158,934 minimal envelopes each.
    MinimalEnvelopes,
    /// Does as [`MinimalEnvelopes`](Self::MinimalEnvelopes), on twelve connections.
    TwelveMinimalEnvelopes,
    /// Acks unknown ids on 4 connections.
    UnknownAcks,
    /// Sends a byte of a long line every 8 seconds, on 17 connections.
    SlowLines,
    /// Lists rejected messages without end, on 300 connections.
    ListRejected,
    /// Publishes messages for itself, and rejects them.
    OwnRejections,
    /// Fails handshakes, without a certificate.
    Handshakes,
    /// Opens TCP connections and sends nothing, without a certificate.
    IdleConnections,
    /// Sends requests on 500 connections, and reads no answer.
    NoReading,
}

/// The extent of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Extent {
    /// A short attack, for a test that shares its machine with others.
    Short,
    /// The attack that docs/performance.md describes.
    Full,
}

impl Extent {
    /// Returns the number for this extent.
    pub fn of(self, full: usize, short: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Short => short,
        }
    }
}

impl Attack {
    /// The four attacks that are also made simultaneously.
    pub const AT_ONCE: [Self; 4] = [
        Self::MinimalEnvelopes,
        Self::UnknownAcks,
        Self::ListRejected,
        Self::Handshakes,
    ];

    /// Name on the command line, and in the table.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
