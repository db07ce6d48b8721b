//! What was already processed.
//!
//! The server delivers a message until its ack is confirmed: after a lost connection, a crash or a
//! time-out again. A consumer asks its [`Deduplication`] before it hands a message over, and tells
//! it when the application has processed one. What was processed and comes again is acked again,
//! and not handed over.

//!
//! | record | survives | fits |
//! |---|---|---|
//! | [`InMemory`] | nothing | applications for which a message twice after a crash is no harm |
//! | [`Durable`] | any crash, from the ack on | applications that do something with a message that is not a file of their own |
//! | [`Checkpointed`] | any crash, together with the application's output | applications that append to a file and can read from it what they have written |
//!
//! What remains between doing something and recording it: an application that was killed there does
//! it again, unless it can see in its own output that it did it. That is what [`Checkpointed`] is
//! for.
//!
//! - [`Intervals`]: sets of positions that are mostly without gaps
//! - [`StreamGaps`], [`GapWatch`]: what is missing between them
//! - [`InMemory`]: the record itself
//! - `edited`: an output of lines that went through an editor
//! - `text`: the record as lines, for checkpoints
//! - [`Checkpointed`]: a checkpoint beside an output
//! - [`Durable`]: a checkpoint and a journal of its own

mod checkpointed;
mod durable;
mod edited;
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

/// Remembers processed messages by verified sender and message id. Messages that nobody has proved
/// to have sent have no sender here, whatever name they claim: so a forged one never passes for one
/// that a sender has yet to send.
///
/// Implementations may be durable. The calls come from the tasks that read and ack messages, one at
/// a time; they may wait for a disk, but not long.
pub trait Deduplication: Send {
    /// Whether the message was recorded.
    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool;

    /// Whether a message under this id was recorded, whoever has sent it. What cannot be opened and
    /// comes under an id that was processed is a forged copy: rejecting it would be rejecting the
    /// other one. `false` if the implementation cannot tell: then the server decides.
    fn is_any_processed(&self, message_id: &MessageId) -> bool {
        self.is_processed(None, message_id)
    }

    /// Records that the message was processed. Recording it again changes nothing.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded; the message is then not acked.
    fn record(
        &mut self,
        sender: Option<&ClientId>,
        message_id: &MessageId,
    ) -> Result<(), RecordError>;

    /// Makes durable what was recorded, if this record is durable at all. Called once for a group
    /// of messages, before they are acked.
    ///
    /// # Errors
    ///
    /// If it cannot be made durable; the messages are then not acked.
    fn sync(&mut self) -> Result<(), RecordError> {
        Ok(())
    }

    /// What is missing in the streams of verified senders. Takes time in proportion to all that is
    /// remembered. Nothing, unless the implementation can tell.
    fn gaps(&self) -> Vec<StreamGaps> {
        Vec::new()
    }
}
