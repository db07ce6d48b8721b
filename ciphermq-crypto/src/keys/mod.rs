//! Receivers' keys, one kind a suite, and what they are called.
//!
//! - [`PrivateKey`], [`PublicKey`]: X25519
//! - [`XWingPrivateKey`], [`XWingPublicKey`]: X-Wing, the post-quantum hybrid
//! - [`RecipientKey`]: a public key of either kind, what a session is sealed for
//! - [`Keyring`]: a receiver's private keys, new and old
//! - [`KeyId`]: what a key is called in envelopes

mod key_id;
mod keyring;
mod recipient;
mod x25519;
mod x_wing;

use zeroize::Zeroizing;

use crate::encoding;
use crate::error::KeyError;

pub use key_id::{KeyId, KeyIdError};
pub use keyring::Keyring;
pub use recipient::RecipientKey;
pub use x_wing::{X_WING_PUBLIC_KEY_BYTES, XWingPrivateKey, XWingPublicKey};
pub use x25519::{KEY_BYTES, PrivateKey, PublicKey};

/// Base64 of exactly `N` bytes. It may be a private key: nothing of it is left in memory.
fn decode_key<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let bytes = Zeroizing::new(encoding::decode(text).ok_or(KeyError::NotBase64)?);
    bytes.as_slice().try_into().map_err(|_| KeyError::Length {
        expected: N,
        actual: bytes.len(),
    })
}
