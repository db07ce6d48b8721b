//! From a file's text to certificates and private keys, or to what stands there instead.
//!
//! PEM (RFC 7468) as it is found: with CRLF, a byte order mark, blanks around its lines, other text
//! and other sections beside those that are wanted, also in UTF-16 as some editors save it.

mod instead;
mod sections;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

pub use instead::NotPem;

use instead::instead;
use sections::{Section, sections};

/// What a file is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One or more certificates.
    Certificates,
    /// An unencrypted private key.
    PrivateKey,
}

/// Reads the certificates of a text, in order; at least one.
///
/// # Errors
///
/// [`NotPem`] says what is there instead, and what to do.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, NotPem> {
    let sections = sections(text);
    let wanted = sections.iter().filter(|section| section.is_certificate());
    let found = wanted
        .map(|section| {
            let certificate = CertificateDer::from_pem_slice(&section.text);
            certificate.map_err(|_| NotPem::Broken(Wanted::Certificates))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        return Err(instead(text, &sections, Wanted::Certificates));
    }
    Ok(found)
}

/// Reads the first private key of a text.
///
/// # Errors
///
/// [`NotPem`] says what is there instead, and what to do.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, NotPem> {
    let sections = sections(text);
    let Some(section) = sections.iter().find(|section| section.is_private_key()) else {
        return Err(instead(text, &sections, Wanted::PrivateKey));
    };
    if section.is_encrypted {
        return Err(NotPem::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(&section.text).map_err(|_| NotPem::Broken(Wanted::PrivateKey))
}

/// A text whose copies are wiped: it may be a private key.
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
