//! Certificates of servers and authorities that clients cannot use.

use ciphermq_client::ClientIdField as NameField;
use keygen::client_name::ClientName;
use keygen::files::read_key;
use keygen::lifetime::Lifetime;
use keygen::profile::Profile;

use super::*;

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
    let key = read_key(&path("alice/client.key")).unwrap();
    let then = "2021-01-01T00:00:00Z".parse().unwrap();
    let alice = Profile::Client(ClientName::new("alice", NameField::CommonName).unwrap());
    let expired = authority
        .issue(&alice, &key, Lifetime::Days(1), then)
        .unwrap();
    // Others wait for it.
    drop(authority);
    std::fs::write(path("alice/client.crt"), expired.chain).unwrap();

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
    let old = Authority::expired("Old CA");
    let renewed = old.renewed("Old CA").certificate_pem();
    let pki = Arc::new(Pki::of(old));
    let server = Server::start(Options::sqlite().pki(Arc::clone(&pki))).await;
    let line = server
        .console()
        .expect("[tls] ca_cert_path: a certificate expired at 2021-01-01T00:00:00Z")
        .await;
    assert!(line.contains("renew the authority"), "{line}");
    let status = Cli::new("status").connecting(&server, "c");
    status.run().await.code(1);
    let refused =
        "was issued by an authority whose own certificate expired at 2021-01-01T00:00:00Z";
    server.console().expect(refused).await;

    // Where the server has the renewed one, clients go on with the old one.
    let ca = pki.folder().join("renewed.crt");
    std::fs::write(&ca, renewed).unwrap();
    let options = Options::sqlite().pki(pki);
    let server = Server::start(options.set("tls", "ca_cert_path", ca.display().to_string())).await;
    let status = Cli::new("status")
        .connecting(&server, "c")
        .run()
        .await
        .success();
    for text in [
        "warning: The certificate of the authority (CN=Old CA) expired at",
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
