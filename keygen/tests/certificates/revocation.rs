//! Revocation lists that `keygen revoke` and `keygen crl` create, as rustls and OpenSSL see them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keygen::revocation::{self, Reason, renew};
use keygen::{CertsArgs, Error, ListArgs, Report, RevokeArgs, certs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::folder::Folder;

/// Replaces a client's certificate.
fn issue_again(folder: &Folder, client: &str) {
    let args = CertsArgs {
        force: true,
        ..folder.args(&[client])
    };
    certs::run(&args, Timestamp::now()).unwrap();
}

fn list_args(folder: &Folder) -> ListArgs {
    ListArgs {
        out: folder.root().to_owned(),
        list_days: 30,
    }
}

fn revoke(folder: &Folder, what: impl AsRef<Path>) -> Result<Report, Error> {
    let args = RevokeArgs {
        what: what.as_ref().to_owned(),
        reason: Reason::KeyCompromise,
        list: list_args(folder),
    };
    revocation::revoke(&args, Timestamp::now())
}

fn certificate(folder: &Folder, client: &str) -> CertificateDer<'static> {
    folder.certificate(&format!("{client}/client.crt"))
}

fn list(folder: &Folder) -> CertificateRevocationListDer<'static> {
    CertificateRevocationListDer::from_pem_file(folder.path("ca.crl")).unwrap()
}

fn number(folder: &Folder) -> u64 {
    let der = list(folder);
    let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
    list.crl_number().unwrap().try_into().unwrap()
}

/// Verifies a client's certificate as a server does that requires a list in force.
fn verify(
    folder: &Folder,
    client: &CertificateDer<'_>,
    at: Timestamp,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(folder.certificate("ca.crt")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls([list(folder)])
        .enforce_revocation_expiration()
        .build()
        .unwrap();
    let seconds = u64::try_from(at.as_second()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_client_cert(client, &[], at).map(drop)
}

#[test]
fn revoked_certificates_are_refused_and_others_are_not() {
    let folder = Folder::with(&["a", "b", "c"]);
    let now = Timestamp::now();
    let (first, b, c) = (
        certificate(&folder, "a"),
        certificate(&folder, "b"),
        certificate(&folder, "c"),
    );
    renew(&list_args(&folder), now).unwrap();
    for client in [&first, &b, &c] {
        verify(&folder, client, now).unwrap();
    }
    let report = revoke(&folder, "a").unwrap();
    assert_eq!(report.written, [folder.path("ca.crl")]);
    assert!(
        report.next[0].starts_with("Revoked certificates: 1."),
        "{report:?}"
    );
    revoke(&folder, folder.path("b/client.crt")).unwrap();
    let revoked = rustls::Error::InvalidCertificate(CertificateError::Revoked);
    assert_eq!(verify(&folder, &first, now), Err(revoked.clone()));
    assert_eq!(verify(&folder, &b, now), Err(revoked.clone()));
    verify(&folder, &c, now).unwrap();
    assert_eq!(number(&folder), 3);

    // Again: nothing changes but the number. The name is free for a new certificate.
    let report = revoke(&folder, "a").unwrap();
    assert!(report.next[0].contains("already"), "{report:?}");
    assert_eq!(number(&folder), 4);
    issue_again(&folder, "a");
    verify(&folder, &certificate(&folder, "a"), now).unwrap();
    assert_eq!(verify(&folder, &first, now), Err(revoked));

    // The list ends, and is renewed with what it says.
    let later = now + SignedDuration::from_hours(31 * 24);
    assert!(matches!(
        verify(&folder, &c, later),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ExpiredRevocationListContext { .. }
        ))
    ));
    renew(&list_args(&folder), later).unwrap();
    verify(&folder, &c, later).unwrap();
    verify(&folder, &b, later).unwrap_err();
}

#[test]
fn openssl_reads_the_list() {
    let folder = Folder::with(&["a"]);
    revoke(&folder, "a").unwrap();
    let text = folder.openssl("crl -noout -text -in ca.crl -CAfile ca.crt");
    for expected in ["verify OK", "Key Compromise", "X509v3 CRL Number"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_would_lose_revocations_is_refused() {
    let (folder, other) = (Folder::with(&["a"]), Folder::with(&["a"]));
    revoke(&folder, "a").unwrap();
    let before = std::fs::read(folder.path("ca.crl")).unwrap();
    // Another authority's certificate, an authority's own, and no certificate at all.
    for what in [other.path("a/client.crt"), other.path("ca.crt")] {
        assert!(matches!(
            revoke(&folder, what),
            Err(Error::NotIssued { .. })
        ));
    }
    assert!(matches!(revoke(&folder, "nobody"), Err(Error::Read { .. })));
    assert!(matches!(revoke(&folder, "two words"), Err(Error::Name(_))));
    assert!(matches!(
        revoke(&folder, folder.path("a/client.key")),
        Err(Error::NoCertificate(_))
    ));
    assert_eq!(std::fs::read(folder.path("ca.crl")).unwrap(), before);
    // The list itself.
    std::fs::copy(folder.path("ca.crl"), other.path("ca.crl")).unwrap();
    assert!(matches!(revoke(&other, "a"), Err(Error::OtherList(_))));
    let half = &before[..before.len() / 2];
    std::fs::write(folder.path("ca.crl"), half).unwrap();
    let refused = renew(&list_args(&folder), Timestamp::now()).unwrap_err();
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
            scope.spawn(move || revoke(folder, client).unwrap());
        }
    });
    assert_eq!(number(&folder), 6);
    for client in &clients {
        let refused = verify(&folder, &certificate(&folder, client), Timestamp::now());
        assert!(refused.is_err(), "{client}");
    }
}
