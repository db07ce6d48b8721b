//! The two kinds of sealed boxes for older clients' session keys.
//!
//! ```text
//!   sealed box  = ephemeral public key (32 bytes) ‖ Poly1305 tag (16 bytes) ‖ XSalsa20 ciphertext
//!
//!                 libsodium (`crypto_box_seal`)            older Rust clients
//!   key         = HSalsa20(X25519(...), 16 zero bytes)     X25519(...)
//!   nonce       = BLAKE2b-192(ephemeral ‖ receiver)        first 24 bytes of BLAKE2b-512(ephemeral ‖ receiver)
//! ```
//!
//! XSalsa20-Poly1305 is NaCl's `crypto_secretbox` ("Cryptography in NaCl", sections 7 to 9). The
//! stable cipher crates provide its parts, which this module composes.

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
use crate::keys::{KEY_BYTES, PrivateKey, PublicKey};

const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;

/// The kind of a sealed box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The sealed box of libsodium.
    Libsodium,
    /// The sealed box of older Rust clients, which skip the key derivation.
    RawAgreement,
}

/// Seals a session key with an ephemeral key, which must never be used again; `None` if no secret
/// can be agreed with the receiver's key.
pub(super) fn seal(
    kind: Kind,
    receiver: &PublicKey,
    ephemeral: &PrivateKey,
    session_key: &SessionKey,
) -> Option<Vec<u8>> {
    let shared = ephemeral.diffie_hellman(receiver.as_bytes())?;
    let ephemeral = ephemeral.public_key().as_bytes();
    let (box_key, nonce) = derive(kind, shared, ephemeral, receiver.as_bytes())?;
    let (mut cipher, tag) = start_secretbox(&box_key, &nonce);
    let mut ciphertext = session_key.to_vec();
    cipher.apply_keystream(&mut ciphertext);
    let tag = tag.compute_unpadded(&ciphertext);
    Some([ephemeral, tag.as_slice(), &ciphertext].concat())
}

/// Opens a session key; `None` if it was not sealed for this key in this kind of box.
pub(super) fn open(kind: Kind, key: &PrivateKey, sealed: &[u8]) -> Option<SessionKey> {
    let (ephemeral, boxed) = sealed.split_first_chunk::<KEY_BYTES>()?;
    let shared = key.diffie_hellman(ephemeral)?;
    let (box_key, nonce) = derive(kind, shared, ephemeral, key.public_key().as_bytes())?;
    let opened = open_secretbox(&box_key, &nonce, boxed)?;
    Some(Zeroizing::new(opened.as_slice().try_into().ok()?))
}

/// Derives the key and nonce of a box.
fn derive(
    kind: Kind,
    shared: Zeroizing<[u8; KEY_BYTES]>,
    ephemeral: &[u8; KEY_BYTES],
    receiver: &[u8; KEY_BYTES],
) -> Option<(Zeroizing<[u8; 32]>, [u8; NONCE_BYTES])> {
    match kind {
        Kind::Libsodium => {
            let derived =
                Zeroizing::new(salsa20::hsalsa::<U10>((&*shared).into(), &[0; 16].into()).into());
            let nonce: [u8; NONCE_BYTES] = Blake2b::<U24>::new()
                .chain_update(ephemeral)
                .chain_update(receiver)
                .finalize()
                .into();
            Some((derived, nonce))
        }
        Kind::RawAgreement => {
            let hash: [u8; 64] = Blake2b512::new()
                .chain_update(ephemeral)
                .chain_update(receiver)
                .finalize()
                .into();
            Some((shared, *hash.first_chunk()?))
        }
    }
}

/// Initialises XSalsa20, positioned at the payload, and Poly1305 with the first 32 bytes of the
/// stream.
fn start_secretbox(key: &[u8; 32], nonce: &[u8; NONCE_BYTES]) -> (XSalsa20, Poly1305) {
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    let mut tag_key = Zeroizing::new([0; 32]);
    cipher.apply_keystream(&mut *tag_key);
    (cipher, Poly1305::new((&*tag_key).into()))
}

/// Opens XSalsa20-Poly1305 with the tag before the ciphertext.
fn open_secretbox(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    boxed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (tag, ciphertext) = boxed.split_first_chunk::<TAG_BYTES>()?;
    let (mut cipher, tag_of) = start_secretbox(key, nonce);
    let expected = tag_of.compute_unpadded(ciphertext);
    if !bool::from(expected.as_slice().ct_eq(tag)) {
        return None;
    }
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    cipher.apply_keystream(&mut plaintext);
    Some(plaintext)
}
