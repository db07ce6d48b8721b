//! Why a line is not a command, and what the server replies to it.

use crate::envelope::EnvelopeError;
use crate::error_code::ErrorCode;
use crate::name::{MessageId, NameError};
use crate::reply::{ErrorReply, Missing, Reply};

/// The reason why a line is not a command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The first word is not a known command.
    #[error("unknown command")]
    Unknown,
    /// An argument is missing.
    #[error("{0}")]
    Missing(Missing),
    /// The line is not UTF-8.
    #[error("a line must be UTF-8")]
    NotUtf8,
    /// An argument breaks the rule for names.
    #[error("{what}: {source}")]
    BadName {
        /// The argument.
        what: &'static str,
        /// The violated part of the rule.
        source: NameError,
    },
    /// The exchange or the routing key of a batch breaks the rule for names, so each message is
    /// refused.
    #[error("{what}: {source}")]
    BadRoute {
        /// The argument.
        what: &'static str,
        /// The violated part of the rule.
        source: NameError,
        /// The messages of the batch, in order.
        message_ids: Vec<MessageId>,
    },
    /// An argument is malformed.
    #[error("{0}")]
    BadArgument(String),
    /// The envelope of a `publish` is malformed.
    #[error("{0}")]
    InvalidMessage(EnvelopeError),
    /// The array of a `publish_batch`, or the list of a `publish_packed`, is malformed, empty, or
    /// holds something other than envelopes.
    #[error("{0}")]
    InvalidBatch(String),
}

impl CommandError {
    /// Returns the server's replies: one, or one per message where the messages are known.
    #[must_use]
    pub fn replies(&self) -> Vec<Reply> {
        let reply = match self {
            Self::BadRoute { message_ids, .. } => {
                let error = ErrorReply::new(ErrorCode::BadName, self.to_string());
                let of_message = |id: &MessageId| error.clone().for_message(id.clone()).into();
                return message_ids.iter().map(of_message).collect();
            }
            Self::Unknown => Reply::UnknownCommand,
            Self::Missing(missing) => Reply::Missing(*missing),
            Self::InvalidMessage(error) => Reply::InvalidMessageFormat(error.to_string()),
            Self::InvalidBatch(error) => Reply::InvalidBatchFormat(error.clone()),
            Self::NotUtf8 => ErrorReply::new(ErrorCode::NotUtf8, self.to_string()).into(),
            Self::BadName { .. } => ErrorReply::new(ErrorCode::BadName, self.to_string()).into(),
            Self::BadArgument(_) => {
                ErrorReply::new(ErrorCode::BadArgument, self.to_string()).into()
            }
        };
        vec![reply]
    }
}
