//! A certificate that signs keys and sessions, apart from the one that connects.
//!
//! It may live longer than the one that connects, with its private key kept elsewhere: what it has
//! signed counts for as long as it does.

use ciphermq_certificates::ClientIdFrom;
use ciphermq_crypto::Identity;
use ciphermq_protocol::ClientId;
use rustls_pki_types::CertificateDer;

use super::load::{Pair, certificates, private_key};
use super::pem::upper_first;
use crate::error::{ConnectError, ConnectErrorKind};

/// Reads the certificate and its key. Whether others accept it is checked when it signs.
pub(super) fn load(
    pair: &Pair,
    client_id_from: ClientIdFrom,
) -> Result<(Identity, Vec<CertificateDer<'static>>), ConnectError> {
    let (chain, chain_name) = certificates(&pair.certificate, "the signing certificate")?;
    let (key, _) = private_key(&pair.key, "the signing certificate's private key")?;
    match Identity::named_by(client_id_from, chain.clone(), &key) {
        Ok(identity) => Ok((identity, chain)),
        Err(error) => {
            let what = format!("{} cannot sign: {error}.", upper_first(&chain_name));
            Err(ConnectError::new(ConnectErrorKind::BadCertificate, what)
                .advise(error.advice())
                .caused_by(error))
        }
    }
}

/// Returns the error of a signing certificate that names another client.
pub(super) fn other_client(signing: &Identity, client_id: &ClientId) -> ConnectError {
    let what = format!(
        "The signing certificate names `{}`, and this client is `{client_id}`.",
        signing.client_id()
    );
    ConnectError::new(ConnectErrorKind::OtherClient, what).advise(
        "Name a signing certificate that the same authority has issued for the same client, or \
         none.",
    )
}
