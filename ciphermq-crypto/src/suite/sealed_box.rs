//! The two sealed boxes in which older clients put their session keys.
//!
//! ```text
//!   sealed box  = ephemeral public key (32 bytes) ‖ Poly1305 tag (16 bytes) ‖ XSalsa20 ciphertext
//!
//!                 libsodium (`crypto_box_seal`)            older Rust clients
//!   key         = HSalsa20(X25519(...), 16 zero bytes)     X25519(...)
//!   nonce       = BLAKE2b-192(ephemeral ‖ receiver)        first 24 bytes of BLAKE2b-512(ephemeral ‖ receiver)
//! ```
//!
//! XSalsa20-Poly1305 is NaCl's `crypto_secretbox` ("Cryptography in NaCl", sections 7 to 9). The stable
//! cipher crates offer its parts; this is their composition.

use blake2::digest::Digest as _;
use blake2::digest::consts::{U10, U24};
use blake2::{Blake2b, Blake2b512};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::SessionKey;
use crate::keys::{KEY_BYTES, PrivateKey};

const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;

/// Whose sealed box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// libsodium's.
    Libsodium,
    /// Older Rust clients', which skip the key derivation.
    RawAgreement,
}

/// Opens a session key; `None` if it was not sealed for this key in this way.
pub(super) fn open(kind: Kind, key: &PrivateKey, sealed: &[u8]) -> Option<SessionKey> {
    let (ephemeral, boxed) = sealed.split_first_chunk::<KEY_BYTES>()?;
    let shared = key.agree(ephemeral)?;
    let receiver = key.public_key().as_bytes();
    let (box_key, nonce) = match kind {
        Kind::Libsodium => {
            let derived = salsa20::hsalsa::<U10>((&*shared).into(), &[0; 16].into());
            let nonce: [u8; NONCE_BYTES] = Blake2b::<U24>::new()
                .chain_update(ephemeral)
                .chain_update(receiver)
                .finalize()
                .into();
            (Zeroizing::new(derived.into()), nonce)
        }
        Kind::RawAgreement => {
            let hash: [u8; 64] = Blake2b512::new()
                .chain_update(ephemeral)
                .chain_update(receiver)
                .finalize()
                .into();
            (shared, *hash.first_chunk()?)
        }
    };
    let opened = open_secretbox(&box_key, &nonce, boxed)?;
    Some(Zeroizing::new(opened.as_slice().try_into().ok()?))
}

/// XSalsa20-Poly1305, the tag before the ciphertext.
fn open_secretbox(key: &[u8; 32], nonce: &[u8; NONCE_BYTES], boxed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (tag, ciphertext) = boxed.split_first_chunk::<TAG_BYTES>()?;
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    // The stream's first 32 bytes are the key of the tag, the rest is the payload's.
    let mut tag_key = Zeroizing::new([0; 32]);
    cipher.apply_keystream(&mut *tag_key);
    let expected = Poly1305::new((&*tag_key).into()).compute_unpadded(ciphertext);
    if !bool::from(expected.as_slice().ct_eq(tag)) {
        return None;
    }
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    cipher.apply_keystream(&mut plaintext);
    Some(plaintext)
}
