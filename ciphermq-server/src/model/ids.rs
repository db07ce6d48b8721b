//! Numbers that the store gives out, and what they name.

use ciphermq_protocol::ClientId;

/// A message's place in the order of acceptance.
///
/// It grows over all queues. A message that goes to several queues has one for each copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub i64);

/// A queue's number in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub i64);

/// A connection of a client, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A commit's number, one more than that of the commit before.
///
/// After a commit with an unknown outcome, the number in the database shows whether it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct CommitNumber(pub i64);

/// The key of a lane: a queue's messages for one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The queue.
    pub queue: QueueId,
    /// The receiver.
    pub receiver: ClientId,
}
