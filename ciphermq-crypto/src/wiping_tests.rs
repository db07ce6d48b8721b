//! Types with secrets are wiped on drop.
//!
//! Inspecting freed memory needs `unsafe`, so these tests use the type system: the libraries wipe
//! only with their feature `zeroize`, without which this does not compile. AWS-LC, which ciphers
//! payloads, wipes whatever memory it frees (`OPENSSL_free`).

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::suite::SessionKey;

fn is_wiped<T: ZeroizeOnDrop>() {}

#[test]
fn secrets_are_wiped_on_drop() {
    // The X25519 key, its shared secrets, and the X-Wing seed. (`hpke` wraps the first two, and
    // enables the same feature of its X-Wing crate.)
    is_wiped::<x25519_dalek::StaticSecret>();
    is_wiped::<x25519_dalek::SharedSecret>();
    is_wiped::<Zeroizing<[u8; 32]>>();
    // Session keys, and the ciphers that keep keys derived from them.
    is_wiped::<SessionKey>();
    is_wiped::<chacha20poly1305::ChaCha20Poly1305>();
    is_wiped::<salsa20::XSalsa20>();
    // The state of HKDF is that of its hash.
    is_wiped::<sha2::Sha256>();
}
