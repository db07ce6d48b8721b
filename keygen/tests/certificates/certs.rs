//! Certificates that `keygen certs` creates: accepted by rustls, and kept, extended and replaced as
//! documented.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::{Timestamp, ToSpan};
use keygen::{CertsArgs, Error, certs};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::folder::Folder;

#[test]
fn server_and_clients_complete_a_handshake() {
    let folder = Folder::new();
    let report = folder.run(&["sender_1", "Zürich", "sender_1"]).unwrap();
    assert_eq!(report.written.len(), 8);
    assert!(report.kept.is_empty());
    for path in &report.written {
        assert!(path.is_file(), "{}", path.display());
    }
    for host in ["localhost", "127.0.0.1", "::1"] {
        assert_eq!(folder.handshake("sender_1", host).unwrap(), "sender_1");
        assert_eq!(folder.handshake("Zürich", host).unwrap(), "Zürich");
    }
    assert!(folder.handshake("sender_1", "mq.example.org").is_err());
}

#[test]
fn server_certificates_have_the_requested_names() {
    let folder = Folder::new();
    let names = ["mq.example.org", "192.0.2.7"].map(str::to_owned).to_vec();
    certs::run(
        &CertsArgs {
            server_names: names,
            ..folder.args(&["c"])
        },
        Timestamp::now(),
    )
    .unwrap();
    for (host, accepted) in [
        ("mq.example.org", true),
        ("192.0.2.7", true),
        ("localhost", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(folder.handshake("c", host).is_ok(), accepted, "{host}");
    }
}

#[test]
fn certificates_state_their_usage() {
    let folder = Folder::new();
    folder.run(&["c", "d"]).unwrap();
    let mut serials = Vec::new();
    for name in ["ca.crt", "server.crt", "c/client.crt", "d/client.crt"] {
        let der = folder.certificate(name);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let is_ca = certificate
            .basic_constraints()
            .unwrap()
            .is_some_and(|constraints| constraints.value.ca);
        assert_eq!(is_ca, name == "ca.crt", "{name}");
        let usage = certificate
            .extended_key_usage()
            .unwrap()
            .map(|usage| (usage.value.server_auth, usage.value.client_auth));
        let expected = match name {
            "ca.crt" => None,
            "server.crt" => Some((true, false)),
            _ => Some((false, true)),
        };
        assert_eq!(usage, expected, "{name}");
        let days = certificate
            .validity()
            .time_to_expiration()
            .unwrap()
            .whole_days();
        let expected = if name == "ca.crt" {
            3652..=3653
        } else {
            824..=825
        };
        assert!(expected.contains(&days), "{name}: {days} days");
        // P-384: an uncompressed point of 97 bytes.
        assert_eq!(
            certificate.public_key().subject_public_key.data.len(),
            97,
            "{name}"
        );
        serials.push(certificate.raw_serial().to_vec());
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 4, "serial numbers differ");
    // A client's certificate cannot be used by a server, nor the other way round.
    fs::copy(folder.path("c/client.crt"), folder.path("server.crt")).unwrap();
    fs::copy(folder.path("c/client.key"), folder.path("server.key")).unwrap();
    assert!(folder.handshake("d", "localhost").is_err());
}

#[cfg(unix)]
#[test]
fn private_files_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.run(&["c"]).unwrap();
    let mode = |name: &str| {
        fs::metadata(folder.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    for name in ["ca.key", "server.key", "c/client.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    for name in ["ca.crt", "server.crt", "c/client.crt"] {
        assert_eq!(mode(name) & 0o600, 0o600, "{name}");
        assert_eq!(mode(name) & 0o022, 0, "{name}");
    }
    assert_eq!(mode("c"), 0o700);
}

#[test]
fn clients_are_added_later() {
    let folder = Folder::new();
    folder.run(&["c"]).unwrap();
    let before = folder.contents();
    let report = folder.run(&["d", "e"]).unwrap();
    assert_eq!(
        report.kept,
        [folder.path("ca.crt"), folder.path("server.crt")]
    );
    assert_eq!(report.written.len(), 4);
    let after = folder.contents();
    assert!(
        before.iter().all(|file| after.contains(file)),
        "existing files are unchanged"
    );
    for client in ["c", "d", "e"] {
        assert_eq!(folder.handshake(client, "localhost").unwrap(), client);
    }
}

#[test]
fn existing_files_are_not_overwritten() {
    let folder = Folder::new();
    folder.run(&["c"]).unwrap();
    let before = folder.contents();
    // The new client comes first, so that it would be written if anything were.
    let error = folder.run(&["d", "c"]).unwrap_err();
    assert!(
        matches!(&error, Error::Exists(path) if path.starts_with(folder.path("c"))),
        "{error}"
    );
    assert!(error.advice().contains("--force"));
    assert_eq!(folder.contents(), before);
}

#[test]
fn force_replaces_named_clients_and_keeps_the_authority() {
    let folder = Folder::new();
    folder.run(&["c", "d"]).unwrap();
    let before = folder.contents();
    let args = CertsArgs {
        force: true,
        ..folder.args(&["c"])
    };
    certs::run(&args, Timestamp::now()).unwrap();
    let after = folder.contents();
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(b, a)| b != a)
        .map(|(b, _)| b.0.clone())
        .collect();
    assert_eq!(
        changed,
        [folder.path("c/client.crt"), folder.path("c/client.key")]
    );
    assert_eq!(folder.handshake("c", "localhost").unwrap(), "c");

    let names = vec!["mq.example.org".to_owned()];
    certs::run(
        &CertsArgs {
            server_names: names,
            ..CertsArgs {
                force: true,
                ..folder.args(&[])
            }
        },
        Timestamp::now(),
    )
    .unwrap();
    assert_eq!(folder.handshake("d", "mq.example.org").unwrap(), "d");
}

#[test]
fn a_new_authority_invalidates_the_old_certificates() {
    let folder = Folder::new();
    folder.run(&["c", "d"]).unwrap();
    let args = CertsArgs {
        force: true,
        new_ca: true,
        ..folder.args(&["c"])
    };
    let report = certs::run(&args, Timestamp::now()).unwrap();
    assert_eq!(report.written.len(), 6);
    assert_eq!(folder.handshake("c", "localhost").unwrap(), "c");
    assert!(folder.handshake("d", "localhost").is_err());
}

#[test]
fn a_server_of_another_authority_is_not_kept() {
    let [folder, other] = [(); 2].map(|()| Folder::new());
    folder.run(&[]).unwrap();
    other.run(&[]).unwrap();
    for name in ["ca.crt", "ca.key"] {
        fs::copy(other.path(name), folder.path(name)).unwrap();
    }
    let before = folder.contents();
    assert!(matches!(
        folder.run(&["c"]),
        Err(Error::OtherAuthority { .. })
    ));
    assert_eq!(folder.contents(), before);
}

#[test]
fn an_incomplete_authority_is_an_error() {
    // A power failure leaves a server's key alone: see interruptions.rs.
    for missing in ["ca.key", "ca.crt", "server.key"] {
        let folder = Folder::new();
        folder.run(&[]).unwrap();
        fs::remove_file(folder.path(missing)).unwrap();
        let before = folder.contents();
        let error = folder.run(&["c"]).unwrap_err();
        assert!(
            matches!(&error, Error::Incomplete { missing: path, .. } if *path == folder.path(missing)),
            "{error}"
        );
        assert_eq!(folder.contents(), before, "{missing}");
    }
}

#[test]
fn an_authority_that_cannot_sign_is_an_error() {
    let error_after = |damage: &dyn Fn(&Folder)| {
        let folder = Folder::new();
        folder.run(&["c"]).unwrap();
        damage(&folder);
        let before = folder.contents();
        let error = folder.run(&["d"]).unwrap_err();
        assert_eq!(folder.contents(), before);
        error
    };
    let copy = |folder: &Folder, from: &str, to: &str| {
        fs::copy(folder.path(from), folder.path(to)).unwrap();
    };
    let error = error_after(&|folder| copy(folder, "server.key", "ca.key"));
    assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    let error = error_after(&|folder| {
        copy(folder, "c/client.crt", "ca.crt");
        copy(folder, "c/client.key", "ca.key");
    });
    assert!(matches!(error, Error::NoAuthority(_)), "{error}");
    let error = error_after(&|folder| fs::write(folder.path("ca.crt"), "no certificate").unwrap());
    assert!(matches!(error, Error::NoCertificate(_)), "{error}");
    let error = error_after(&|folder| fs::write(folder.path("ca.key"), "no key").unwrap());
    assert!(matches!(error, Error::NoPrivateKey { .. }), "{error}");
}

#[test]
fn no_certificate_outlives_the_authority() {
    let folder = Folder::new();
    folder.run(&[]).unwrap();
    let late = Timestamp::now() + (24 * 3600).hours();
    certs::run(
        &CertsArgs {
            days: 3650,
            ..folder.args(&["c"])
        },
        late,
    )
    .unwrap();
    let (authority, client) = (
        folder.certificate("ca.crt"),
        folder.certificate("c/client.crt"),
    );
    let not_after = |der: &CertificateDer<'_>| {
        X509Certificate::from_der(der)
            .unwrap()
            .1
            .validity()
            .not_after
    };
    assert_eq!(not_after(&client), not_after(&authority));

    let too_late = Timestamp::now() + (24 * 3700).hours();
    let error = certs::run(&folder.args(&["d"]), too_late).unwrap_err();
    assert!(matches!(error, Error::NotValidNow { .. }), "{error}");
    assert!(!folder.path("d").exists());
}

