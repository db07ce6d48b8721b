//! Errors: the text says what happened, [`Error::advice`] what to do.

use std::io;
use std::path::{Path, PathBuf};

use ciphermq_certificates::{PemError, ValidityError};
use ciphermq_crypto::text::{holds_key, shown};
use ciphermq_crypto::{KeyFileError, RandomError};
use ciphermq_files::FileError;

use crate::names::NameError;
use crate::request::Refusal;

/// The reason why nothing was created.
#[derive(thiserror::Error)]
pub enum Error {
    /// The key pair could not be written.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The operating system provided no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A file already exists.
    #[error("{} exists already", shown(.0))]
    Exists(PathBuf),
    /// A folder could not be created.
    #[error("cannot create the folder {}: {source}", shown(path))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", shown(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// An existing file could not be read.
    #[error("cannot read {}: {source}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// Only one file of a certificate and its key exists.
    #[error("{} exists, but {} does not", shown(there), shown(missing))]
    Incomplete {
        /// The existing file.
        there: PathBuf,
        /// The missing file.
        missing: PathBuf,
    },
    /// Two of the files are the same.
    #[error("{} and {} are the same file", shown(first), shown(second))]
    SameFile {
        /// One of its paths.
        first: PathBuf,
        /// The other path.
        second: PathBuf,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate in PEM form", shown(.0))]
    NoCertificate(PathBuf),
    /// A file holds no unencrypted private key in PEM.
    #[error("there is {} in {}", reason.reason(), shown(path))]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
        /// The contents found instead.
        reason: PemError,
    },
    /// A private key is of a kind that cannot sign certificates.
    #[error("the private key {} cannot be used: it is {kind}", shown(path))]
    KeyKind {
        /// The file.
        path: PathBuf,
        /// The kind of the key.
        kind: String,
    },
    /// A folder is given as the text of a key.
    #[error("--out holds a key, not the path of a folder")]
    KeyAsFolder,
    /// A private key does not belong to the certificate.
    #[error(
        "the private key {} does not belong to the certificate \
             {}",
        shown(key),
        shown(certificate)
    )]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A certificate may not sign others.
    #[error("{} is not an authority's certificate: it may not sign others", shown(.0))]
    NoAuthority(PathBuf),
    /// The authority's certificate is not valid now.
    #[error(
        "the authority's certificate {} is not valid at this time ({not_before} to \
             {not_after})",
        shown(path)
    )]
    NotValidNow {
        /// The certificate.
        path: PathBuf,
        /// Start of its validity.
        not_before: String,
        /// End of its validity.
        not_after: String,
    },
    /// The server's certificate, which would be kept, is from another authority.
    #[error(
        "{} was not issued by the authority {}",
        shown(server),
        shown(authority)
    )]
    OtherAuthority {
        /// The server's certificate.
        server: PathBuf,
        /// The authority's certificate.
        authority: PathBuf,
    },
    /// The authority has not issued a certificate that it is to revoke.
    #[error(
        "{} was not issued by the authority {}",
        shown(certificate),
        shown(authority)
    )]
    NotIssued {
        /// The certificate.
        certificate: PathBuf,
        /// The authority's certificate.
        authority: PathBuf,
    },
    /// A request for a certificate is refused.
    #[error("the request {} {reason}", shown(path))]
    Request {
        /// The request.
        path: PathBuf,
        /// The reason.
        reason: Refusal,
    },
    /// Beside a certificate to write there is the private key of another one.
    #[error("{} is not the private key that the request was made for", shown(.0))]
    OtherKey(PathBuf),
    /// An authority may issue certificates, but not of authorities.
    #[error("this authority may not issue certificates of authorities (path length 0)")]
    PathLength,
    /// A certificate is neither a client's nor a server's.
    #[error("{} is not the certificate of either a client or a server", shown(.0))]
    NoProfile(PathBuf),
    /// A revocation list cannot be kept from other runs.
    #[error("{} cannot be locked: its file system does not allow it", shown(.0))]
    NotLocked(PathBuf),
    /// A certificate has two names that may be the client's.
    #[error("{} has a Common Name and a URI, and either may be the client's name", shown(.0))]
    TwoNames(PathBuf),
    /// The certificate to be replaced is another client's.
    #[error("{} is not for {expected}", shown(path))]
    OtherClient {
        /// The existing certificate.
        path: PathBuf,
        /// The client that the new one is for.
        expected: String,
    },
    /// A certificate is for others than the one that it is to replace.
    #[error("{} is not for {expected}", shown(path))]
    OtherProfile {
        /// The new certificate.
        path: PathBuf,
        /// Whom the old one is for.
        expected: String,
    },
    /// A certificate is not valid now.
    #[error("the certificate {} {reason}", shown(path))]
    NotValid {
        /// The certificate.
        path: PathBuf,
        /// The reason.
        reason: ValidityError,
    },
    /// A file is no certificate revocation list.
    #[error("{} holds no certificate revocation list in PEM form with a number", shown(.0))]
    NotList(PathBuf),
    /// A certificate revocation list is from another authority.
    #[error("the revocation list {} was not signed by this authority", shown(.0))]
    OtherList(PathBuf),
    /// A certificate has a serial number that no list can name.
    #[error("the serial number of {} is negative, or has needless zeros", shown(.0))]
    Serial(PathBuf),
    /// The authority's name has an attribute more than once.
    #[error(
        "the authority's name has an attribute more than once, which cannot be repeated here in \
         what it signs"
    )]
    AuthorityName,
    /// The authority may not sign revocation lists.
    #[error("the authority's certificate does not allow it to sign revocation lists")]
    NoListSigner,
    /// A name is not allowed for a client or a server.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A certificate could not be created.
    #[error("a certificate could not be created: {0}")]
    Certificate(#[from] rcgen::Error),
}

