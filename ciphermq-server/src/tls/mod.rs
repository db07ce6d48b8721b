//! Mutual TLS, and the mapping from a client's certificate to its client id.
//!
//! - [`current`]: the certificates in force, which can be replaced while the server runs
//! - [`trust`]: which clients are accepted
//! - `verifier`: accepts certificates that name a client, of authorities that are valid
//! - `revocation`: certificate revocation lists
//! - `revoked_signers`: whether the certificate that has signed a key is revoked
//! - [`ends`]: warns before the server's certificates end
//! - [`handshake_failure`]: explains failed handshakes

pub mod current;
pub mod ends;
pub mod handshake_failure;
mod revocation;
mod revoked_signers;
pub mod trust;
mod verifier;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ciphermq_certificates::flaw::for_server;
use ciphermq_certificates::{
    ClientIdFrom, Flaw, PemError, chain, describes_curve, fingerprint, key_kind, pem, short_key,
};
use ciphermq_protocol::{CertificateChain, ClientId, Fingerprint};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

use zeroize::Zeroizing;

use self::current::Credentials;
use self::ends::OwnCertificate;

use crate::config::Tls;
use crate::private_file;

/// The longest private key file that is read. A file that is named by mistake need not be read to
/// its end.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// The reason why the server's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(
        "[tls] {field}: cannot read {what} from {}: {source}\n{}",
        path.display(), unreadable_advice(path, source)
    )]
    File {
        /// The setting.
        field: &'static str,
        /// The expected contents of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file holds no PEM of the kind that is needed.
    #[error("[tls] {field}: there is {} in \
             {}\n{}", wrong.reason(), path.display(), wrong.advice(&path.display().to_string()))]
    NotPem {
        /// The setting.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// The contents found instead.
        wrong: PemError,
    },
    /// A file holds no certificate revocation list.
    #[error(
        "[tls] crl_paths: there is {found} in {}\nName the authority's last revocation list there, \
         in PEM or DER (RFC 5280): a whole list of version 2, no delta and no indirect one.",
        path.display()
    )]
    NotList {
        /// The file.
        path: PathBuf,
        /// The contents found instead.
        found: String,
    },
    /// Two revocation lists have the same issuer.
    #[error(
        "[tls] crl_paths: {} and {} both hold a revocation list of {issuer}\nName the newer one \
         only: an authority has one list.", first.display(), second.display()
    )]
    TwoLists {
        /// The issuer's name.
        issuer: String,
        /// The file of one of them.
        first: PathBuf,
        /// The file of the other one, which may be the same.
        second: PathBuf,
    },
    /// Other users have access to the private key.
    #[error("[tls] key_path: the private key {0}")]
    Exposed(#[source] private_file::Exposed),
    /// The CA file's certificates cannot be trust anchors.
    #[error("[tls] ca_cert_path: {} holds no usable certificate of a certificate authority: \
             {source}\nName the CA's own certificate there, not a client's or the \
             server's.", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The error of the TLS library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file begins with another certificate than the private key's.
    #[error(
        "[tls] cert_path: {} does not begin with the certificate of the private key in {}: that is \
         number {place} in it\nThe server's own certificate must come first in the file, then its issuer's, \
         and so on: change their order.",
        path.display(), key.display()
    )]
    Order {
        /// The file with the certificates.
        path: PathBuf,
        /// The file with the private key.
        key: PathBuf,
        /// The position of the key's certificate, counted from 1.
        place: usize,
    },
    /// The private key belongs to another certificate.
    #[error(
        "[tls] cert_path and key_path: the certificate in {} and the private key in {} cannot be \
         used together: they do not belong together\nName a certificate and the key that it was \
         made for.",
        path.display(), key.display()
    )]
    Mismatch {
        /// The file with the certificates.
        path: PathBuf,
        /// The file with the private key.
        key: PathBuf,
    },
    /// Certificate and key are of a kind that is not supported.
    #[error(
        "[tls] cert_path and key_path: the certificate and the private key cannot be used \
         together: {0}\nName a certificate and the key that it was made for."
    )]
    Identity(#[source] rustls::Error),
    /// Clients would not accept the server's certificate.
    #[error(
        "[tls] cert_path: the certificate in {} {flaw}\n{}",
        path.display(), for_server(flaw.advice())
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The flaw of the certificate.
        flaw: Flaw,
    },
    /// TLS does not support the kind of the key.
    #[error(
        "[tls] cert_path and key_path: the certificate and the private key cannot be used: the key \
         is {0}\nIssue a certificate for a key of the kind ECDSA P-384 or P-256 (a named curve, \
         without explicit parameters), Ed25519, or RSA with 2048 bits or more; `keygen certs` does."
    )]
    KeyKind(String),
    /// TLS accepts nothing that an authority has signed, because its key is too short.
    #[error(
        "[tls] {field}: the key of an authority in {} is {kind}, which is too short\nCreate a new \
         authority, and new certificates of it for the server and all clients (`keygen certs` does, \
         in a new folder). RSA keys must have 2048 bits or more.",
        path.display()
    )]
    ShortKey {
        /// The setting.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// The kind of the key.
        kind: String,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}\nThis is a defect of the build; please report it.")]
    Setup(#[source] rustls::Error),
}

fn unreadable_advice(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "Let the server's user read it (chown or chmod), or name another file than {}.",
            path.display()
        ),
        _ => {
            "Name the right file there; `keygen certs` makes certificates to try it out.".to_owned()
        }
    }
}

