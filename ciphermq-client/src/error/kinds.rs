//! What can happen, operation by operation.

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
    /// Why a connection was not made.
    ConnectErrorKind {
        /// The address, a limit or another setting makes no sense.
        BadSetting: Caller, retryable: false;
        /// A file of certificates or of the private key cannot be read.
        FileUnreadable: Caller, retryable: false;
        /// Others than its owner may read the file of the private key.
        FileExposed: Caller, retryable: false;
        /// A file holds no certificate, or no private key, or one that is broken.
        BadCertificate: Caller, retryable: false;
        /// The certificate and the private key do not belong to each other.
        KeyMismatch: Caller, retryable: false;
        /// The host's name has no address.
        UnknownHost: Network, retryable: true;
        /// Nobody listens at the address.
        Refused: Network, retryable: true;
        /// The connection, the TLS handshake or the server's first reply took too long.
        TimedOut: Network, retryable: true;
        /// The connection broke.
        Broken: Network, retryable: true;
        /// The server's certificate was not issued by the CA, has expired, or is otherwise not to
        /// be trusted.
        ServerCertificate: Peer, retryable: false;
        /// The server's certificate is for other names.
        ServerName: Caller, retryable: false;
        /// The server refused this client's certificate.
        CertificateRefused: Caller, retryable: false;
        /// What listens there speaks no TLS, or none that this client takes.
        NoTls: Peer, retryable: false;
        /// The server speaks TLS, but not this protocol.
        Protocol: Peer, retryable: false;
        /// The server takes this client for another one than its certificate names.
        OtherClient: Peer, retryable: false;
        /// The server answered a command that is part of connecting with an error.
        Rejected: Peer, retryable: false;
        /// The same, because its store does not answer or the server is stopping or overloaded.
        Unavailable: Storage, retryable: true;
        /// The client was closed.
        Closed: Caller, retryable: false;
    }
}

kinds! {
    /// Why a request was not carried out, or why nobody knows whether it was.
    RequestErrorKind {
        /// The queue, exchange or message does not exist.
        NotFound: Caller, retryable: false;
        /// Another client's right.
        NotAuthorized: Caller, retryable: false;
        /// The server takes the argument for wrong.
        BadArgument: Caller, retryable: false;
        /// What the server would not have let pass, or what it sent, is no valid key or
        /// certificate.
        BadKey: Peer, retryable: false;
        /// The server has a signed key of this client with a higher epoch.
        StaleKey: Peer, retryable: false;
        /// The command would be longer than the longest line that the server takes.
        TooLarge: Caller, retryable: false;
        /// The server does not know the command.
        Unsupported: Peer, retryable: false;
        /// The server refused for a reason that has no kind of its own.
        Refused: Peer, retryable: false;
        /// The server's store has no room or does not answer, or the server is stopping or
        /// overloaded.
        Unavailable: Storage, retryable: true;
        /// No answer within the time for all tries.
        TimedOut: Network, retryable: true;
        /// There was no connection for as long as all tries take.
        Disconnected: Network, retryable: true;
        /// The client was closed.
        Closed: Caller, retryable: false;
        /// A local file could not be written.
        FileUnwritable: Caller, retryable: false;
    }
}

kinds! {
    /// Why a message was not published. After [`PublishErrorKind::TimedOut`],
    /// [`PublishErrorKind::Disconnected`] and [`PublishErrorKind::Unavailable`] nobody knows
    /// whether it was: sending it again with the same id is safe, with a new id it may arrive
    /// twice.
    PublishErrorKind {
        /// The receiver has no public key registered.
        NoReceiverKey: Caller, retryable: true;
        /// The receiver's public key could not be had.
        KeyUnavailable: Network, retryable: true;
        /// The receiver's key is not signed by it, and unsigned keys were not asked for.
        KeyNotSigned: Peer, retryable: false;
        /// The receiver's signed key is forged, altered, over, or older than one that was seen
        /// before; or an unsigned one was exchanged. Nothing was sent.
        KeyNotTrusted: Peer, retryable: false;
        /// No receiver would accept what this client sends, because of its certificate: it has
        /// expired or is not valid yet by this machine's clock, cannot sign, or was not issued by
        /// the authority. Nothing was sent.
        SenderCertificate: Caller, retryable: false;
        /// The message could not be sealed.
        Sealing: Caller, retryable: false;
        /// Sealed, the message is longer than the server takes.
        TooLarge: Caller, retryable: false;
        /// The stream holds no further position.
        StreamEnded: Caller, retryable: false;
        /// No queue is bound to the exchange by this routing key.
        NoRoute: Caller, retryable: true;
        /// The exchange does not exist.
        NotFound: Caller, retryable: true;
        /// Another message has this id.
        IdInUse: Caller, retryable: false;
        /// The server does not take this client for the sender that the envelope names.
        SenderMismatch: Caller, retryable: false;
        /// The server takes the command for wrong.
        Refused: Peer, retryable: false;
        /// The server's store refuses this message.
        StorageRefused: Storage, retryable: false;
        /// The server's store has no room.
        StorageFull: Storage, retryable: true;
        /// The server's store did not answer in any of the tries. It may have the message.
        Unavailable: Storage, retryable: true;
        /// No ACK in any of the tries. The server may have the message.
        TimedOut: Network, retryable: true;
        /// There was no connection for as long as all tries take. The server may have the message.
        Disconnected: Network, retryable: true;
        /// The client was closed. The server may have the message.
        Closed: Caller, retryable: false;
    }
}

