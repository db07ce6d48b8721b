//! Values that the inbox, the broker and the store share. Nothing here does I/O or knows SQL.
//!
//! - `ids`: sequence numbers, queues, lanes
//! - `time`: the server's clock
//! - `topology`: exchanges, queues and bindings
//! - `message`: messages on their way into the store and out of it
//! - `settlement`: acks and rejections
//! - `held`: what clients hold of the store
//! - `keys`: rows of the key directory
//! - `block`: clients that an administrator keeps out
//! - `transaction`: the contents of a commit, and its outcomes

mod block;
mod held;
mod ids;
mod keys;
mod message;
mod settlement;
mod time;
mod topology;
mod transaction;

pub use block::Block;
pub use held::{Amount, Held, HeldBySender, Made, SenderHeld};
pub use ids::{CommitNumber, ConnectionId, LaneKey, QueueId, Seq};
pub use keys::{AdoptedRow, RowKind, SealedKeys, SealedRow};
pub use message::{
    Envelopes, Lanes, MessageState, Page, PageLimit, Publish, PublishOutcome, StoredMessage,
};
pub use settlement::{Ack, AckOutcome, Rejection};
pub use time::{Now, Time};
pub use topology::{
    Binding, ChangeOutcome, ListScope, Listed, ListedBinding, ListedExchange, ListedQueue, MadeBy,
    Refusal, Requester, RouteLimits, StoredTopology,
};
pub use transaction::{Change, Outcomes, Transaction};
