//! Certificates of clients that the server, or TLS itself, cannot use.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_report_an_unusable_client_certificate() {
    let deployment = TwoAuthorities::start().await;
    let stranger = Authority::new("Another CA")
        .client("c")
        .write(deployment.folder.path(), "stranger");
    let namesake = Authority::new("CipherMQ test CA")
        .client("c")
        .write(deployment.folder.path(), "namesake");
    let usage = |usage| Request::named("c").usage(usage);
    let with = |extensions| CertificateSpec {
        extensions: Some(extensions),
        ..CertificateSpec::default()
    };
    for (identity, client, log) in [
        (
            deployment.issue_with_rcgen("expired", Request::client("c").expired()),
            vec![
                "it expired at 2021-01-01T00:00:00Z",
                "`ciphermq-cli certs --force --client c`",
            ],
            vec![
                "expired at 2021-01-01T00:00:00Z",
                "`ciphermq-cli certs --force --client NAME`, with its Common Name as NAME",
            ],
        ),
        (
            deployment.issue_with_rcgen("early", Request::client("c").not_yet_valid()),
            vec!["it is not valid yet, only from 2099", "Check the clocks"],
            vec!["is not valid yet, only from 2099", "Check the clocks"],
        ),
        (
            deployment.issue_with_rcgen("servers", usage(ExtendedKeyUsagePurpose::ServerAuth)),
            vec!["is not for this use", "clientAuth"],
            vec!["is not for this use", "clientAuth"],
        ),
        (
            stranger,
            vec!["was not issued by an authority that is trusted", "`ca.crt`"],
            vec![
                "was not issued by an authority that is trusted",
                "`ca_cert_path`",
            ],
        ),
        (
            namesake,
            vec!["has the signature of another", "made together"],
            vec!["has the signature of another", "made together"],
        ),
        (
            deployment.issue_with_openssl(
                "sha1",
                CertificateSpec {
                    digest: "-sha1",
                    ..CertificateSpec::default()
                },
            ),
            vec!["is signed with an algorithm", "SHA-256"],
            vec!["is signed with an algorithm", "SHA-256"],
        ),
        (
            deployment.issue_with_openssl("authority", with("basicConstraints=CA:TRUE")),
            vec!["is marked as an authority's", "with CA:FALSE"],
            vec!["is marked as an authority's", "with CA:FALSE"],
        ),
    ] {
        deployment.expect_refused(&identity, &client, &log).await;
    }
}

/// The client examines the name in its certificate before it connects; `tls.rs` tests the server's
/// report.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_reports_a_certificate_that_names_no_client() {
    let deployment = TwoAuthorities::start().await;
    let letters = CertificateSpec {
        subject: "/CN=Zürich",
        ..CertificateSpec::default()
    };
    for (identity, texts) in [
        (
            deployment.issue_with_rcgen("nameless", Request::anonymous()),
            ["has no Common Name", "exactly one Common Name"],
        ),
        (
            deployment.issue_with_rcgen("two", Request::client("one").also_named("two")),
            ["has 2 Common Names", "exactly one Common Name"],
        ),
        (
            deployment.issue_with_rcgen("space", Request::client("two words")),
            ["cannot be a client id", "without spaces"],
        ),
        (
            deployment.issue_with_openssl("t61", letters),
            ["T61String", "UTF8String"],
        ),
    ] {
        let refused = deployment.cli("status", &identity).run().await.code(1);
        for text in texts {
            assert!(
                refused.stderr.contains(text),
                "{text:?} is not in:\n{}",
                refused.stderr
            );
        }
    }
}

