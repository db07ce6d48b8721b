//! The kinds of errors of each operation.

use ciphermq_protocol::ErrorCode;

use super::{Blame, Kind};

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident: $blame:ident, retryable: $retryable:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl Kind for $name {
            fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)* }
            }

            fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }
        }
    };
}

kinds! {
    /// Why connecting failed.
    ConnectErrorKind {
        /// The address, a limit or another setting is invalid.
        BadSetting: Caller, retryable: false;
        /// A file of certificates or of the private key cannot be read.
        FileUnreadable: Caller, retryable: false;
        /// Others than its owner may read the private key's file.
        FileExposed: Caller, retryable: false;
        /// A file holds no certificate, or no private key, or a malformed one.
        BadCertificate: Caller, retryable: false;
        /// The certificate and the private key do not belong together.
        KeyMismatch: Caller, retryable: false;
        /// The host's name has no address.
        UnknownHost: Network, retryable: true;
        /// Nobody listens at the address.
        Refused: Network, retryable: true;
        /// The connection, the TLS handshake or the server's first reply took too long.
        TimedOut: Network, retryable: true;
        /// The connection broke.
        Broken: Network, retryable: true;
        /// The server's certificate was not issued by the CA, has expired, or is otherwise
        /// untrusted.
        ServerCertificate: Peer, retryable: false;
        /// The server's certificate is valid for other names.
        ServerName: Caller, retryable: false;
        /// The server refused this client's certificate.
        CertificateRefused: Caller, retryable: false;
        /// The peer does not speak TLS, or no version that this client accepts.
        NoTls: Peer, retryable: false;
        /// The server speaks TLS, but not this protocol.
        Protocol: Peer, retryable: false;
        /// The server sees another client id than this client's certificate names.
        OtherClient: Peer, retryable: false;
        /// A revocation list is older than this client accepts, or there is none.
        OldRevocationList: Peer, retryable: true;
        /// An administrator of the server has blocked this client.
        Blocked: Caller, retryable: false;
        /// The server's rules do not allow a command that is part of connecting.
        NotAuthorized: Caller, retryable: false;
        /// The server refused a command that is part of connecting.
        Rejected: Peer, retryable: false;
        /// The server refused a command that is part of connecting, because its store does not
        /// answer or it is shutting down or overloaded.
        Unavailable: Storage, retryable: true;
        /// The client was closed.
        Closed: Caller, retryable: false;
    }
}

kinds! {
    /// Why a request was not carried out, or has an unknown outcome.
    RequestErrorKind {
        /// The queue, exchange or message does not exist.
        NotFound: Caller, retryable: false;
        /// Only another client may do this, or the server's rules do not allow it.
        NotAuthorized: Caller, retryable: false;
        /// An administrator of the server has blocked this client.
        Blocked: Caller, retryable: false;
        /// The server considers the argument invalid.
        BadArgument: Caller, retryable: false;
        /// A key or certificate is invalid: the server sent it, or would have refused it.
        BadKey: Peer, retryable: false;
        /// The certificate that has signed the key is revoked.
        KeyRevoked: Peer, retryable: false;
        /// The server has a signed key of this client with a higher epoch.
        StaleKey: Peer, retryable: false;
        /// The command would be longer than the longest line that the server accepts.
        TooLarge: Caller, retryable: false;
        /// The queue or exchange is in use, or not empty.
        InUse: Caller, retryable: false;
        /// A limit of the server is reached.
        LimitReached: Caller, retryable: false;
        /// The server's configuration, or a file that it names, cannot be used.
        BadConfiguration: Caller, retryable: false;
        /// This client has as much as its quota allows; the text names the quota.
        QuotaExceeded: Caller, retryable: false;
        /// The server does not know the command.
        Unsupported: Peer, retryable: false;
        /// The server refused for a reason without a kind of its own.
        Refused: Peer, retryable: false;
        /// The server's store is full or does not answer, or the server is shutting down or
        /// overloaded.
        Unavailable: Storage, retryable: true;
        /// There was no answer in any of the attempts.
        TimedOut: Network, retryable: true;
        /// There was no connection during all attempts.
        Disconnected: Network, retryable: true;
        /// The client was closed.
        Closed: Caller, retryable: false;
        /// A local file could not be written.
        FileUnwritable: Caller, retryable: false;
    }
}

