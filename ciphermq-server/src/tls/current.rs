//! The certificates in force, which can be replaced while the server runs.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::ends::OwnCertificate;
use super::trust::Trust;

/// The server's certificate and key, the authorities that it trusts, and what they have revoked.
pub struct Credentials {
    pub(super) acceptor: TlsAcceptor,
    /// The server's certificate, which belongs to its key, and intermediate ones.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The certificates whose ends concern the operator.
    pub(super) own: Vec<OwnCertificate>,
    pub(super) trust: Arc<Trust>,
}

impl Credentials {
    /// Returns the acceptor of connections.
    #[must_use]
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Returns the server's certificates, those of its authorities, and its revocation lists.
    #[must_use]
    pub fn own(&self) -> &[OwnCertificate] {
        &self.own
    }

    /// Returns which clients are accepted. It is the same value as long as they are the same.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    fn changes(&self, new: &Self) -> Changes {
        let (old, new_trust) = (&self.trust, &new.trust);
        Changes {
            certificate: self.chain != new.chain,
            authorities: old.authorities != new_trust.authorities,
            revocation_lists: old.revocation_lists != new_trust.revocation_lists
                || old.crl_policy != new_trust.crl_policy,
        }
    }
}

/// What differs between two credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// The server's own certificate, or an intermediate one.
    pub certificate: bool,
    /// The authorities that are trusted.
    pub authorities: bool,
    /// The revocation lists, or what they are needed for.
    pub revocation_lists: bool,
}

impl Changes {
    /// Returns the names of what differs.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let names = [
            ("certificate", self.certificate),
            ("authorities", self.authorities),
            ("revocation_lists", self.revocation_lists),
        ];
        let changed = names.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(name, _)| name)
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

    /// Replaces the credentials, and returns what has changed. New connections get the new ones;
    /// those that are open go on, as long as the new authorities accept their clients.
    ///
    /// Nobody learns of credentials that are the same.
    pub fn replace(&self, mut new: Credentials) -> Changes {
        let mut changes = Changes::default();
        self.0.send_if_modified(|current| {
            changes = current.changes(&new);
            if !changes.authorities && !changes.revocation_lists {
                new.trust = Arc::clone(&current.trust);
            }
            let differs = changes != Changes::default() || current.own != new.own;
            if differs {
                *current = Arc::new(new);
            }
            differs
        });
        changes
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::config::{CrlPolicy, Tls};
    use ciphermq_certificates::ClientIdFrom;

    #[test]
    fn nobody_learns_of_what_is_the_same_and_other_clients_are_told_from_other_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let issuer = || {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            (Issuer::new(params, key), pem)
        };
        let (authority, pem) = issuer();
        fs::write(path("ca.crt"), pem).unwrap();
        let issue = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            fs::write(path("server.crt"), certificate.pem()).unwrap();
            fs::write(path("server.key"), key.serialize_pem()).unwrap();
            fs::set_permissions(path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        };
        issue();
        let tls = Tls {
            cert_path: path("server.crt"),
            key_path: path("server.key"),
            ca_cert_path: path("ca.crt"),
            client_id_from: ClientIdFrom::default(),
            crl_paths: Vec::new(),
            crl_policy: CrlPolicy::IfPresent,
            watch: false,
        };
        let load = || crate::tls::load(&tls).unwrap();
        let current = CurrentTls::new(load());
        let first = Arc::clone(current.get().trust());
        let mut receiver = current.subscribe();
        assert_eq!(current.replace(load()), Changes::default());
        assert!(!receiver.has_changed().unwrap());

        issue();
        let names: Vec<_> = current.replace(load()).names().collect();
        assert_eq!(names, ["certificate"]);
        assert!(receiver.has_changed().unwrap());
        let trust = Arc::clone(receiver.borrow_and_update().trust());
        assert!(Arc::ptr_eq(&trust, &first), "the same clients are accepted");

        fs::write(path("ca.crt"), issuer().1).unwrap();
        let names: Vec<_> = current.replace(load()).names().collect();
        assert_eq!(names, ["authorities"]);
        let trust = Arc::clone(receiver.borrow_and_update().trust());
        assert!(!Arc::ptr_eq(&trust, &first));
    }
}