/// Reads the server's certificate and key, and the authorities that issue clients' certificates.
///
/// TLS 1.3 and 1.2 are spoken. Where the client offers it, the key exchange is the X25519MLKEM768
/// hybrid. Sessions are not resumed.
///
/// # Errors
///
/// [`Error`], which names the setting and the fix.
pub fn load(tls: &Tls) -> Result<Credentials, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut own = Vec::new();
    let trust = trust::load(tls, &provider, &mut own)?;
    let chain = certificates("cert_path", &tls.cert_path)?;
    own.extend(OwnCertificate::all("cert_path", &tls.cert_path, &chain));
    let intermediates = chain.get(1..).unwrap_or_default();
    refuse_short_keys("cert_path", &tls.cert_path, intermediates)?;
    let kind = chain.first().and_then(|own| kind_of_key(own));
    let has_unnamed_curve = chain.first().is_some_and(|own| has_unnamed_curve(own));
    let key = private_key(&tls.key_path)?;
    if let Some(place) = chain::place_of_own(&chain, &key).filter(|place| *place > 1) {
        return Err(Error::Order {
            path: tls.cert_path.clone(),
            key: tls.key_path.clone(),
            place,
        });
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_client_cert_verifier(Arc::clone(&trust.verifier))
        .with_single_cert(chain.clone(), key)
        .map_err(|error| match (error, kind) {
            // rustls reports a kind of key that it does not know with no more than this.
            (rustls::Error::General(_), Some(kind)) => Error::KeyKind(kind),
            // It compares the forms of the keys.
            (rustls::Error::InconsistentKeys(_), Some(kind)) if has_unnamed_curve => {
                Error::KeyKind(kind)
            }
            (rustls::Error::InvalidCertificate(reason), _) => Error::Certificate {
                path: tls.cert_path.clone(),
                flaw: Flaw::from(&reason),
            },
            (rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch), _) => {
                Error::Mismatch {
                    path: tls.cert_path.clone(),
                    key: tls.key_path.clone(),
                }
            }
            (error, _) => Error::Identity(error),
        })?;
    // A resumed session is not verified again: with a ticket or an entry of a cache, a client would
    // get in after its certificate has ended.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Credentials {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        chain,
        own,
        trust: Arc::new(trust),
    })
}

fn kind_of_key(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(key_kind(certificate.public_key()))
}

fn has_unnamed_curve(certificate: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, certificate)| describes_curve(certificate.public_key()))
}

/// Refuses certificates of authorities whose keys TLS does not accept: it would report everything
/// that they have signed as having a wrong signature.
fn refuse_short_keys(
    field: &'static str,
    path: &Path,
    authorities: &[CertificateDer<'_>],
) -> Result<(), Error> {
    match authorities.iter().find_map(|der| short_key(der)) {
        None => Ok(()),
        Some(kind) => Err(Error::ShortKey {
            field,
            path: path.to_owned(),
            kind,
        }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let failed = |source| Error::File {
        field: "key_path",
        what: "a private key",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::new());
    (&file)
        .take(MAX_KEY_BYTES)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let key = pem::private_key(&text).map_err(|wrong| Error::NotPem {
        field: "key_path",
        path: path.to_owned(),
        wrong,
    })?;
    // Checked last: a certificate or another file that is no secret is reported as not being a key.
    match private_file::refuse_exposed(path, &file) {
        Ok(()) => Ok(key),
        Err(private_file::Error::Exposed(exposed)) => Err(Error::Exposed(exposed)),
        Err(private_file::Error::Unknown(source)) => Err(failed(source)),
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = std::fs::read(path).map_err(|source| Error::File {
        field,
        what: "certificates",
        path: path.to_owned(),
        source,
    })?;
    pem::certificates(&text).map_err(|wrong| Error::NotPem {
        field,
        path: path.to_owned(),
        wrong,
    })
}

/// The reason why a valid certificate names no client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NameError {
    /// There is no X.509 certificate that can be parsed.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// It names no client.
    #[error("the certificate {0}")]
    Name(#[from] ciphermq_certificates::NameError),
}

impl NameError {
    /// Returns what to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => {
                "Issue a new certificate for the client: `keygen certs --client ID` does."
            }
            Self::Name(error) => error.advice(),
        }
    }
}

/// Returns the client id in a client's certificate.
fn client_id(own: &CertificateDer<'_>, from: ClientIdFrom) -> Result<ClientId, NameError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(own)
        .map_err(|_| NameError::Unreadable(Flaw::DAMAGED.to_owned()))?;
    Ok(from.client_id(&certificate)?)
}

/// A client's identity, from the chain that it connected with.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client id that its certificate states.
    pub client_id: ClientId,
    /// The fingerprint of the client's certificate.
    pub fingerprint: Fingerprint,
    /// The chain, the client's own certificate first.
    pub chain: CertificateChain,
}

impl Peer {
    /// Reads a verified chain.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the chain's first certificate names no client.
    pub fn from_chain(chain: &[CertificateDer<'_>], from: ClientIdFrom) -> Result<Self, NameError> {
        let own = chain
            .first()
            .ok_or_else(|| NameError::Unreadable("there is none".to_owned()))?;
        let client_id = client_id(own, from)?;
        Ok(Self {
            client_id,
            fingerprint: fingerprint(own),
            chain: CertificateChain::from_der(chain),
        })
    }
}
