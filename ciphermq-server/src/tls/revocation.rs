//! Certificate revocation lists (RFC 5280, section 5).

use std::path::{Path, PathBuf};

use ciphermq_certificates::Validity;
use ciphermq_certificates::validity::time;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::error::X509Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::Error;
use super::ends::OwnCertificate;
use crate::config::Tls;

/// A list, and what concerns its end.
pub(super) struct List {
    pub(super) der: CertificateRevocationListDer<'static>,
    pub(super) own: OwnCertificate,
    /// The issuer's name in DER.
    issuer: Vec<u8>,
}

/// Reads the lists of `crl_paths`.
///
/// `authorities` are the certificates that may have signed them. A list of another authority is
/// kept: an intermediate one's certificate comes from its clients.
///
/// # Errors
///
/// [`Error::File`], [`Error::NotList`] if one cannot be used, and [`Error::TwoLists`]: of two lists
/// with the same issuer the TLS library looks at the first one only.
pub(super) fn lists(tls: &Tls, authorities: &[CertificateDer<'_>]) -> Result<Vec<List>, Error> {
    let mut lists: Vec<List> = Vec::new();
    for path in &tls.crl_paths {
        let bytes = std::fs::read(path).map_err(|source| Error::File {
            field: "crl_paths",
            what: "a revocation list",
            path: path.clone(),
            source,
        })?;
        for (index, der) in ders(&bytes, path)?.into_iter().enumerate() {
            let list = list(path, index, der, authorities)?;
            if let Some(other) = lists.iter().find(|other| other.issuer == list.issuer) {
                return Err(Error::TwoLists {
                    issuer: list.own.validity.subject,
                    first: other.own.path.clone(),
                    second: list.own.path,
                });
            }
            lists.push(list);
        }
    }
    Ok(lists)
}

fn list(
    path: &Path,
    index: usize,
    der: CertificateRevocationListDer<'static>,
    authorities: &[CertificateDer<'_>],
) -> Result<List, Error> {
    let Ok((_, parsed)) = CertificateRevocationList::from_der(&der) else {
        return Err(not_list(path, "something that cannot be parsed as one"));
    };
    let Some(next_update) = parsed.next_update() else {
        return Err(not_list(
            path,
            "one that does not say when the next one comes",
        ));
    };
    if !may_be_signed_by(&parsed, authorities) {
        return Err(not_list(
            path,
            "one that names an authority of `ca_cert_path` and was not signed by it: most likely \
             the authority was created again",
        ));
    }
    let own = OwnCertificate {
        field: "crl_paths",
        path: path.to_owned(),
        index,
        validity: Validity {
            subject: parsed.issuer().to_string(),
            not_before: time(parsed.last_update().timestamp()),
            not_after: time(next_update.timestamp()),
        },
    };
    let issuer = parsed.issuer().as_raw().to_vec();
    Ok(List { der, own, issuer })
}

/// Whether none of the authorities that a list names denies having signed it.
fn may_be_signed_by(
    list: &CertificateRevocationList<'_>,
    authorities: &[CertificateDer<'_>],
) -> bool {
    let mut is_denied = false;
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() != list.issuer().as_raw() {
            continue;
        }
        match list.verify_signature(authority.public_key()) {
            Err(X509Error::SignatureVerificationError) => is_denied = true,
            // An algorithm that is unknown here may be known to the TLS library.
            _ => return true,
        }
    }
    !is_denied
}

/// Splits a file into its lists: one in DER, or several in PEM.
fn ders(bytes: &[u8], path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    // A list in DER begins with the tag of a sequence.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    match lists {
        Ok(lists) if lists.is_empty() => Err(not_list(path, "no `-----BEGIN X509 CRL-----`")),
        Ok(lists) => Ok(lists),
        Err(_) => Err(not_list(path, "damaged PEM")),
    }
}

/// Returns the error of a file whose contents cannot be used as a list.
pub(super) fn not_list(path: &Path, found: impl Into<String>) -> Error {
    Error::NotList {
        path: PathBuf::from(path),
        found: found.into(),
    }
}
