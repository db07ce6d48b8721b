//! The order of a certificate chain: the end-entity certificate first, then that of its issuer.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Returns the place of a private key's certificate in a chain, counted from 1.
///
/// Returns `None` if the certificate is missing, or if TLS does not accept the kind of key.
#[must_use]
pub fn place_of_own(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Option<usize> {
    let key = any_supported_type(key).ok()?;
    let public_key = key.public_key()?;
    let is_own = |certificate: &CertificateDer<'_>| {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, certificate)| certificate.public_key().raw == public_key.as_ref())
    };
    Some(chain.iter().position(is_own)? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    #[test]
    fn the_keys_certificate_is_found_at_any_place() {
        let keys = [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        ];
        let chain: Vec<_> = keys
            .iter()
            .map(|key| {
                let params = CertificateParams::default();
                params.self_signed(key).unwrap().der().clone()
            })
            .collect();
        for (index, key) in keys.iter().enumerate() {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            assert_eq!(place_of_own(&chain, &key), Some(index + 1));
        }
        let other = KeyPair::generate().unwrap().serialize_der();
        let other = PrivateKeyDer::try_from(other).unwrap();
        assert_eq!(place_of_own(&chain, &other), None);
    }
}