ciphermq_crypto::debug_as_report!(Error, |error| Some(error.advice()));

impl Error {
    /// Returns whether the arguments are invalid, so that the command can never succeed.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Name(_) | Self::KeyAsFolder)
    }

    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::KeyFile(error) => error.advice(),
            Self::Random(_) => "this should not happen; look at the machine's logs".to_owned(),
            Self::Exists(_) => "use --force to replace it, or choose another folder with \
                                --out"
                .to_owned(),
            Self::Folder { .. } | Self::Write { .. } => {
                "check that the folder given with --out exists and that you may write to \
                 it"
                .to_owned()
            }
            Self::Read { path, .. } => format!(
                "check that {} is a file that you may \
                read",
                shown(path)
            ),
            Self::Incomplete { there, missing } => format!(
                "put {} back from a backup, or move {} away, or choose another folder with --out",
                shown(missing),
                shown(there)
            ),
            Self::NoCertificate(_) => "put the right file there; PEM begins with -----BEGIN \
                                       CERTIFICATE-----"
                .to_owned(),
            Self::NoPrivateKey { path, reason } => {
                lower_first(&reason.advice_in_place(&shown(path).to_string()))
            }
            Self::KeyKind { .. } => {
                "it must be ECDSA (P-256, P-384 or P-521, a named curve), Ed25519, or RSA of 2048 \
                 to 8192 bits; create a new authority with --new-ca --force, or in another folder \
                 with --out, and then new certificates for all clients"
                    .to_owned()
            }
            Self::KeyAsFolder => "name a folder, such as certs".to_owned(),
            Self::SameFile { second, .. } => format!(
                "remove the link {}, or choose another folder with --out",
                shown(second)
            ),
            Self::KeyMismatch { .. } => {
                "put a certificate and its key there, or choose another folder with --out; if a \
                 run that replaces them (--force) was interrupted, run the same command again"
                    .to_owned()
            }
            Self::NoAuthority(_) => {
                "put an authority's certificate there (basic constraints CA:TRUE), or choose \
                 another folder with --out"
                    .to_owned()
            }
            Self::NotValidNow { .. } => {
                "check the clock; or create a new authority with --new-ca --force, and then new \
                 certificates for all clients"
                    .to_owned()
            }
            Self::OtherAuthority { .. } => {
                "issue a new one with --force --server-name NAME, or choose another folder with \
                 --out"
                    .to_owned()
            }
            Self::NotIssued { .. } => {
                "name a certificate of this authority, or another authority's folder with --out"
                    .to_owned()
            }
            Self::Request { reason, .. } => lower_first(reason.advice()),
            Self::OtherKey(path) => format!(
                "move {} away if it is an older key of the same client or server; otherwise the \
                 request is somebody else's",
                shown(path)
            ),
            Self::PathLength => {
                "name the folder of a root with --under that `keygen authority` has made, or whose \
                 path length is at least 1"
                    .to_owned()
            }
            Self::NoProfile(_) => {
                "issue a new one, with `keygen csr` and `keygen sign`; it must have one extended \
                 key usage, clientAuth or serverAuth, or none"
                    .to_owned()
            }
            Self::NotLocked(_) => {
                "keep the authority's folder on a local disk, where you may write it: of two lists that \
                 are made at once, one would be lost"
                    .to_owned()
            }
            Self::TwoNames(_) => "say which one with --client-id-in common_name or \
                                  --client-id-in uri: the new certificate has that one alone"
                .to_owned(),
            Self::OtherClient { .. } => {
                "choose another name, or another folder with --out: each client has a folder of its \
                 own"
                    .to_owned()
            }
            Self::OtherProfile { .. } => {
                "name the certificate that the authority has issued for the request of this one"
                    .to_owned()
            }
            Self::NotValid { .. } => "check the clock, or have a new one issued".to_owned(),
            Self::NotList(path) | Self::OtherList(path) => format!(
                "put the authority's last list back from a backup, or from the server; if the \
                 authority is new, or nothing is revoked, move {} away",
                shown(path)
            ),
            Self::Serial(_) => {
                "block its client at the server instead (`ciphermq-cli clients block`), and issue \
                 a new certificate"
                    .to_owned()
            }
            Self::AuthorityName => {
                "make it with the program that made the authority, such as `openssl ca` (with \
                 -gencrl for a list)"
                    .to_owned()
            }
            Self::NoListSigner => {
                "its key usage lacks cRLSign; issue the authority's certificate again with it, or \
                 create a new authority with --new-ca --force, and then new certificates for all \
                 clients"
                    .to_owned()
            }
            Self::Name(error) => error.advice(),
            Self::Certificate(_) => "please report this bug of keygen".to_owned(),
        }
    }
}

/// Refuses a key in place of a folder: the paths of new files are printed.
pub(crate) fn refuse_key(folder: &Path) -> Result<(), Error> {
    if holds_key(folder) && !folder.exists() {
        return Err(Error::KeyAsFolder);
    }
    Ok(())
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_lowercase());
    first.into_iter().flatten().chain(chars).collect()
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Exists(path) => Self::Exists(path),
            FileError::Io { path, source } => Self::Write { path, source },
        }
    }
}
