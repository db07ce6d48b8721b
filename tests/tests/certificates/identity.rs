//! Client ids from DNS names and URIs, at both ends: SPIFFE ids, for example.

use ciphermq_client::{CertificateRole, ClientIdFrom, ConnectErrorKind, Event, Timestamp};
use ciphermq_tests::sdk::{self, Keys, next, number, submit};

use super::*;

const SENSOR: &str = "spiffe://example.org/sensor/7";
const ARCHIVE: &str = "spiffe://example.org/archive";

fn from(fields: &str) -> ClientIdFrom {
    fields.parse().unwrap()
}

/// A folder with certificates of `ciphermq-cli certs` for these clients, and a server that uses it.
async fn server_with(folder: &Path, clients: &[&str], field: &str, fields: &[&str]) -> Server {
    let clients = clients.iter().flat_map(|client| ["--client", client]);
    Cli::new("certs")
        .current_dir(folder)
        .args(["--client-id-in", field])
        .args(clients)
        .run()
        .await
        .success();
    let path = |name: &str| folder.join("certs").join(name).display().to_string();
    let options = Options::sqlite()
        .set("tls", "cert_path", path("server.crt"))
        .set("tls", "key_path", path("server.key"))
        .set("tls", "ca_cert_path", path("ca.crt"))
        .set("tls", "client_id_from", fields.to_vec());
    Server::start(options).await
}

async fn connect(server: &Server, folder: &Path, client: &str, fields: &str) -> Client {
    let certs = folder.join("certs");
    let own = certs.join(client.replace(':', "%3a").replace('/', "%2f"));
    Client::builder(format!("localhost:{}", server.address().port()))
        .ca_file(certs.join("ca.crt"))
        .identity_files(own.join("client.crt"), own.join("client.key"))
        .client_id_from(from(fields))
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{client}: {error}"))
}

#[tokio::test]
async fn names_of_other_fields_send_and_receive() {
    for (field, sensor, archive) in [
        ("uri", SENSOR, ARCHIVE),
        ("dns", "sensor-7.example.org", "archive.example.org"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let server = server_with(folder, &[sensor, archive], field, &[field]).await;
        let receiver = connect(&server, folder, archive, field).await;
        assert_eq!(receiver.id().as_str(), archive);
        let keys = Keys::new();
        let consumer = sdk::consumer(&receiver, keys.keyring());
        let mut consumer = consumer.start().await.unwrap();
        let sender = connect(&server, folder, sensor, field).await;
        let publisher = sender.publisher(receiver.id()).start().await.unwrap();
        submit(&publisher, 0..3).await;
        assert_eq!(publisher.finish().await.acknowledged, 3);
        for expected in 0..3 {
            let message = next(&mut consumer).await;
            assert_eq!(message.sender().map(ClientId::as_str), Some(sensor));
            assert_eq!(number(&message), expected);
            message.ack().await.unwrap();
        }
    }
}

/// The commands as in docs/certificates.md, with the built programs.
#[tokio::test]
async fn the_command_line_tools_know_the_fields() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = server_with(folder, &[SENSOR], "uri", &["uri", "common_name"]).await;
    let own = "certs/spiffe%3a%2f%2fexample.org%2fsensor%2f7/client.crt";
    let status = || {
        Cli::new("status")
            .current_dir(folder)
            .args(["--cert", own, "--server"])
            .arg(format!("localhost:{}", server.address().port()))
    };
    let shown = status().args(["--client-id-from", "uri"]).run().await;
    let shown = shown.success().stdout;
    assert!(
        shown.contains(&format!("client id     {SENSOR}\n")),
        "{shown}"
    );
    assert!(shown.contains(&format!("{SENSOR} ends at ")), "{shown}");
    let shown = status().env("CIPHERMQ_CLIENT_ID_FROM", "uri,common_name");
    shown.run().await.success();
    std::fs::write(folder.join("client.toml"), "client-id-from = [\"uri\"]\n").unwrap();
    let shown = status().args(["--config", "client.toml"]);
    shown.run().await.success();

    let refused = status().run().await.code(1).stderr;
    assert!(refused.contains("has no Common Name"), "{refused}");
    let refused = status().args(["--client-id-from", "dn"]).run().await;
    let refused = refused.code(2).stderr;
    assert!(refused.contains("`dn` is unknown"), "{refused}");

    // A renewal and a revocation are for the same name.
    let keygen = |args: &[&str]| Cli::keygen().current_dir(folder).args(args);
    let before = std::fs::read(folder.join(own)).unwrap();
    let renewed = keygen(&["renew", SENSOR, "--ca", "certs"]).run().await;
    renewed.success();
    assert_ne!(std::fs::read(folder.join(own)).unwrap(), before);
    let shown = status().args(["--client-id-from", "uri"]);
    shown.run().await.success();
    let revoked = keygen(&["revoke", SENSOR, "--reason", "superseded"]);
    revoked.run().await.success();

    // A request names the client where its certificate will.
    let request = [
        "csr",
        "--client",
        ARCHIVE,
        "--client-id-in",
        "uri",
        "--out",
        "away",
    ];
    keygen(&request).run().await.success();
    let request = "away/spiffe%3a%2f%2fexample.org%2farchive/client.csr";
    let other = keygen(&["sign", request, "--client", SENSOR]).run().await;
    let other = other.code(1).stderr;
    assert!(other.contains(ARCHIVE) && other.contains(SENSOR), "{other}");
    let signed = keygen(&["sign", request, "--client", ARCHIVE]).run().await;
    let signed = signed.success().stderr;
    assert!(
        signed.contains(&format!("Signed for the client {ARCHIVE}")),
        "{signed}"
    );
    assert!(!signed.contains("Left out"), "{signed}");
}

