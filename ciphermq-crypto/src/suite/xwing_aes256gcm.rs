//! `XWING-AES256GCM`: the session key sealed with HPKE (RFC 9180) in base mode, with the X-Wing
//! KEM.
//!
//! ```text
//!   enc, ct         = SealBase(pkR, info, aad = "", session key)     RFC 9180, section 6.1
//!   enc_session_key = enc (1,120 bytes) ‖ ct (32 + 16 bytes)
//! ```
//!
//! KEM 0x647a X-Wing (draft-connolly-cfrg-xwing-kem: X25519 and ML-KEM-768 of FIPS 203;
//! draft-ietf-hpke-pq), KDF 0x0001 HKDF-SHA256, AEAD 0x0002 AES-256-GCM. It is secure as long as
//! one of its two halves is.

use hpke::kem::XWing;
use rand::CryptoRng;

use super::{SessionKey, UnusableKey, base_mode};
use crate::keys::{XWingPrivateKey, XWingPublicKey};

pub(super) fn seal(
    receiver: &XWingPublicKey,
    info: &[u8],
    session_key: &SessionKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, UnusableKey> {
    base_mode::seal::<XWing>(receiver.as_bytes(), info, session_key, rng)
}

pub(super) fn open(key: &XWingPrivateKey, info: &[u8], sealed: &[u8]) -> Option<SessionKey> {
    base_mode::open::<XWing>(&key.expand()?, info, sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use zeroize::Zeroizing;

    #[test]
    fn opens_only_with_the_same_key_and_info() {
        let [key, other] = [(); 2].map(|()| XWingPrivateKey::generate().unwrap());
        let session_key = Zeroizing::new([7; 32]);
        let mut rng = random::generator().unwrap();
        let sealed = seal(key.public_key(), b"info", &session_key, &mut rng).unwrap();
        assert_eq!(sealed.len(), 1168);
        assert_eq!(open(&key, b"info", &sealed), Some(session_key));
        assert_eq!(open(&key, b"inf0", &sealed), None);
        assert_eq!(open(&other, b"info", &sealed), None);
        for length in (0..sealed.len()).step_by(16) {
            assert_eq!(open(&key, b"info", &sealed[..length]), None, "{length}");
        }
        for byte in (0..sealed.len()).step_by(37) {
            let mut altered = sealed.clone();
            altered[byte] ^= 1;
            assert_eq!(open(&key, b"info", &altered), None, "{byte}");
        }
    }
}
