//! The certificate authority: generated here, or read from files, also of OpenSSL's.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ciphermq_certificates::{key_kind, pem};
use ciphermq_crypto::ClientId;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PublicKeyData as _, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _};
use zeroize::Zeroizing;

use crate::error::Error;

/// The validity of a new authority, in days: ten years.
pub const AUTHORITY_DAYS: u16 = 3653;

/// A certificate and its private key, in PEM.
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8 (RFC 5958).
    pub key: Zeroizing<String>,
}

/// The issuer of servers' and clients' certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Generates a new authority: ECDSA P-384, self-signed.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub fn generate(now: Timestamp) -> Result<(Self, Pem), Error> {
        Self::with_key(new_key()?, now)
    }

    /// Creates a self-signed authority with an existing key.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub fn with_key(key: KeyPair, now: Timestamp) -> Result<(Self, Pem), Error> {
        let mut params = params(now, AUTHORITY_DAYS)?;
        // Two authorities must be distinguishable: each has a name of its own.
        let id = params.key_identifier(&key);
        let id = hex::encode(id.get(..4).unwrap_or_default());
        params
            .distinguished_name
            .push(DnType::CommonName, format!("CipherMQ authority {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let pem = Pem {
            certificate: certificate.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        };
        let authority = Self {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        };
        Ok((authority, pem))
    }

    /// Reads an authority's certificate and its unencrypted private key, PKCS #8, SEC 1 or PKCS #1.
    ///
    /// # Errors
    ///
    /// [`Error`] if one of the files cannot be read or used, they don't belong together, the
    /// certificate may not sign others, or is not valid at `now`.
    pub fn read(certificate_path: &Path, key_path: &Path, now: Timestamp) -> Result<Self, Error> {
        let certificate = read_certificate(certificate_path)?;
        let no_certificate = || Error::NoCertificate(certificate_path.to_owned());
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| no_certificate())?;
        let key = read_key(key_path).map_err(|error| match error {
            // The key's own file does not tell much of its kind.
            Error::KeyKind { path, .. } => Error::KeyKind {
                path,
                kind: key_kind(parsed.public_key()),
            },
            error => error,
        })?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::KeyMismatch {
                certificate: certificate_path.to_owned(),
                key: key_path.to_owned(),
            });
        }
        if !may_sign(&parsed) {
            return Err(Error::NoAuthority(certificate_path.to_owned()));
        }
        let validity = parsed.validity();
        if !ASN1Time::from_timestamp(now.as_second()).is_ok_and(|now| validity.is_valid_at(now)) {
            return Err(Error::NotValidNow {
                path: certificate_path.to_owned(),
                not_before: validity.not_before.to_string(),
                not_after: validity.not_after.to_string(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| no_certificate())?;
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// Issues a server's certificate for a key.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub fn server(
        &self,
        key: &KeyPair,
        common_name: &str,
        names: Vec<SanType>,
        now: Timestamp,
        days: u16,
    ) -> Result<Pem, Error> {
        let mut params = params(now, days)?;
        params.subject_alt_names = names;
        self.leaf(
            key,
            params,
            common_name,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// Issues a client's certificate for a key. The Common Name is the client id.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub fn client(
        &self,
        key: &KeyPair,
        id: &ClientId,
        now: Timestamp,
        days: u16,
    ) -> Result<Pem, Error> {
        self.leaf(
            key,
            params(now, days)?,
            id.as_str(),
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    /// Returns whether this authority has signed the certificate in a file.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no certificate in the file.
    pub fn has_issued(&self, certificate_path: &Path) -> Result<bool, Error> {
        let certificate = read_certificate(certificate_path)?;
        let no_certificate = || Error::NoCertificate(certificate_path.to_owned());
        let (_, leaf) = X509Certificate::from_der(&certificate).map_err(|_| no_certificate())?;
        let authority = self.parsed()?;
        Ok(leaf.issuer().as_raw() == authority.subject().as_raw()
            && leaf.verify_signature(Some(authority.public_key())).is_ok())
    }

    /// Returns whether this is the authority's own certificate, which it may have signed itself.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no certificate in the file.
    pub fn is_own(&self, certificate_path: &Path) -> Result<bool, Error> {
        Ok(read_certificate(certificate_path)? == self.certificate)
    }

    /// Returns whether this authority has signed a revocation list.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub fn has_signed(&self, list: &CertificateRevocationList<'_>) -> Result<bool, Error> {
        let authority = self.parsed()?;
        Ok(list.issuer().as_raw() == authority.subject().as_raw()
            && list.verify_signature(authority.public_key()).is_ok())
    }

    /// Signs a revocation list, and returns it in PEM.
    ///
    /// # Errors
    ///
    /// [`Error::NoListSigner`] if the authority's certificate does not allow it, and
    /// [`Error::Certificate`].
    pub fn sign_list(&self, params: CertificateRevocationListParams) -> Result<String, Error> {
        let list = params
            .signed_by(&self.issuer)
            .map_err(|error| match error {
                rcgen::Error::IssuerNotCrlSigner => Error::NoListSigner,
                error => error.into(),
            })?;
        Ok(list.pem()?)
    }

    /// Returns whether a certificate is what [`client`](Self::client) issues for this client and
    /// this number of days: this authority has issued it, and it is valid at `now`.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no certificate in the file.
    pub fn has_issued_client(
        &self,
        certificate_path: &Path,
        id: &ClientId,
        now: Timestamp,
        days: u16,
    ) -> Result<bool, Error> {
        if !self.has_issued(certificate_path)? {
            return Ok(false);
        }
        let certificate = read_certificate(certificate_path)?;
        let (_, leaf) = X509Certificate::from_der(&certificate)
            .map_err(|_| Error::NoCertificate(certificate_path.to_owned()))?;
        let (validity, end) = (leaf.validity(), self.parsed()?.validity().not_after);
        let period = validity.not_after.timestamp() - validity.not_before.timestamp();
        // From a day before to the last day; or to the authority's end.
        let full = (i64::from(days) + 1) * 24 * 60 * 60;
        let has_period = period == full || (period < full && validity.not_after == end);
        let is_valid =
            ASN1Time::from_timestamp(now.as_second()).is_ok_and(|now| validity.is_valid_at(now));
        Ok(ciphermq_certificates::client_id(&leaf).as_ref() == Ok(id) && has_period && is_valid)
    }

    /// Issues a certificate. The serial number is derived from the key, which has no other
    /// certificate, and is therefore unique.
    fn leaf(
        &self,
        key: &KeyPair,
        mut params: CertificateParams,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pem, Error> {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        // No certificate outlives the authority that issued it.
        params.not_after = params
            .not_after
            .min(self.parsed()?.validity().not_after.to_datetime());
        let certificate: Certificate = params.signed_by(key, &self.issuer)?;
        Ok(Pem {
            certificate: certificate.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }

    fn parsed(&self) -> Result<X509Certificate<'_>, Error> {
        let parsed = X509Certificate::from_der(&self.certificate);
        Ok(parsed
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?
            .1)
    }
}

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

/// Returns the serial number of the certificate in a file.
///
/// # Errors
///
/// [`Error`] if there is no certificate in it, or its number is not a positive one.
pub fn serial_number(certificate_path: &Path) -> Result<SerialNumber, Error> {
    let certificate = read_certificate(certificate_path)?;
    let (_, parsed) = X509Certificate::from_der(&certificate)
        .map_err(|_| Error::NoCertificate(certificate_path.to_owned()))?;
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
    let (_, leaf) = X509Certificate::from_der(&certificate)
        .map_err(|_| Error::NoCertificate(certificate_path.to_owned()))?;
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

/// Returns whether a certificate may sign others. An authority states so in its basic constraints
/// (RFC 5280, section 4.2.1.9), which certificates before version 3 cannot have.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let is_authority = match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => certificate.version().0 < 2,
        Err(_) => false,
    };
    is_authority
        && match certificate.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        }
}

/// Returns the parameters of a certificate for `days` from now on; valid from a day ago, for clocks
/// that are behind.
fn params(now: Timestamp, days: u16) -> Result<CertificateParams, Error> {
    let today = TimeZone::UTC.to_datetime(now).date();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let (year, month, day) = date_parts(today.saturating_sub(Span::new().days(1)))?;
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date_parts(today.saturating_add(Span::new().days(i64::from(days))))?;
    params.not_after = date_time_ymd(year, month, day);
    Ok(params)
}

/// Converts a date to rcgen's types. Months and days always fit them.
fn date_parts(date: Date) -> Result<(i32, u8, u8), Error> {
    match (u8::try_from(date.month()), u8::try_from(date.day())) {
        (Ok(month), Ok(day)) => Ok((i32::from(date.year()), month, day)),
        _ => Err(rcgen::Error::Time.into()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, Error> {
    pem::certificates(&read(path)?)
        .ok()
        .and_then(|found| found.into_iter().next())
        .ok_or_else(|| Error::NoCertificate(path.to_owned()))
}
