//! TLS with certificates on both sides, and from a client's certificate to its id.
//!
//! - `verifier`: which clients' certificates are let in
//! - [`trouble`]: why a handshake failed, and what to do

pub mod trouble;
mod verifier;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ciphermq_certificates::{Flaw, PemError, Validity, fingerprint, key_kind, pem};
use ciphermq_protocol::{CertificateChain, ClientId, Fingerprint};
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use zeroize::Zeroizing;

use crate::config::Tls;
use crate::private_file;

/// No private key's file is longer. What is named by mistake need not be read to its end.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// Why the server's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(
        "[tls] {field}: cannot read {what} from {}: {source}\nName the right file there; `keygen \
         certs` makes certificates for a try.",
        path.display()
    )]
    File {
        /// The setting.
        field: &'static str,
        /// What should be in the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
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
        /// What stands there instead.
        wrong: PemError,
    },
    /// The private key lies open.
    #[error("[tls] key_path: the private key {0}")]
    Exposed(#[source] private_file::Exposed),
    /// The CA file's certificates cannot be trusted anchors.
    #[error("[tls] ca_cert_path: {} holds no usable certificate of a certificate authority: \
             {source}\nName the CA's own certificate there, not a client's or the \
             server's.", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error(
        "[tls] cert_path and key_path: the certificate and the private key cannot be used \
         together: {0}\nName a certificate and the key that it was made for."
    )]
    Identity(#[source] rustls::Error),
    /// The server's certificate is none that clients take.
    #[error("[tls] cert_path: the certificate in {} {flaw}\n{}", path.display(), flaw.advice())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The key is of a kind that TLS does not take.
    #[error(
        "[tls] cert_path and key_path: the certificate and the private key cannot be used: the key \
         is {0}\nIssue a certificate for a key of the kind ECDSA P-384, ECDSA P-256, Ed25519, or \
         RSA with 2048 bits or more; `keygen certs` does."
    )]
    KeyKind(String),
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}\nThis is a defect of the build; please report it.")]
    Setup(#[source] rustls::Error),
}

/// Makes what accepts TLS 1.3 and 1.2 from clients with a certificate of the configured authority.
/// Where the client offers it, the key exchange is the X25519MLKEM768 hybrid.
///
/// # Errors
///
/// [`Error`] names the setting and the mend.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca_cert_path", &tls.ca_cert_path)? {
        warn_of_time("ca_cert_path", &tls.ca_cert_path, &authority);
        roots.add(authority).map_err(|source| Error::Authority {
            path: tls.ca_cert_path.clone(),
            source: source.into(),
        })?;
    }
    let chain = certificates("cert_path", &tls.cert_path)?;
    for certificate in &chain {
        warn_of_time("cert_path", &tls.cert_path, certificate);
    }
    let kind = chain.first().and_then(|own| kind_of_key(own));
    let key = private_key(&tls.key_path)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|source| Error::Authority {
                path: tls.ca_cert_path.clone(),
                source: source.into(),
            })?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_client_cert_verifier(Arc::new(verifier::NamedClients(verifier)))
        .with_single_cert(chain, key)
        .map_err(|error| match (error, kind) {
            // All that rustls says of a key that it does not know.
            (rustls::Error::General(_), Some(kind)) => Error::KeyKind(kind),
            (rustls::Error::InvalidCertificate(reason), _) => Error::Certificate {
                path: tls.cert_path.clone(),
                flaw: Flaw::from(&reason),
            },
            (error, _) => Error::Identity(error),
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn kind_of_key(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(key_kind(certificate.public_key()))
}

/// Says so if a certificate's time is over, or has not come. That keeps nobody from starting: the
/// clock may be wrong, and be corrected.
fn warn_of_time(field: &str, path: &Path, certificate: &CertificateDer<'_>) {
    let Some(validity) = Validity::read(certificate) else {
        return;
    };
    let Some(trouble) = validity.error_at(Timestamp::now()) else {
        return;
    };
    let advice = if field == "ca_cert_path" {
        "Check the clock; if it is right, make a new authority and new certificates of it for the \
         server and all clients \
         (`keygen certs`). Until then this server and its clients go on, as they trust the \
         authority because its file was \
         named; other programs (OpenSSL) refuse all its certificates"
    } else {
        "Check the clock; if it is right, issue a new certificate for the server (`keygen certs`) \
         and start it again. Until \
         then every client refuses to connect"
    };
    tracing::warn!(
        subject = validity.subject,
        path = %path.display(),
        advice,
        "[tls] {field}: a certificate {trouble}"
    );
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
    // Asked last: what is no private key may be open to all, and is told to be no key.
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

/// Why a certificate, valid as it is, names no client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NameError {
    /// There is no X.509 certificate that can be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// Its Common Name is none that a client can have.
    #[error("the certificate {0}")]
    CommonName(#[from] ciphermq_certificates::NameError),
}

impl NameError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => {
                "Issue a new certificate for the client: `keygen certs --client ID` does."
            }
            Self::CommonName(error) => error.advice(),
        }
    }
}

/// Whose a client's certificate is.
fn client_id(own: &CertificateDer<'_>) -> Result<ClientId, NameError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(own)
        .map_err(|error| NameError::Unreadable(error.to_string()))?;
    Ok(ciphermq_certificates::client_id(&certificate)?)
}

/// Who a client is, by the chain that it connected with.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The Common Name.
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
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, NameError> {
        let own = chain
            .first()
            .ok_or_else(|| NameError::Unreadable("there is none".to_owned()))?;
        let client_id = client_id(own)?;
        Ok(Self {
            client_id,
            fingerprint: fingerprint(own),
            chain: CertificateChain::from_der(chain),
        })
    }
}
