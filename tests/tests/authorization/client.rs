//! Questions of clients about their permissions: `can_i`, the SDK and `ciphermq-cli can-i`.

use ciphermq_client::{Action, Client, PermissionRequest};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, RawClient, Server};

use crate::with_rules;

const RULES: &str = r#"
[authorization]
administrators = ["root"]

[[authorization.rules]]
name = "own mirror only"
clients = ["sensor-*"]
allow = ["publish"]
receivers = ["${client_id}-mirror"]

[[authorization.rules]]
name = "nothing else"
clients = ["sensor-*"]
deny = ["consume"]
"#;

async fn server() -> Server {
    Server::start(with_rules(Options::sqlite(), RULES)).await
}

#[tokio::test]
async fn over_the_protocol() {
    let mut server = server().await;
    let mut sensor = RawClient::connect(&server, "sensor-1").await;
    for (request, reply) in [
        (
            r#"{"action":"publish","receiver":"sensor-1-mirror"}"#,
            r#"{"allowed":true,"rule":"own mirror only"}"#,
        ),
        (
            r#"{"action":"publish","receiver":"sensor-2-mirror"}"#,
            r#"{"allowed":true,"default":"allow"}"#,
        ),
        (
            r#"{"action":"consume","queue":"q"}"#,
            r#"{"allowed":false,"rule":"nothing else"}"#,
        ),
        (
            r#"{"action":"administer"}"#,
            r#"{"allowed":false,"default":"deny"}"#,
        ),
    ] {
        sensor
            .ask(&format!("can_i {request}"), &format!("Permission: {reply}"))
            .await;
    }
    let mut root = RawClient::connect(&server, "root").await;
    let reply = r#"Permission: {"allowed":true,"administrator":true}"#;
    root.ask(r#"can_i {"action":"administer"}"#, reply).await;

    sensor.ask("can_i", "Missing parameters").await;
    for malformed in [
        "{}",
        r#"{"action":"fly"}"#,
        r#"["publish"]"#,
        r#"{"action":"bind","queue":""}"#,
    ] {
        sensor.send_line(&format!("can_i {malformed}")).await;
        sensor
            .expect_prefix("Error: bad_argument: can_i takes a JSON object: ")
            .await;
    }
    server.terminate().await;
}

#[tokio::test]
async fn with_the_sdk() {
    let mut server = server().await;
    let identity = server.pki().client("sensor-1");
    let client = Client::builder(format!("localhost:{}", server.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(identity.certificate, identity.key)
        .connect()
        .await
        .unwrap();
    let permission = client
        .can_i(PermissionRequest::new(Action::Consume))
        .await
        .unwrap();
    assert!(!permission.allowed);
    assert_eq!(permission.rule.as_deref(), Some("nothing else"));
    client.close().await;
    server.terminate().await;
}

#[tokio::test]
async fn on_the_command_line() {
    let mut server = server().await;
    let cli = |client_id| Cli::new("can-i").connecting(&server, client_id);
    let mirror = [
        "publish",
        "--exchange",
        "e",
        "--routing-key",
        "k",
        "--to",
        "sensor-1-mirror",
    ];
    let yes = cli("sensor-1").args(mirror).run().await.success();
    assert_eq!(yes.stdout, "yes: the rule 'own mirror only'\n");
    let no = cli("sensor-1")
        .args(["consume", "--queue", "q"])
        .run()
        .await
        .code(5);
    assert_eq!(no.stdout, "no: the rule 'nothing else'\n");
    let no = cli("sensor-1")
        .args(["administer", "--json"])
        .run()
        .await
        .code(5);
    assert_eq!(no.stdout, "{\"allowed\":false,\"default\":\"deny\"}\n");
    let yes = cli("root").arg("administer").run().await.success();
    assert_eq!(yes.stdout, "yes: this client is an administrator\n");
    let usage = cli("root").arg("fly").run().await.code(2);
    assert!(usage.stderr.contains("register_key"), "{}", usage.stderr);
    server.terminate().await;
}
