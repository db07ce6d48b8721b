//! The forms in which older clients seal.
//!
//! A sealed box holds the session key; the cipher of the payload has no additional data, so nothing
//! else of the envelope is authenticated.
//!
//! ```text
//!        sealed box           payload                        tag
//!   0    libsodium's          AES-256-GCM                    at the end of `ciphertext`, and in `tag`
//!   A    libsodium's          ChaCha20-Poly1305 (RFC 8439)   in `tag`
//!   B    libsodium's          ChaCha20-Poly1305              at the end of `ciphertext`
//!   C    older Rust clients'  ChaCha20-Poly1305              at the end of `ciphertext`
//! ```
//!
//! Envelopes do not state their form, so a reader tries those that fit. Only 0 and A look alike:
//! both have a sealed box of libsodium and a `tag`. If the ciphertext ends with that tag, the
//! reader tries 0 and then A, whose ciphertext may end with any bytes. The choice depends on
//! nothing secret, and every failure has the same result.

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use ciphermq_protocol::envelope::Fields;
use zeroize::Zeroizing;

use super::sealed_box::{self, Kind};
use super::{OlderForm, SESSION_KEY_BYTES, SessionKey};
use crate::encoding::{array, decode};
use crate::error::SealError;
use crate::keys::{Keyring, PrivateKey, PublicKey};
use crate::payload::{NONCE_BYTES, PayloadCipher, TAG_BYTES};
use crate::random;

/// The secrets and nonce of a single message, which must not be used again.
pub(crate) struct OneTimeSecrets {
    pub(crate) session_key: SessionKey,
    pub(crate) ephemeral: PrivateKey,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

/// The parts of a sealed message.
pub(crate) struct SealedMessage {
    pub(crate) enc_session_key: Vec<u8>,
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) ciphertext: Vec<u8>,
    /// The tag; `None` if it is only at the end of the ciphertext.
    pub(crate) tag: Option<[u8; TAG_BYTES]>,
}

impl OneTimeSecrets {
    pub(crate) fn fresh() -> Result<Self, SealError> {
        let mut session_key = Zeroizing::new([0; SESSION_KEY_BYTES]);
        random::fill(&mut *session_key)?;
        let mut nonce = [0; NONCE_BYTES];
        random::fill(&mut nonce)?;
        Ok(Self {
            session_key,
            ephemeral: PrivateKey::generate()?,
            nonce,
        })
    }
}

/// Seals a payload as older clients do.
pub(crate) fn seal(
    form: OlderForm,
    receiver: &PublicKey,
    payload: &[u8],
    secrets: OneTimeSecrets,
) -> Result<SealedMessage, SealError> {
    let kind = match form {
        OlderForm::Zero | OlderForm::A | OlderForm::B => Kind::Libsodium,
        OlderForm::C => Kind::RawAgreement,
    };
    let enc_session_key =
        sealed_box::seal(kind, receiver, &secrets.ephemeral, &secrets.session_key)
            .ok_or(SealError::ReceiverKey)?;
    let mut ciphertext = Vec::with_capacity(payload.len() + TAG_BYTES);
    ciphertext.extend_from_slice(payload);
    let tag = match form {
        OlderForm::Zero => {
            PayloadCipher::new(&secrets.session_key).seal(secrets.nonce, b"", &mut ciphertext)
        }
        OlderForm::A | OlderForm::B | OlderForm::C => {
            seal_chacha(&secrets.session_key, secrets.nonce, &mut ciphertext)
        }
    }
    .ok_or(SealError::PayloadTooLong)?;
    if form != OlderForm::A {
        ciphertext.extend_from_slice(&tag);
    }
    Ok(SealedMessage {
        enc_session_key,
        nonce: secrets.nonce,
        ciphertext,
        tag: matches!(form, OlderForm::Zero | OlderForm::A).then_some(tag),
    })
}

/// Opens an envelope without a suite; `None` if no key opens it in any older form.
pub(crate) fn open(keyring: &Keyring, fields: &Fields<'_>) -> Option<(Vec<u8>, OlderForm)> {
    let sealed = decode(&fields.enc_session_key)?;
    let nonce: [u8; NONCE_BYTES] = array(&fields.nonce)?;
    let mut payload = fields.ciphertext.bytes()?.into_owned();
    let stated: Option<[u8; TAG_BYTES]> = match &fields.tag {
        Some(tag) => Some(array(tag)?),
        None => None,
    };
    let kinds = [Kind::Libsodium, Kind::RawAgreement];
    let (kind, session_key) = kinds.into_iter().find_map(|kind| {
        keyring
            .keys()
            .find_map(|key| Some((kind, sealed_box::open(kind, key, &sealed)?)))
    })?;
    if let (Kind::Libsodium, Some(tag)) = (kind, stated)
        && let Some(sealed) = payload.strip_suffix(&tag)
        && let Some(opened) = PayloadCipher::new(&session_key).open(nonce, b"", sealed, tag)
    {
        return Some((opened, OlderForm::Zero));
    }
    let tag = match stated {
        Some(tag) => tag,
        None => {
            let tag = *payload.last_chunk()?;
            payload.truncate(payload.len().checked_sub(TAG_BYTES)?);
            tag
        }
    };
    open_chacha(&session_key, nonce, &mut payload, tag)?;
    let form = match (kind, stated) {
        (Kind::Libsodium, Some(_)) => OlderForm::A,
        (Kind::Libsodium, None) => OlderForm::B,
        (Kind::RawAgreement, _) => OlderForm::C,
    };
    Some((payload, form))
}

/// Seals `payload` in place; `None` if it is longer than the cipher allows.
fn seal_chacha(
    key: &SessionKey,
    nonce: [u8; NONCE_BYTES],
    payload: &mut [u8],
) -> Option<[u8; TAG_BYTES]> {
    ChaCha20Poly1305::new((&**key).into())
        .encrypt_inout_detached(&nonce.into(), b"", InOutBuf::from(payload))
        .ok()
        .map(Into::into)
}

/// Opens `payload` in place; `None` if anything was altered.
fn open_chacha(
    key: &SessionKey,
    nonce: [u8; NONCE_BYTES],
    payload: &mut [u8],
    tag: [u8; TAG_BYTES],
) -> Option<()> {
    ChaCha20Poly1305::new((&**key).into())
        .decrypt_inout_detached(&nonce.into(), b"", InOutBuf::from(payload), &tag.into())
        .ok()
}
