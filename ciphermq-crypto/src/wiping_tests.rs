//! What holds secrets is wiped when it is dropped.
//!
//! To look at memory after it was given back takes `unsafe`, so it is the compiler that is asked:
//! libraries wipe with their feature `zeroize` only, and this does not build without it.

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::suite::SessionKey;

fn is_wiped<T: ZeroizeOnDrop>() {}

#[test]
fn what_holds_secrets_is_wiped_on_drop() {
    // The X25519 key, what it agrees on, and the X-Wing seed. (`hpke` wraps the first two, and asks
    // for the same feature of the crate of X-Wing by itself.)
    is_wiped::<x25519_dalek::StaticSecret>();
    is_wiped::<x25519_dalek::SharedSecret>();
    is_wiped::<Zeroizing<[u8; 32]>>();
    // Session keys, and the ciphers that keep what was made of them.
    is_wiped::<SessionKey>();
    is_wiped::<aes_gcm::Aes256Gcm>();
    is_wiped::<chacha20poly1305::ChaCha20Poly1305>();
    is_wiped::<salsa20::XSalsa20>();
    // HKDF's state is that of its hash.
    is_wiped::<sha2::Sha256>();
}