/// The first field that is there counts, and a name that could be two clients' does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_names_are_told_apart() {
    let deployment = TwoAuthorities::start_with(|options| {
        options.set("tls", "client_id_from", vec!["uri", "common_name"])
    })
    .await;
    let uris = |uris: &[&str]| {
        let request = Request::named("sensor_7").usage(ExtendedKeyUsagePurpose::ClientAuth);
        uris.iter().fold(request, |request, uri| request.uri(uri))
    };
    let connect = |files: Files, fields: &str| {
        Client::builder(format!("localhost:{}", deployment.server.address().port()))
            .ca_file(deployment.path("ca.crt"))
            .identity_files(files.certificate, files.key)
            .client_id_from(from(fields))
            .connect()
    };
    let both = deployment.issue_with_rcgen("both", uris(&[SENSOR]));
    let client = connect(both.clone(), "uri,common_name").await.unwrap();
    assert_eq!(client.id().as_str(), SENSOR);
    let older = deployment.issue_with_rcgen("older", Request::client("sensor_7"));
    let client = connect(older, "uri,common_name").await.unwrap();
    assert_eq!(client.id().as_str(), "sensor_7");
    let openssl = deployment.issue_with_openssl(
        "openssl",
        CertificateSpec {
            extensions: Some("subjectAltName=URI:spiffe://example.org/sensor/8"),
            ..CertificateSpec::default()
        },
    );
    let client = connect(openssl, "uri").await.unwrap();
    assert_eq!(client.id().as_str(), "spiffe://example.org/sensor/8");

    // The two ends must read the same field.
    let error = connect(both, "common_name").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::OtherClient, "{error}");
    assert!(error.advice().unwrap().contains("client_id_from"));

    for (name, request, reason) in [
        (
            "two",
            uris(&[SENSOR, ARCHIVE]),
            "has 2 URIs, it must have one",
        ),
        (
            "capital",
            uris(&["spiffe://Example.org/sensor/7"]),
            "has a URI that cannot be a client id: it is not in its normal form",
        ),
        (
            "other_form",
            Request::client(SENSOR),
            "has a Common Name that could be another client's URI",
        ),
        (
            "nameless",
            Request::anonymous().usage(ExtendedKeyUsagePurpose::ClientAuth),
            "has no URI and no Common Name",
        ),
    ] {
        let files = deployment.issue_with_rcgen(name, request);
        let error = connect(files.clone(), "uri,common_name").await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::BadCertificate, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        // The server says the same to a client that does not look.
        let mark = deployment.server.console().mark();
        let tls = ciphermq_tests::raw::Tls::trusting(&deployment.path("ca.crt")).identity(files);
        let mut raw = ciphermq_tests::RawClient::handshake(deployment.server.address(), &tls)
            .await
            .ok();
        if let Some(raw) = &mut raw {
            let _ = raw.try_send(b"ping\n").await;
            assert!(
                !matches!(raw.read_line(PATIENCE).await, Ok(Some(_))),
                "{name}"
            );
        }
        let found = |line: &str| line.contains(reason).then_some(());
        let found = deployment
            .server
            .console()
            .find(mark, PATIENCE, found)
            .await;
        assert_eq!(found, Some(()), "{name}");
    }
}

