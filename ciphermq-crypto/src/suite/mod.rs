//! Suites of this version, and the forms of older clients, which it reads, and writes on request.
//!
//! A suite determines how a session key is sealed for a receiver; the cipher of payloads is the
//! same for all suites, see [`crate::payload`]. Each suite has a file, and only this module
//! distinguishes them.

mod base_mode;
pub(crate) mod older;
mod sealed_box;
mod x25519_aes256gcm;
mod xwing_aes256gcm;
#[cfg(test)]
mod xwing_vector_tests;

use std::fmt;
use std::str::FromStr;

use rand::CryptoRng;
use zeroize::Zeroizing;

pub(crate) use older::open as open_older;

use crate::keys::{KeyId, Keyring, RecipientKey};

/// The length of a session key, in bytes.
pub(crate) const SESSION_KEY_BYTES: usize = 32;

/// The key of one session's payloads.
pub(crate) type SessionKey = Zeroizing<[u8; SESSION_KEY_BYTES]>;

/// The algorithms that seal session keys and payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// `X25519-AES256GCM`: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256),
    /// HKDF-SHA256 and AES-256-GCM for the session key; AES-256-GCM for payloads.
    X25519Aes256Gcm,
    /// `XWING-AES256GCM`: like [`Suite::X25519Aes256Gcm`], but with the X-Wing KEM, a hybrid of
    /// X25519 and ML-KEM-768.
    ///
    /// A future quantum computer cannot open messages that were recorded today.
    XWingAes256Gcm,
}

/// An error about a text that names no suite, or no older form where one is expected.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no suite of this name is known")]
pub struct SuiteError;

ciphermq_protocol::debug_as_report!(SuiteError);

/// An error about a public key with which no secret can be agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnusableKey;

/// The reason why a session key was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenKeyError {
    /// The keyring has no private key of this suite and id.
    NoPrivateKey,
    /// The session key was altered, or sealed for another key or `info`.
    NotAuthentic,
}

impl Suite {
    /// All suites, the strongest first.
    pub const ALL: [Self; 2] = [Self::XWingAes256Gcm, Self::X25519Aes256Gcm];

    /// Returns the suite's name in envelopes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X25519Aes256Gcm => "X25519-AES256GCM",
            Self::XWingAes256Gcm => "XWING-AES256GCM",
        }
    }

    /// Opens a session key from the bytes of `enc_session_key`.
    pub(crate) fn open_session_key(
        self,
        keyring: &Keyring,
        key_id: KeyId,
        info: &[u8],
        sealed: &[u8],
    ) -> Result<SessionKey, OpenKeyError> {
        match self {
            Self::X25519Aes256Gcm => {
                let key = keyring.find(key_id).ok_or(OpenKeyError::NoPrivateKey)?;
                x25519_aes256gcm::open(key, info, sealed).ok_or(OpenKeyError::NotAuthentic)
            }
            Self::XWingAes256Gcm => {
                let key = keyring
                    .find_x_wing(key_id)
                    .ok_or(OpenKeyError::NoPrivateKey)?;
                xwing_aes256gcm::open(key, info, sealed).ok_or(OpenKeyError::NotAuthentic)
            }
        }
    }
}

/// Seals a session key with the suite of the receiver's key, and returns the bytes of
/// `enc_session_key`.
pub(crate) fn seal_session_key(
    receiver: &RecipientKey,
    info: &[u8],
    session_key: &SessionKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, UnusableKey> {
    match receiver {
        RecipientKey::X25519(key) => x25519_aes256gcm::seal(key, info, session_key, rng),
        RecipientKey::XWing(key) => xwing_aes256gcm::seal(key, info, session_key, rng),
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Suite {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.as_str() == text)
            .ok_or(SuiteError)
    }
}

/// The forms in which older clients seal.
///
/// Their envelopes name no suite, and authenticate only the payload. The names `LEGACY-0`,
/// `LEGACY-A`, `LEGACY-B` and `LEGACY-C` are for configuration and do not occur in envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OlderForm {
    /// `LEGACY-0`, of v1.3.1: a libsodium sealed box, AES-256-GCM, the tag both at the end of
    /// `ciphertext` and in `tag`.
    Zero,
    /// `LEGACY-A`, of v1.4.0: a libsodium sealed box, ChaCha20-Poly1305, the tag in `tag`.
    A,
    /// `LEGACY-B`, of v1.4.1 and v1.4.2: a libsodium sealed box, ChaCha20-Poly1305, the tag at the
    /// end of `ciphertext`.
    B,
    /// `LEGACY-C`, of v1.5.0 and later: a sealed box of its own kind, ChaCha20-Poly1305, the tag at
    /// the end of `ciphertext`.
    C,
}

