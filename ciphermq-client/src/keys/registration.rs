//! The result of announcing this client's own keys, and why it can fail.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::SignedKeyError;
use ciphermq_crypto::identity::IdentityError;
use ciphermq_crypto::signed_key::AnnouncementError;
use ciphermq_files::FileError;
use ciphermq_protocol::ClientId;
use jiff::Timestamp;

use super::lock::LockError;
use crate::error::RequestError;

/// The validity of announced keys, limited further by the certificate that signs them: long enough
/// for a receiver that is away for months, since nobody can send to it afterwards.
pub const SIGNED_KEY_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The highest epoch that people may enter: the last millisecond of the year 9999. A typing error
/// must not use up all epochs.
pub const HIGHEST_ABOVE: u64 = 253_402_300_799_999;

/// The reason why this client's keys were not announced.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The request to the server failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The certificate that signs, and does not connect, cannot be used.
    #[error("the keys cannot be signed: {0}")]
    Signer(IdentityError),
    /// The certificate cannot sign the keys.
    #[error("the keys cannot be signed: {0}")]
    Sign(#[from] AnnouncementError),
    /// No sender would accept the signed keys.
    #[error("no sender would accept the keys: {0}")]
    NotAccepted(#[from] SignedKeyError),
    /// The server has a signed key with a higher epoch that this client has not signed.
    #[error("the server has a signed key of a higher epoch that this client did not sign")]
    NotOurs {
        /// The epoch that the server's key states.
        epoch: Option<u64>,
    },
    /// Senders use a signed key that is not in the keyring, and this certificate cannot sign
    /// another one.
    #[error(
        "senders use the signed key of this client that the server has, until {until}: it is for \
         another key pair than \
         the one given here, and this client's certificate cannot sign a new one"
    )]
    SignedForOtherKeys {
        /// The time at which senders stop using the signed key.
        until: Timestamp,
    },
    /// The server has confirmed the keys, but returns others, or none.
    #[error("the server has confirmed the keys, and does not hand them out")]
    NotKept,
    /// Other processes of this client announce keys all the time.
    #[error("other processes of this client announce keys without end")]
    Contended,
    /// The last epoch was the highest possible one.
    #[error("this client has signed a key with the highest possible epoch")]
    NoHigherEpoch {
        /// The record of announcements, if it contains that key.
        record: Option<PathBuf>,
    },
    /// Another process of this client has announced other keys later.
    #[error("another process of this client has announced other keys, and they have run out")]
    OtherKeys,
}

ciphermq_protocol::debug_as_report!(AnnounceError, |error| Some(error.advice()));

impl AnnounceError {
    /// Returns what to do, for a person who runs this client.
    #[must_use]
    pub fn advice(&self) -> String {
        use ciphermq_crypto::identity::CertificateError::{Expired, NotTrusted, NotYetValid};
        match self {
            Self::Request(error) => error
                .advice()
                .unwrap_or("Check that the server runs, then try again.")
                .to_owned(),
            Self::Signer(error) => error.advice().to_owned(),
            Self::Sign(AnnouncementError::Expired(_))
            | Self::NotAccepted(SignedKeyError::Certificate(Expired(_))) => {
                "Check this machine's clock. If it is right, get a new certificate for this \
                 client."
                    .to_owned()
            }
            Self::NotAccepted(SignedKeyError::Certificate(NotYetValid(_))) => {
                "Check this machine's clock. If it is right, wait until the certificate is valid, \
                 or get another one."
                    .to_owned()
            }
            Self::NotAccepted(SignedKeyError::Certificate(NotTrusted(_))) => {
                "Senders take keys that are signed with a certificate of their authority. Use a \
                 certificate of the authority of --ca, with the intermediate ones in its file; or \
                 name the authority that has issued it with --ca."
                    .to_owned()
            }
            Self::Sign(_) | Self::NotAccepted(_) => {
                "Get a certificate for this client that can sign: `ciphermq-cli certs` makes such \
                 ones."
                    .to_owned()
            }
            Self::NotOurs { epoch: Some(epoch) } if *epoch <= HIGHEST_ABOVE => format!(
                "If this client had another certificate authority before, go beyond what it signed \
                 then: `ciphermq-cli register-key --above {epoch}`. If not, look at who else could \
                 register keys in its name."
            ),
            Self::NotOurs { .. } => "Nothing can go beyond it. Whoever runs the server can remove \
                                     its row of this client in `signed_keys`; look at who else \
                                     could register keys in its name."
                .to_owned(),
            Self::SignedForOtherKeys { .. } => "Get a certificate for this client that can sign: \
                `ciphermq-cli certs` makes such ones; or give the private key that the signed key \
                is for with --private-key."
                .to_owned(),
            Self::NotKept => "Somebody between here and the server's database may be exchanging \
                              keys: look at the server's log, and at `ciphermq-cli verify-key` as \
                              a sender."
                .to_owned(),
            Self::Contended => "Look at what runs with this client's certificate, and try \
                                again."
                .to_owned(),
            Self::NoHigherEpoch { record } => {
                let record = record.as_ref().map_or_else(String::new, |record| {
                    format!(
                        " Remove this client's own record, too: {}.",
                        record.display()
                    )
                });
                format!(
                    "Senders that have seen it must remove their records of this client's key, and \
                     whoever runs the server its row in `signed_keys`.{record} Use a new \
                     certificate authority if somebody else could have signed it."
                )
            }
            Self::OtherKeys => "Start this receiver again, with the newest keys, or run \
                                `ciphermq-cli register-key` where they are."
                .to_owned(),
        }
    }
}

/// The result of an announcement.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Registration {
    /// The owner of the keys.
    pub client: ClientId,
    /// The signed key that the server returns now; `None` if this client cannot sign and has
    /// registered a bare key.
    pub signed_key: Option<String>,
    /// The epoch of the signed key.
    pub epoch: Option<u64>,
    /// The reason why the next announcement may not know of this one; for people.
    pub not_recorded: Option<NotRecorded>,
    /// The signed key that senders still receive, if this client cannot sign and has registered a
    /// bare key.
    pub earlier: Option<EarlierSignedKey>,
}

/// A signed key that was registered before a bare one, and that the server still returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EarlierSignedKey {
    /// Senders use it, and the keyring can open messages that are sealed for it.
    InUse {
        /// The time at which senders stop using it.
        until: Timestamp,
    },
    /// Senders refuse it, and do not fall back to a bare key.
    Refused(SignedKeyError),
}

/// The reason why an announcement was not recorded.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotRecorded {
    /// The existing record cannot be read; it was replaced.
    #[error("the record of announcements, {}, could not be read, and was started anew: \
             {source}", path.display())]
    Unreadable {
        /// The record.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The record cannot be written.
    #[error("the announcement is not recorded: {0}")]
    Unwritable(Arc<FileError>),
    /// The folder cannot be locked: another process may have written at the same time.
    #[error("the announcement was recorded without a lock: {0}")]
    Locked(Arc<LockError>),
}

ciphermq_protocol::debug_as_report!(NotRecorded);
