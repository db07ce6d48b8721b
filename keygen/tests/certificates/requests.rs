//! Requests that `keygen csr` and OpenSSL make, and what `keygen sign` issues for them.

use std::fs;

use ciphermq_crypto::identity::Authority;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::folder::Folder;

/// Returns the extensions of a certificate, without the identifiers of keys, and its subject.
fn profile(der: &CertificateDer<'_>) -> (String, Vec<(String, bool, Vec<u8>)>) {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let mut extensions: Vec<_> = certificate
        .extensions()
        .iter()
        .filter(|one| !is_key_identifier(one.parsed_extension()))
        .map(|one| (one.oid.to_id_string(), one.critical, one.value.to_vec()))
        .collect();
    extensions.sort();
    (certificate.subject().to_string(), extensions)
}

fn is_key_identifier(extension: &ParsedExtension<'_>) -> bool {
    matches!(
        extension,
        ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::SubjectKeyIdentifier(_)
    )
}

fn serial(der: &CertificateDer<'_>) -> Vec<u8> {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    certificate.raw_serial().to_vec()
}

/// Makes a request with OpenSSL for a new key of this kind, with these further options.
fn openssl_request(folder: &Folder, kind: &str, options: &str) {
    let _ = fs::remove_file(folder.path("made.csr"));
    folder.openssl(&format!(
        "req -new -nodes -newkey {kind} -keyout made.key -out made.csr {options}"
    ));
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

#[test]
fn a_clients_request_becomes_a_certificate_like_those_of_certs() {
    let folder = Folder::with(&["twin"]);
    folder.keygen("csr --client sender_1 --out client");
    let request = "client/sender_1/client.csr";
    let read = folder.openssl(&format!("req -verify -noout -text -in {request}"));
    for expected in [
        "verify OK",
        "CN = sender_1",
        "Digital Signature",
        "CA:FALSE",
    ] {
        assert!(read.contains(expected), "{expected}: {read}");
    }
    let shown = folder.keygen(&format!("sign {request} --client sender_1 --out ."));
    let made = folder.keygen(
        "csr --client sender_1 --out client --key client/sender_1/client.key \
                              --force",
    );
    let fingerprint = made
        .split_once("public key is ")
        .unwrap()
        .1
        .split('.')
        .next()
        .unwrap();
    assert!(shown.contains(fingerprint), "{shown}: {fingerprint}");
    folder.copy("client/sender_1/client.key", "sender_1/client.key");
    assert_eq!(
        folder.handshake("sender_1", "localhost").unwrap(),
        "sender_1"
    );
    folder.openssl("verify -x509_strict -CAfile ca.crt -purpose sslclient sender_1/client.crt");

    let (issued, twin) = (
        folder.certificate("sender_1/client.crt"),
        folder.certificate("twin/client.crt"),
    );
    let (subject, extensions) = profile(&issued);
    assert_eq!(subject, "CN=sender_1");
    assert_eq!(extensions, profile(&twin).1);
    let authority = Authority::new([folder.certificate("ca.crt")]).unwrap();
    let verified = authority
        .verify(std::slice::from_ref(&issued), Timestamp::now())
        .unwrap();
    assert_eq!(verified.client_id().as_str(), "sender_1");

    // The same request again: another certificate, with another number.
    let again = folder.refuses(&format!("sign {request} --out ."));
    assert!(
        again.contains("sender_1/client.crt exists already"),
        "{again}"
    );
    folder.keygen(&format!("sign {request} --out . --force"));
    let second = serial(&folder.certificate("sender_1/client.crt"));
    assert_ne!(second, serial(&issued));
    assert_eq!((second.len(), second[0] & 0x80), (20, 0));
}

#[test]
fn a_servers_request_is_signed_for_its_names_only() {
    let folder = Folder::with(&["c"]);
    for name in ["server.crt", "server.key"] {
        fs::remove_file(folder.path(name)).unwrap();
    }
    folder.keygen("csr --server-name mq.example.org --server-name 192.0.2.7 --out server");
    folder.openssl("req -verify -noout -in server/server.csr");
    for (names, error) in [
        ("", "asks for a server's certificate"),
        (
            "--server-name mq.example.org",
            "mq.example.org, 192.0.2.7, which are not",
        ),
        (
            "--server-name 192.0.2.7 --server-name mq.example.com",
            "which are not",
        ),
        (
            "--server-name mq.example.org --server-name 192.0.2.7 --server-name more.example.org",
            "which are not",
        ),
        ("--client c", "asks for a server's certificate"),
    ] {
        let refused = folder.refuses(&format!("sign server/server.csr --out . {names}"));
        assert!(refused.contains(error), "{names}: {refused}");
    }
    folder.keygen(
        "sign server/server.csr --out . --server-name 192.0.2.7 --server-name MQ.example.org",
    );
    folder.copy("server/server.key", "server.key");
    for (host, is_good) in [
        ("mq.example.org", true),
        ("192.0.2.7", true),
        ("localhost", false),
    ] {
        assert_eq!(folder.handshake("c", host).is_ok(), is_good, "{host}");
    }
    folder.openssl(
        "verify -x509_strict -CAfile ca.crt -purpose sslserver -verify_hostname mq.example.org \
         server.crt",
    );
    // A client's certificate is not a server's.
    folder.keygen("csr --client d --out client");
    let refused = folder.refuses("sign client/d/client.csr --out . --server-name d --force");
    assert!(
        refused.contains("asks for a client's certificate"),
        "{refused}"
    );
}

#[test]
fn requests_with_what_no_profile_has_are_refused() {
    let folder = Folder::with(&["c"]);
    for (kind, options, error) in [
        (
            "rsa:1024",
            "-subj /CN=x",
            "not accepted: RSA with 1024 bits",
        ),
        (
            "rsa:2048",
            "-subj /CN=x",
            "not accepted: RSA with 2048 bits",
        ),
        (
            "ec -pkeyopt ec_paramgen_curve:P-521",
            "-subj /CN=x",
            "not accepted: ECDSA P-521",
        ),
        (
            "ec -pkeyopt ec_paramgen_curve:secp256k1",
            "-subj /CN=x",
            "ECDSA secp256k1",
        ),
        (
            "ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "-subj /CN=x",
            "explicit parameters",
        ),
        (
            P256,
            "-subj /CN=x -sha1",
            "was not signed with its own key, or",
        ),
        (
            P256,
            "-subj /CN=x -addext basicConstraints=critical,CA:TRUE",
            "an authority's",
        ),
        (
            P256,
            "-subj /CN=x -addext basicConstraints=CA:TRUE,pathlen:0",
            "an authority's",
        ),
        (
            P256,
            "-subj /CN=x -addext keyUsage=keyCertSign",
            "an authority's",
        ),
        (
            P256,
            "-subj /CN=x -addext keyUsage=digitalSignature,cRLSign",
            "an authority's",
        ),
        (
            P256,
            "-subj /CN=x -addext extendedKeyUsage=serverAuth",
            "asks for a server's",
        ),
        (
            P256,
            "-subj /CN=x -addext subjectAltName=DNS:x",
            "asks for a server's",
        ),
        (P256, "-subj /O=x", "has no Common Name"),
        (P256, "-subj /CN=x/CN=y", "has 2 Common Names"),
        (P256, "-subj /CN=..", "cannot be a client's name"),
        (P256, "-subj /CN=a\\/b", "cannot be a client's name"),
        (P256, "-subj /CN=ca.key", "cannot be a client's name"),
    ] {
        openssl_request(&folder, kind, options);
        let refused = folder.refuses("sign made.csr --out .");
        assert!(refused.contains(error), "{kind} {options}: {refused}");
    }
    openssl_request(&folder, P256, "-subj /CN=mallory");
    let refused = folder.refuses("sign made.csr --client c --out . --force");
    assert!(
        refused.contains("for the client `mallory`, not for `c`"),
        "{refused}"
    );
    // The other client's own folder has another key.
    openssl_request(&folder, P256, "-subj /CN=c");
    let refused = folder.refuses("sign made.csr --client c --out . --force");
    assert!(
        refused.contains("c/client.key is not the private key"),
        "{refused}"
    );
}

#[test]
fn altered_requests_are_refused() {
    let folder = Folder::with(&[]);
    folder.keygen("csr --client a --out client");
    let path = folder.path("client/a/client.csr");
    let der = CertificateSigningRequestDer::from_pem_file(&path).unwrap();
    let write = |der: &[u8]| {
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
        fs::write(folder.path("altered.csr"), pem).unwrap();
    };
    write(&der);
    folder.keygen("sign altered.csr --out .");
    fs::remove_dir_all(folder.path("a")).unwrap();
    let name = der
        .windows(3)
        .position(|bytes| bytes == [0x0c, 1, b'a'])
        .unwrap()
        + 2;
    let [mut other_name, mut other_signature] = [(); 2].map(|()| der.to_vec());
    other_name[name] = b'b';
    *other_signature.last_mut().unwrap() ^= 1;
    for altered in [other_name, other_signature] {
        write(&altered);
        let refused = folder.refuses("sign altered.csr --out .");
        assert!(
            refused.contains("was not signed with its own key"),
            "{refused}"
        );
    }
    // Any other byte: never a certificate, never a panic.
    for index in 0..der.len() {
        let mut altered = der.to_vec();
        altered[index] ^= 0x55;
        if index % 16 == 0 {
            write(&altered);
            folder.refuses("sign altered.csr --out .");
        }
    }
    for text in [
        &b""[..],
        b"nothing",
        &fs::read(folder.path("ca.crt")).unwrap(),
    ] {
        fs::write(folder.path("altered.csr"), text).unwrap();
        let refused = folder.refuses("sign altered.csr --out .");
        assert!(refused.contains("is no certificate request"), "{refused}");
    }
    write(&[&der[..], b"more"].concat());
    folder.refuses("sign altered.csr --out .");
    folder.refuses("sign missing.csr --out .");
}

#[test]
fn what_a_request_asks_for_beyond_its_profile_is_left_out_and_named() {
    let folder = Folder::with(&["twin"]);
    openssl_request(
        &folder,
        P256,
        "-subj /O=Example/CN=c -addext keyUsage=digitalSignature,keyEncipherment -addext \
         extendedKeyUsage=clientAuth,serverAuth,codeSigning -addext \
         subjectAltName=email:a@example.org,DNS:c -addext certificatePolicies=1.2.3 -addext \
         1.2.3.4=ASN1:UTF8String:x",
    );
    let shown = folder.keygen("sign made.csr --out .");
    for left_out in [
        "O=Example, CN=c, but for",
        "usages of keyUsage beyond",
        "usages of extendedKeyUsage beyond",
        "other kinds in subjectAltName",
        "the names c",
        "the extension certificatePolicies",
        "the extension 1.2.3.4",
    ] {
        assert!(shown.contains(left_out), "{left_out}: {shown}");
    }
    let (subject, extensions) = profile(&folder.certificate("c/client.crt"));
    assert_eq!(subject, "CN=c");
    assert_eq!(
        extensions,
        profile(&folder.certificate("twin/client.crt")).1
    );
    // What a request says cannot look like the program's own words.
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let mut push = |kind, text: &str| params.distinguished_name.push(kind, text);
    push(rcgen::DnType::CommonName, "e");
    push(rcgen::DnType::OrganizationName, "x\nerror: forged\u{1b}[2J");
    let key = rcgen::KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    fs::write(folder.path("made.csr"), request).unwrap();
    let shown = folder.keygen("sign made.csr --out .");
    assert!(shown.contains("\\nerror: forged\\u{1b}"), "{shown}");
    assert!(
        !shown.contains("\nerror") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    // Nothing is left out of a request of `keygen csr`.
    folder.keygen("csr --client d --out client");
    let shown = folder.keygen("sign client/d/client.csr --out .");
    assert!(!shown.contains("Left out"), "{shown}");
}

#[test]
fn keys_and_requests_are_not_overwritten() {
    let folder = Folder::new();
    folder.keygen("csr --client a --out .");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |name: &str| {
            fs::metadata(folder.path(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("a/client.key") & 0o777, 0o600);
        assert_eq!(mode("a") & 0o777, 0o700);
    }
    let key = fs::read(folder.path("a/client.key")).unwrap();
    let refused = folder.refuses("csr --client a --out .");
    assert!(refused.contains("a/client.csr exists already"), "{refused}");
    // What an interrupted run has left is completed, with the same key.
    fs::remove_file(folder.path("a/client.csr")).unwrap();
    let done = folder.keygen("csr --client a --out .");
    assert!(done.contains("kept ./a/client.key"), "{done}");
    assert_eq!(fs::read(folder.path("a/client.key")).unwrap(), key);
    // A certificate in use.
    fs::remove_file(folder.path("a/client.csr")).unwrap();
    fs::write(folder.path("a/client.crt"), "in use").unwrap();
    let refused = folder.refuses("csr --client a --out .");
    assert!(refused.contains("a/client.crt exists already"), "{refused}");
    folder.keygen("csr --client a --out . --force");
    assert_ne!(fs::read(folder.path("a/client.key")).unwrap(), key);
    // Whom it is for must be clear.
    for line in [
        "csr --out .",
        "csr --client a --server-name b",
        "csr --client ../a",
    ] {
        folder.refuses(line);
    }
}

#[test]
fn existing_keys_of_openssl_are_used() {
    let folder = Folder::with(&[]);
    for (index, make) in [
        "ecparam -name secp384r1 -genkey -out own.key",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.key",
        "genpkey -algorithm ED25519 -out own.key",
    ]
    .into_iter()
    .enumerate()
    {
        folder.openssl(make);
        let done = folder.keygen(&format!("csr --client c{index} --key own.key --out client"));
        assert!(done.contains("kept own.key"), "{done}");
        assert!(!folder.path(&format!("client/c{index}/client.key")).exists());
        let request = format!("client/c{index}/client.csr");
        folder.openssl(&format!("req -verify -noout -in {request}"));
        folder.keygen(&format!("sign {request} --out ."));
        folder.copy("own.key", &format!("c{index}/client.key"));
        folder.handshake(&format!("c{index}"), "localhost").unwrap();
    }
    // A server's key signs nothing but TLS, and may be RSA.
    for name in ["server.crt", "server.key"] {
        fs::remove_file(folder.path(name)).unwrap();
    }
    folder.openssl("genrsa -out server.key 2048");
    folder.keygen("csr --server-name localhost --key server.key --out client");
    folder.keygen("sign client/server.csr --server-name localhost --out .");
    folder.handshake("c0", "localhost").unwrap();
}

#[test]
fn the_lifetime_is_as_given_and_ends_with_the_authority() {
    let folder = Folder::new();
    folder.keygen("authority --out . --days 30");
    folder.keygen("csr --client a --out client");
    let period = |options: &str| {
        folder.keygen(&format!(
            "sign client/a/client.csr --out . --force {options}"
        ));
        let der = folder.certificate("a/client.crt");
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let validity = certificate.validity();
        (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        )
    };
    let (from, until) = period("--hours 6");
    assert_eq!(until - from, 7 * 3600);
    assert!((from..until).contains(&Timestamp::now().as_second()));
    let (from, until) = period("--days 10");
    assert_eq!(until - from, 11 * 24 * 3600);
    let (_, until) = period("");
    let der = folder.certificate("ca.crt");
    let (_, authority) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(until, authority.validity().not_after.timestamp());
    folder.refuses("sign client/a/client.csr --out . --force --days 1 --hours 1");
    folder.refuses("sign client/a/client.csr --out . --force --hours 0");
}
