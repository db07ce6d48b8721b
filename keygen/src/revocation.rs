//! The authority's certificate revocation list (RFC 5280, section 5).
//!
//! The list is the only record of what is revoked: each run reads it, adds to it, and replaces it
//! by one with a greater number, as a whole. Runs on one authority take turns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, Existing, NewFiles};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};
use x509_parser::revocation_list::RevokedCertificate;

use crate::authority::Authority;
use crate::error::{Error, refuse_key};
use crate::files;
use crate::issued;
use crate::lifetime::asn1;
use crate::names::{CA_CERT, CA_LIST};
use crate::pair::{Pair, certificate_path};
use crate::report::Report;

/// The arguments of `keygen revoke`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RevokeArgs {
    /// The file of the certificate, or the name of a client, to revoke all that have not ended
    #[arg(value_name = "CERTIFICATE or CLIENT")]
    pub what: PathBuf,
    /// Why it is revoked
    #[arg(long, value_enum, default_value_t = Reason::Unspecified)]
    pub reason: Reason,
    /// Where the list is and how long it is in force
    #[command(flatten)]
    pub list: ListArgs,
}

/// The arguments of `keygen crl`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// The folder with the authority's ca.crt and ca.key; the list is written to ca.crl in it
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// How many days the list is in force: the next one has to be there before they are over
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub list_days: u16,
}

/// The reason for a revocation (RFC 5280, section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reason {
    /// No reason is given
    Unspecified,
    /// Somebody else has, or may have, the private key
    KeyCompromise,
    /// The client is somebody else's now
    AffiliationChanged,
    /// There is a new certificate
    Superseded,
    /// The client is no longer used
    CessationOfOperation,
    /// The client may no longer do what it could
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::AffiliationChanged => Self::AffiliationChanged,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

/// Adds a certificate to the list, and signs it anew; of a client that is named, all certificates
/// that have not ended.
///
/// One that is on the list stays as it is there.
///
/// # Errors
///
/// [`Error`]; then the list is as it was.
pub fn revoke(args: &RevokeArgs, now: Timestamp) -> Result<Report, Error> {
    refuse_key(&args.list.out)?;
    let path = certificate_path(&args.what, &args.list.out)?;
    let mut list = List::open(&args.list, now)?;
    // Nobody would believe a list by which an authority revokes itself.
    if !list.authority.has_issued(&path)? || list.authority.is_own(&path)? {
        return Err(Error::NotIssued {
            certificate: path,
            authority: args.list.out.join(CA_CERT),
        });
    }
    let all = issued::all(&path, now);
    let (paths, others) = match path == args.what {
        true => all.split_at(1),
        false => (all.as_slice(), [].as_slice()),
    };
    let mut is_new = false;
    for path in paths {
        // Those before the last one may be of an authority before this one.
        if list.authority.has_issued(path)? {
            is_new |= list.add(RevokedCertParams {
                serial_number: files::serial_number(path)?,
                revocation_time: asn1(now.as_second())?.to_datetime(),
                reason_code: Some(args.reason.into()),
                invalidity_date: None,
            });
        }
    }
    let mut report = list.sign(&args.list, now)?;
    for other in others {
        report.next.push(format!(
            "An earlier certificate with this name, {}, is not revoked: if the key was stolen, revoke \
             it as well.",
            other.display()
        ));
    }
    if !is_new {
        let what = "The certificate was on the list already, and stays there as it is.";
        report.next.insert(0, what.to_owned());
    }
    Ok(report)
}

/// Signs the list anew, so that it stays in force; creates an empty one if there is none.
///
/// # Errors
///
/// [`Error`]; then the list is as it was.
pub fn renew(args: &ListArgs, now: Timestamp) -> Result<Report, Error> {
    List::open(args, now)?.sign(args, now)
}

/// A list that is being changed.
struct List {
    authority: Authority,
    /// The number of the list that was read, big endian; empty if there is none.
    number: Vec<u8>,
    revoked: Vec<RevokedCertParams>,
}

