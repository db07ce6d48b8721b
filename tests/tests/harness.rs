//! The harness itself: what it starts is what it says, and what it checks with can fail.

mod database {
    use ciphermq_tests::{Database, Postgres};

    async fn answers_as_text(database: &Database) {
        database
            .execute("CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT)")
            .await;
        let changed = database
            .execute("INSERT INTO things VALUES (1, 'one'), (2, NULL)")
            .await;
        assert_eq!(changed, 2);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            database.rows("SELECT id, name FROM things ORDER BY id").await,
            [[text("1"), text("one")], [text("2"), None]]
        );
        assert_eq!(database.number("SELECT count(*) FROM things").await, 2);
        database.eventually("SELECT max(id) FROM things", 2).await;
    }

    #[tokio::test]
    async fn sqlite_answers_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.db");
        std::fs::write(&file, "").unwrap();
        answers_as_text(&Database::connect(&format!("sqlite://{}", file.display())).await).await;
    }

    #[tokio::test]
    async fn postgres_answers_as_text() {
        let postgres = Postgres::start().await;
        let name = postgres.create_database().await;
        answers_as_text(&Database::connect(&postgres.url(&name)).await).await;
    }
}

mod postgres {
    use ciphermq_tests::postgres::{Options, Stop, USER};
    use ciphermq_tests::{Database, Postgres};
    use sqlx::Connection as _;
    use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

    async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(url).await
    }

    #[tokio::test]
    async fn postgres_keeps_what_was_committed_over_stop_kill_and_restart() {
        let mut postgres = Postgres::start().await;
        let name = postgres.create_database().await;
        let url = postgres.url(&name);
        let database = Database::connect(&url).await;
        database.execute("CREATE TABLE kept (number INT)").await;
        database.execute("INSERT INTO kept VALUES (1)").await;

        assert_eq!(postgres.stop(Stop::Fast).await.code(), Some(0));
        assert!(connect(&url).await.is_err());
        postgres.restart().await;
        assert_eq!(postgres.url(&name), url, "the port stays the same");

        let database = Database::connect(&url).await;
        database.execute("INSERT INTO kept VALUES (2)").await;
        postgres.kill().await;
        assert!(connect(&url).await.is_err());
        postgres.restart().await;

        let database = Database::connect(&url).await;
        let rows = database.rows("SELECT number FROM kept ORDER BY number").await;
        assert_eq!(rows, [[Some("1".to_owned())], [Some("2".to_owned())]]);
        let log = postgres.process().stderr.text();
        assert!(
            log.contains("database system was not properly shut down"),
            "a kill is no stop:\n{log}"
        );
    }

    #[tokio::test]
    async fn postgres_syncs_its_commits_and_does_not_run_as_root() {
        let postgres = Postgres::start().await;
        let database = Database::connect(&postgres.url("postgres")).await;
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            assert_eq!(
                database.rows(&format!("SHOW {setting}")).await,
                [[Some("on".to_owned())]],
                "{setting}"
            );
        }
        assert_ne!(postgres.process().uid(), 0);
    }

    #[tokio::test]
    async fn postgres_asks_for_the_password() {
        let postgres = Postgres::start().await;
        let wrong = postgres.url("postgres").replace(postgres.password(), "wrong");
        let error = connect(&wrong).await.unwrap_err();
        let code = error
            .as_database_error()
            .and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("28P01"), "{error}");
    }

    #[tokio::test]
    async fn postgres_takes_settings_and_makes_databases_of_their_own() {
        let settings = vec!["max_connections=7".to_owned()];
        let postgres = Postgres::start_with(Options {
            settings,
            ..Options::default()
        })
        .await;
        let (one, two) = (postgres.create_database().await, postgres.create_database().await);
        let [one, two] = [
            Database::connect(&postgres.url(&one)).await,
            Database::connect(&postgres.url(&two)).await,
        ];
        one.execute("CREATE TABLE here (number INT)").await;
        assert_eq!(
            two.number("SELECT count(*) FROM pg_tables WHERE tablename = 'here'")
                .await,
            0
        );
        assert_eq!(two.number("SHOW max_connections").await, 7);
    }

    #[tokio::test]
    async fn postgres_speaks_tls_and_refuses_plain_connections() {
        let postgres = Postgres::start_with(Options {
            tls: true,
            ..Options::default()
        })
        .await;
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(postgres.port())
            .username(USER)
            .password(postgres.password())
            .database("postgres");

        let verified = options
            .clone()
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert(postgres.ca());
        let mut connection = PgConnection::connect_with(&verified).await.unwrap();
        let tls: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(tls);

        let untrusted = options.clone().ssl_mode(PgSslMode::VerifyFull);
        assert!(
            PgConnection::connect_with(&untrusted).await.is_err(),
            "its CA is nobody else's"
        );
        let plain = options.ssl_mode(PgSslMode::Disable);
        assert!(
            PgConnection::connect_with(&plain).await.is_err(),
            "plain connections are refused"
        );
    }

    #[tokio::test]
    async fn postgres_ends_with_its_value_and_leaves_nothing() {
        let postgres = Postgres::start().await;
        let url = postgres.url("postgres");
        let folder = postgres.ca().parent().unwrap().to_owned();
        let pid = postgres.process().pid().unwrap();
        assert!(folder.exists());
        drop(postgres);
        assert!(!folder.exists());
        assert!(rustix::process::test_kill_process(pid).is_err());
        assert!(connect(&url).await.is_err());
    }

    #[tokio::test]
    async fn postgres_killed_for_good_leaves_no_shared_memory() {
        let mut postgres = Postgres::start().await;
        let data = postgres.ca().with_file_name("data");
        postgres.kill().await;
        let pid_file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
        let id: String = pid_file
            .lines()
            .nth(6)
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned();
        let listed = || {
            let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
            table
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(id.as_str()))
        };
        assert!(listed(), "a killed server leaves it behind");
        drop(postgres);
        assert!(!listed());
    }
}

