//! Who a client is, and what it signs: certificates, and the private keys that belong to them.
//!
//! The certificate authority names clients, and nobody else does: not the broker, not its database.
//! A signature counts when the certificate beside it leads to an authority that the verifier was
//! given itself (RFC 5280, section 6), is valid at the time in question, may be used for client
//! authentication if it states usages at all, and names the client in its Common Name.
//!
//! - `algorithm`: how a certificate's key signs
//! - [`Authority`]: verifies chains
//! - [`Certificate`]: one that was verified, and whose signatures can be
//! - [`Identity`]: a client's own chain and private key

mod algorithm;
mod authority;
mod certificate;
mod signer;

pub use algorithm::SignatureAlgorithm;
pub use authority::{Authority, AuthorityError, CertificateError};
pub use certificate::{Certificate, Fingerprint, FingerprintError, client_id};
pub use ciphermq_certificates::{Flaw, NameError as CommonNameError, Trouble, Validity};
pub use signer::{Identity, IdentityError, SignError};

use rustls_pki_types::CertificateDer;

/// Reads a chain of certificates, base64 of DER each, as it stands in a reply to `get_certificate`;
/// `None` if one of them is no base64.
#[must_use]
pub fn certificates(chain: &[String]) -> Option<Vec<CertificateDer<'static>>> {
    chain
        .iter()
        .map(|text| crate::encoding::decode(text).map(CertificateDer::from))
        .collect()
}

#[cfg(test)]
pub(crate) mod testing;
