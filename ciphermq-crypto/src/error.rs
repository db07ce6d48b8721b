//! What can go wrong with keys, sealing and opening. Files have their own: [`crate::KeyFileError`].

use ciphermq_protocol::envelope::EnvelopeError;
use ciphermq_protocol::{ClientId, ExchangeName, RoutingKey};

use crate::identity::{Fingerprint, SignError};
use crate::keys::KeyId;
use crate::sender::SenderError;

/// The operating system gave no random bytes.
#[derive(Clone, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct RandomError(#[from] pub(crate) rand::rngs::SysError);

ciphermq_protocol::debug_as_report!(RandomError);

/// Why a text is no key.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not base64 in its one canonical spelling (RFC 4648, section 4, with padding).
    #[error("a key is base64 with padding, this is not")]
    NotBase64,
    /// It has not the length of a key, in bytes.
    #[error("a key has {expected} bytes, this one has {actual}")]
    Length {
        /// The length of a key of this kind.
        expected: usize,
        /// The length of what was read.
        actual: usize,
    },
    /// It has the length of a key, and is none.
    #[error("these bytes are no key")]
    Invalid,
}

ciphermq_protocol::debug_as_report!(KeyError);

/// Why a message was not sealed.
#[derive(thiserror::Error)]
pub enum SealError {
    /// The receiver's public key is one with which no secret can be agreed (RFC 7748, section 6.1).
    #[error("the receiver's public key is unusable: no secret can be agreed with it")]
    ReceiverKey,
    /// The session has sealed its last message, or is too old, or the clock was set back before its
    /// start: start a new one.
    #[error("the session is used up; a new one must be started")]
    SessionExhausted,
    /// The payload is longer than AES-GCM can seal under one nonce (64 GiB).
    #[error("the payload is too long to be sealed")]
    PayloadTooLong,
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The session cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The envelope that was written is none: a fault in this crate.
    #[error("the sealed message is no envelope: {0}")]
    Envelope(#[from] EnvelopeError),
}

ciphermq_protocol::debug_as_report!(SealError);

/// Why a message was not opened.
///
/// Whatever was altered, the error is [`OpenError::NotAuthentic`]: who alters messages learns
/// nothing from the difference. The other kinds are known before anything is decrypted, or hold for
/// authentic messages.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The message was altered, or was never sealed for this receiver.
    #[error("the message was altered on its way, or was not sealed for this receiver")]
    NotAuthentic,
    /// The envelope names another receiver.
    #[error("the message is for `{0}`, not for this receiver")]
    OtherReceiver(ClientId),
    /// The envelope was sealed for a key that is not in the keyring.
    #[error("there is no private key with the id `{0}`")]
    NoPrivateKey(KeyId),
    /// The envelope names a suite that this version does not know.
    #[error("the suite `{0}` is unknown")]
    UnknownSuite(String),
    /// The envelope names no suite, and messages of older clients are not admitted.
    #[error("the message comes from an older client, which does not prove who sent it")]
    OlderClient,
    /// The message's session is not signed, and unverified senders are not admitted.
    #[error("the message's session is not signed, so nobody knows who sent it")]
    UnsignedSession,
    /// The message's session is signed with a certificate that is not known yet: ask for it, teach
    /// it to the opener ([`Opener::learn`](crate::Opener::learn)), and open the message again.
    #[error("the certificate `{fingerprint}` of the sender `{sender}` is not known")]
    CertificateNeeded {
        /// Who says to have sent the message.
        sender: ClientId,
        /// What the certificate is called.
        fingerprint: Fingerprint,
    },
    /// The message's session is signed, but not with a certificate of its sender.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// An authentic message that its sender published to another exchange than the one that is
    /// expected.
    #[error("the message was published to the exchange `{0}`, which is not the one expected")]
    OtherExchange(ExchangeName),
    /// An authentic message that its sender published by another routing key than the one that is
    /// expected.
    #[error("the message was published by the routing key `{0}`, which is not the one expected")]
    OtherRoutingKey(RoutingKey),
    /// An authentic message that its sender sealed outside of its session's limits.
    #[error("the message was sealed outside of its session's limits")]
    OutsideSession,
}

ciphermq_protocol::debug_as_report!(OpenError);
