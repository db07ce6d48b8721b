//! The codes in `Error: <code>: <text>`.
//!
//! A code is one word with underscores, never changes its meaning, and is either *definite* (the
//! command had no effect) or leaves the *outcome unknown* (send the same message id again to find
//! out).

use std::fmt;
use std::str::FromStr;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, definite: $definite:literal;)*) => {
        /// A kind of error, for programs.
        ///
        /// [`ErrorCode::is_definite`] returns whether the command had no effect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the code's spelling in the protocol.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Returns whether the command certainly had no effect.
            ///
            /// If not, the client may send the same message id again: the server recognises it.
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
    /// The right belongs to another client: only the receiver acks, only the owner registers a key.
    NotAuthorized = "not_authorized", definite: true;
    /// The envelope names another sender than the certificate.
    SenderMismatch = "sender_mismatch", definite: true;
    /// The envelope names another exchange or routing key than the command.
    RouteMismatch = "route_mismatch", definite: true;
    /// Another message has this id.
    IdInUse = "id_in_use", definite: true;
    /// The message is larger than the server or its store accepts.
    TooLarge = "too_large", definite: true;
    /// A name breaks the rule for names.
    BadName = "bad_name", definite: true;
    /// A public key or signed key is invalid, or the server cannot open a stored one.
    BadKey = "bad_key", definite: true;
    /// The certificate that has signed the key is revoked.
    KeyRevoked = "key_revoked", definite: true;
    /// A signed key is older than the one that the server has.
    StaleKey = "stale_key", definite: true;
    /// An argument is malformed.
    BadArgument = "bad_argument", definite: true;
    /// The line is not UTF-8.
    NotUtf8 = "not_utf8", definite: true;
    /// The line is longer than `limits.max_line_bytes`; the server closes the connection.
    LineTooLong = "line_too_long", definite: true;
    /// The command is `fetch` on a connection that consumes.
    Consuming = "consuming", definite: true;
    /// The queue or exchange is in use or not empty, and stays as it is.
    InUse = "in_use", definite: true;
    /// A limit of the server is reached.
    LimitReached = "limit_reached", definite: true;
    /// The client has as much as its quota allows; the text names the quota and its limit.
    QuotaExceeded = "quota_exceeded", definite: true;
    /// The client publishes faster than it may; the text says when to send the same again.
    RateLimited = "rate_limited", definite: true;
    /// The store is full; acks still work and free space.
    StorageFull = "storage_full", definite: true;
    /// The store refuses this one message.
    StorageRefused = "storage_refused", definite: true;
    /// The store did not answer in time: the message may or may not be stored.
    StorageUnavailable = "storage_unavailable", definite: false;
    /// The server has reached its limit of unprocessed bytes; it closes the connection.
    Overloaded = "overloaded", definite: true;
    /// An administrator has blocked the client; the server closes the connection.
    Blocked = "blocked", definite: true;
    /// An administrator has closed the connection, or it consumes what rules no longer allow.
    ConnectionClosed = "connection_closed", definite: true;
    /// The client's certificate has ended or is no longer accepted; the server closes the
    /// connection.
    BadCertificate = "bad_certificate", definite: true;
    /// The server's configuration or a file that it names cannot be used; everything stays as it
    /// is.
    BadConfiguration = "bad_configuration", definite: true;
    /// The server is stopping; the message may or may not be stored.
    ShuttingDown = "shutting_down", definite: false;
}

/// An error about a code that this version does not know.
///
/// Such a code leaves the outcome unknown.
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
    fn codes_are_one_word_and_round_trip() {
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
    fn only_an_unavailable_store_and_a_shutdown_leave_the_outcome_unknown() {
        let open: Vec<_> = ErrorCode::ALL.iter().filter(|c| !c.is_definite()).collect();
        assert_eq!(
            open,
            [&ErrorCode::StorageUnavailable, &ErrorCode::ShuttingDown]
        );
    }
}
