//! Certificates and keys, from PEM files or texts to a TLS configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ciphermq_certificates::flaw::for_client;
use ciphermq_certificates::{ClientIdFrom, Flaw, chain, describes_curve, key_kind, pem, short_key};
use ciphermq_crypto::identity::{CertificateError, IdentityError, client_id};
use ciphermq_crypto::{Authority, Identity};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::end::CertificateEnd;
use super::pem::{Pem, broken, upper_first};
use super::signing;
use crate::error::{ConnectError, ConnectErrorKind};

pub(super) fn certificates(
    pem: &Pem,
    what: &str,
) -> Result<(Vec<CertificateDer<'static>>, String), ConnectError> {
    let (text, what) = pem.read(what)?;
    match pem::certificates(&text) {
        Ok(found) => Ok((found, what)),
        Err(error) => Err(pem.not_pem(&what, &error)),
    }
}

pub(super) fn private_key(
    pem: &Pem,
    what: &str,
) -> Result<(PrivateKeyDer<'static>, String), ConnectError> {
    let (text, what) = pem.read_private(what)?;
    match pem::private_key(&text) {
        Ok(key) => Ok((key, what)),
        Err(error) => Err(pem.not_pem(&what, &error)),
    }
}

/// Returns the client id in a certificate's file.
#[must_use]
pub fn client_id_of(certificate: &Path, from: ClientIdFrom) -> Option<ClientId> {
    let text = std::fs::read(certificate).ok()?;
    let chain = pem::certificates(&text).ok()?;
    client_id(chain.first()?, from).ok()
}

/// The places of a certificate and its private key.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: Pem,
    pub(crate) key: Pem,
}

impl Pair {
    /// Names the files.
    pub(crate) fn in_files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: Pem::File(certificate.into()),
            key: Pem::File(key.into()),
        }
    }

    /// Takes PEM texts.
    pub(crate) fn in_texts(certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self {
            certificate: Pem::Text(Zeroizing::new(certificate.into())),
            key: Pem::Text(Zeroizing::new(key.into())),
        }
    }

    fn texts(&self) -> [&Pem; 2] {
        [&self.certificate, &self.key]
    }
}

/// The places of a client's certificates, private keys and authority.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) ca: Pem,
    /// The certificate that connects.
    pub(crate) identity: Pair,
    /// The certificate that signs, if it is another one.
    pub(crate) signing: Option<Pair>,
    pub(crate) client_id_from: ClientIdFrom,
}

/// The texts of the public files, to see whether they have changed. A new private key comes with a
/// new certificate.
pub(super) type Snapshot = Vec<Vec<u8>>;

/// The identity and trust settings of a client, read from its files.
pub(crate) struct Credentials {
    pub(crate) tls: Arc<ClientConfig>,
    /// The authority that names clients: the same as the server's.
    pub(crate) authority: Authority,
    /// The client id in the certificate.
    pub(crate) client_id: ClientId,
    /// This client's signing identity, or why it cannot sign: with an RSA key, for example.
    pub(crate) identity: Result<Arc<Identity>, IdentityError>,
    /// This client's certificate and the intermediate ones that it presents.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The chain that signs, if it is another one: the server has to be told of it.
    pub(crate) signing_chain: Option<Vec<CertificateDer<'static>>>,
    /// When they end, and the authorities.
    pub(crate) ends: Vec<CertificateEnd>,
}

impl Credentials {
    /// Returns why the server would refuse this client's certificate; `None` if it accepts it.
    pub(crate) fn flaw(&self, at: Timestamp) -> Option<Flaw> {
        self.authority.flaw(&self.chain, at)
    }

    /// Returns the same credentials without their signer, whose certificate the server has refused.
    pub(crate) fn without_signer(&self, reason: String) -> Self {
        Self {
            identity: Err(IdentityError::NotRegistered(reason)),
            tls: Arc::clone(&self.tls),
            authority: self.authority.clone(),
            client_id: self.client_id.clone(),
            chain: self.chain.clone(),
            signing_chain: self.signing_chain.clone(),
            ends: self.ends.clone(),
        }
    }

    /// Whether both connect and sign with the same certificates.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain
            && self.signing_chain == other.signing_chain
            && self.identity.is_ok() == other.identity.is_ok()
    }

    /// Checks that others accept what is signed at the time `at`.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]: why they do not.
    pub(crate) fn check_signer(&self, at: Timestamp) -> Result<(), IdentityError> {
        let identity = self.identity.as_ref().map_err(Clone::clone)?;
        identity.verify(&self.authority, at)
    }

    /// Returns the end of the certificate's validity.
    pub(crate) fn until(&self) -> Timestamp {
        let own = self.ends.first();
        own.map_or(Timestamp::MAX, |own| own.validity.not_after)
    }

    /// Returns the error of a certificate that the server would refuse.
    pub(crate) fn refused(&self, flaw: &Flaw) -> ConnectError {
        let what = format!("The server would refuse this client's certificate: it {flaw}.");
        ConnectError::new(ConnectErrorKind::CertificateRefused, what)
            .advise(for_client(flaw.advice(), &self.client_id))
    }
}