/// Clients who are connected would get other names: only a restart changes where they stand.
#[tokio::test]
async fn the_fields_are_changed_by_a_restart_only() {
    let mut server =
        Server::start(Options::sqlite().set("authorization", "administrators", vec!["operator"]))
            .await;
    let operator = sdk::connect(&server, "operator").await;
    server.configure("tls", "client_id_from", "uri");
    server.write_config();
    let reloaded = operator.reload().await.unwrap();
    assert_eq!(reloaded.restart, ["[tls] client_id_from"]);
    operator.ping().await.unwrap();
    sdk::connect(&server, "sender").await;

    server.terminate().await;
    server.configure("tls", "client_id_from", "uri,");
    let refused = server.launch().await.unwrap_err();
    refused.expect_error(&["[tls] client_id_from", "\"uri\""]);
}

/// A receiver can be written to after its connection's certificate has ended, because another one
/// has signed its key; so can the sender's messages be verified.
#[tokio::test]
async fn a_signing_certificate_outlives_the_one_that_connects() {
    const SECONDS: u64 = 5;
    let server = Server::start(Options::sqlite()).await;
    let authority = server.pki().authority();
    let folder = tempfile::tempdir().unwrap();
    let short = |id: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let request = Request::client(id).until(now.as_secs() + SECONDS);
        let nanos = now.as_nanos();
        authority
            .issue(request)
            .write(folder.path(), &format!("{id}_{nanos}"))
    };
    let long = |id: &str| {
        authority
            .client(id)
            .write(folder.path(), &format!("{id}_signing"))
    };
    let connect = |connecting: &Files, signing: &Files| {
        sdk::builder(&server, connecting)
            .signing_files(&signing.certificate, &signing.key)
            .connect()
    };
    let [receiver_signs, sender_signs] = ["receiver", "sender"].map(long);
    let keys = Keys::new();
    let away = connect(&short("receiver"), &receiver_signs).await.unwrap();
    let consumer = sdk::consumer(&away, keys.keyring());
    consumer.start().await.unwrap().close().await;
    away.close().await;
    let without = sdk::builder(&server, &short("without"))
        .connect()
        .await
        .unwrap();
    let other_keys = Keys::new();
    let consumer = sdk::consumer(&without, other_keys.keyring());
    consumer.start().await.unwrap().close().await;
    without.close().await;
    tokio::time::sleep(Duration::from_secs(SECONDS + 1)).await;

    let sender = connect(&short("sender"), &sender_signs).await.unwrap();
    let error = sender.publisher(without.id()).start().await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::KeyNotTrusted, "{error}");
    let publisher = sender.publisher(away.id()).start().await.unwrap();
    submit(&publisher, 0..2).await;
    assert_eq!(publisher.finish().await.acknowledged, 2);
    sender.close().await;
    tokio::time::sleep(Duration::from_secs(SECONDS + 1)).await;

    // Both have ended, and the message is opened all the same.
    let receiver = connect(&short("receiver"), &receiver_signs).await.unwrap();
    let consumer = sdk::consumer(&receiver, keys.keyring());
    let mut consumer = consumer.start().await.unwrap();
    for expected in 0..2 {
        let message = next(&mut consumer).await;
        assert_eq!(message.sender().map(ClientId::as_str), Some("sender"));
        assert_eq!(number(&message), expected);
        message.ack().await.unwrap();
    }

    // It must be the same client's.
    let other = long("other");
    let error = connect(&short("receiver"), &other).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::OtherClient, "{error}");
}