kinds! {
    /// Why an ack or reject was not confirmed. Unless it was refused it may be repeated: acking
    /// what is acked is no error.
    AckErrorKind {
        /// The server never accepted a message with this id.
        NotFound: Caller, retryable: false;
        /// The message is another client's.
        NotAuthorized: Caller, retryable: false;
        /// The server refused for another reason.
        Refused: Peer, retryable: false;
        /// The server's store did not answer in any of the tries.
        Unavailable: Storage, retryable: true;
        /// No confirmation in any of the tries.
        TimedOut: Network, retryable: true;
        /// There was no connection for as long as all tries take.
        Disconnected: Network, retryable: true;
        /// The record of processed messages could not be written, so nothing was acked.
        Record: Storage, retryable: true;
        /// The consumer was closed.
        Closed: Caller, retryable: false;
    }
}

/// Kinds that stand for the server's codes, and for how a connection ends.
pub(crate) trait OperationKind: Kind {
    /// The kind for a code; `None` stands for replies without a code, and for codes of newer
    /// servers.
    fn of_code(code: Option<ErrorCode>) -> Self;
    /// No answer in any of the tries.
    const TIMED_OUT: Self;
    /// No connection for as long as all tries take.
    const DISCONNECTED: Self;
    /// Closed by the caller.
    const CLOSED: Self;
}

impl OperationKind for RequestErrorKind {
    fn of_code(code: Option<ErrorCode>) -> Self {
        match code {
            Some(ErrorCode::NotFound | ErrorCode::NoRoute) => Self::NotFound,
            Some(ErrorCode::NotAuthorized) => Self::NotAuthorized,
            Some(ErrorCode::BadKey) => Self::BadKey,
            Some(ErrorCode::StaleKey) => Self::StaleKey,
            Some(ErrorCode::BadName | ErrorCode::BadArgument | ErrorCode::NotUtf8) => {
                Self::BadArgument
            }
            Some(ErrorCode::TooLarge | ErrorCode::LineTooLong) => Self::TooLarge,
            Some(
                ErrorCode::StorageFull
                | ErrorCode::StorageUnavailable
                | ErrorCode::Overloaded
                | ErrorCode::ShuttingDown,
            ) => Self::Unavailable,
            _ => Self::Refused,
        }
    }
    const TIMED_OUT: Self = Self::TimedOut;
    const DISCONNECTED: Self = Self::Disconnected;
    const CLOSED: Self = Self::Closed;
}

impl OperationKind for PublishErrorKind {
    fn of_code(code: Option<ErrorCode>) -> Self {
        match code {
            Some(ErrorCode::NoRoute) => Self::NoRoute,
            Some(ErrorCode::NotFound) => Self::NotFound,
            Some(ErrorCode::IdInUse) => Self::IdInUse,
            Some(ErrorCode::SenderMismatch) => Self::SenderMismatch,
            Some(ErrorCode::TooLarge | ErrorCode::LineTooLong) => Self::TooLarge,
            Some(ErrorCode::StorageFull) => Self::StorageFull,
            Some(ErrorCode::StorageRefused) => Self::StorageRefused,
            Some(
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded | ErrorCode::ShuttingDown,
            ) => Self::Unavailable,
            _ => Self::Refused,
        }
    }
    const TIMED_OUT: Self = Self::TimedOut;
    const DISCONNECTED: Self = Self::Disconnected;
    const CLOSED: Self = Self::Closed;
}

impl OperationKind for AckErrorKind {
    fn of_code(code: Option<ErrorCode>) -> Self {
        match code {
            Some(ErrorCode::NotFound) => Self::NotFound,
            Some(ErrorCode::NotAuthorized) => Self::NotAuthorized,
            Some(
                ErrorCode::StorageFull
                | ErrorCode::StorageUnavailable
                | ErrorCode::Overloaded
                | ErrorCode::ShuttingDown,
            ) => Self::Unavailable,
            _ => Self::Refused,
        }
    }
    const TIMED_OUT: Self = Self::TimedOut;
    const DISCONNECTED: Self = Self::Disconnected;
    const CLOSED: Self = Self::Closed;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever may be stored although the server said an error must be retryable: a message must
    /// not be given up as refused while the server may deliver it.
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
