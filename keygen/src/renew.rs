//! Renewal of a certificate, for its own names and nobody else's.
//!
//! A certificate for the same key replaces the old one in one step. A new key and its certificate
//! are two files, so there is a moment between them, and a power failure may last in it:
//!
//! ```text
//!   client.key.new, then client.crt.new     both durable: from here on, the renewal is certain
//!   client.key.new  ──► client.key          a reader sees a pair that does not belong together
//!   client.crt.new  ──► client.crt          the pair is new
//! ```
//!
//! Readers that find two files that do not belong together keep the pair that they have, and try
//! again. Readers that look at the certificate for a change find the key there already. What is
//! interrupted is completed by the next run, from the same files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ciphermq_certificates::Validity;
use ciphermq_crypto::text::Escaped;
use ciphermq_files::{
    Access, Existing, NewFiles, beside, is_same_file, parent, resolve, sync_parent,
};
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::client_name::{FieldArg, has_two_names};
use crate::csr;
use crate::error::{Error, refuse_key};
use crate::files;
use crate::folders::NewFolders;
use crate::issued;
use crate::lifetime::LifetimeArgs;
use crate::pair::{Pair, certificate_path, is_there};
use crate::profile::Profile;
use crate::report::Report;
use crate::request;
use crate::sign;

/// The end of the names of a new key and a new certificate that are not in use yet.
const NEW: &str = ".new";

/// The arguments of `keygen renew`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RenewArgs {
    /// The file of the certificate, or the name of a client whose folder has it
    #[arg(value_name = "CERTIFICATE or CLIENT")]
    pub what: PathBuf,
    /// The private key [default: the certificate's path, with the ending .key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The folder with the clients' folders
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// Where the client's name stands, if the certificate has both a Common Name and a URI
    #[command(flatten)]
    pub field: FieldArg,
    /// For a new private key, which replaces the old one together with the certificate
    #[arg(long)]
    pub new_key: bool,
    /// Do nothing while more than a third of the lifetime is left
    #[arg(long)]
    pub due: bool,
    /// The folder with the ca.crt and ca.key of the authority that issues it at once; without it, a
    /// request is made
    #[arg(long, value_name = "FOLDER")]
    pub ca: Option<PathBuf>,
    /// The certificate that the authority has issued for the request: it is put in place
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ca", "new_key", "due"])]
    pub signed: Option<PathBuf>,
    /// How long the certificate is valid, if it is issued at once
    #[command(flatten)]
    pub lifetime: LifetimeArgs,
}

/// Renews a certificate, or makes a request for a new one.
///
/// # Errors
///
/// [`Error`]; then certificate and key are as they were, or the next run completes them.
pub fn run(args: &RenewArgs, now: Timestamp) -> Result<Report, Error> {
    refuse_key(&args.out)?;
    let certificate = certificate_path(&args.what, &args.out)?;
    let key = args.key.clone();
    let key = key.unwrap_or_else(|| certificate.with_extension("key"));
    let renewal = Renewal::of(Pair { certificate, key })?;
    if renewal.complete()? {
        return renewal.report("An interrupted renewal is completed.", true);
    }
    let path = &renewal.shown.certificate;
    let der = files::read_certificate(path)?;
    let old = files::parse(&der, path)?;
    let field = args.field.client_id_in;
    let profile = Profile::of(&old, field).ok_or_else(|| match has_two_names(&old) {
        true => Error::TwoNames(path.clone()),
        false => Error::NoProfile(path.clone()),
    })?;
    if let Profile::Client(name) = &profile {
        name.check()?;
    }
    if let Some(signed) = &args.signed {
        return renewal.install(signed, &profile, now);
    }
    if args.due && !is_due(&old, now) {
        return Ok(Report {
            kept: vec![path.clone()],
            next: vec!["More than a third of its lifetime is left: nothing is done.".to_owned()],
            ..Report::default()
        });
    }
    let (mut folders, mut files) = (NewFolders::default(), NewFiles::new());
    let key = renewal.key(&old, args.new_key, &mut files)?;
    let Some(folder) = &args.ca else {
        return renewal.request(&profile, &key, files);
    };
    refuse_key(folder)?;
    let authority = Pair::authority(folder);
    let authority = Authority::read(&authority.certificate, &authority.key, now)?;
    // The authority has to know what it has issued, to revoke it.
    let last = Pair::of(&profile, folder);
    let is_elsewhere = !is_same_file(&last.certificate, path);
    let certificate = authority.issue(&profile, &key, args.lifetime.into(), now)?;
    folders.make(parent(&last.certificate))?;
    issued::keep(&last.certificate, &profile, now, &mut files)?;
    if is_elsewhere {
        issued::refuse_other_key(&last, &key)?;
        let chain = certificate.chain.as_bytes();
        files.stage(&last.certificate, chain, Access::Public, Existing::Replace)?;
    }
    renewal.put(&certificate.chain, args.new_key, files)?;
    folders.keep();
    let mut report = renewal.report(&sign::details(&certificate)?, args.new_key)?;
    if is_elsewhere {
        report.written.push(last.certificate);
    }
    Ok(report)
}