impl List {
    fn open(args: &ListArgs, now: Timestamp) -> Result<Self, Error> {
        refuse_key(&args.out)?;
        let Pair { certificate, key } = Pair::authority(&args.out);
        let authority = Authority::read(&certificate, &key, now)?;
        if !authority.is_locked() {
            return Err(Error::NotLocked(certificate));
        }
        let path = args.out.join(CA_LIST);
        let mut list = Self {
            authority,
            number: Vec::new(),
            revoked: Vec::new(),
        };
        match std::fs::read(&path) {
            Ok(bytes) => list.read(&path, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path, source }),
        }
        Ok(list)
    }

    /// Takes over what a list says. It must be this authority's, and a whole one: otherwise what it
    /// has revoked would be lost, or somebody else's revocations signed.
    fn read(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let not_list = || Error::NotList(path.to_owned());
        let der = CertificateRevocationListDer::from_pem_slice(bytes).map_err(|_| not_list())?;
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|_| not_list())?;
        if !self.authority.has_signed(&list)? {
            return Err(Error::OtherList(path.to_owned()));
        }
        // Deltas, indirect lists and parts of lists say so in critical extensions (RFC 5280,
        // sections 5.2.4, 5.2.5 and 5.3.3).
        let has_critical = list
            .iter_revoked_certificates()
            .flat_map(|entry| entry.extensions())
            .chain(list.extensions())
            .any(|extension| extension.critical);
        if has_critical {
            return Err(not_list());
        }
        self.number = list.crl_number().ok_or_else(not_list)?.to_bytes_be();
        let entries = list.iter_revoked_certificates().map(params);
        self.revoked = entries.collect::<Option<_>>().ok_or_else(not_list)?;
        Ok(())
    }

    /// Returns whether the certificate was not on the list.
    fn add(&mut self, certificate: RevokedCertParams) -> bool {
        let known: HashSet<&SerialNumber> =
            self.revoked.iter().map(|one| &one.serial_number).collect();
        let is_new = !known.contains(&certificate.serial_number);
        if is_new {
            self.revoked.push(certificate);
        }
        is_new
    }

    /// Signs the list with the next number, and puts it in place of the old one.
    fn sign(self, args: &ListArgs, now: Timestamp) -> Result<Report, Error> {
        let in_force = SignedDuration::from_hours(24 * i64::from(args.list_days));
        let end = now.saturating_add(in_force).unwrap_or(Timestamp::MAX);
        let count = self.revoked.len();
        let params = CertificateRevocationListParams {
            this_update: asn1(now.as_second())?.to_datetime(),
            next_update: asn1(end.as_second())?.to_datetime(),
            crl_number: SerialNumber::from(next_number(&self.number)),
            issuing_distribution_point: None,
            revoked_certs: self.revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = self.authority.sign_list(params)?;
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let signed = CertificateRevocationList::from_der(&der);
        let (_, signed) = signed.map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        if !self.authority.has_signed(&signed)? {
            return Err(Error::AuthorityName);
        }
        let mut files = NewFiles::new();
        let path = args.out.join(CA_LIST);
        files.stage(&path, pem.as_bytes(), Access::Public, Existing::Replace)?;
        let end = end.strftime("%Y-%m-%d");
        Ok(Report {
            written: files.commit()?,
            kept: Vec::new(),
            next: vec![
                format!("Revoked certificates: {count}. The list is in force until {end}."),
                "Copy it to the server's `crl_paths`, and send the server SIGHUP.".to_owned(),
            ],
        })
    }
}

/// Copies an entry of a list; `None` if its serial number is not a positive one.
fn params(entry: &RevokedCertificate<'_>) -> Option<RevokedCertParams> {
    let reason = entry.reason_code().map(|(_, reason)| match reason.0 {
        1 => RevocationReason::KeyCompromise,
        2 => RevocationReason::CaCompromise,
        3 => RevocationReason::AffiliationChanged,
        4 => RevocationReason::Superseded,
        5 => RevocationReason::CessationOfOperation,
        6 => RevocationReason::CertificateHold,
        9 => RevocationReason::PrivilegeWithdrawn,
        10 => RevocationReason::AaCompromise,
        _ => RevocationReason::Unspecified,
    });
    let invalidity = entry.invalidity_date();
    Some(RevokedCertParams {
        serial_number: files::positive(entry.raw_serial())?,
        revocation_time: entry.revocation_date.to_datetime(),
        reason_code: reason,
        invalidity_date: invalidity.map(|(_, date)| date.to_datetime()),
    })
}

/// Returns the number after one of up to 20 bytes (RFC 5280, section 5.2.3), big endian.
fn next_number(number: &[u8]) -> Vec<u8> {
    let mut next = number.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return next;
        }
    }
    next.insert(0, 1);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_over_bytes() {
        for (number, next) in [
            (&[][..], &[1][..]),
            (&[1], &[2]),
            (&[255], &[1, 0]),
            (&[1, 255], &[2, 0]),
            (&[255, 255], &[1, 0, 0]),
        ] {
            assert_eq!(next_number(number), next);
        }
    }
}
