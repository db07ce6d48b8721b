//! Signing with any certificate, including those that receivers refuse.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;

use super::chain_text;
use crate::identity::testing::Ca;

/// A certificate chain and its private key.
pub(super) struct Signer {
    pub(super) chain: Vec<CertificateDer<'static>>,
    algorithm: &'static str,
    key: EcdsaKeyPair,
}

impl Signer {
    /// Creates a signer of a certificate with an ECDSA P-384 key.
    pub(super) fn p384(certificate: &Ca) -> Self {
        Self::new(certificate, "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    /// Creates a signer of a certificate with an ECDSA P-521 key.
    pub(super) fn p521(certificate: &Ca) -> Self {
        Self::new(certificate, "ES512", &ECDSA_P521_SHA512_FIXED_SIGNING)
    }

    fn new(
        certificate: &Ca,
        algorithm: &'static str,
        signing: &'static EcdsaSigningAlgorithm,
    ) -> Self {
        let key = certificate.private_key();
        Self {
            chain: certificate.chain.clone(),
            algorithm,
            key: EcdsaKeyPair::from_private_key_der(signing, key.secret_der()).unwrap(),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key
            .sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    /// Signs a key with the usual header.
    pub(super) fn signed_key(&self, payload: &str) -> String {
        self.with_header(&self.header(), payload)
    }

    /// Returns the usual header of a signed key.
    pub(super) fn header(&self) -> String {
        let x5c = serde_json::to_string(&chain_text(&self.chain)).unwrap();
        format!(
            r#"{{"alg":"{}","typ":"ciphermq-keys","x5c":{x5c}}}"#,
            self.algorithm
        )
    }

    /// Signs a key with any header.
    pub(super) fn with_header(&self, header: &str, payload: &str) -> String {
        self.with_parts(
            &URL_SAFE_NO_PAD.encode(header),
            &URL_SAFE_NO_PAD.encode(payload),
        )
    }

    /// Signs arbitrary parts without encoding them.
    pub(super) fn with_parts(&self, header: &str, payload: &str) -> String {
        let signed = format!("{header}.{payload}");
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