/// Never shows the private key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Whether there are files that may change.
    pub(super) fn has_files(&self) -> bool {
        let pairs = std::iter::once(&self.identity).chain(&self.signing);
        let mut texts = std::iter::once(&self.ca).chain(pairs.flat_map(Pair::texts));
        texts.any(|pem| matches!(pem, Pem::File(_)))
    }

    /// Returns the texts of the public files, as far as they can be read.
    pub(super) fn snapshot(&self) -> Snapshot {
        let pairs = std::iter::once(&self.identity).chain(&self.signing);
        let texts = std::iter::once(&self.ca).chain(pairs.map(|pair| &pair.certificate));
        let read = texts.map(|pem| match pem.read("") {
            Ok((text, _)) => text,
            Err(_) => Vec::new(),
        });
        read.collect()
    }

    /// Reads the files.
    pub(crate) fn load(&self) -> Result<Credentials, ConnectError> {
        let mut credentials = credentials(&self.ca, &self.identity, self.client_id_from)?;
        if let Some(signing) = &self.signing {
            let (identity, chain) = signing::load(signing, self.client_id_from)?;
            if *identity.client_id() != credentials.client_id {
                return Err(signing::other_client(&identity, &credentials.client_id));
            }
            credentials.ends.extend(CertificateEnd::of_signer(&chain));
            credentials.identity = Ok(Arc::new(identity));
            credentials.signing_chain = Some(chain);
        }
        Ok(credentials)
    }
}

/// Creates the TLS configuration: TLS 1.3 and 1.2 with aws-lc-rs, the hybrid key exchange
/// X25519MLKEM768 first. The server's certificate must come from this CA and no other.
fn credentials(
    ca: &Pem,
    Pair { certificate, key }: &Pair,
    client_id_from: ClientIdFrom,
) -> Result<Credentials, ConnectError> {
    let (authorities, ca_name) = certificates(ca, "the CA's certificate")?;
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
        broken(&ca_name, "a certificate that cannot be used")
            .advise(
                "Name the certificate of the authority, `ca.crt` as `ciphermq-cli certs` \
                     writes it.",
            )
            .caused_by(error)
    };
    let authority = Authority::new(authorities.iter().cloned())
        .map_err(|error| unusable(error.into()))?
        .with_client_id_from(client_id_from);
    // Another one of several may be used.
    if authorities.iter().all(|der| short_key(der).is_some()) {
        refuse_short_keys(&authorities, &ca_name)?;
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority)
            .map_err(|error| unusable(error.into()))?;
    }
    let (chain, chain_name) = certificates(certificate, "the client's certificate")?;
    let (key, key_name) = private_key(key, "the client's private key")?;
    if let Some(place) = chain::place_of_own(&chain, &key).filter(|place| *place > 1) {
        return Err(ConnectError::new(
            ConnectErrorKind::KeyMismatch,
            format!(
                "{} does not begin with the certificate of {key_name}: that is number {place} in \
                 it.",
                upper_first(&chain_name)
            ),
        )
        .advise(
            "The client's own certificate must come first in the file, then its issuer's, and so \
             on: change their order.",
        ));
    }
    let client_id = chain.first().map_or(Err(CertificateError::Missing), |own| {
        client_id(own, client_id_from)
    });
    let client_id = client_id.map_err(|error| {
        ConnectError::new(
            ConnectErrorKind::BadCertificate,
            format!("{} cannot be used: {error}.", upper_first(&chain_name)),
        )
        .advise(error.advice())
        .caused_by(error)
    })?;
    refuse_short_keys(chain.get(1..).unwrap_or_default(), &chain_name)?;
    // TLS explains a mismatch of certificate and key better.
    let identity = Identity::named_by(client_id_from, chain.clone(), &key);

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| {
            ConnectError::new(ConnectErrorKind::BadSetting, error.to_string()).caused_by(error)
        })?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)
                if !has_unnamed_curve(&chain) =>
            {
                ConnectError::new(
                ConnectErrorKind::KeyMismatch,
                format!(
                    "{} and {key_name} do not belong together.",
                    upper_first(&chain_name)
                ),
            )
            .advise("Name the certificate and the private key that were made together.")
            .caused_by(error)
            }
            // rustls parses it to check whether the key belongs to it.
            rustls::Error::InvalidCertificate(reason) => {
                let flaw = Flaw::from(&reason);
                ConnectError::new(
                    ConnectErrorKind::BadCertificate,
                    format!("{} cannot be used: it {flaw}.", upper_first(&chain_name)),
                )
                .advise(for_client(flaw.advice(), &client_id))
                .caused_by(rustls::Error::InvalidCertificate(reason))
            }
            error => ConnectError::new(
                ConnectErrorKind::BadCertificate,
                format!(
                    "{} cannot be used with {key_name}: {}.",
                    upper_first(&chain_name),
                    unusable_key(&chain, &error)
                ),
            )
            .advise(
                "Issue one for a key of the kind ECDSA P-384 or P-256 (a named curve, without explicit \
                 parameters) or Ed25519, as `ciphermq-cli certs` does. Keys of the kind ECDSA P-521, \
                 or RSA of 2048 bits or more, can connect, but not sign.",
            )
            .caused_by(error),
        })?;
    // Every connection authenticates both sides again: an expired certificate must not live on in a
    // ticket.
    config.resumption = Resumption::disabled();
    let ends = CertificateEnd::all(&chain, authority.validities());
    let authority = authority.with_intermediates_of(&chain, Timestamp::now());
    Ok(Credentials {
        tls: Arc::new(config),
        authority,
        client_id,
        identity: identity.map(Arc::new),
        chain,
        signing_chain: None,
        ends,
    })
}

