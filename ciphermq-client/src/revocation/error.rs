//! Why a revocation list is not used.

use ciphermq_crypto::identity::{ListNumber, RevocationListError};
use ciphermq_files::FileError;
use jiff::Timestamp;

use crate::blocking::NotEnded;
use crate::error::RequestError;
use crate::event::Event;

/// Why a revocation list of the server is not used, or is not kept.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// The server did not answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The list is not believed.
    #[error("the server's revocation list {0}")]
    List(#[from] RevocationListError),
    /// A list with a greater number was seen before.
    #[error(
        "the server's revocation list of {issuer} has the number {number} and was made at {made}, \
         and one with the number {kept} was seen before"
    )]
    Older {
        /// The authority.
        issuer: String,
        /// The list's number.
        number: ListNumber,
        /// When the list was made.
        made: Timestamp,
        /// The number of the list that is used.
        kept: ListNumber,
    },
    /// The list is used, and cannot be kept for the next start.
    #[error("the revocation list is used, and cannot be kept for the next start: {0}")]
    NotKept(String),
}

impl From<FileError> for RevocationError {
    fn from(error: FileError) -> Self {
        Self::NotKept(error.to_string())
    }
}

impl From<NotEnded> for RevocationError {
    fn from(error: NotEnded) -> Self {
        Self::NotKept(error.to_string())
    }
}

impl RevocationError {
    /// Returns the event of a list that is not used, or not kept.
    pub(crate) fn into_event(self) -> Event {
        Event::RevocationListRefused { reason: self }
    }

    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> &str {
        match self {
            Self::Request(error) => error
                .advice()
                .unwrap_or("The list that is known is used until the server returns another one."),
            Self::List(_) => {
                "Let the server's operator replace the list by the authority's last one. Until \
                 then the list that is known is used."
            }
            Self::Older { .. } => {
                "Let the server's operator put the authority's last list in place: the server has \
                 an older one again, by mistake or on purpose. The newer one is used here."
            }
            Self::NotKept(_) => {
                "Check that the folder is there and that you may write to it: after a restart an \
                 older list could be handed out unnoticed."
            }
        }
    }
}
