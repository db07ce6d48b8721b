//! Records of processed messages.
//!
//! The server redelivers a message until its ack is confirmed: after a lost connection, a crash or
//! a time-out. A consumer checks its [`Deduplication`] before it returns a message, and records the
//! messages that the application has processed. A redelivered message that was processed is
//! acknowledged again, and not returned.
//!
//! | record | survives | fits |
//! |---|---|---|
//! | [`InMemory`] | nothing | applications that tolerate duplicates after a crash |
//! | [`Durable`] | any crash, from the ack on | applications whose effect is not a file of their own |
//! | [`Checkpointed`] | any crash, together with the application's output | applications that append to a file and can read back what they have written |
//!
//! A window remains between an effect and its record: an application that was killed there repeats
//! the effect, unless its own output shows that it took place. That is the purpose of
//! [`Checkpointed`].
//!
//! - [`Intervals`]: sets of positions that are mostly contiguous
//! - [`StreamGaps`], [`GapWatch`]: the gaps between them
//! - [`InMemory`]: the record itself
//! - `anchor`: recognises an output, also after an editor has changed its lines
//! - `text`: the record as lines, for checkpoints
//! - [`Checkpointed`]: a checkpoint beside an output
//! - [`Durable`]: a checkpoint and a journal of its own

mod anchor;
mod checkpointed;
mod durable;
mod gaps;
mod in_memory;
mod intervals;
mod text;

use std::error::Error as StdError;

use ciphermq_protocol::{ClientId, MessageId};

pub use checkpointed::{Checkpointed, Found, Recorder};
pub use durable::Durable;
pub use gaps::{GapChanges, GapWatch, StreamGaps};
pub use in_memory::InMemory;
pub use intervals::Intervals;

/// Why a record of processed messages could not be written.
pub type RecordError = Box<dyn StdError + Send + Sync>;

/// A record of processed messages, by verified sender and message id.
///
/// Messages without a verified sender are recorded without one, whatever name they claim: so a
/// forged message never passes for one that a sender has yet to send.
///
/// Implementations may be durable. The calls come from the tasks that read and acknowledge
/// messages, one at a time; they may wait for a disk, but not long.
pub trait Deduplication: Send {
    /// Whether the message was recorded.
    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool;

    /// Whether a message with this id was recorded, of any sender. Default: `false`, which leaves
    /// the decision to the server.
    ///
    /// An unopenable message whose id was processed is a forged copy: rejecting it would reject the
    /// processed one.
    fn is_any_processed(&self, message_id: &MessageId) -> bool {
        self.is_processed(None, message_id)
    }

    /// Records that the message was processed. Idempotent.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded; the message is then not acked.
    fn record(
        &mut self,
        sender: Option<&ClientId>,
        message_id: &MessageId,
    ) -> Result<(), RecordError>;

    /// Makes the records durable, if the implementation is durable at all. Called once for a group
    /// of messages, before they are acknowledged.
    ///
    /// # Errors
    ///
    /// If it cannot be made durable; the messages are then not acked.
    fn sync(&mut self) -> Result<(), RecordError> {
        Ok(())
    }

    /// Returns the gaps in the streams of verified senders, in time proportional to the size of the
    /// record. Default: none.
    fn gaps(&self) -> Vec<StreamGaps> {
        Vec::new()
    }
}
