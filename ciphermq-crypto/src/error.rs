//! Errors of sealing and opening.
//!
//! Errors of keys, of key files and of randomness are defined where they arise: [`KeyError`] in
//! [`keys`](crate::keys), [`KeyFileError`](crate::KeyFileError) in
//! [`key_file`](crate::key_file).

use ciphermq_protocol::envelope::EnvelopeError;
use ciphermq_protocol::{ClientId, ExchangeName, RoutingKey};

use crate::identity::{Fingerprint, SignError};
use crate::keys::KeyId;
use crate::sender::SenderError;

pub use crate::keys::KeyError;
pub use crate::random::RandomError;

/// The reason why a message was not sealed.
#[derive(thiserror::Error)]
pub enum SealError {
    /// No secret can be agreed with the receiver's public key (RFC 7748, section 6.1).
    #[error("the receiver's public key is unusable: no secret can be agreed with it")]
    ReceiverKey,
    /// The session has reached its number of messages or its age, or the clock was set back before
    /// its start. Start a new one.
    #[error("the session is used up; a new one must be started")]
    SessionExhausted,
    /// The payload is longer than AES-GCM can seal under one nonce (64 GiB).
    #[error("the payload is too long to be sealed")]
    PayloadTooLong,
    /// The operating system has no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Signing the session failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The result is not an envelope: a bug in this crate.
    #[error("the sealed message is not an envelope: {0}")]
    Envelope(#[from] EnvelopeError),
}

ciphermq_protocol::debug_as_report!(SealError);

/// The reason why a message was not opened.
///
/// Any alteration gives [`OpenError::NotAuthentic`], so an attacker learns nothing from the kind of
/// error. The other kinds are found before decryption, or are about authentic messages.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The message was altered, or was never sealed for this receiver.
    #[error("the message was altered on its way, or was not sealed for this receiver")]
    NotAuthentic,
    /// The envelope names another sender than the admitted ones.
    ///
    /// The name is a claim: the message was not opened.
    #[error("the message names `{0}` as its sender, whom this receiver does not admit")]
    OtherSender(ClientId),
    /// The envelope names no sender, and not all are admitted.
    #[error("the message names no sender, and this receiver admits certain senders only")]
    NoSender,
    /// The envelope names another receiver.
    #[error("the message is for `{0}`, not for this receiver")]
    OtherReceiver(ClientId),
    /// The keyring lacks the key that the envelope was sealed for.
    #[error("there is no private key with the id `{0}`")]
    NoPrivateKey(KeyId),
    /// The envelope names a suite that this version does not know.
    #[error("the suite `{0}` is unknown")]
    UnknownSuite(String),
    /// The envelope names no suite, and messages of older clients are not admitted.
    #[error("the message comes from an older client, which does not prove who sent it")]
    OlderClient,
    /// The session is not signed, and unverified senders are not admitted.
    #[error("the message's session is not signed, so its sender is unknown")]
    UnsignedSession,
    /// The session is signed with an unknown certificate.
    ///
    /// Ask the server for it, [add it](crate::Opener::add_sender_chain) to the opener, and open the
    /// message again.
    #[error("the certificate `{fingerprint}` of the sender `{sender}` is unknown")]
    CertificateNeeded {
        /// The sender, as claimed by the envelope.
        sender: ClientId,
        /// The certificate's fingerprint.
        fingerprint: Fingerprint,
    },
    /// The session is signed, but not with a valid certificate of its sender.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The message is authentic, but its sender published it to another exchange than the expected
    /// one.
    #[error("the message was published to the exchange `{0}`, which is not the one expected")]
    OtherExchange(ExchangeName),
    /// The message is authentic, but its sender published it with another routing key than the
    /// expected one.
    #[error("the message was published by the routing key `{0}`, which is not the one expected")]
    OtherRoutingKey(RoutingKey),
    /// The message is authentic, but its sender sealed it outside its session's limits.
    #[error("the message was sealed outside of its session's limits")]
    OutsideSession,
}

ciphermq_protocol::debug_as_report!(OpenError);
