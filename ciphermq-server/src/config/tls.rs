//! The section `[tls]`.

use std::path::PathBuf;

use super::{Error, file, validator::Validator};

/// The section `[tls]`.
///
/// There is no field for `[server] connection_type`, since `tls` is its only value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The PEM file of the server's certificate chain.
    pub cert_path: PathBuf,
    /// The PEM file of the certificate's private key.
    pub key_path: PathBuf,
    /// The PEM file of the certificate authority that verifies client certificates.
    pub ca_cert_path: PathBuf,
}

/// Validates the section.
///
/// # Errors
///
/// [`Error::Setting`] for a path that is blank, or is a key instead of its path.
pub(super) fn validate(section: &file::Tls, validator: &Validator<'_>) -> Result<Tls, Error> {
    Ok(Tls {
        cert_path: validator.path(
            ("tls", "cert_path"),
            section.cert_path.as_ref(),
            "certs/server.crt",
        )?,
        key_path: validator.path(
            ("tls", "key_path"),
            section.key_path.as_ref(),
            "certs/server.key",
        )?,
        ca_cert_path: validator.path(
            ("tls", "ca_cert_path"),
            section.ca_cert_path.as_ref(),
            "certs/ca.crt",
        )?,
    })
}
