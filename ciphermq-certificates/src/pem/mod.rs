//! Certificates and private keys from a file's text.
//!
//! The parser accepts PEM (RFC 7468) as found in practice: with CRLF, a byte order mark, blanks
//! around lines, other text and other sections, and in UTF-16, as some editors save it.

mod error;
mod sections;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

pub use error::PemError;

use error::describe;
use sections::{Section, sections};

/// The expected contents of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// One or more certificates.
    Certificates,
    /// An unencrypted private key.
    PrivateKey,
}

/// Reads the certificates in a text, in order; at least one.
///
/// # Errors
///
/// [`PemError`], which describes what the text holds instead, and what to do.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let sections = sections(text);
    let wanted = sections.iter().filter(|section| section.is_certificate());
    let found = wanted
        .map(|section| {
            let certificate = CertificateDer::from_pem_slice(&section.text);
            certificate.map_err(|_| PemError::Broken(Expected::Certificates))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        return Err(describe(text, &sections, Expected::Certificates));
    }
    Ok(found)
}

/// Reads the first private key in a text.
///
/// # Errors
///
/// [`PemError`], which describes what the text holds instead, and what to do.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let sections = sections(text);
    let Some(section) = sections.iter().find(|section| section.is_private_key()) else {
        return Err(describe(text, &sections, Expected::PrivateKey));
    };
    if section.is_encrypted {
        return Err(PemError::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(&section.text).map_err(|_| PemError::Broken(Expected::PrivateKey))
}

/// A text that is wiped on drop: it may be a private key.
type Secret = Zeroizing<Vec<u8>>;

impl Section {
    fn is_certificate(&self) -> bool {
        self.label == "CERTIFICATE"
    }

    fn is_private_key(&self) -> bool {
        matches!(
            self.label.as_str(),
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY"
        )
    }
}

#[cfg(test)]
mod tests;
