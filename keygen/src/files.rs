//! Certificates and private keys in files.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ciphermq_certificates::pem;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData as _, SanType, SerialNumber};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::error::Error;

/// Generates an ECDSA P-384 key.
///
/// # Errors
///
/// [`Error::Certificate`].
pub fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?)
}

/// Reads an unencrypted private key, PKCS #8, SEC 1 or PKCS #1.
///
/// # Errors
///
/// [`Error`] if the file cannot be read or used.
pub fn read_key(path: &Path) -> Result<KeyPair, Error> {
    let text = Zeroizing::new(read(path)?);
    // Other PEM blocks before the key are skipped, such as OpenSSL's curve parameters.
    let key = pem::private_key(&text).map_err(|reason| Error::NoPrivateKey {
        path: path.to_owned(),
        reason,
    })?;
    KeyPair::try_from(&key).map_err(|_| Error::KeyKind {
        path: path.to_owned(),
        kind: "damaged, or of a kind that is not supported".to_owned(),
    })
}

/// Returns whether a certificate and a key do not belong together; `false` if one of them cannot be
/// read or used.
pub fn is_mismatch(certificate_path: &Path, key_path: &Path) -> bool {
    let (Ok(certificate), Ok(key)) = (read_certificate(certificate_path), read_key(key_path))
    else {
        return false;
    };
    X509Certificate::from_der(&certificate)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw != key.subject_public_key_info())
}

/// Returns whether a certificate and a key can be read and belong together.
pub(crate) fn is_pair(certificate_path: &Path, key_path: &Path) -> bool {
    certificate_path.is_file() && key_path.is_file() && {
        let is_readable = read_certificate(certificate_path).is_ok() && read_key(key_path).is_ok();
        is_readable && !is_mismatch(certificate_path, key_path)
    }
}

/// Returns the serial number of the certificate in a file.
///
/// # Errors
///
/// [`Error`] if there is no certificate in it, or its number is not a positive one.
pub fn serial_number(certificate_path: &Path) -> Result<SerialNumber, Error> {
    let certificate = read_certificate(certificate_path)?;
    let parsed = parse(&certificate, certificate_path)?;
    positive(parsed.raw_serial()).ok_or_else(|| Error::Serial(certificate_path.to_owned()))
}

/// Returns a serial number as it is in DER; `None` if it is negative or has needless zeros, against
/// RFC 5280, section 4.1.2.2: it would be another one in a list.
pub(crate) fn positive(raw: &[u8]) -> Option<SerialNumber> {
    let is_good = match raw {
        [] => false,
        [0, second, ..] => *second >= 0x80,
        [first, ..] => *first < 0x80,
    };
    is_good.then(|| SerialNumber::from_slice(raw))
}

/// Returns whether a server's certificate has exactly these names.
///
/// # Errors
///
/// [`Error`] if there is no certificate in the file.
pub fn has_names(certificate_path: &Path, names: &[SanType]) -> Result<bool, Error> {
    let certificate = read_certificate(certificate_path)?;
    let leaf = parse(&certificate, certificate_path)?;
    let Ok(Some(found)) = leaf.subject_alternative_name() else {
        return Ok(false);
    };
    let found = &found.value.general_names;
    let is_found = |name: &SanType| {
        found.iter().any(|found| match (name, found) {
            (SanType::DnsName(name), GeneralName::DNSName(found)) => name.as_str() == *found,
            (SanType::IpAddress(IpAddr::V4(address)), GeneralName::IPAddress(found)) => {
                address.octets() == **found
            }
            (SanType::IpAddress(IpAddr::V6(address)), GeneralName::IPAddress(found)) => {
                address.octets() == **found
            }
            _ => false,
        })
    };
    Ok(found.len() == names.len() && names.iter().all(is_found))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads the certificates in a file, in order; at least one.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem::certificates(&read(path)?).map_err(|_| Error::NoCertificate(path.to_owned()))
}

/// Reads the first certificate in a file.
pub(crate) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, Error> {
    let first = read_chain(path)?.into_iter().next();
    first.ok_or_else(|| Error::NoCertificate(path.to_owned()))
}

/// Parses a certificate of a file.
pub(crate) fn parse<'a>(der: &'a [u8], path: &Path) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(Error::NoCertificate(path.to_owned())),
    }
}

/// Returns certificates in PEM.
pub(crate) fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    certificates
        .into_iter()
        .map(|der| ::pem::encode_config(&::pem::Pem::new("CERTIFICATE", der.to_vec()), config))
        .collect()
}