/// Whether no more than a third of a certificate's lifetime is left.
fn is_due(certificate: &X509Certificate<'_>, now: Timestamp) -> bool {
    let validity = certificate.validity();
    let (from, until) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    now.as_second() >= until.saturating_sub(until.saturating_sub(from) / 3)
}

/// The files of a renewal.
struct Renewal {
    /// The paths as they were given.
    shown: Pair,
    /// The files in use, without links.
    used: Pair,
    /// The new ones, beside them.
    new: Pair,
}

impl Renewal {
    fn of(shown: Pair) -> Result<Self, Error> {
        if is_same_file(&shown.certificate, &shown.key) {
            return Err(Error::SameFile {
                first: shown.certificate,
                second: shown.key,
            });
        }
        let target = |path: &Path| {
            resolve(path).map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })
        };
        let used = Pair {
            certificate: target(&shown.certificate)?,
            key: target(&shown.key)?,
        };
        let new = Pair {
            certificate: beside(&used.certificate, NEW),
            key: beside(&used.key, NEW),
        };
        Ok(Self { shown, used, new })
    }

    /// Returns the key of the old certificate, or a new one, which it stages; a new key for which
    /// there is a request already is used again.
    fn key(
        &self,
        old: &X509Certificate<'_>,
        is_new: bool,
        files: &mut NewFiles,
    ) -> Result<KeyPair, Error> {
        if is_new && is_there(&self.new.key) {
            return files::read_key(&self.new.key);
        }
        if is_new {
            let key = files::new_key()?;
            let pem = Zeroizing::new(key.serialize_pem());
            files.stage(
                &self.new.key,
                pem.as_bytes(),
                Access::Private,
                Existing::Keep,
            )?;
            return Ok(key);
        }
        let key = files::read_key(&self.used.key)?;
        if old.public_key().raw != key.subject_public_key_info() {
            return Err(self.mismatch(&self.shown.certificate));
        }
        Ok(key)
    }

    /// Makes a request for a new certificate.
    fn request(
        &self,
        profile: &Profile,
        key: &KeyPair,
        mut files: NewFiles,
    ) -> Result<Report, Error> {
        let path = csr::request_path(&self.shown.certificate);
        let request = request::make(profile, key)?;
        files.stage(&path, request.as_bytes(), Access::Public, Existing::Replace)?;
        let shown = |path: PathBuf| match path == self.new.key {
            true => beside(&self.shown.key, NEW),
            false => path,
        };
        let mut report = Report {
            written: files.commit()?.into_iter().map(shown).collect(),
            ..Report::default()
        };
        report.next = csr::next_steps(&path, key);
        report.next.push(format!(
            "Put the certificate that comes back in place with `keygen renew {} --signed FILE`.",
            Escaped(self.shown.certificate.display())
        ));
        Ok(report)
    }

    /// Puts a certificate in place that the authority has issued for a request.
    fn install(&self, signed: &Path, profile: &Profile, now: Timestamp) -> Result<Report, Error> {
        let chain = files::read_chain(signed)?;
        let no_certificate = || Error::NoCertificate(signed.to_owned());
        let parsed = files::parse(chain.first().ok_or_else(no_certificate)?, signed)?;
        if !Profile::of(&parsed, profile.field()).is_some_and(|new| new.is_same(profile)) {
            return Err(Error::OtherProfile {
                path: signed.to_owned(),
                expected: profile.to_string(),
            });
        }
        if let Some(reason) = Validity::of(&parsed).error_at(now) {
            return Err(Error::NotValid {
                path: signed.to_owned(),
                reason,
            });
        }
        let has_new_key = files::is_pair(signed, &self.new.key);
        if !has_new_key && !files::is_pair(signed, &self.used.key) {
            return Err(self.mismatch(signed));
        }
        self.put(&files::to_pem(&chain), has_new_key, NewFiles::new())?;
        self.report(&format!("The certificate is for {profile}."), has_new_key)
    }

    /// Puts a certificate in place, and its key with it if that is new.
    fn put(&self, chain: &str, has_new_key: bool, mut files: NewFiles) -> Result<(), Error> {
        let path = match has_new_key {
            true => &self.new.certificate,
            false => &self.used.certificate,
        };
        files.stage(path, chain.as_bytes(), Access::Public, Existing::Replace)?;
        files.commit()?;
        match has_new_key {
            true => self.replace_both(),
            false => Ok(()),
        }
    }

    /// Completes what an interrupted run has begun; `false` if there is nothing to complete.
    fn complete(&self) -> Result<bool, Error> {
        let (used, new) = (&self.used, &self.new);
        let has_key = files::is_pair(&new.certificate, &used.key)
            && !files::is_pair(&used.certificate, &used.key);
        // Otherwise it was given up, and the certificate renewed in another way.
        let is_newer = || period(&new.certificate) >= period(&used.certificate);
        let is_certain = has_key || (files::is_pair(&new.certificate, &new.key) && is_newer());
        if is_certain {
            self.replace_both()?;
        }
        Ok(is_certain)
    }

    /// Puts a new key and its certificate in place, unless the key is there already.
    fn replace_both(&self) -> Result<(), Error> {
        let (used, new) = (&self.used, &self.new);
        if !files::is_pair(&new.certificate, &used.key) {
            replace(&new.key, &used.key)?;
        }
        replace(&new.certificate, &used.certificate)?;
        match files::is_pair(&used.certificate, &used.key) {
            true => Ok(()),
            false => Err(self.mismatch(&self.shown.certificate)),
        }
    }

    fn mismatch(&self, certificate: &Path) -> Error {
        Error::KeyMismatch {
            certificate: certificate.to_owned(),
            key: self.shown.key.clone(),
        }
    }

    /// Returns the report about a certificate that is in place now.
    fn report(&self, first: &str, has_new_key: bool) -> Result<Report, Error> {
        let Pair { certificate, key } = &self.shown;
        let mut report = Report {
            written: vec![certificate.clone()],
            next: vec![first.to_owned()],
            ..Report::default()
        };
        if has_new_key {
            report.written.insert(0, key.clone());
        }
        let der = files::read_certificate(certificate)?;
        if let Some(Profile::Server(_)) = Profile::of(&files::parse(&der, certificate)?, None) {
            let what = "Send the server SIGHUP, so that it reads its certificate again.";
            report.next.push(what.to_owned());
        }
        Ok(report)
    }
}

/// Returns when the certificate in a file begins to be valid, and when it ends; `None`, which is
/// less, if there is none. One that was issued later begins later, whatever its lifetime.
fn period(path: &Path) -> Option<(Timestamp, Timestamp)> {
    let certificate = files::read_certificate(path).ok()?;
    let validity = Validity::read(&certificate)?;
    Some((validity.not_before, validity.not_after))
}

/// Renames a file over another one, durably. Another run may have done it.
fn replace(new: &Path, used: &Path) -> Result<(), Error> {
    match fs::rename(new, used).and_then(|()| sync_parent(used)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there(new) => Ok(()),
        Err(source) => Err(Error::Write {
            path: used.to_owned(),
            source,
        }),
        Ok(()) => Ok(()),
    }
}
