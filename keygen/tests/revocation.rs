//! Revocation lists that `keygen revoke` and `keygen crl` create, as rustls and OpenSSL see them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keygen::revocation::{Reason, renew, revoke};
use keygen::{CertsArgs, Error, ListArgs, RevokeArgs, certs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

/// A folder with an authority, and clients.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(clients: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.issue(clients, false);
        folder
    }

    fn issue(&self, clients: &[&str], force: bool) {
        let args = CertsArgs {
            out: self.0.path().to_owned(),
            server_names: Vec::new(),
            clients: clients.iter().map(ToString::to_string).collect(),
            days: 825,
            force,
            new_ca: false,
        };
        certs::run(&args, Timestamp::now()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn list_args(&self) -> ListArgs {
        ListArgs {
            out: self.0.path().to_owned(),
            list_days: 30,
        }
    }

    fn revoke(&self, what: impl AsRef<Path>) -> Result<keygen::Report, Error> {
        let args = RevokeArgs {
            what: what.as_ref().to_owned(),
            reason: Reason::KeyCompromise,
            list: self.list_args(),
        };
        revoke(&args, Timestamp::now())
    }

    fn certificate(&self, client: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{client}/client.crt"))).unwrap()
    }

    fn list(&self) -> CertificateRevocationListDer<'static> {
        CertificateRevocationListDer::from_pem_file(self.path("ca.crl")).unwrap()
    }

    fn number(&self) -> u64 {
        let der = self.list();
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        list.crl_number().unwrap().try_into().unwrap()
    }

    /// Verifies a client's certificate as a server does that requires a list in force.
    fn verify(&self, client: &CertificateDer<'_>, at: Timestamp) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls([self.list()])
            .enforce_revocation_expiration()
            .build()
            .unwrap();
        let seconds = u64::try_from(at.as_second()).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verifier.verify_client_cert(client, &[], at).map(drop)
    }
}

#[test]
fn revoked_certificates_are_refused_and_others_are_not() {
    let folder = Folder::with(&["a", "b", "c"]);
    let now = Timestamp::now();
    let (first, b, c) = (
        folder.certificate("a"),
        folder.certificate("b"),
        folder.certificate("c"),
    );
    renew(&folder.list_args(), now).unwrap();
    for client in [&first, &b, &c] {
        folder.verify(client, now).unwrap();
    }
    let report = folder.revoke("a").unwrap();
    assert_eq!(report.written, [folder.path("ca.crl")]);
    assert!(
        report.next[0].starts_with("Revoked certificates: 1."),
        "{report:?}"
    );
    folder.revoke(folder.path("b/client.crt")).unwrap();
    let revoked = rustls::Error::InvalidCertificate(CertificateError::Revoked);
    assert_eq!(folder.verify(&first, now), Err(revoked.clone()));
    assert_eq!(folder.verify(&b, now), Err(revoked.clone()));
    folder.verify(&c, now).unwrap();
    assert_eq!(folder.number(), 3);

    // Again: nothing changes but the number. The name is free for a new certificate.
    let report = folder.revoke("a").unwrap();
    assert!(report.next[0].contains("already"), "{report:?}");
    assert_eq!(folder.number(), 4);
    folder.issue(&["a"], true);
    folder.verify(&folder.certificate("a"), now).unwrap();
    assert_eq!(folder.verify(&first, now), Err(revoked));

    // The list ends, and is renewed with what it says.
    let later = now + SignedDuration::from_hours(31 * 24);
    assert!(matches!(
        folder.verify(&c, later),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ExpiredRevocationListContext { .. }
        ))
    ));
    renew(&folder.list_args(), later).unwrap();
    folder.verify(&c, later).unwrap();
    folder.verify(&b, later).unwrap_err();
}

#[test]
fn openssl_reads_the_list() {
    let folder = Folder::with(&["a"]);
    folder.revoke("a").unwrap();
    let output = Command::new("openssl")
        .args(["crl", "-noout", "-text", "-in"])
        .arg(folder.path("ca.crl"))
        .arg("-CAfile")
        .arg(folder.path("ca.crt"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for expected in ["verify OK", "Key Compromise", "X509v3 CRL Number"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_would_lose_revocations_is_refused() {
    let (folder, other) = (Folder::with(&["a"]), Folder::with(&["a"]));
    folder.revoke("a").unwrap();
    let before = std::fs::read(folder.path("ca.crl")).unwrap();
    // Another authority's certificate, an authority's own, and no certificate at all.
    for what in [other.path("a/client.crt"), other.path("ca.crt")] {
        assert!(matches!(folder.revoke(what), Err(Error::NotIssued { .. })));
    }
    assert!(matches!(folder.revoke("nobody"), Err(Error::Read { .. })));
    assert!(matches!(folder.revoke("two words"), Err(Error::Name(_))));
    assert!(matches!(
        folder.revoke(folder.path("a/client.key")),
        Err(Error::NoCertificate(_))
    ));
    assert_eq!(std::fs::read(folder.path("ca.crl")).unwrap(), before);
    // The list itself.
    std::fs::copy(folder.path("ca.crl"), other.path("ca.crl")).unwrap();
    assert!(matches!(other.revoke("a"), Err(Error::OtherList(_))));
    let half = &before[..before.len() / 2];
    std::fs::write(folder.path("ca.crl"), half).unwrap();
    let refused = renew(&folder.list_args(), Timestamp::now()).unwrap_err();
    assert!(matches!(refused, Error::NotList(_)), "{refused}");
    assert!(refused.advice().contains("from a backup"), "{refused}");
    assert_eq!(std::fs::read(folder.path("ca.crl")).unwrap(), half);
}

/// Two runs that read the same list would each lose what the other has added.
#[test]
fn runs_at_the_same_time_lose_nothing() {
    let names: Vec<String> = (0..6).map(|index| format!("c{index}")).collect();
    let clients: Vec<&str> = names.iter().map(String::as_str).collect();
    let folder = Folder::with(&clients);
    std::thread::scope(|scope| {
        for client in &clients {
            let folder = &folder;
            scope.spawn(move || folder.revoke(client).unwrap());
        }
    });
    assert_eq!(folder.number(), 6);
    for client in &clients {
        let refused = folder.verify(&folder.certificate(client), Timestamp::now());
        assert!(refused.is_err(), "{client}");
    }
}