#[test]
fn path_traversal_writes_nothing() {
    let folder = Folder::new();
    for name in ["../x", "/tmp/x", ".hidden", "a b", "", "ca.crt"] {
        assert!(
            matches!(folder.run(&["c", name]), Err(Error::Name(_))),
            "{name}"
        );
    }
    assert_eq!(folder.contents(), []);
}

#[test]
fn a_failure_leaves_nothing() {
    let folder = Folder::new();
    // The second client's folder cannot be created: a file has its name.
    fs::write(folder.path("d"), "a file").unwrap();
    let before = folder.contents();
    assert!(folder.run(&["c", "d"]).is_err());
    assert_eq!(folder.contents(), before);
}

#[test]
fn the_advice_for_an_encrypted_key_of_an_authority_decrypts_it() {
    let folder = Folder::new();
    folder.run(&["c"]).unwrap();
    folder.openssl("pkey -in ca.key -aes256 -passout pass:x -out new");
    fs::rename(folder.path("new"), folder.path("ca.key")).unwrap();
    let error = folder.run(&["d"]).unwrap_err();
    assert!(error.to_string().contains("encrypted"), "{error}");
    let advice = error.advice();
    let (_, command) = advice.split_once(": ").unwrap();
    // A terminal asks for the password.
    let command = command.replace("openssl pkey", "openssl pkey -passin pass:x");
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "the key is not printed");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(folder.path("ca.key")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    folder.run(&["d"]).unwrap();
    assert_eq!(folder.handshake("d", "localhost").unwrap(), "d");
}

