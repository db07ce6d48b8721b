//! The certificates in force, which can be replaced while the server runs.

use std::sync::Arc;

use ciphermq_certificates::Flaw;
use ciphermq_protocol::RevocationLists;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::ends::OwnCertificate;

/// The server's certificate and key, the authorities that it trusts, and what they have revoked.
pub struct Credentials {
    pub(super) acceptor: TlsAcceptor,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// The certificates whose ends concern the operator.
    pub(super) own: Vec<OwnCertificate>,
    pub(super) list_ends: Vec<Timestamp>,
    pub(super) revocation_lists: RevocationLists,
}

impl Credentials {
    /// Returns the acceptor of connections.
    #[must_use]
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Returns the server's certificates and those of its authorities.
    #[must_use]
    pub fn own(&self) -> &[OwnCertificate] {
        &self.own
    }

    /// Returns when the revocation lists end, if clients are not accepted without.
    #[must_use]
    pub fn list_ends(&self) -> &[Timestamp] {
        &self.list_ends
    }

    /// Returns the revocation lists, as they were loaded.
    #[must_use]
    pub fn revocation_lists(&self) -> &RevocationLists {
        &self.revocation_lists
    }

    /// Returns why a client with this chain is not accepted at a time; `None` if it is.
    ///
    /// The client's own certificate comes first in the chain.
    #[must_use]
    pub fn refusal(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Option<Flaw> {
        let (own, intermediates) = chain.split_first()?;
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        match self.verifier.verify_client_cert(own, intermediates, at) {
            Ok(_) => None,
            Err(rustls::Error::InvalidCertificate(reason)) => Some(Flaw::from(&reason)),
            Err(error) => Some(Flaw::Other(error.to_string())),
        }
    }
}

/// The credentials in force.
pub struct CurrentTls(watch::Sender<Arc<Credentials>>);

impl CurrentTls {
    /// Puts credentials in force.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self(watch::Sender::new(Arc::new(credentials)))
    }

    /// Replaces the credentials. New connections get the new ones; those that are open go on, as
    /// long as the new authorities accept their clients.
    pub fn replace(&self, credentials: Credentials) {
        self.0.send_replace(Arc::new(credentials));
    }

    /// Returns the credentials.
    #[must_use]
    pub fn get(&self) -> Arc<Credentials> {
        Arc::clone(&self.0.borrow())
    }

    /// Returns the credentials, and learns of those that replace them.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.0.subscribe()
    }
}
