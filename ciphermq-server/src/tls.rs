//! TLS with certificates on both sides, and from a client's certificate to its id.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ciphermq_protocol::ClientId;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use zeroize::Zeroizing;

use crate::config::Tls;
use crate::private_file;

/// No private key's file is longer. What is named by mistake need not be read to its end.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// Why the server's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or holds no PEM of the kind that is needed.
    #[error(
        "[tls] {field}: cannot read {what} from {}: {source}\nName the right file there; `keygen certs` makes certificates for a try.",
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
        source: pem::Error,
    },
    /// The private key lies open.
    #[error("[tls] key_path: the private key {0}")]
    Exposed(#[source] private_file::Exposed),
    /// The CA file's certificates cannot be trusted anchors.
    #[error("[tls] ca_cert_path: {} holds no usable certificate of a certificate authority: {source}\nName the CA's own certificate there, not a client's or the server's.", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error(
        "[tls] cert_path and key_path: the certificate and the private key cannot be used together: {0}\nName a certificate and the key that it was made for."
    )]
    Identity(#[source] rustls::Error),
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}\nThis is a defect of the build; please report it.")]
    Setup(#[source] rustls::Error),
}

/// Makes what accepts TLS 1.3 and 1.2 from clients with a certificate of the configured authority. Where the
/// client offers it, the key exchange is the X25519MLKEM768 hybrid.
///
/// # Errors
///
/// [`Error`] names the setting and the mend.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca_cert_path", &tls.ca_cert_path)? {
        roots.add(authority).map_err(|source| Error::Authority {
            path: tls.ca_cert_path.clone(),
            source: source.into(),
        })?;
    }
    let chain = certificates("cert_path", &tls.cert_path)?;
    let key = private_key(&tls.key_path)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|source| Error::Authority {
            path: tls.ca_cert_path.clone(),
            source: source.into(),
        })?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(Error::Identity)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let wrong = |source| Error::File {
        field: "key_path",
        what: "a private key",
        path: path.to_owned(),
        source,
    };
    let failed = |source| wrong(pem::Error::Io(source));
    let file = File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::new());
    (&file)
        .take(MAX_KEY_BYTES)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(wrong)?;
    // Asked last: what is no private key may be open to all, and is told to be no key.
    match private_file::refuse_exposed(path, &file) {
        Ok(()) => Ok(key),
        Err(private_file::Error::Exposed(exposed)) => Err(Error::Exposed(exposed)),
        Err(private_file::Error::Unknown(source)) => Err(failed(source)),
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |source| Error::File {
        field,
        what: "certificates",
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong)?;
    if found.is_empty() {
        Err(wrong(pem::Error::NoItemsFound))
    } else {
        Ok(found)
    }
}

/// Why a certificate, valid as it is, names no client.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is no X.509 certificate that can be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has no Common Name.
    #[error("the certificate has no Common Name")]
    None,
    /// It has more than one Common Name.
    #[error("the certificate has {0} Common Names, it must have one")]
    Several(usize),
    /// Its Common Name is no name of the protocol.
    #[error("the certificate's Common Name cannot be a client id: {0}")]
    Invalid(#[from] ciphermq_protocol::name::NameError),
}

/// Who a client is, by the chain that it connected with.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The Common Name.
    pub client_id: ClientId,
    /// SHA-256 of the client's certificate, lower-case hexadecimal.
    pub fingerprint: String,
    /// The chain in base64 of DER, the client's own first, joined by commas.
    pub chain: String,
}

impl Peer {
    /// Reads a verified chain.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the chain's first certificate names no client.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, NameError> {
        let own = chain.first().ok_or(NameError::None)?;
        let (_, certificate) = x509_parser::parse_x509_certificate(own)
            .map_err(|error| NameError::Unreadable(error.to_string()))?;
        let mut names = certificate.subject().iter_common_name();
        let name = names.next().ok_or(NameError::None)?;
        match names.count() {
            0 => {}
            more => return Err(NameError::Several(more + 1)),
        }
        let name = name
            .as_str()
            .map_err(|error| NameError::Unreadable(error.to_string()))?;
        let fingerprint = Sha256::digest(own)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let chain: Vec<String> = chain.iter().map(|der| BASE64_STANDARD.encode(der)).collect();
        Ok(Self {
            client_id: ClientId::new(name)?,
            fingerprint,
            chain: chain.join(","),
        })
    }
}
