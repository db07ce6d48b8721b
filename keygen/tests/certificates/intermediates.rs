//! Intermediate authorities: what `keygen authority` makes, and what verifiers make of chains, path
//! lengths and name constraints, as docs/cryptography.md and docs/certificates.md say.

use std::fs;

use ciphermq_crypto::identity::{Authority, CertificateError, Flaw};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, GeneralSubtree, IsCa, Issuer,
    KeyPair, NameConstraints,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::folder::Folder;

/// Makes a root in `root`, an intermediate authority in `issuing`, and a server and a client `c`
/// of the latter.
fn hierarchy() -> Folder {
    let folder = Folder::new();
    folder.keygen("authority --out root");
    folder.keygen("authority --out issuing --under root");
    folder.keygen("certs --out issuing --client c");
    folder
}

/// Makes an authority in a folder, signed by that of another folder, as no command does.
fn forge(folder: &Folder, below: &str, name: &str, constrain: impl FnOnce(&mut CertificateParams)) {
    let text = |name: String| fs::read_to_string(folder.path(&name)).unwrap();
    let key = KeyPair::from_pem(&text(format!("{below}/ca.key"))).unwrap();
    let above = text(format!("{below}/ca.crt"));
    let issuer = Issuer::from_ca_cert_pem(&above, key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    constrain(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let is_root = {
        let der = folder.certificate(&format!("{below}/ca.crt"));
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        parsed.subject() == parsed.issuer()
    };
    let above = if is_root { String::new() } else { above };
    fs::create_dir_all(folder.path(name)).unwrap();
    fs::write(folder.path(&format!("{name}/ca.crt")), certificate + &above).unwrap();
    fs::write(folder.path(&format!("{name}/ca.key")), key.serialize_pem()).unwrap();
}

/// Returns what a server and a client that trust the root say about the certificates in a folder.
fn handshake(folder: &Folder, issuing: &str, host: &str) -> Result<String, rustls::Error> {
    let (server, client) = (format!("{issuing}/server"), format!("{issuing}/c/client"));
    folder.handshake_between("root/ca.crt", &server, &client, host)
}

/// Returns what a receiver that trusts the root says about the client's chain.
fn verify(folder: &Folder, issuing: &str) -> Result<(), CertificateError> {
    let authority = Authority::new([folder.certificate("root/ca.crt")]).unwrap();
    let chain = folder.chain(&format!("{issuing}/c/client.crt"));
    authority.verify(&chain, Timestamp::now()).map(drop)
}

fn openssl_verify(folder: &Folder, issuing: &str) -> (bool, String) {
    let client = format!("{issuing}/c/client.crt");
    folder.openssl_outcome(&format!(
        "verify -purpose sslclient -CAfile root/ca.crt -untrusted {client} {client}"
    ))
}

#[test]
fn certificates_of_an_intermediate_authority_are_accepted_with_their_chain() {
    let folder = hierarchy();
    for name in ["issuing/c/client.crt", "issuing/server.crt"] {
        assert_eq!(folder.chain(name).len(), 2, "{name}");
    }
    assert_eq!(handshake(&folder, "issuing", "localhost").unwrap(), "c");
    verify(&folder, "issuing").unwrap();
    for (purpose, name) in [("sslclient", "c/client.crt"), ("sslserver", "server.crt")] {
        let name = format!("issuing/{name}");
        folder.openssl(&format!(
            "verify -x509_strict -purpose {purpose} -CAfile root/ca.crt -untrusted {name} {name}"
        ));
    }
    // Without the intermediate certificate nobody accepts it.
    let own = folder.openssl("x509 -in issuing/c/client.crt");
    fs::write(folder.path("issuing/c/client.crt"), own).unwrap();
    assert!(handshake(&folder, "issuing", "localhost").is_err());
}

#[test]
fn certificates_on_request_and_renewed_ones_have_their_chain() {
    let folder = hierarchy();
    folder.keygen("csr --client d --out client");
    folder.keygen("sign client/d/client.csr --out issuing");
    folder.copy("issuing/d/client.crt", "client/d/client.crt");
    let name = |client: &str| {
        folder.handshake_between("root/ca.crt", "issuing/server", client, "localhost")
    };
    assert_eq!(name("client/d/client").unwrap(), "d");
    folder.keygen("renew d --out client --ca issuing --new-key");
    assert_eq!(name("client/d/client").unwrap(), "d");
}

#[test]
fn an_intermediate_authority_is_limited_as_documented() {
    let folder = hierarchy();
    let text = folder.openssl("x509 -noout -text -in issuing/ca.crt");
    for expected in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let text = folder.openssl("x509 -noout -text -in root/ca.crt");
    assert!(text.contains("CA:TRUE, pathlen:1"), "{text}");
    folder.keygen("authority --out short --days 5");
    folder.keygen("authority --out below --under short");
    let end = |name: &str| {
        let der = folder.certificate(name);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        parsed.validity().not_after.timestamp()
    };
    assert_eq!(end("below/ca.crt"), end("short/ca.crt"));

    let refused = folder.refuses("authority --out issuing");
    assert!(
        refused.contains("issuing/ca.crt exists already"),
        "{refused}"
    );
    let refused = folder.refuses("authority --out more --under issuing");
    assert!(
        refused.contains("may not issue certificates of authorities"),
        "{refused}"
    );
    folder.keygen("certs --out plain");
    let refused = folder.refuses("authority --out more --under plain");
    assert!(refused.contains("path length 0"), "{refused}");
    // An interrupted run is completed, with the same key.
    let key = fs::read(folder.path("below/ca.key")).unwrap();
    fs::remove_file(folder.path("below/ca.crt")).unwrap();
    folder.keygen("authority --out below --under short");
    assert_eq!(fs::read(folder.path("below/ca.key")).unwrap(), key);
}

#[test]
fn path_lengths_are_obeyed_below_the_root_only() {
    let folder = hierarchy();
    forge(&folder, "issuing", "second", |_| {});
    folder.keygen("certs --out second --client c");
    assert_eq!(folder.chain("second/c/client.crt").len(), 3);
    assert!(handshake(&folder, "second", "localhost").is_err());
    let refused = verify(&folder, "second").unwrap_err();
    assert_eq!(refused, CertificateError::NotTrusted(Flaw::Constraints));
    let (is_good, text) = openssl_verify(&folder, "second");
    assert!(
        !is_good && text.contains("path length constraint exceeded"),
        "{text}"
    );

    // The root's own path length counts for OpenSSL, and not here.
    let folder = Folder::new();
    folder.keygen("certs --out root");
    forge(&folder, "root", "issuing", |_| {});
    folder.keygen("certs --out issuing --client c");
    handshake(&folder, "issuing", "localhost").unwrap();
    verify(&folder, "issuing").unwrap();
    let (is_good, text) = openssl_verify(&folder, "issuing");
    assert!(
        !is_good && text.contains("path length constraint exceeded"),
        "{text}"
    );
}

#[test]
fn name_constraints_limit_alternative_names_only() {
    let folder = Folder::new();
    folder.keygen("authority --out root");
    let within = |name: GeneralSubtree| {
        move |params: &mut CertificateParams| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![name],
                excluded_subtrees: Vec::new(),
            });
        }
    };
    let host = GeneralSubtree::DnsName("example.org".to_owned());
    forge(&folder, "root", "host", within(host));
    folder.keygen("certs --out host --client c --server-name mq.example.org");
    // A client's Common Name is not limited by it.
    assert_eq!(handshake(&folder, "host", "mq.example.org").unwrap(), "c");
    verify(&folder, "host").unwrap();
    folder.keygen("certs --out host --server-name mq.example.com --force");
    assert!(handshake(&folder, "host", "mq.example.com").is_err());
    // They count in an authority that is trusted itself, too.
    let trusted =
        |host| folder.handshake_between("host/ca.crt", "host/server", "host/c/client", host);
    assert!(trusted("mq.example.com").is_err());
    folder.keygen("certs --out host --server-name mq.example.org --force");
    assert_eq!(trusted("mq.example.org").unwrap(), "c");

    // One for directory names is refused, whatever it says: OpenSSL accepts it.
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "c");
    let subject = GeneralSubtree::DirectoryName(subject);
    forge(&folder, "root", "directory", within(subject));
    folder.keygen("certs --out directory --client c");
    assert!(handshake(&folder, "directory", "localhost").is_err());
    let refused = verify(&folder, "directory").unwrap_err();
    assert_eq!(refused, CertificateError::NotTrusted(Flaw::Constraints));
    let (is_good, text) = openssl_verify(&folder, "directory");
    assert!(is_good, "{text}");
}

#[test]
fn the_root_revokes_an_intermediate_authority() {
    let folder = hierarchy();
    folder.keygen("crl --out issuing");
    folder.keygen("crl --out root");
    let verify = || {
        let lists = fs::read_to_string(folder.path("root/ca.crl")).unwrap()
            + &fs::read_to_string(folder.path("issuing/ca.crl")).unwrap();
        fs::write(folder.path("lists"), lists).unwrap();
        folder.openssl_outcome(
            "verify -crl_check_all -CRLfile lists -CAfile root/ca.crt -untrusted issuing/ca.crt \
             issuing/c/client.crt",
        )
    };
    assert!(verify().0);
    folder.keygen("revoke issuing/ca.crt --out root");
    let (is_good, text) = verify();
    assert!(!is_good && text.contains("certificate revoked"), "{text}");
    folder.keygen("revoke c --out issuing --reason superseded");
    folder.refuses("revoke c --out root");
}
