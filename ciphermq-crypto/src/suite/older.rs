//! Reading and writing what older clients seal: a session key in a sealed box, the payload in ChaCha20-Poly1305.
//!
//! The payload is sealed without additional data (RFC 8439, 12-byte nonce). The tag stands in `tag` or at
//! the end of `ciphertext`. Nothing else of the envelope is authenticated.

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use ciphermq_protocol::envelope::Fields;
use zeroize::Zeroizing;

use super::sealed_box::{self, Kind};
use super::{OlderForm, SESSION_KEY_BYTES, SessionKey};
use crate::encoding::{decode, decode_array};
use crate::error::SealError;
use crate::keys::{Keyring, PrivateKey, PublicKey};
use crate::random;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// What is used once: for one message, and never for another.
pub(crate) struct Once {
    pub(crate) session_key: SessionKey,
    pub(crate) ephemeral: PrivateKey,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

/// A sealed message's parts.
pub(crate) struct Sealed {
    pub(crate) enc_session_key: Vec<u8>,
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) ciphertext: Vec<u8>,
    /// `None` if it stands at the end of the ciphertext.
    pub(crate) tag: Option<[u8; TAG_BYTES]>,
}

impl Once {
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
    once: Once,
) -> Result<Sealed, SealError> {
    let kind = match form {
        OlderForm::A | OlderForm::B => Kind::Libsodium,
        OlderForm::C => Kind::RawAgreement,
    };
    let enc_session_key =
        sealed_box::seal(kind, receiver, &once.ephemeral, &once.session_key).ok_or(SealError::ReceiverKey)?;
    let mut ciphertext = Vec::with_capacity(payload.len() + TAG_BYTES);
    ciphertext.extend_from_slice(payload);
    let tag: [u8; TAG_BYTES] = ChaCha20Poly1305::new((&*once.session_key).into())
        .encrypt_inout_detached(&once.nonce.into(), b"", InOutBuf::from(ciphertext.as_mut_slice()))
        .map_err(|_| SealError::PayloadTooLong)?
        .into();
    let tag = match form {
        OlderForm::A => Some(tag),
        OlderForm::B | OlderForm::C => {
            ciphertext.extend_from_slice(&tag);
            None
        }
    };
    Ok(Sealed {
        enc_session_key,
        nonce: once.nonce,
        ciphertext,
        tag,
    })
}

/// Opens an envelope that names no suite; `None` if none of the keys opens it in any of the older forms.
pub(crate) fn open(keyring: &Keyring, fields: &Fields<'_>) -> Option<(Vec<u8>, OlderForm)> {
    let sealed = decode(&fields.enc_session_key)?;
    let nonce: [u8; NONCE_BYTES] = decode_array(&fields.nonce)?;
    let mut payload = decode(&fields.ciphertext)?;
    let tag: [u8; TAG_BYTES] = match &fields.tag {
        Some(tag) => decode_array(tag)?,
        None => {
            let tag = *payload.last_chunk()?;
            payload.truncate(payload.len().checked_sub(TAG_BYTES)?);
            tag
        }
    };
    let kinds = [Kind::Libsodium, Kind::RawAgreement];
    let (kind, session_key) = kinds.into_iter().find_map(|kind| {
        keyring
            .keys()
            .find_map(|key| Some((kind, sealed_box::open(kind, key, &sealed)?)))
    })?;
    ChaCha20Poly1305::new((&*session_key).into())
        .decrypt_inout_detached(
            &nonce.into(),
            b"",
            InOutBuf::from(payload.as_mut_slice()),
            &tag.into(),
        )
        .ok()?;
    let form = match (kind, &fields.tag) {
        (Kind::Libsodium, Some(_)) => OlderForm::A,
        (Kind::Libsodium, None) => OlderForm::B,
        (Kind::RawAgreement, _) => OlderForm::C,
    };
    Some((payload, form))
}