kinds! {
    /// Why a message was not published, or has an unknown outcome.
    ///
    /// After [`PublishErrorKind::TimedOut`], [`PublishErrorKind::Disconnected`] and
    /// [`PublishErrorKind::Unavailable`] the outcome is unknown: sending the message again with the
    /// same id is safe, with a new id it may arrive twice.
    PublishErrorKind {
        /// The receiver has registered no public key.
        NoReceiverKey: Caller, retryable: true;
        /// The receiver's public key could not be fetched.
        KeyUnavailable: Network, retryable: true;
        /// The receiver has not signed its key, and unsigned keys are not accepted.
        KeyNotSigned: Peer, retryable: false;
        /// The receiver's signed key is forged, altered, expired, or older than one that was seen
        /// before; or an unsigned one was replaced. Nothing was sent.
        KeyNotTrusted: Peer, retryable: false;
        /// No receiver would accept this client's messages, because of its certificate: it has
        /// expired or is not valid yet by this machine's clock, cannot sign, or was not issued by
        /// the authority. Nothing was sent.
        SenderCertificate: Caller, retryable: false;
        /// The revocation list is older than this client accepts, or there is none, or it is not
        /// known whether there is one. Nothing was sent.
        OldRevocationList: Peer, retryable: true;
        /// The message could not be sealed.
        Sealing: Caller, retryable: false;
        /// The sealed message is longer than the server accepts.
        TooLarge: Caller, retryable: false;
        /// The stream has no further position.
        StreamEnded: Caller, retryable: false;
        /// No queue is bound to the exchange by this routing key.
        NoRoute: Caller, retryable: true;
        /// The exchange does not exist.
        NotFound: Caller, retryable: true;
        /// Another message has this id.
        IdInUse: Caller, retryable: false;
        /// The server sees another client than the sender that the envelope names.
        SenderMismatch: Caller, retryable: false;
        /// The server's rules do not allow this client to publish it there, or to this receiver.
        NotAuthorized: Caller, retryable: false;
        /// An administrator of the server has blocked this client. The server may have a message
        /// that was sent before and has no ACK.
        Blocked: Caller, retryable: false;
        /// The server considers the command invalid.
        Refused: Peer, retryable: false;
        /// The server's store refuses this message.
        StorageRefused: Storage, retryable: false;
        /// This client has stored as much as its quota allows; the text names the quota.
        QuotaExceeded: Caller, retryable: true;
        /// The server's store is full.
        StorageFull: Storage, retryable: true;
        /// The server's store did not answer in any of the attempts. It may have the message.
        Unavailable: Storage, retryable: true;
        /// There was no ACK in any of the attempts. The server may have the message.
        TimedOut: Network, retryable: true;
        /// There was no connection during all attempts. The server may have the message.
        Disconnected: Network, retryable: true;
        /// The client was closed. The server may have the message.
        Closed: Caller, retryable: false;
    }
}

kinds! {
    /// Why an ack or reject was not confirmed. Unless it was refused it may be repeated: acks are
    /// idempotent.
    AckErrorKind {
        /// The server never accepted a message with this id.
        NotFound: Caller, retryable: false;
        /// The message belongs to another client, or the server's rules do not allow it.
        NotAuthorized: Caller, retryable: false;
        /// An administrator of the server has blocked this client.
        Blocked: Caller, retryable: false;
        /// The server refused for another reason.
        Refused: Peer, retryable: false;
        /// The server's store did not answer in any of the attempts.
        Unavailable: Storage, retryable: true;
        /// There was no confirmation in any of the attempts.
        TimedOut: Network, retryable: true;
        /// There was no connection during all attempts.
        Disconnected: Network, retryable: true;
        /// The record of processed messages could not be written, so no ack was sent.
        Record: Storage, retryable: true;
        /// The consumer was closed.
        Closed: Caller, retryable: false;
    }
}