/// A signing certificate that the server refuses does not keep a receiver from what waits for it,
/// and nothing is sent that no receiver would accept.
#[tokio::test]
async fn a_receiver_works_without_its_signing_certificate() {
    let server = Server::start(Options::sqlite()).await;
    let authority = server.pki().authority();
    let expired = authority.issue(Request::client("receiver").expired());
    let early = authority.issue(Request::client("receiver").not_yet_valid());
    let stranger = Authority::new("another authority").client("receiver");
    for (signing, name) in [
        (expired, "expired"),
        (early, "early"),
        (stranger, "stranger"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let signing = signing.write(folder.path(), name);
        let client = sdk::builder(&server, &server.pki().client("receiver"))
            .signing_files(signing.certificate, signing.key);
        let client = client.connect().await.unwrap();
        let ends = client.certificate_ends();
        let mut ends = ends.iter();
        let end = ends.find(|end| end.role == CertificateRole::Signing);
        let trouble = end.unwrap().trouble(Timestamp::now());
        assert_eq!(trouble.is_some(), name != "stranger", "{name}");
        client.ping().await.unwrap();
        let reason = client.cannot_sign().unwrap().to_string();
        assert!(
            reason.contains("the server has refused the signing certificate"),
            "{reason}"
        );
        let error = client.publisher(client.id()).start().await.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::SenderCertificate, "{error}");

        let consumer = sdk::consumer(&client, Keys::new().keyring());
        let consumer = consumer.start().await.unwrap();
        let mut events = consumer.events();
        let told =
            async { while !matches!(events.next().await, Some(Event::KeysNotAnnounced { .. })) {} };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
        consumer.close().await;
    }
}

/// Keys count for as long as they are said to, and a running receiver signs them anew in time.
#[tokio::test]
async fn a_signed_key_has_a_lifetime_of_its_own() {
    const LIFETIME: Duration = Duration::from_secs(4);
    let server = Server::start(Options::sqlite()).await;
    let connect =
        |id: &str| sdk::builder(&server, &server.pki().client(id)).signed_key_lifetime(LIFETIME);
    let sender = sdk::connect(&server, "sender").await;
    let [away, running] = ["away", "running"].map(connect);
    let keys = Keys::new();
    let away = away.connect().await.unwrap();
    away.register_keys(&keys.keyring()).await.unwrap();
    let running = running.connect().await.unwrap();
    let consumer = sdk::consumer(&running, keys.keyring())
        .start()
        .await
        .unwrap();
    let mut events = consumer.events();
    sender.publisher(away.id()).start().await.unwrap();
    let signed_anew = async {
        for _ in 0..3 {
            while !matches!(events.next().await, Some(Event::KeysAnnounced { .. })) {}
        }
    };
    tokio::time::timeout(PATIENCE, signed_anew).await.unwrap();
    tokio::time::sleep(LIFETIME).await;

    let later = sdk::connect(&server, "later").await;
    let error = later.publisher(away.id()).start().await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::KeyNotTrusted, "{error}");
    later.publisher(running.id()).start().await.unwrap();
}