#[test]
fn a_key_of_an_authority_that_is_too_short_is_reported_as_such() {
    let folder = Folder::new();
    folder.openssl("genrsa -traditional -out ca.key 1024");
    folder.openssl("req -x509 -new -key ca.key -sha256 -days 30 -subj /CN=Old-CA -out ca.crt");
    let error = folder.run(&["c"]).unwrap_err();
    assert!(
        error.to_string().ends_with("it is RSA with 1024 bits"),
        "{error}"
    );
    assert!(error.advice().contains("RSA of 2048"), "{}", error.advice());
}

#[test]
fn a_key_is_not_the_name_of_a_folder() {
    let key = "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=";
    let args = CertsArgs {
        out: key.into(),
        ..Folder::new().args(&[])
    };
    let error = certs::run(&args, Timestamp::now()).unwrap_err();
    assert!(
        error.is_usage() && !error.to_string().contains(key),
        "{error}"
    );
    assert!(!Path::new(key).exists());
}

#[test]
fn openssl_authorities_are_used() {
    for (kind, make_key) in [
        (
            "P-256, SEC 1, parameters first",
            "ecparam -name prime256v1 -genkey -out ca.key",
        ),
        (
            "P-384, SEC 1",
            "ecparam -name secp384r1 -genkey -noout -out ca.key",
        ),
        (
            "P-384, PKCS #8",
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ca.key",
        ),
        (
            "RSA, PKCS #8",
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out ca.key",
        ),
        ("RSA, PKCS #1", "genrsa -traditional -out ca.key 2048"),
    ] {
        let folder = Folder::new();
        folder.openssl(make_key);
        folder.openssl(
            "req -x509 -new -key ca.key -sha384 -days 30 -subj /C=CH/O=Example/CN=Example-CA -out \
             ca.crt",
        );
        let before = fs::read(folder.path("ca.crt")).unwrap();
        let report = folder
            .run(&["c"])
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(report.kept, [folder.path("ca.crt")], "{kind}");
        assert_eq!(fs::read(folder.path("ca.crt")).unwrap(), before);
        assert_eq!(folder.handshake("c", "localhost").unwrap(), "c", "{kind}");
        // Not -x509_strict: an authority that OpenSSL creates by default states no key usage.
        folder.openssl("verify -CAfile ca.crt -purpose sslclient c/client.crt");
        folder.openssl("verify -CAfile ca.crt -purpose sslserver -verify_ip 127.0.0.1 server.crt");
    }
}

#[test]
fn openssl_accepts_the_certificates() {
    let folder = Folder::new();
    folder.run(&["c"]).unwrap();
    folder.openssl("verify -x509_strict -CAfile ca.crt -purpose sslclient c/client.crt");
    folder.openssl(
        "verify -x509_strict -CAfile ca.crt -purpose sslserver -verify_hostname localhost \
         server.crt",
    );
}
