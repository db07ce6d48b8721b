//! Keys of receivers, one kind per suite, and their ids.
//!
//! - [`PrivateKey`], [`PublicKey`]: X25519
//! - [`XWingPrivateKey`], [`XWingPublicKey`]: X-Wing, the post-quantum hybrid
//! - [`RecipientKey`]: a public key of either kind, for which sessions are sealed
//! - [`Keyring`]: a receiver's private keys, new and old
//! - [`KeyId`]: the id of a key in envelopes
//! - [`KeyError`]: why a text is not a key

mod error;
mod key_id;
mod keyring;
mod recipient;
mod x25519;
mod x_wing;

use zeroize::Zeroizing;

use crate::encoding;

pub use error::KeyError;
pub use key_id::{KeyId, KeyIdError};
pub use keyring::Keyring;
pub use recipient::RecipientKey;
pub use x_wing::{X_WING_PUBLIC_KEY_BYTES, XWingPrivateKey, XWingPublicKey};
pub use x25519::{KEY_BYTES, PrivateKey, PublicKey};

/// Decodes a key of `N` bytes, and wipes intermediate buffers, since it may be private.
fn decode_key<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let bytes = Zeroizing::new(encoding::decode(text).ok_or(KeyError::NotBase64)?);
    bytes.as_slice().try_into().map_err(|_| KeyError::Length {
        expected: N,
        actual: bytes.len(),
    })
}
