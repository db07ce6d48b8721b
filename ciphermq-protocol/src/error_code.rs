//! The codes in `Error: <code>: <text>`.
//!
//! A code is one word with underscores, never changes its meaning, and is either *definite* (the
//! command had no effect) or leaves the *outcome unknown* (send the same message id again to find
//! out).

use std::fmt;
use std::str::FromStr;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, definite: $definite:literal;)*) => {
        /// What went wrong, for programs. [`ErrorCode::is_definite`] tells whether the command had
        /// no effect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it stands in the protocol.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Whether the command had no effect for certain. If not, the same message id may be
            /// sent again: the server recognises it.
            #[must_use]
            pub fn is_definite(self) -> bool {
                match self {
                    $(Self::$variant => $definite,)*
                }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownCode;

            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownCode),
                }
            }
        }
    };
}

error_codes! {
    /// The exchange has no queue bound by this routing key.
    NoRoute = "no_route", definite: true;
    /// The queue, exchange or message does not exist.
    NotFound = "not_found", definite: true;
    /// Another client's right: only the receiver acks, only the owner registers a key.
    NotAuthorized = "not_authorized", definite: true;
    /// The envelope names a sender that is not the certificate's.
    SenderMismatch = "sender_mismatch", definite: true;
    /// The envelope names an exchange or a routing key that are not the command's.
    RouteMismatch = "route_mismatch", definite: true;
    /// Another message has this id.
    IdInUse = "id_in_use", definite: true;
    /// The message is larger than the server or its store takes.
    TooLarge = "too_large", definite: true;
    /// A name breaks the rule for names.
    BadName = "bad_name", definite: true;
    /// A public key or signed key that is none, or a stored one that the server cannot open.
    BadKey = "bad_key", definite: true;
    /// A signed key that is older than the one that the server holds.
    StaleKey = "stale_key", definite: true;
    /// An argument that is not of the command's form.
    BadArgument = "bad_argument", definite: true;
    /// A line that is not UTF-8.
    NotUtf8 = "not_utf8", definite: true;
    /// A line longer than `limits.max_line_bytes`; the connection is closed.
    LineTooLong = "line_too_long", definite: true;
    /// `fetch` on a connection that consumes.
    Consuming = "consuming", definite: true;
    /// The store has no room; acks still work and make some.
    StorageFull = "storage_full", definite: true;
    /// The store refuses this message and no other.
    StorageRefused = "storage_refused", definite: true;
    /// The store did not answer in time: the message may or may not be stored.
    StorageUnavailable = "storage_unavailable", definite: false;
    /// The server holds as many unprocessed bytes as it may; the connection is closed.
    Overloaded = "overloaded", definite: true;
    /// The server is stopping; the message may or may not be stored.
    ShuttingDown = "shutting_down", definite: false;
}

/// A code that this version does not know. Treat it as leaving the outcome unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code")]
pub struct UnknownCode;

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_one_word_and_read_back() {
        for &code in ErrorCode::ALL {
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{code}"
            );
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert_eq!("no_such_code".parse::<ErrorCode>(), Err(UnknownCode));
    }

    #[test]
    fn only_a_lost_store_and_a_stop_leave_the_outcome_open() {
        let open: Vec<_> = ErrorCode::ALL.iter().filter(|c| !c.is_definite()).collect();
        assert_eq!(
            open,
            [&ErrorCode::StorageUnavailable, &ErrorCode::ShuttingDown]
        );
    }
}
