//! Sealing of session keys with HPKE (RFC 9180) in base mode, for any KEM.
//!
//! ```text
//!   enc, ct         = SealBase(pkR, info, aad = "", session key)     RFC 9180, section 6.1
//!   enc_session_key = enc ‖ ct (32 + 16 bytes)
//! ```
//!
//! KDF 0x0001 HKDF-SHA256, AEAD 0x0002 AES-256-GCM.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{SessionKey, UnusableKey};

/// Seals a session key for the public key whose bytes are `receiver`.
pub(super) fn seal<K: Kem>(
    receiver: &[u8],
    info: &[u8],
    session_key: &SessionKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, UnusableKey> {
    let receiver = K::PublicKey::from_bytes(receiver).map_err(|_| UnusableKey)?;
    // The only remaining error is an all-zero shared secret.
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
        &OpModeS::Base,
        &receiver,
        info,
        session_key.as_slice(),
        b"",
        rng,
    )
    .map_err(|_| UnusableKey)?;
    Ok([&enc.to_bytes()[..], &ciphertext].concat())
}

/// Opens a session key; `None` if it was not sealed for this key with this `info`.
pub(super) fn open<K: Kem>(key: &K::PrivateKey, info: &[u8], sealed: &[u8]) -> Option<SessionKey> {
    let (enc, ciphertext) = sealed.split_at_checked(K::EncappedKey::size())?;
    let enc = K::EncappedKey::from_bytes(enc).ok()?;
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, K>(
        &OpModeR::Base,
        key,
        &enc,
        info,
        ciphertext,
        b"",
    );
    let opened = Zeroizing::new(opened.ok()?);
    Some(Zeroizing::new(opened.as_slice().try_into().ok()?))
}
