//! Identities of clients: certificates, and the private keys that sign with them.
//!
//! Only the certificate authority names clients, neither the broker nor its database. A signature
//! is accepted if its certificate chains to an authority of the verifier's own configuration (RFC
//! 5280, section 6), is valid at the time in question, permits client authentication if it states
//! usages at all, and names the client: in its Common Name, or in the fields that the verifier's
//! configuration says ([`ClientIdFrom`]).
//!
//! - `algorithm`: signature algorithms
//! - [`Authority`]: trusted authorities, which verify chains
//! - [`Intermediate`]: an authority between a trusted one and a client
//! - [`RevocationList`]: the certificates that an authority has revoked
//! - [`Certificate`]: a verified certificate, which verifies signatures
//! - [`Identity`]: a client's own chain and private key

mod algorithm;
mod authority;
mod certificate;
mod revocation;
mod signer;

pub use algorithm::SignatureAlgorithm;
pub use authority::{Authority, AuthorityError, CertificateError, Intermediate, Learned, Usage};
pub use certificate::{Certificate, client_id};
pub use ciphermq_certificates::{
    ClientIdFrom, ClientIdFromError, Flaw, NameError as ClientNameError, NameField, Validity,
    ValidityError, fingerprint,
};
pub use ciphermq_protocol::certificate::{Fingerprint, FingerprintError};
pub use revocation::{ListSigner, Number as ListNumber, RevocationList, RevocationListError};
pub use signer::{Identity, IdentityError, SignError};

use ciphermq_protocol::CertificateChain;
use rustls_pki_types::CertificateDer;

/// Decodes a chain of certificates; `None` if one of them is not base64.
#[must_use]
pub fn certificates(chain: &CertificateChain) -> Option<Vec<CertificateDer<'static>>> {
    let chain = chain.to_der()?;
    Some(chain.into_iter().map(CertificateDer::from).collect())
}

#[cfg(test)]
pub(crate) mod testing;
