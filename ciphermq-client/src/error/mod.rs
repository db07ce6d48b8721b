//! Errors: a kind for every operation, who is to blame, and what to do.
//!
//! Every operation has kinds of its own, so that a `match` lists what can really happen:
//! [`ConnectError`], [`RequestError`], [`PublishError`] and [`AckError`] are one type, [`Error`],
//! with different [`Kind`]s. `Display` says what happened; [`Error::advice`] says what to do, where
//! something can be done.

pub(crate) mod kinds;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use ciphermq_protocol::text::{self, Escaped};

use crate::blocking::NotEnded;

pub use kinds::{AckErrorKind, ConnectErrorKind, PublishErrorKind, RequestErrorKind};

/// Why connecting failed.
pub type ConnectError = Error<ConnectErrorKind>;
/// Why a request was not carried out.
pub type RequestError = Error<RequestErrorKind>;
/// Why a message was not published, or has an unknown outcome.
pub type PublishError = Error<PublishErrorKind>;
/// Why an ack or reject was not confirmed.
pub type AckError = Error<AckErrorKind>;

/// The party that must act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The caller: wrong names, files, keys, settings.
    Caller,
    /// The server or another client, which broke the protocol or the rules of the cryptography.
    Peer,
    /// The network between the two.
    Network,
    /// A store: the server's database, or a record of processed messages.
    Storage,
}

/// The kind of an operation's errors.
pub trait Kind: fmt::Debug + Copy + Eq + Send + Sync + 'static {
    /// Returns the party that must act.
    fn blame(self) -> Blame;
    /// Whether the same call may succeed later without any change by the caller.
    fn is_retryable(self) -> bool;
}

/// An error with its kind. Cloning is cheap: one lost connection may end many operations.
///
/// `Display` says what happened, in one line; [`Error::advice`] says what to do. `Debug` shows
/// both, and the sources, so that a `main` that returns the error shows everything. Text from a
/// server is [escaped](crate::text) in all of them.
#[derive(Clone)]
pub struct Error<K> {
    kind: K,
    detail: Arc<Detail>,
}

struct Detail {
    what: String,
    advice: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl<K: Kind> Error<K> {
    pub(crate) fn new(kind: K, what: impl Into<String>) -> Self {
        Self {
            kind,
            detail: Arc::new(Detail {
                what: text::one_full_stop(Escaped(what.into()).to_string()),
                advice: None,
                source: None,
            }),
        }
    }

    /// Adds what to do. Only for new errors: a shared one is left unchanged.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        if let Some(detail) = Arc::get_mut(&mut self.detail) {
            detail.advice = Some(advice.into());
        }
        self
    }

    /// Adds the source. Only for new errors: a shared one is left unchanged.
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        if let Some(detail) = Arc::get_mut(&mut self.detail) {
            detail.source = Some(source.into());
        }
        self
    }

    /// Adds what to do, if there is something.
    pub(crate) fn advise_if(self, advice: Option<impl Into<String>>) -> Self {
        match advice {
            Some(advice) => self.advise(advice),
            None => self,
        }
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> K {
        self.kind
    }

    /// Returns the party that must act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.kind.blame()
    }

    /// Whether the same call may succeed later without any change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// Returns what to do, where the caller can do something.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.detail.advice.as_deref()
    }
}

impl<K: Kind> fmt::Debug for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write_report(f, self, self.advice())
    }
}

impl<K> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail.what)
    }
}

impl<K: Kind> StdError for Error<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.detail
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<NotEnded> for ConnectError {
    fn from(error: NotEnded) -> Self {
        Self::new(ConnectErrorKind::Closed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_both_its_parts_and_its_source() {
        let error = ConnectError::new(ConnectErrorKind::Refused, "no server listens")
            .advise("start it")
            .caused_by(std::io::Error::other("refused"));
        let copy = error.clone();
        assert_eq!(
            (copy.to_string().as_str(), copy.advice()),
            ("no server listens", Some("start it"))
        );
        assert_eq!(
            StdError::source(&copy).map(ToString::to_string).as_deref(),
            Some("refused")
        );
        assert_eq!(
            (error.blame(), error.is_retryable()),
            (Blame::Network, true)
        );
        assert_eq!(
            format!("{error:?}"),
            "no server listens\n       start it\n       because: refused"
        );
    }

    #[test]
    fn server_text_is_escaped_and_has_one_full_stop() {
        let error = RequestError::new(RequestErrorKind::Refused, "refused: \x1b[2J\u{202e}no..");
        assert_eq!(error.to_string(), "refused: \\u{1b}[2J\\u{202e}no.");
    }
}