mod pki {
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
                certificate.verify_signature(Some(other.public_key())).is_err(),
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
        assert_eq!(names(Request::client("one").also_named("two")), ["one", "two"]);
        assert_eq!(names(Request::client("with space")), ["with space"]);
        assert_eq!(names(Request::client("line\nbreak")), ["line\nbreak"]);
    }

    #[test]
    fn a_folder_is_laid_out_as_keygen_does_with_private_keys_private() {
        let pki = Pki::new();
        let client = pki.client("receiver_1");
        assert_eq!(client.certificate, pki.folder().join("receiver_1/client.crt"));
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
            assert_eq!(text.contains("DNS:localhost"), alternative.is_some(), "{text}");
            assert!(
                text.contains(&format!("CN = {name}")) || text.contains(&format!("CN={name}")),
                "{text}"
            );
            let verified = openssl::run(
                folder,
                &["verify", "-CAfile", "ca.crt", files.certificate.to_str().unwrap()],
            );
            assert!(verified.ends_with(": OK\n"), "{verified}");
            let key = std::fs::read_to_string(files.key).unwrap();
            assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
        }
    }
}

mod raw {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use ciphermq_tests::pki::openssl::OpensslAuthority;
    use ciphermq_tests::pki::{Files, Request};
    use ciphermq_tests::raw::Tls;
    use ciphermq_tests::{Authority, Pki, RawClient};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// A server that demands a certificate of one of these CAs, and sends back all that it gets.
    async fn echo(server: Files, client_cas: &[std::path::PathBuf]) -> SocketAddr {
        let mut roots = RootCertStore::empty();
        for ca in client_cas {
            roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(server.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(server.key).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(tcp).await?;
                    let mut bytes = [0; 4096];
                    loop {
                        let count = stream.read(&mut bytes).await?;
                        if count == 0 {
                            return stream.shutdown().await;
                        }
                        stream.write_all(&bytes[..count]).await?;
                        stream.flush().await?;
                    }
                });
            }
        });
        address
    }

    fn server_files(pki: &Pki) -> Files {
        Files {
            certificate: pki.folder().join("server.crt"),
            key: pki.folder().join("server.key"),
        }
    }

    #[tokio::test]
    async fn lines_are_exchanged_whole_however_they_arrive() {
        let pki = Pki::new();
        let address = echo(server_files(&pki), &[pki.ca()]).await;
        let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
        let mut client = RawClient::handshake(address, &tls).await.unwrap();
        client.ask("ping", "ping").await;
        client.send_bytes("one\ntw").await;
        client.expect("one").await;
        let early = client.read_line(Duration::from_millis(50)).await;
        assert_eq!(early.unwrap_err().kind(), io::ErrorKind::TimedOut);
        client.send_bytes("o\n").await;
        client.expect("two").await;
        client.expect_silence(Duration::from_millis(20)).await;
        client.send_line("ACK 17").await;
        assert_eq!(client.expect_prefix("ACK ").await, "17");
    }

    #[tokio::test]
    #[should_panic(expected = "Queue declared")]
    async fn another_line_than_the_expected_one_fails_the_test() {
        let pki = Pki::new();
        let address = echo(server_files(&pki), &[pki.ca()]).await;
        let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
        let mut client = RawClient::handshake(address, &tls).await.unwrap();
        client.ask("declare_queue q", "Queue declared").await;
    }

    #[tokio::test]
    async fn the_chosen_tls_version_is_the_one_in_use() {
        let pki = Pki::new();
        let address = echo(server_files(&pki), &[pki.ca()]).await;
        let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
        for (version, name) in [
            (&rustls::version::TLS12, "TLSv1_2"),
            (&rustls::version::TLS13, "TLSv1_3"),
        ] {
            let client = RawClient::handshake(address, &tls.clone().version(version))
                .await
                .unwrap();
            assert_eq!(
                client.tls_version().and_then(|version| version.as_str()),
                Some(name)
            );
        }
        let client = RawClient::handshake(address, &tls).await.unwrap();
        assert_eq!(client.key_exchange(), Some(rustls::NamedGroup::X25519MLKEM768));
    }

    #[tokio::test]
    async fn certificates_are_accepted_and_refused_as_they_deserve() {
        let pki = Pki::new();
        let older = OpensslAuthority::new();
        let address = echo(server_files(&pki), &[pki.ca(), older.ca()]).await;
        let folder = tempfile::tempdir().unwrap();
        let write = |request, name| pki.authority().issue(request).write(folder.path(), name);
        let trusting = Tls::trusting(&pki.ca());

        let good = [
            pki.client("sender_1"),
            older.issue("without_names", None),
            older.issue("with_names", Some("DNS:localhost")),
            write(Request::named("no_usage"), "no_usage"),
            write(Request::anonymous(), "anonymous"),
        ];
        for identity in good {
            let mut client = RawClient::handshake(address, &trusting.clone().identity(identity))
                .await
                .unwrap();
            client.ask("ping", "ping").await;
        }

        let bad = [
            Some(
                Authority::new("CipherMQ test CA")
                    .client("sender_1")
                    .write(folder.path(), "other_ca"),
            ),
            Some(write(Request::client("expired").expired(), "expired")),
            Some(write(Request::client("early").not_yet_valid(), "early")),
            Some(
                pki.authority()
                    .server(&["localhost"])
                    .write(folder.path(), "server_usage"),
            ),
            None,
        ];
        for identity in bad {
            let tls = identity.map_or(trusting.clone(), |identity| trusting.clone().identity(identity));
            // In TLS 1.3 the refusal comes with the first read, in 1.2 within the handshake.
            let mut client = RawClient::handshake(address, &tls.clone().version(&rustls::version::TLS13))
                .await
                .unwrap();
            client.expect_closed().await;
            assert!(
                RawClient::handshake(address, &tls.version(&rustls::version::TLS12))
                    .await
                    .is_err()
            );
        }
    }

    #[tokio::test]
    async fn a_server_of_another_ca_or_another_name_is_refused() {
        let pki = Pki::new();
        let address = echo(server_files(&pki), &[pki.ca()]).await;
        let identity = pki.client("sender_1");
        let stranger = Pki::new();
        let other = Tls::trusting(&stranger.ca()).identity(identity.clone());
        assert!(RawClient::handshake(address, &other).await.is_err());
        let elsewhere = Tls::trusting(&pki.ca())
            .identity(identity)
            .server_name("example.org");
        assert!(RawClient::handshake(address, &elsewhere).await.is_err());
    }

    #[tokio::test]
    async fn closing_in_good_order_is_answered_with_the_connections_end() {
        let pki = Pki::new();
        let address = echo(server_files(&pki), &[pki.ca()]).await;
        let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
        let mut client = RawClient::handshake(address, &tls).await.unwrap();
        client.ask("ping", "ping").await;
        client.close().await.unwrap();
    }
}

