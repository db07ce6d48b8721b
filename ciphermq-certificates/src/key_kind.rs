//! The kind of a certificate's key, in words.

use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Returns the common name of a key's kind: `RSA with 2048 bits`, `ECDSA P-384`.
#[must_use]
pub fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    let kind = key.algorithm.algorithm.to_id_string();
    match kind.as_str() {
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(key)) => format!("RSA with {} bits", key.key_size()),
            _ => "RSA".to_owned(),
        },
        "1.2.840.113549.1.1.10" => "RSA-PSS".to_owned(),
        "1.2.840.10040.4.1" => "DSA".to_owned(),
        "1.2.840.10045.2.1" => format!("ECDSA {}", curve(key)),
        "1.3.101.112" => "Ed25519".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        _ => format!("of the kind {kind}"),
    }
}

/// Returns the kind of a certificate's key if TLS accepts nothing that was signed with it: an RSA
/// key of less than 2048 bits.
///
/// Such a signature is reported like a wrong one, so authorities are checked for it in advance.
#[must_use]
pub fn short_key(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::RSA(parsed)) if parsed.key_size() < 2048 => Some(key_kind(key)),
        _ => None,
    }
}

/// Returns whether a key describes its elliptic curve instead of naming it, which TLS does not
/// accept.
#[must_use]
pub fn describes_curve(key: &SubjectPublicKeyInfo<'_>) -> bool {
    key.algorithm.algorithm.to_id_string() == "1.2.840.10045.2.1" && curve_name(key).is_none()
}

/// Returns the identifier of a named curve; `None` for explicit parameters, whose bytes the parser
/// would read as an identifier, too.
fn curve_name(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.filter(|curve| curve.tag() == Tag::Oid)?;
    Some(curve.as_oid().ok()?.to_id_string())
}

fn curve(key: &SubjectPublicKeyInfo<'_>) -> String {
    let Some(curve) = curve_name(key) else {
        return "with a curve that it describes itself (explicit parameters)".to_owned();
    };
    match curve.as_str() {
        "1.2.840.10045.3.1.7" => "P-256".to_owned(),
        "1.3.132.0.34" => "P-384".to_owned(),
        "1.3.132.0.35" => "P-521".to_owned(),
        "1.3.132.0.10" => "secp256k1".to_owned(),
        _ => format!("on the curve {curve}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_common_names() {
        for (algorithm, name) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "ECDSA P-256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "ECDSA P-384"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "ECDSA P-521"),
            (&rcgen::PKCS_ED25519, "Ed25519"),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::default()
                .self_signed(&key)
                .unwrap();
            let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
            assert_eq!(key_kind(certificate.public_key()), name);
        }
    }
}
