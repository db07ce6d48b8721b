//! Certificates of all kinds, with the built programs: for each unusable one, the client reports
//! the cause and the fix, and so does the server's log. Messages that no receiver would accept are
//! not sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciphermq_client::{Client, ClientId, PublishErrorKind};
use ciphermq_tests::pki::openssl::{CertificateSpec, OpensslAuthority};
use ciphermq_tests::pki::{Files, Request};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, Cli, PATIENCE, Pki, Server};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

/// A server that trusts two authorities: one generated with rcgen, and one with OpenSSL.
struct TwoAuthorities {
    server: Server,
    openssl: OpensslAuthority,
    folder: TempDir,
}

impl TwoAuthorities {
    async fn start() -> Self {
        let (pki, openssl, folder) = (
            Pki::new(),
            OpensslAuthority::new(),
            tempfile::tempdir().unwrap(),
        );
        let both = [pki.ca(), openssl.ca()].map(|path| std::fs::read_to_string(path).unwrap());
        let ca = folder.path().join("ca.crt");
        std::fs::write(&ca, both.concat()).unwrap();
        let options = Options::sqlite().pki(Arc::new(pki)).set(
            "tls",
            "ca_cert_path",
            ca.display().to_string(),
        );
        let server = Server::start(options).await;
        Self {
            server,
            openssl,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue_with_rcgen(&self, name: &str, request: Request) -> Files {
        self.server
            .pki()
            .authority()
            .issue(request)
            .write(self.folder.path(), name)
    }

    fn issue_with_openssl(&self, name: &str, spec: CertificateSpec<'_>) -> Files {
        self.openssl.make(name, &spec)
    }

    fn cli(&self, subcommand: &str, identity: &Files) -> Cli {
        Cli::new(subcommand)
            .current_dir(self.folder.path())
            .arg("--server")
            .arg(format!("localhost:{}", self.server.address().port()))
            .arg("--ca")
            .arg(self.path("ca.crt"))
            .arg("--cert")
            .arg(&identity.certificate)
            .arg("--key")
            .arg(&identity.key)
    }

    /// Expects that both sides report the cause and the fix.
    async fn expect_refused(&self, identity: &Files, client: &[&str], log: &[&str]) {
        let mark = self.server.console().mark();
        let refused = self.cli("status", identity).run().await.code(1);
        for text in client {
            assert!(
                refused.stderr.contains(text),
                "{text:?} is not in:\n{}",
                refused.stderr
            );
        }
        let found = |line: &str| log.iter().all(|text| line.contains(text)).then_some(());
        assert_eq!(
            self.server.console().find(mark, PATIENCE, found).await,
            Some(()),
            "no line of the server's log contains {log:?}; the client reports:\n{}",
            refused.stderr
        );
    }
}

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

/// Returns a client's error about a server with this certificate, reached at 127.0.0.1.
async fn error_about_server(authority: &OpensslAuthority, files: &Files) -> String {
    let options = Options::sqlite()
        .set("tls", "cert_path", files.certificate.display().to_string())
        .set("tls", "key_path", files.key.display().to_string())
        .set("tls", "ca_cert_path", authority.ca().display().to_string());
    let server = Server::start(options).await;
    let client = authority.make("client", &CertificateSpec::default());
    let status = Cli::new("status")
        .arg("--server")
        .arg(server.address().to_string())
        .arg("--ca")
        .arg(authority.ca())
        .arg("--cert")
        .arg(client.certificate)
        .arg("--key")
        .arg(client.key)
        .run()
        .await
        .code(1);
    server.console().expect("TLS handshake failed").await;
    status.stderr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_reports_an_unusable_server_certificate() {
    let authority = OpensslAuthority::new();
    for (name, extensions, texts) in [
        (
            "dns",
            Some("subjectAltName=DNS:127.0.0.1"),
            [
                "as a DNS name only (DNS:127.0.0.1)",
                "subjectAltName=IP:127.0.0.1",
            ],
        ),
        (
            "none",
            Some("basicConstraints=CA:FALSE"),
            ["no name at all", "Common Name does not count"],
        ),
        (
            "other",
            Some("subjectAltName=DNS:other.example"),
            ["but for other.example", "--server-name"],
        ),
        (
            "authority",
            Some("basicConstraints=CA:TRUE\nsubjectAltName=IP:127.0.0.1"),
            [
                "is marked as an authority's",
                "new certificate for the server",
            ],
        ),
        (
            "clients",
            Some("extendedKeyUsage=clientAuth\nsubjectAltName=IP:127.0.0.1"),
            ["is not made for servers", "with serverAuth"],
        ),
        (
            "any",
            Some("extendedKeyUsage=anyExtendedKeyUsage\nsubjectAltName=IP:127.0.0.1"),
            ["lacks serverAuth", "nor anyExtendedKeyUsage is enough"],
        ),
    ] {
        let spec = CertificateSpec {
            extensions,
            subject: "/CN=127.0.0.1",
            ..CertificateSpec::default()
        };
        let error = error_about_server(&authority, &authority.make(name, &spec)).await;
        for text in texts {
            assert!(error.contains(text), "{name}: {text:?} is not in:\n{error}");
        }
    }
}

/// The advised command is run as it is printed, where the authority's key is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_advice_for_an_expired_certificate_renews_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join("certs").join(name);
    let text = |name: &str| path(name).display().to_string();
    Cli::new("certs")
        .args(["--client", "alice"])
        .current_dir(folder.path())
        .run()
        .await
        .success();
    let now = ciphermq_client::Timestamp::now();
    let authority =
        keygen::authority::Authority::read(&path("ca.crt"), &path("ca.key"), now).unwrap();
    let key = keygen::authority::read_key(&path("alice/client.key")).unwrap();
    let then = "2021-01-01T00:00:00Z".parse().unwrap();
    let alice = ClientId::new("alice").unwrap();
    let expired = authority.client(&key, &alice, then, 1).unwrap();
    std::fs::write(path("alice/client.crt"), expired.certificate).unwrap();

    let options = Options::sqlite()
        .set("tls", "cert_path", text("server.crt"))
        .set("tls", "key_path", text("server.key"))
        .set("tls", "ca_cert_path", text("ca.crt"));
    let server = Server::start(options).await;
    let status = || {
        Cli::new("status")
            .current_dir(folder.path())
            .args(["--cert", "certs/alice/client.crt", "--server"])
            .arg(format!("localhost:{}", server.address().port()))
    };
    let refused = status().run().await.code(1).stderr;
    let (_, advice) = refused.split_once("`ciphermq-cli ").unwrap();
    let (command, _) = advice.split_once('`').unwrap();
    let mut words = command.split(' ');
    Cli::new(words.next().unwrap())
        .args(words)
        .current_dir(folder.path())
        .run()
        .await
        .success();
    status().run().await.success();
}

/// TLS reports the signatures of such an authority as wrong ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_refuse_an_authority_whose_key_is_too_short() {
    let deployment = TwoAuthorities::start().await;
    let folder = deployment.folder.path();
    let run = |arguments: &str| {
        ciphermq_tests::pki::openssl::run(folder, &arguments.split(' ').collect::<Vec<_>>())
    };
    run("genrsa -out short.key 1024");
    run("req -x509 -new -key short.key -sha256 -days 30 -subj /CN=Short -out short.crt");
    let good = deployment.issue_with_rcgen("good", Request::client("c"));
    // As the trusted authority, and as an intermediate one.
    let short = deployment.path("short.crt");
    let chain = [&good.certificate, &short].map(|path| std::fs::read_to_string(path).unwrap());
    let with_short = Files {
        certificate: deployment.path("chain.crt"),
        key: good.key.clone(),
    };
    std::fs::write(&with_short.certificate, chain.concat()).unwrap();
    let text = |path: &Path| path.display().to_string();
    let chained = Options::sqlite()
        .set("tls", "cert_path", text(&with_short.certificate))
        .set("tls", "key_path", text(&with_short.key));
    let errors = [
        Cli::new("status")
            .arg("--ca")
            .arg(&short)
            .arg("--cert")
            .arg(&good.certificate)
            .run()
            .await
            .code(1)
            .stderr,
        deployment
            .cli("status", &with_short)
            .run()
            .await
            .code(1)
            .stderr,
        Server::refused(Options::sqlite().set("tls", "ca_cert_path", text(&short)))
            .await
            .stderr,
        Server::refused(chained).await.stderr,
    ];
    for error in errors {
        for text in [
            "is RSA with 1024 bits, which is too short",
            "a new authority",
        ] {
            assert!(error.contains(text), "{text:?} is not in:\n{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_warn_about_an_expired_authority() {
    let pki = Arc::new(Pki::of(Authority::expired("Old CA")));
    let server = Server::start(Options::sqlite().pki(pki)).await;
    let line = server
        .console()
        .expect("[tls] ca_cert_path: a certificate expired at 2021-01-01T00:00:00Z")
        .await;
    assert!(line.contains("make a new authority"), "{line}");
    let status = Cli::new("status")
        .connecting(&server, "c")
        .run()
        .await
        .success();
    for text in [
        "warning: The certificate of the authority CN=Old CA",
        "expired at 2021-01-01",
        "new authority",
    ] {
        assert!(
            status.stderr.contains(text),
            "{text:?} is not in:\n{}",
            status.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_no_receiver_would_accept_are_sent_only_on_request() {
    let deployment = TwoAuthorities::start().await;
    let receiver = deployment.issue_with_rcgen("receiver", Request::client("receiver"));
    keygen(&deployment, "keys");
    let receive = || {
        deployment
            .cli("receive", &receiver)
            .arg("--private-key")
            .arg(deployment.path("keys/receiver_private.key"))
            .args(["--output", "out.jsonl", "--idle-exit", "0.05"])
    };
    receive().run().await.success();
    let no_signing = "basicConstraints=CA:FALSE\nkeyUsage=keyAgreement";
    for (name, key, extensions) in [
        ("rsa", RSA, "basicConstraints=CA:FALSE"),
        (
            "p521",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            "basicConstraints=CA:FALSE",
        ),
        ("usage", CertificateSpec::default().key, no_signing),
    ] {
        let subject = format!("/CN={name}");
        let sender = deployment.issue_with_openssl(
            name,
            CertificateSpec {
                key,
                subject: &subject,
                extensions: Some(extensions),
                ..CertificateSpec::default()
            },
        );
        let send = || {
            deployment
                .cli("send", &sender)
                .args(["--to", "receiver", "--message", name])
        };
        let refused = send().run().await.code(1);
        let lacks_usage = extensions == no_signing;
        assert_eq!(refused.stderr.contains("digitalSignature"), lacks_usage);
        assert!(!refused.stderr.contains("clientAuth"), "{}", refused.stderr);
        for text in [
            "No receiver would accept",
            "Issue one",
            "--allow-unsigned-sessions",
        ] {
            assert!(
                refused.stderr.contains(text),
                "{text:?} is not in:\n{}",
                refused.stderr
            );
        }
        send()
            .arg("--allow-unsigned-sessions")
            .run()
            .await
            .success();

        // As receivers, these clients warn that senders will not accept their key.
        keygen(&deployment, name);
        for command in [
            &["register-key"][..],
            &["receive", "--idle-exit", "0.05", "--output", "-"],
        ] {
            let outcome = deployment
                .cli(command[0], &sender)
                .args(&command[1..])
                .arg("--private-key")
                .arg(deployment.path(name).join("receiver_private.key"))
                .run()
                .await
                .success();
            assert!(
                outcome.stderr.contains("without a signature"),
                "{}",
                outcome.stderr
            );
        }
    }
    let received = receive()
        .arg("--allow-unverified-senders")
        .run()
        .await
        .success();
    assert!(
        received.stderr.contains("3 received"),
        "{}",
        received.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_key_is_not_replaced_by_one_that_the_certificate_cannot_sign() {
    let deployment = TwoAuthorities::start().await;
    keygen(&deployment, "first");
    keygen(&deployment, "second");
    let as_client = |command: &str, certificate: &Files, keys: &str| {
        deployment
            .cli(command, certificate)
            .arg("--private-key")
            .arg(deployment.path(keys).join("receiver_private.key"))
    };
    let receive = |certificate: &Files, keys: &str| {
        as_client("receive", certificate, keys).args([
            "--output",
            "out.jsonl",
            "--idle-exit",
            "0.05",
        ])
    };
    let signing = deployment.issue_with_rcgen("signing", Request::client("receiver"));
    receive(&signing, "first").run().await.success();
    let sender = deployment.issue_with_rcgen("sender", Request::client("sender"));
    let send = |text: &str| {
        deployment
            .cli("send", &sender)
            .args(["--to", "receiver", "--message", text])
    };
    send("before").run().await.success();

    let rsa = deployment.issue_with_openssl(
        "receiver-rsa",
        CertificateSpec {
            key: RSA,
            subject: "/CN=receiver",
            ..CertificateSpec::default()
        },
    );
    // Senders continue to use the first key pair: a receiver that has only the second one could not
    // open their messages.
    for command in [
        as_client("register-key", &rsa, "second"),
        receive(&rsa, "second"),
    ] {
        let refused = command.run().await.code(1);
        for text in ["another key pair", "can sign", "--private-key"] {
            assert!(refused.stderr.contains(text), "{}", refused.stderr);
        }
    }
    let shown = deployment
        .cli("get-key", &sender)
        .arg("receiver")
        .run()
        .await
        .success();
    assert!(
        !shown.stderr.contains("none of the signed ones"),
        "{}",
        shown.stderr
    );

    // With the signed key pair everything continues to work, and the warning is correct.
    for command in [
        as_client("register-key", &rsa, "first"),
        receive(&rsa, "first"),
    ] {
        let outcome = command.run().await.success();
        assert!(
            outcome
                .stderr
                .contains("senders continue to use the signed key"),
            "{}",
            outcome.stderr
        );
    }
    send("after").run().await.success();
    let received = receive(&rsa, "first").run().await.success();
    assert!(
        received.stderr.contains("1 received"),
        "{}",
        received.stderr
    );
}

fn keygen(deployment: &TwoAuthorities, folder: &str) {
    let out = deployment.path(folder);
    keygen::keys::run(&keygen::KeysArgs {
        out,
        force: true,
        post_quantum: false,
    })
    .unwrap();
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Connects a client whose certificate expires soon, and returns it with the time of expiry, in
/// Unix seconds.
///
/// On a slow machine connecting may take longer than that, so it retries with a longer validity.
async fn client_that_expires_soon(server: &Server, folder: &Path) -> (Client, u64) {
    let mut seconds = 4;
    loop {
        let end = now() + seconds;
        let identity = server
            .pki()
            .authority()
            .issue(Request::client("leaving").until(end))
            .write(folder, "leaving");
        let connected = Client::builder(format!("localhost:{}", server.address().port()))
            .ca_file(server.pki().ca())
            .identity_files(&identity.certificate, &identity.key)
            .connect()
            .await;
        match connected {
            Ok(client) if now() < end => return (client, end),
            _ => std::fs::remove_file(&identity.certificate)
                .and(std::fs::remove_file(&identity.key))
                .unwrap(),
        }
        seconds *= 2;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_whose_certificate_has_expired_begins_no_new_session() {
    let server = Server::start(Options::sqlite()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = ClientId::new("receiver").unwrap();
    let key = ciphermq_client::PrivateKey::generate().unwrap();
    let (client, end) = client_that_expires_soon(&server, folder.path()).await;
    let publisher = || {
        client
            .publisher(&receiver)
            .receiver_key(*key.public_key())
            .start()
    };
    let started = publisher().await.unwrap();
    while now() <= end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A running publisher, and one that is started now.
    for error in [
        started.send(&b"late"[..]).await.unwrap_err(),
        publisher().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), PublishErrorKind::SenderCertificate);
        assert!(error.to_string().contains("expired at"), "{error}");
        assert!(error.advice().unwrap().contains("Issue a new one"));
    }
}