mod cli {
    use std::time::Duration;

    use ciphermq_tests::{Cli, PATIENCE};

    fn shell(script: &str) -> Cli {
        Cli::program("sh").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn code_and_both_outputs_are_captured() {
        let outcome = shell("cat; echo trouble >&2; echo $NAME; exit 4")
            .input("in\n")
            .env("NAME", "value")
            .run()
            .await;
        assert_eq!(outcome.code, Some(4));
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("in\nvalue\n", "trouble\n")
        );
    }

    #[tokio::test]
    #[should_panic(expected = "trouble")]
    async fn a_failure_shows_what_the_program_wrote() {
        shell("echo trouble >&2; exit 1").run().await.success();
    }

    #[tokio::test]
    #[should_panic(expected = "still runs after")]
    async fn a_program_that_hangs_fails_the_test() {
        shell("exec sleep 60")
            .limit(Duration::from_millis(50))
            .run()
            .await;
    }

    #[tokio::test]
    async fn input_larger_than_a_pipe_goes_through() {
        let input = "x".repeat(1 << 20);
        assert_eq!(
            shell("cat").input(input.clone()).run().await.success().stdout,
            input
        );
    }

    #[tokio::test]
    async fn a_program_in_the_background_can_be_watched_and_killed() {
        let mut process = shell("echo started; exec sleep 60").spawn();
        process.stdout.expect("started").await;
        assert!(process.try_ended().is_none());
        assert_eq!(process.kill().await.code(), None);
        assert!(
            process.ended(PATIENCE).await.code().is_none(),
            "its end can be asked for again"
        );
    }
}
