//! The certificate authority: generated here, or read from files, also of OpenSSL's.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use ciphermq_certificates::key_kind;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustix::io::Errno;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::client_name::ClientName;
use crate::error::Error;
use crate::files;
use crate::lifetime::{Lifetime, asn1};
use crate::profile::Profile;
use crate::serial;

/// The validity of a new authority, in days: ten years.
pub const AUTHORITY_DAYS: u16 = 3653;

/// The issuer of servers' and clients' certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// The intermediate certificates that verifiers need above those that it issues: its own, and
    /// those above it, without the root's.
    chain: Vec<CertificateDer<'static>>,
    /// Held against other runs; `None` for a new authority, which nobody else knows, and on a file
    /// system without locks.
    lock: Option<File>,
}

/// A certificate that an authority has issued.
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The certificate and the intermediate ones above it, in PEM.
    pub chain: String,
}

impl Authority {
    /// Creates a self-signed authority with an existing key. `path_length` is the number of
    /// intermediate authorities that may follow.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub fn with_key(
        key: KeyPair,
        path_length: u8,
        lifetime: Lifetime,
        now: Timestamp,
    ) -> Result<(Self, Issued), Error> {
        let params = authority_params("authority", &key, path_length, lifetime, now)?;
        let certificate = params.self_signed(&key)?;
        let der = certificate.der().clone();
        let issued = Issued {
            chain: files::to_pem([&der]),
            der: der.clone(),
        };
        let authority = Self {
            certificate: der,
            chain: Vec::new(),
            issuer: Issuer::new(params, key),
            lock: None,
        };
        Ok((authority, issued))
    }

    /// Issues the certificate of an intermediate authority, below which there is no other.
    ///
    /// # Errors
    ///
    /// [`Error::PathLength`] if this authority's certificate does not allow it;
    /// [`Error::Certificate`].
    pub fn intermediate(
        &self,
        key: &KeyPair,
        lifetime: Lifetime,
        now: Timestamp,
    ) -> Result<Issued, Error> {
        if self.path_length()? == Some(0) {
            return Err(Error::PathLength);
        }
        let params = authority_params("intermediate authority", key, 0, lifetime, now)?;
        self.sign(params, key)
    }

    /// Reads an authority's certificate and its unencrypted private key, PKCS #8, SEC 1 or PKCS #1.
    ///
    /// Waits for another run that uses it, and keeps others waiting as long as the value lives: two
    /// that change a list, or what is kept of a client, at once would each lose what the other has
    /// added.
    ///
    /// # Errors
    ///
    /// [`Error`] if one of the files cannot be read or used, they don't belong together, the
    /// certificate may not sign others, or is not valid at `now`.
    pub fn read(certificate_path: &Path, key_path: &Path, now: Timestamp) -> Result<Self, Error> {
        let lock = lock(certificate_path)?;
        let certificates = files::read_chain(certificate_path)?;
        let no_certificate = || Error::NoCertificate(certificate_path.to_owned());
        let certificate = certificates.first().ok_or_else(no_certificate)?.clone();
        let parsed = files::parse(&certificate, certificate_path)?;
        let key = files::read_key(key_path).map_err(|error| match error {
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
        if !asn1(now.as_second()).is_ok_and(|now| validity.is_valid_at(now)) {
            return Err(Error::NotValidNow {
                path: certificate_path.to_owned(),
                not_before: validity.not_before.to_string(),
                not_after: validity.not_after.to_string(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| no_certificate())?;
        Ok(Self {
            issuer,
            chain: chain(&certificates),
            certificate,
            lock,
        })
    }

    /// Issues a certificate of this profile for a key.
    ///
    /// Its serial number is random (RFC 5280, section 4.1.2.2), and it ends before the authority
    /// does.
    ///
    /// # Errors
    ///
    /// [`Error::AuthorityName`], [`Error::Certificate`], [`Error::Random`].
    pub fn issue(
        &self,
        profile: &Profile,
        key: &impl PublicKeyData,
        lifetime: Lifetime,
        now: Timestamp,
    ) -> Result<Issued, Error> {
        let mut params = profile.params()?;
        let (from, until) = lifetime.period(now)?;
        (params.not_before, params.not_after) = (from.to_datetime(), until.to_datetime());
        self.sign(params, key)
    }

    pub(crate) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// Returns whether other runs that use it wait for this one.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Returns whether it is an intermediate authority.
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        !self.chain.is_empty()
    }

    /// Returns whether this authority has signed the certificate in a file.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no certificate in the file.
    pub fn has_issued(&self, certificate_path: &Path) -> Result<bool, Error> {
        let certificate = files::read_certificate(certificate_path)?;
        self.has_signed_certificate(&files::parse(&certificate, certificate_path)?)
    }

    /// Returns whether this is the authority's own certificate, which it may have signed itself.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no certificate in the file.
    pub fn is_own(&self, certificate_path: &Path) -> Result<bool, Error> {
        Ok(files::read_certificate(certificate_path)? == self.certificate)
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

    /// Returns whether a certificate is what this authority issues for this client and this number
    /// of days, and is valid at `now`.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no certificate in the file.
    pub fn has_issued_client(
        &self,
        certificate_path: &Path,
        name: &ClientName,
        now: Timestamp,
        days: u16,
    ) -> Result<bool, Error> {
        if !self.has_issued(certificate_path)? {
            return Ok(false);
        }
        let certificate = files::read_certificate(certificate_path)?;
        let leaf = files::parse(&certificate, certificate_path)?;
        let (validity, end) = (leaf.validity(), self.parsed()?.validity().not_after);
        let period = validity.not_after.timestamp() - validity.not_before.timestamp();
        // From a day before to the last day; or to the authority's end.
        let full = (i64::from(days) + 1) * 24 * 60 * 60;
        let has_period = period == full || (period < full && validity.not_after == end);
        let is_valid = asn1(now.as_second()).is_ok_and(|now| validity.is_valid_at(now));
        Ok(name.is_of(&leaf) && has_period && is_valid)
    }

    /// Signs a certificate with a random serial number, which ends before the authority does.
    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Issued, Error> {
        let end = self.parsed()?.validity().not_after.to_datetime();
        params.not_after = params.not_after.min(end);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial::random()?);
        let certificate = params.signed_by(key, &self.issuer)?;
        let der = certificate.der().clone();
        let (_, signed) =
            X509Certificate::from_der(&der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        if !self.has_signed_certificate(&signed)? {
            return Err(Error::AuthorityName);
        }
        let chain = files::to_pem([&der].into_iter().chain(&self.chain));
        Ok(Issued { der, chain })
    }

    fn has_signed_certificate(&self, certificate: &X509Certificate<'_>) -> Result<bool, Error> {
        let authority = self.parsed()?;
        Ok(
            certificate.issuer().as_raw() == authority.subject().as_raw()
                && certificate
                    .verify_signature(Some(authority.public_key()))
                    .is_ok(),
        )
    }

    /// Returns how many authorities may follow; `None` if it is not limited.
    fn path_length(&self) -> Result<Option<u32>, Error> {
        let authority = self.parsed()?;
        let constraints = authority.basic_constraints().ok().flatten();
        Ok(constraints.and_then(|constraints| constraints.value.path_len_constraint))
    }

    fn parsed(&self) -> Result<X509Certificate<'_>, Error> {
        let parsed = X509Certificate::from_der(&self.certificate);
        Ok(parsed
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?
            .1)
    }
}

/// Locks an authority's certificate against other runs.
/// `None` on a file system without locks.
fn lock(certificate: &Path) -> Result<Option<File>, Error> {
    let failed = |source| Error::Read {
        path: certificate.to_owned(),
        source,
    };
    // Some network file systems lock only files that are open for writing.
    let file = File::options().read(true).write(true).open(certificate);
    let file = match file {
        // One that may only be read can still be locked on this machine.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            File::open(certificate)
        }
        file => file,
    };
    let file = file.map_err(failed)?;
    match file.lock() {
        Ok(()) => Ok(Some(file)),
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a file cannot be locked at all, or not by somebody who may only read it.
fn is_unsupported(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::Unsupported
        || [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::BADF]
            .map(|errno| Some(errno.raw_os_error()))
            .contains(&error.raw_os_error())
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

/// Returns the parameters of an authority's certificate.
fn authority_params(
    name: &str,
    key: &KeyPair,
    path_length: u8,
    lifetime: Lifetime,
    now: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let (from, until) = lifetime.period(now)?;
    (params.not_before, params.not_after) = (from.to_datetime(), until.to_datetime());
    // Two authorities must be distinguishable: each has a name of its own.
    let id = params.key_identifier(key);
    let id = hex::encode(id.get(..4).unwrap_or_default());
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("CipherMQ {name} {id}"));
    params.serial_number = Some(serial::random()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Returns the intermediate certificates of an authority's file, its own first, without the root's:
/// a verifier has that one.
fn chain(certificates: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
    let parsed = |der| {
        X509Certificate::from_der(der)
            .ok()
            .map(|(_, parsed)| parsed)
    };
    let is_root = |one: &X509Certificate<'_>| one.subject().as_raw() == one.issuer().as_raw();
    let mut chain: Vec<CertificateDer<'static>> = Vec::new();
    let mut next = certificates.first();
    while let Some(one) = next.filter(|one| !chain.contains(one)) {
        let Some(above) = parsed(one).filter(|one| !is_root(one)) else {
            break;
        };
        chain.push(one.clone());
        next = certificates.iter().find(|der| {
            parsed(der).is_some_and(|der| der.subject().as_raw() == above.issuer().as_raw())
        });
    }
    chain
}