impl OlderForm {
    /// All forms, the oldest first.
    pub const ALL: [Self; 4] = [Self::Zero, Self::A, Self::B, Self::C];

    /// Returns the form's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "LEGACY-0",
            Self::A => "LEGACY-A",
            Self::B => "LEGACY-B",
            Self::C => "LEGACY-C",
        }
    }
}

impl fmt::Display for OlderForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OlderForm {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        Self::ALL
            .into_iter()
            .find(|form| form.as_str() == text)
            .ok_or(SuiteError)
    }
}

/// The form of a sealed message: a suite, or that of an older client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A suite of this version.
    Suite(Suite),
    /// A form of older clients.
    Older(OlderForm),
}

impl Form {
    /// Returns the name of the suite or the older form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suite(suite) => suite.as_str(),
            Self::Older(form) => form.as_str(),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Form {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        let suite = text.parse().map(Self::Suite);
        suite.or_else(|_| text.parse().map(Self::Older))
    }
}

impl From<Suite> for Form {
    fn from(suite: Suite) -> Self {
        Self::Suite(suite)
    }
}

impl From<OlderForm> for Form {
    fn from(form: OlderForm) -> Self {
        Self::Older(form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let names = [
            "XWING-AES256GCM",
            "X25519-AES256GCM",
            "LEGACY-0",
            "LEGACY-A",
            "LEGACY-B",
            "LEGACY-C",
        ];
        let forms = Suite::ALL.map(Form::from).into_iter();
        let forms: Vec<_> = forms.chain(OlderForm::ALL.map(Form::from)).collect();
        assert_eq!(forms.iter().map(Form::to_string).collect::<Vec<_>>(), names);
        for form in forms {
            assert_eq!(form.to_string().parse(), Ok(form));
            match form {
                Form::Suite(suite) => {
                    assert_eq!(suite.to_string().parse(), Ok(suite));
                    assert_eq!(suite.to_string().parse::<OlderForm>(), Err(SuiteError));
                }
                Form::Older(form) => {
                    assert_eq!(form.to_string().parse(), Ok(form));
                    assert_eq!(form.to_string().parse::<Suite>(), Err(SuiteError));
                }
            }
        }
        for text in [
            "",
            "legacy-a",
            "LEGACY-D",
            "LEGACY-O",
            "LEGACY-1",
            "LEGACY-A ",
            "x25519-aes256gcm",
            "XWING",
        ] {
            assert_eq!(text.parse::<Form>(), Err(SuiteError), "{text}");
        }
    }

    #[test]
    fn keys_open_only_their_suite() {
        use crate::keys::{PrivateKey, XWingPrivateKey};
        let x_wing = XWingPrivateKey::generate().unwrap();
        let keyring = Keyring::new(PrivateKey::generate().unwrap()).with_x_wing(x_wing.clone());
        let session_key = Zeroizing::new([7; 32]);
        let mut rng = crate::random::generator().unwrap();
        for key in keyring.recipient_keys() {
            let sealed = seal_session_key(&key, b"info", &session_key, &mut rng).unwrap();
            for suite in Suite::ALL {
                let opened = suite.open_session_key(&keyring, key.key_id(), b"info", &sealed);
                if suite == key.suite() {
                    assert_eq!(opened, Ok(session_key.clone()));
                    let other = suite.open_session_key(&keyring, key.key_id(), b"inf0", &sealed);
                    assert_eq!(other, Err(OpenKeyError::NotAuthentic));
                } else {
                    assert_eq!(opened, Err(OpenKeyError::NoPrivateKey));
                }
            }
        }
    }
}
