//! Certificates are what they claim to be.

use std::os::unix::fs::PermissionsExt as _;

use ciphermq_tests::pki::openssl::{self, OpensslAuthority};
use ciphermq_tests::pki::{Identity, Request};
use ciphermq_tests::{Authority, Pki};
use x509_parser::prelude::{FromDer as _, X509Certificate};

fn inspect<T>(identity: &Identity, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let der = identity.certificate_der();
    let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    look(&certificate)
}

fn common_names(identity: &Identity) -> Vec<String> {
    inspect(identity, |certificate| {
        certificate
            .subject()
            .iter_common_name()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    })
}

#[test]
fn a_client_certificate_is_p384_for_clients_named_and_signed_by_its_ca() {
    let authority = Authority::new("CA");
    let ca = authority.certificate_der();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let other = Authority::new("CA").certificate_der();
    let (_, other) = X509Certificate::from_der(&other).unwrap();
    let client = authority.client("sender_1");
    assert_eq!(common_names(&client), ["sender_1"]);
    inspect(&client, |certificate| {
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert!(
            certificate
                .verify_signature(Some(other.public_key()))
                .is_err(),
            "another CA of the same name"
        );
        assert_eq!(certificate.public_key().parsed().unwrap().key_size(), 384);
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        assert!(certificate.validity().is_valid());
    });
}

#[test]
fn a_server_certificate_names_its_hosts() {
    let server = Authority::new("CA").server(&["localhost", "127.0.0.1"]);
    inspect(&server, |certificate| {
        let names = certificate
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len();
        assert_eq!(names, 2);
        assert!(
            certificate
                .extended_key_usage()
                .unwrap()
                .unwrap()
                .value
                .server_auth
        );
    });
}

#[test]
fn bad_certificates_are_bad_in_the_way_that_they_say() {
    let authority = Authority::new("CA");
    let valid = |request| {
        inspect(&authority.issue(request), |certificate| {
            certificate.validity().is_valid()
        })
    };
    assert!(valid(Request::client("a")));
    assert!(!valid(Request::client("a").expired()));
    assert!(!valid(Request::client("a").not_yet_valid()));
    let names = |request| common_names(&authority.issue(request));
    assert_eq!(names(Request::anonymous()), [""; 0]);
    assert_eq!(
        names(Request::client("one").also_named("two")),
        ["one", "two"]
    );
    assert_eq!(names(Request::client("with space")), ["with space"]);
    assert_eq!(names(Request::client("line\nbreak")), ["line\nbreak"]);
}

#[test]
fn a_folder_is_laid_out_as_keygen_does_with_private_keys_private() {
    let pki = Pki::new();
    let client = pki.client("receiver_1");
    assert_eq!(
        client.certificate,
        pki.folder().join("receiver_1/client.crt")
    );
    let first = std::fs::read_to_string(&client.certificate).unwrap();
    assert_eq!(
        std::fs::read_to_string(pki.client("receiver_1").certificate).unwrap(),
        first
    );
    for key in [client.key, pki.folder().join("server.key")] {
        assert_eq!(
            key.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            key.display()
        );
    }
    for name in ["ca.crt", "server.crt"] {
        assert!(pki.folder().join(name).is_file(), "{name}");
    }
}

#[test]
fn openssl_makes_older_clients_certificates() {
    let authority = OpensslAuthority::new();
    for (name, alternative) in [("older_1", None), ("older_2", Some("DNS:localhost"))] {
        let files = authority.issue(name, alternative);
        let folder = files.certificate.parent().unwrap();
        let text = openssl::run(
            folder,
            &[
                "x509",
                "-noout",
                "-text",
                "-in",
                files.certificate.to_str().unwrap(),
            ],
        );
        assert!(
            text.contains("Version: 3") && text.contains("secp384r1"),
            "{text}"
        );
        assert!(!text.contains("Extended Key Usage"), "{text}");
        assert_eq!(
            text.contains("DNS:localhost"),
            alternative.is_some(),
            "{text}"
        );
        assert!(
            text.contains(&format!("CN = {name}")) || text.contains(&format!("CN={name}")),
            "{text}"
        );
        let verified = openssl::run(
            folder,
            &[
                "verify",
                "-CAfile",
                "ca.crt",
                files.certificate.to_str().unwrap(),
            ],
        );
        assert!(verified.ends_with(": OK\n"), "{verified}");
        let key = std::fs::read_to_string(files.key).unwrap();
        assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    }
}
