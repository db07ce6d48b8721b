//! Reading what older clients seal: a session key in a sealed box, the payload in ChaCha20-Poly1305.
//!
//! The payload is sealed without additional data (RFC 8439, 12-byte nonce). The tag stands in `tag` or at
//! the end of `ciphertext`. Nothing else of the envelope is authenticated.

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use ciphermq_protocol::envelope::Fields;

use super::OlderForm;
use super::sealed_box::{self, Kind};
use crate::encoding::{decode, decode_array};
use crate::keys::Keyring;

const TAG_BYTES: usize = 16;

/// Opens an envelope that names no suite; `None` if none of the keys opens it in any of the older forms.
pub(crate) fn open(keyring: &Keyring, fields: &Fields<'_>) -> Option<(Vec<u8>, OlderForm)> {
    let sealed = decode(&fields.enc_session_key)?;
    let nonce: [u8; 12] = decode_array(&fields.nonce)?;
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
