//! Verifies that a client's certificate is a valid authority's and names a client.

use std::sync::Arc;

use ciphermq_certificates::{ClientIdFrom, Flaw, Validity, ValidityError};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientCertVerifierBuilder, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::client_id;
use crate::config::CrlPolicy;

/// The authorities that are trusted, with their revocation lists.
pub(super) struct Anchors {
    /// Each authority's certificate in a store of its own, and when it is valid. One whose validity
    /// cannot be read is always valid.
    pub(super) roots: Vec<(RootCertStore, Option<Validity>)>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) policy: CrlPolicy,
    pub(super) client_id_from: ClientIdFrom,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Anchors {
    /// Adds an authority.
    ///
    /// # Errors
    ///
    /// rustls's error if it cannot be one.
    pub(super) fn add(&mut self, authority: &CertificateDer<'static>) -> Result<(), Error> {
        let mut store = RootCertStore::empty();
        store.add(authority.clone())?;
        self.roots.push((store, Validity::read(authority)));
        Ok(())
    }

    /// Checks that a revocation list is of a kind that is supported.
    ///
    /// # Errors
    ///
    /// rustls's error if it is not.
    pub(super) fn accepts_list(
        &self,
        list: &CertificateRevocationListDer<'static>,
    ) -> Result<(), VerifierBuilderError> {
        let all = vec![true; self.roots.len()];
        let builder = self.builder(&all).with_crls([list.clone()]);
        builder.build().map(|_| ())
    }

    /// Whether each of the authorities is valid.
    fn valid_at(&self, at: Timestamp) -> Vec<bool> {
        let error = |validity: &Option<Validity>| validity.as_ref()?.error_at(at);
        let roots = self.roots.iter();
        roots
            .map(|(_, validity)| error(validity).is_none())
            .collect()
    }

    /// Returns why an authority is not valid: the one that a chain names, if it names one.
    fn error_at(&self, chain: &[&CertificateDer<'_>], at: Timestamp) -> Option<ValidityError> {
        let issuers: Vec<String> = chain.iter().filter_map(|der| issuer(der)).collect();
        let invalid = self.roots.iter().filter_map(|(_, validity)| {
            let validity = validity.as_ref()?;
            let is_issuer = issuers.contains(&validity.subject);
            Some((is_issuer, validity.error_at(at)?))
        });
        let named = invalid.max_by_key(|(is_issuer, _)| *is_issuer);
        named.map(|(_, error)| error)
    }

    fn builder(&self, chosen: &[bool]) -> ClientCertVerifierBuilder {
        let mut roots = RootCertStore::empty();
        let stores = self.roots.iter().zip(chosen);
        for ((store, _), _) in stores.filter(|(_, chosen)| **chosen) {
            roots.roots.extend(store.roots.iter().cloned());
        }
        let provider = Arc::clone(&self.provider);
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
    }

    /// Builds a verifier that trusts the chosen authorities, at least one.
    fn verifier(
        &self,
        chosen: &[bool],
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        self.verifier_by(self.policy, chosen)
    }

    /// Builds a verifier that trusts all authorities, and refuses what a list revokes, whether it
    /// has ended or not.
    pub(super) fn revocation_verifier(
        &self,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        self.verifier_by(CrlPolicy::IfPresent, &vec![true; self.roots.len()])
    }

    fn verifier_by(
        &self,
        policy: CrlPolicy,
        chosen: &[bool],
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        let builder = self.builder(chosen).with_crls(self.lists.iter().cloned());
        match policy {
            CrlPolicy::Required => builder.enforce_revocation_expiration(),
            CrlPolicy::IfPresent => builder.allow_unknown_revocation_status(),
        }
        .build()
    }
}

fn issuer(der: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.issuer().to_string())
}

/// A verifier for some of the authorities.
struct Chosen {
    /// Whether each of the authorities is chosen.
    chosen: Vec<bool>,
    /// `None` if none is.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// A verifier that refuses certificates without a client id, and those of authorities that are not
/// valid, during the handshake.
///
/// The client gets a TLS alert then, instead of a connection that closes without a word. Everything
/// else is left to rustls's own verifier, to which an authority's own dates mean nothing.
pub(super) struct ValidAuthorities {
    anchors: Anchors,
    /// The verifier that trusts all authorities.
    all: Arc<dyn ClientCertVerifier>,
    /// The one that trusts those that were valid last, while some are not.
    valid: Mutex<Option<Arc<Chosen>>>,
}

impl ValidAuthorities {
    /// Creates a verifier.
    ///
    /// # Errors
    ///
    /// rustls's error if there is no authority, or a revocation list is not supported.
    pub(super) fn new(anchors: Anchors) -> Result<Self, VerifierBuilderError> {
        let all = anchors.verifier(&vec![true; anchors.roots.len()])?;
        Ok(Self {
            anchors,
            all,
            valid: Mutex::new(None),
        })
    }

    /// Returns the verifier that trusts these authorities.
    fn trusting(&self, chosen: Vec<bool>) -> Result<Arc<Chosen>, VerifierBuilderError> {
        let mut valid = self.valid.lock();
        if let Some(known) = valid.as_ref().filter(|known| known.chosen == chosen) {
            return Ok(Arc::clone(known));
        }
        let verifier = match chosen.contains(&true) {
            true => Some(self.anchors.verifier(&chosen)?),
            false => None,
        };
        let new = Arc::new(Chosen { chosen, verifier });
        *valid = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Refuses a chain that leads to no authority that is valid; one that leads to none has been
    /// refused before.
    fn refuse_ended(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let at = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let at = ciphermq_certificates::validity::time(at);
        let valid = self.anchors.valid_at(at);
        if !valid.contains(&false) {
            return Ok(());
        }
        let valid = self
            .trusting(valid)
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = valid
            .verifier
            .as_ref()
            .map(|valid| valid.verify_client_cert(own, intermediates, now));
        match verified {
            Some(Ok(_)) => Ok(()),
            // Of an authority with the same name and another key the signature is wrong.
            None
            | Some(Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ))) => {
                let chain: Vec<_> = std::iter::once(own).chain(intermediates).collect();
                let error = self.anchors.error_at(&chain, at);
                Err(match error {
                    Some(error) => refusal(Flaw::IssuerValidity(error)),
                    None => CertificateError::UnknownIssuer.into(),
                })
            }
            Some(Err(error)) => Err(error),
        }
    }
}

fn refusal(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

impl std::fmt::Debug for ValidAuthorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValidAuthorities").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ValidAuthorities {
    fn offer_client_auth(&self) -> bool {
        self.all.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.all.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.all.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.all.verify_client_cert(own, intermediates, now)?;
        client_id(own, self.anchors.client_id_from).map_err(refusal)?;
        self.refuse_ended(own, intermediates, now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.all
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.all
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.all.supported_verify_schemes()
    }
}
