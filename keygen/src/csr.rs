//! Requests for certificates, made where the private key stays.

use std::path::{Path, PathBuf};

use ciphermq_certificates::fingerprint;
use ciphermq_crypto::text::Escaped;
use ciphermq_files::{Access, Existing, NewFiles, parent};
use rcgen::{KeyPair, PublicKeyData};
use zeroize::Zeroizing;

use crate::client_name::FieldArg;
use crate::error::{Error, refuse_key};
use crate::files;
use crate::folders::NewFolders;
use crate::names;
use crate::pair::{Pair, State, is_there};
use crate::profile::Profile;
use crate::report::Report;
use crate::request;

/// The end of a request's name, beside its certificate.
const REQUEST: &str = "csr";

/// The arguments of `keygen csr`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CsrArgs {
    /// Whom the certificate is for
    #[command(flatten)]
    pub subject: Subject,
    /// Where the client's name stands
    #[command(flatten)]
    pub field: FieldArg,
    /// The folder for the key and the request; a client gets a folder in it
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// An existing private key to use, instead of a new one
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Replace an existing key and request; while the certificate is in use, `renew --new-key` does
    /// that without leaving it without its key
    #[arg(long)]
    pub force: bool,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Subject {
    /// The client that the certificate is for
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// A name or IP address by which clients reach the server; may be given more than once
    #[arg(long = "server-name", value_name = "NAME")]
    pub server_names: Vec<String>,
}

impl Subject {
    fn profile(&self, field: FieldArg) -> Result<Profile, Error> {
        Ok(match &self.client {
            Some(name) => Profile::Client(field.name(name)?),
            None => Profile::Server(names::subject_alternative_names(&self.server_names)?),
        })
    }
}

/// Creates a private key, unless one is given, and a request for a certificate.
///
/// A key without a request and a certificate, which an interrupted run has left, gets a request.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &CsrArgs) -> Result<Report, Error> {
    refuse_key(&args.out)?;
    let profile = args.subject.profile(args.field)?;
    let place = Pair::of(&profile, &args.out);
    let path = request_path(&place.certificate);
    let existing = match args.force {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let mut report = Report::default();
    let (mut folders, mut files) = (NewFolders::default(), NewFiles::new());
    let is_new = match (&args.key, place.state()) {
        (Some(_), _) | (None, State::KeyAlone) if !args.force && is_there(&path) => {
            return Err(Error::Exists(path));
        }
        (Some(_), _) => false,
        (None, _) if args.force => true,
        (None, State::Nothing) => true,
        (None, State::KeyAlone) => false,
        (None, _) => return Err(place.already_exists()),
    };
    let key_path = args.key.as_ref().unwrap_or(&place.key);
    folders.make(parent(&place.certificate))?;
    let key = match is_new {
        true => files::new_key()?,
        false => files::read_key(key_path)?,
    };
    if is_new {
        let pem = Zeroizing::new(key.serialize_pem());
        files.stage(key_path, pem.as_bytes(), Access::Private, existing)?;
    } else {
        report.kept.push(key_path.clone());
    }
    let request = request::make(&profile, &key)?;
    files.stage(&path, request.as_bytes(), Access::Public, existing)?;
    report.written = files.commit()?;
    folders.keep();
    report.next = next_steps(&path, &key);
    report.next.push(format!(
        "Put the certificate that comes back at {}.",
        Escaped(place.certificate.display())
    ));
    Ok(report)
}

/// Returns the path of a request, beside its certificate.
pub(crate) fn request_path(certificate: &Path) -> PathBuf {
    certificate.with_extension(REQUEST)
}

/// Returns what to do with a request.
pub(crate) fn next_steps(path: &Path, key: &KeyPair) -> Vec<String> {
    vec![
        format!(
            "The fingerprint of the public key is {}.",
            key_fingerprint(key)
        ),
        format!(
            "Take {} to the authority, where `keygen sign` shows the same fingerprint.",
            Escaped(path.display())
        ),
    ]
}

/// Returns the fingerprint of a public key: the SHA-256 of its SubjectPublicKeyInfo.
pub(crate) fn key_fingerprint(key: &impl PublicKeyData) -> String {
    fingerprint(&key.subject_public_key_info()).to_string()
}
