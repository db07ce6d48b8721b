//! `X25519-AES256GCM`: the session key sealed with HPKE (RFC 9180) in base mode.
//!
//! ```text
//!   enc, ct         = SealBase(pkR, info, aad = "", session key)     RFC 9180, section 6.1
//!   enc_session_key = enc (32 bytes) ‖ ct (32 + 16 bytes)
//! ```
//!
//! KEM 0x0020 DHKEM(X25519, HKDF-SHA256), KDF 0x0001 HKDF-SHA256, AEAD 0x0002 AES-256-GCM.

use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem};
use rand::CryptoRng;

use super::{SessionKey, UnusableKey, base_mode};
use crate::keys::{PrivateKey, PublicKey};

pub(super) fn seal(
    receiver: &PublicKey,
    info: &[u8],
    session_key: &SessionKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, UnusableKey> {
    base_mode::seal::<X25519HkdfSha256>(receiver.as_bytes(), info, session_key, rng)
}

pub(super) fn open(key: &PrivateKey, info: &[u8], sealed: &[u8]) -> Option<SessionKey> {
    let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(key.as_bytes()).ok()?;
    base_mode::open::<X25519HkdfSha256>(&key, info, sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::vector_tests::{FixedRng, hex};
    use hpke::aead::{AesGcm128, AesGcm256};
    use hpke::kdf::HkdfSha256;
    use hpke::{OpModeR, OpModeS, Serializable as _};
    use zeroize::Zeroizing;

    /// "Ode on a Grecian Urn", the `info` of all vectors of RFC 9180; "Count-0"; "Beauty is truth,
    /// truth beauty".
    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const AAD: &str = "436f756e742d30";
    const PLAINTEXT: &str = "4265617574792069732074727574682c20747275746820626561757479";

    /// RFC 9180, appendix A.1.1: this KEM and KDF with AES-128-GCM, base mode, both sides.
    #[test]
    fn kem_and_key_schedule_match_rfc_9180() {
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&hex(
            "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        ))
        .unwrap();
        let public = X25519HkdfSha256::sk_to_pk(&key);
        assert_eq!(
            public.to_bytes()[..],
            hex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
        );
        let ikm = hex("7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234");
        let (enc, ciphertext) =
            hpke::single_shot_seal_with_rng::<AesGcm128, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &public,
                &hex(INFO),
                &hex(PLAINTEXT),
                &hex(AAD),
                &mut FixedRng::new(&ikm),
            )
            .unwrap();
        assert_eq!(
            enc.to_bytes()[..],
            hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
        );
        assert_eq!(
            ciphertext,
            hex(
                "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
            )
        );
    }

    /// The CFRG's test vectors to RFC 9180 (test-vectors.json): mode 0, KEM 0x0020, KDF 0x0001,
    /// AEAD 0x0002, the first encryption. The RFC's appendix does not print this one.
    #[test]
    fn the_suite_matches_the_cfrgs_vector() {
        let key = PrivateKey::from_bytes(
            &hex("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
                .try_into()
                .unwrap(),
        );
        assert_eq!(
            key.public_key().as_bytes()[..],
            hex("430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c")
        );
        let plaintext = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &<X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(key.as_bytes()).unwrap(),
            &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&hex(
                "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256",
            ))
            .unwrap(),
            &hex(INFO),
            &hex(
                "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a",
            ),
            &hex(AAD),
        )
        .unwrap();
        assert_eq!(plaintext, hex(PLAINTEXT));
    }

    #[test]
    fn opens_only_with_the_same_key_and_info() {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let session_key = Zeroizing::new([7; 32]);
        let sealed = seal(
            key.public_key(),
            b"info",
            &session_key,
            &mut random::generator().unwrap(),
        )
        .unwrap();
        assert_eq!(sealed.len(), 80);
        assert_eq!(open(&key, b"info", &sealed), Some(session_key));
        assert_eq!(open(&key, b"inf0", &sealed), None);
        assert_eq!(open(&other, b"info", &sealed), None);
        for length in 0..80 {
            assert_eq!(open(&key, b"info", &sealed[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let zeros = PublicKey::from_bytes([0; 32]);
        let sealed = seal(
            &zeros,
            b"",
            &Zeroizing::new([7; 32]),
            &mut random::generator().unwrap(),
        );
        assert_eq!(sealed, Err(UnusableKey));
    }
}