/// If TLS itself cannot use a certificate, the client reports it before it connects, and the server
/// does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_reports_a_certificate_that_tls_cannot_use() {
    let deployment = TwoAuthorities::start().await;
    let critical = Some("basicConstraints=CA:FALSE\n1.2.3.4=critical,ASN1:NULL");
    for (name, key, extensions, texts) in [
        (
            "v1",
            CertificateSpec::default().key,
            None,
            ["is of an old version of X.509", "-extfile"],
        ),
        (
            "critical",
            CertificateSpec::default().key,
            critical,
            ["has a critical extension", "not critical"],
        ),
        (
            "short",
            "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
            Some("basicConstraints=CA:FALSE"),
            ["key is RSA with 1024 bits", "2048 bits or more"],
        ),
        (
            "curve",
            "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
            Some("basicConstraints=CA:FALSE"),
            ["key is ECDSA secp256k1", "ECDSA P-384"],
        ),
        (
            "explicit",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-384 -pkeyopt ec_param_enc:explicit",
            Some("basicConstraints=CA:FALSE"),
            ["explicit parameters)", "a named curve"],
        ),
    ] {
        let files = deployment.issue_with_openssl(
            name,
            CertificateSpec {
                key,
                extensions,
                ..CertificateSpec::default()
            },
        );
        let client = deployment.cli("status", &files).run().await.code(1).stderr;
        let options = Options::sqlite()
            .set("tls", "cert_path", files.certificate.display().to_string())
            .set("tls", "key_path", files.key.display().to_string());
        let server = Server::refused(options).await.stderr;
        for text in texts {
            assert!(client.contains(text), "{text:?} is not in:\n{client}");
            assert!(server.contains(text), "{text:?} is not in:\n{server}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_every_string_type_and_other_kinds_of_keys_are_accepted() {
    let deployment = TwoAuthorities::start().await;
    for (file, name, key) in [
        ("printable", "client-1", CertificateSpec::default().key),
        ("bmp", "Ωmega", CertificateSpec::default().key),
        ("rsa", "rsa", RSA),
        (
            "p256",
            "p256",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        ),
        (
            "p521",
            "p521",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
        ),
        ("ed25519", "ed25519", "-algorithm ED25519"),
    ] {
        let subject = format!("/CN={name}");
        let spec = CertificateSpec {
            key,
            subject: &subject,
            ..CertificateSpec::default()
        };
        let status = deployment
            .cli("status", &deployment.issue_with_openssl(file, spec))
            .run()
            .await
            .success();
        assert!(status.stdout.contains(name), "{}", status.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_other_contents_are_reported_as_such() {
    let deployment = TwoAuthorities::start().await;
    let good = deployment.issue_with_rcgen("good", Request::client("c"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (certificate, key) = (read(&good.certificate), read(&good.key));
    let folder = deployment.folder.path();
    let run = |arguments: &[&str]| ciphermq_tests::pki::openssl::run(folder, arguments);
    run(&[
        "x509", "-in", "good.crt", "-outform", "der", "-out", "der.crt",
    ]);
    run(&[
        "pkey", "-in", "good.key", "-aes256", "-passout", "pass:x", "-out", "new.key",
    ]);
    run(&[
        "ec", "-in", "good.key", "-aes256", "-passout", "pass:x", "-out", "old.key",
    ]);
    run(&[
        "pkcs12", "-export", "-in", "good.crt", "-inkey", "good.key", "-passout", "pass:x", "-out",
        "good.p12",
    ]);
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        chmod(folder, &[name]);
    };
    write("crlf.crt", &certificate.replace('\n', "\r\n"));
    write("bom.crt", &format!("\u{feff}{certificate}"));
    write(
        "text.crt",
        &format!("Certificate:\n    Data: of mine\n{certificate}\nBest regards\n"),
    );
    write("crlf.key", &key.replace('\n', "\r\n"));
    write("bom.key", &format!("\u{feff}{key}"));
    write("empty", "");
    write("both.pem", &format!("{key}{certificate}"));
    let files = |certificate: &str, key: &str| Files {
        certificate: folder.join(certificate),
        key: folder.join(key),
    };
    for (certificate, key) in [
        ("crlf.crt", "crlf.key"),
        ("bom.crt", "bom.key"),
        ("text.crt", "good.key"),
        ("both.pem", "both.pem"),
    ] {
        deployment
            .cli("status", &files(certificate, key))
            .run()
            .await
            .success();
    }
    chmod(folder, &["der.crt", "new.key", "old.key", "good.p12"]);
    for (certificate, key, texts) in [
        (
            "der.crt",
            "good.key",
            ["no certificate in PEM", "openssl x509 -inform der"],
        ),
        (
            "good.p12",
            "good.key",
            ["no certificate in PEM", "openssl pkcs12 -nokeys"],
        ),
        (
            "good.crt",
            "good.p12",
            ["no private key in PEM", "openssl pkcs12 -nocerts"],
        ),
        (
            "good.crt",
            "new.key",
            ["no unencrypted private key", "openssl pkey -in"],
        ),
        (
            "good.crt",
            "old.key",
            ["only an encrypted private key", "openssl pkey -in"],
        ),
        ("good.key", "good.crt", ["no certificate", "swapped"]),
        (
            "good.crt",
            "empty",
            ["no unencrypted private key", "It is empty"],
        ),
        ("empty", "good.key", ["no certificate", "It is empty"]),
    ] {
        // Either file may be given as the private key, so both must be private.
        chmod(folder, &[certificate, key]);
        let refused = deployment
            .cli("status", &files(certificate, key))
            .run()
            .await
            .code(1);
        for text in texts {
            assert!(
                refused.stderr.contains(text),
                "{text:?} is not in:\n{}",
                refused.stderr
            );
        }
    }
}

fn chmod(folder: &Path, names: &[&str]) {
    use std::os::unix::fs::PermissionsExt as _;
    for name in names {
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600))
            .unwrap();
    }
}