/// A kind that represents the server's error codes, and the ends of a connection.
pub(crate) trait OperationKind: Kind {
    /// Returns the kind for a code. `None` is a reply without a code, or with one of a newer
    /// server.
    fn of_code(code: Option<ErrorCode>) -> Self;
    /// The server refused for a reason without a kind of its own.
    const REFUSED: Self;
    /// The server's store does not answer, or the server is busy: the attempts continue.
    const UNAVAILABLE: Self;
    /// There was no answer in any of the attempts.
    const TIMED_OUT: Self;
    /// There was no connection during all attempts.
    const DISCONNECTED: Self;
    /// The caller closed the connection.
    const CLOSED: Self;
}

/// Implements [`OperationKind`]: which kind the codes of the server have. All other codes are
/// `Refused`.
macro_rules! operations {
    ($($name:ident { $($($code:ident)|+ => $kind:ident;)* })*) => {$(
        impl OperationKind for $name {
            const REFUSED: Self = Self::Refused;
            const UNAVAILABLE: Self = Self::Unavailable;
            const TIMED_OUT: Self = Self::TimedOut;
            const DISCONNECTED: Self = Self::Disconnected;
            const CLOSED: Self = Self::Closed;

            fn of_code(code: Option<ErrorCode>) -> Self {
                match code {
                    $(Some($(ErrorCode::$code)|+) => Self::$kind,)*
                    _ => Self::Refused,
                }
            }
        }
    )*};
}

operations! {
    RequestErrorKind {
        NotFound | NoRoute => NotFound;
        NotAuthorized => NotAuthorized;
        Blocked => Blocked;
        InUse => InUse;
        LimitReached => LimitReached;
        BadConfiguration => BadConfiguration;
        QuotaExceeded => QuotaExceeded;
        BadKey => BadKey;
        KeyRevoked => KeyRevoked;
        StaleKey => StaleKey;
        BadName | BadArgument | NotUtf8 => BadArgument;
        TooLarge | LineTooLong => TooLarge;
        StorageFull | StorageUnavailable | Overloaded | RateLimited | ConnectionClosed | ShuttingDown
            => Unavailable;
    }
    PublishErrorKind {
        NoRoute => NoRoute;
        NotFound => NotFound;
        IdInUse => IdInUse;
        SenderMismatch => SenderMismatch;
        NotAuthorized => NotAuthorized;
        Blocked => Blocked;
        TooLarge | LineTooLong => TooLarge;
        QuotaExceeded => QuotaExceeded;
        StorageFull => StorageFull;
        StorageRefused => StorageRefused;
        StorageUnavailable | Overloaded | RateLimited | ConnectionClosed | ShuttingDown
            => Unavailable;
    }
    AckErrorKind {
        NotFound => NotFound;
        NotAuthorized => NotAuthorized;
        Blocked => Blocked;
        StorageFull | StorageUnavailable | Overloaded | RateLimited | ConnectionClosed | ShuttingDown
            => Unavailable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every error after which the message may nevertheless be stored must be retryable: a message
    /// must not be given up as refused while the server may deliver it.
    #[test]
    fn unknown_outcomes_are_retryable() {
        for &code in ErrorCode::ALL.iter().filter(|code| !code.is_definite()) {
            assert!(
                PublishErrorKind::of_code(Some(code)).is_retryable(),
                "{code}"
            );
            assert!(
                RequestErrorKind::of_code(Some(code)).is_retryable(),
                "{code}"
            );
            assert!(AckErrorKind::of_code(Some(code)).is_retryable(), "{code}");
        }
    }
}