/// Refuses certificates of authorities whose keys TLS does not accept: it would report everything
/// that they have signed as having a wrong signature.
fn refuse_short_keys(authorities: &[CertificateDer<'_>], file: &str) -> Result<(), ConnectError> {
    let Some(kind) = authorities.iter().find_map(|der| short_key(der)) else {
        return Ok(());
    };
    Err(ConnectError::new(
        ConnectErrorKind::BadCertificate,
        format!("The key of an authority in {file} is {kind}, which is too short."),
    )
    .advise(
        "Create a new authority (`ciphermq-cli certs` does, in a new folder), and new certificates \
         of it for the server and all clients. RSA keys must have 2048 bits or more.",
    ))
}

/// Returns whether the key of a chain's first certificate has a form that TLS does not accept, and
/// reports as belonging to another certificate.
fn has_unnamed_curve(chain: &[CertificateDer<'_>]) -> bool {
    let own = chain
        .first()
        .and_then(|own| X509Certificate::from_der(own).ok());
    own.is_some_and(|(_, own)| describes_curve(own.public_key()))
}

/// Explains why TLS rejects a certificate and its key: rustls says little about unknown kinds of
/// keys.
fn unusable_key(chain: &[CertificateDer<'_>], error: &rustls::Error) -> String {
    let own = chain
        .first()
        .and_then(|own| X509Certificate::from_der(own).ok());
    match (own, error) {
        (Some((_, own)), rustls::Error::General(_) | rustls::Error::InconsistentKeys(_)) => {
            format!("the certificate's key is {}", key_kind(own.public_key()))
        }
        (None, _) => "the certificate cannot be read".to_owned(),
        (_, error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "me");
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn text(text: &str) -> Pem {
        Pem::Text(text.as_bytes().to_vec().into())
    }

    fn read(ca: &Pem, certificate: &Pem, key: &Pem) -> Result<Credentials, ConnectError> {
        let (certificate, key) = (certificate.clone(), key.clone());
        credentials(ca, &Pair { certificate, key }, ClientIdFrom::default())
    }

    fn error(ca: &Pem, certificate: &Pem, key: &Pem) -> ConnectError {
        read(ca, certificate, key).map(|_| ()).unwrap_err()
    }

    #[test]
    fn matching_files_are_accepted() {
        let (certificate, key) = pair();
        let config = read(&text(&certificate), &text(&certificate), &text(&key))
            .unwrap()
            .tls;
        let groups: Vec<_> = config
            .crypto_provider()
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(groups.first(), Some(&rustls::NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn each_mistake_is_named() {
        let ((certificate, key), (_, other_key)) = (pair(), pair());
        let (certificate, key) = (text(&certificate), text(&key));
        let mismatch = error(&certificate, &certificate, &text(&other_key));
        assert_eq!(mismatch.kind(), ConnectErrorKind::KeyMismatch);
        assert!(mismatch.advice().unwrap().contains("made together"));

        let missing = error(&Pem::File("no/such/ca.crt".into()), &certificate, &key);
        assert_eq!(missing.kind(), ConnectErrorKind::FileUnreadable);
        assert!(missing.to_string().contains("no/such/ca.crt"), "{missing}");

        assert_eq!(
            error(&text("not PEM"), &certificate, &key).kind(),
            ConnectErrorKind::BadCertificate
        );
        assert_eq!(
            error(&certificate, &key, &key).to_string(),
            "There is no certificate in the client's certificate."
        );
        assert_eq!(
            error(&certificate, &certificate, &certificate).kind(),
            ConnectErrorKind::BadCertificate
        );
        let cut = text("-----BEGIN CERTIFICATE-----\nMIIB\n");
        assert_eq!(
            error(&cut, &certificate, &key).kind(),
            ConnectErrorKind::BadCertificate
        );
    }

    #[test]
    fn a_chain_that_begins_with_another_certificate_is_reported() {
        let ((ca, ca_key), (own, key)) = (pair(), pair());
        let swapped = text(&format!("{ca}{own}"));
        let error_of = |key: &str| error(&text(&ca), &swapped, &text(key));
        assert_eq!(error_of(&key).kind(), ConnectErrorKind::KeyMismatch);
        assert!(error_of(&key).to_string().contains("number 2"));
        assert!(error_of(&key).advice().unwrap().contains("must come first"));
        // The same chain is accepted with the key of its first certificate.
        read(&text(&ca), &swapped, &text(&ca_key)).unwrap();
    }
}
