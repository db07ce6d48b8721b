//! SIGHUP: other rules and administrators are in force at once, or everything stays as it is.

use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};

use crate::{administered, server};

/// Rules by which `owner` may do something, and nobody else anything.
fn rules(allow: &[&str]) -> toml::Value {
    let mut rule = toml::Table::new();
    rule.insert("name".into(), "owner's".into());
    rule.insert("clients".into(), vec!["owner"].into());
    rule.insert("allow".into(), allow.to_vec().into());
    toml::Value::Array(vec![rule.into()])
}

fn publish(id: &str) -> String {
    let envelope = EnvelopeText::modern(id, "owner");
    format!("publish e k {envelope}")
}

pub(super) async fn rules_are_replaced_while_clients_are_connected(backend: Backend) {
    let mut server = server(&backend).await;
    let mut owner = RawClient::connect(&server, "owner").await;
    let mut guest = RawClient::connect(&server, "guest").await;
    owner.declare_and_bind("q", "e", "k").await;
    guest.ask(&publish("m1"), "ACK m1").await;
    server.configure("authorization", "default", "deny");
    server.configure("authorization", "rules", rules(&["publish", "consume"]));
    let line = server.reload().await;
    assert!(
        line.contains("its rules and administrators are in force"),
        "{line}"
    );
    // What was decided before is forgotten.
    let refused = "Error: not_authorized: no rule allows it, and the default is deny: guest may not \
                   publish to exchange 'e' by 'k' for 'owner'";
    guest.ask(&publish("m2"), refused).await;
    owner.ask(&publish("m3"), "ACK m3").await;
    owner
        .ask(
            "declare_queue other",
            "Error: not_authorized: no rule allows it, and the default is deny: owner may not \
             declare queue 'other'",
        )
        .await;
    owner.ask("consume q 9", "Subscribed to queue").await;
    owner.expect_prefix("Message: m1 ").await;
    owner.expect_prefix("Message: m3 ").await;

    // A subscription that is not allowed any more ends with its connection.
    server.configure("authorization", "rules", rules(&["publish"]));
    server.reload().await;
    let last = owner.line().await;
    assert!(
        last.starts_with("Error: connection_closed: the server's rules have changed"),
        "{last}"
    );
    assert!(
        last.contains("owner may no longer consume from queue 'q'"),
        "{last}"
    );
    owner.expect_closed().await;
    let mut owner = RawClient::connect(&server, "owner").await;
    owner.send_line("consume q").await;
    owner.expect_prefix("Error: not_authorized: ").await;
    owner.ask(&publish("m4"), "ACK m4").await;

    // Another administrator.
    let mut ops = RawClient::connect(&server, "ops").await;
    ops.ask(
        "unblock_client x",
        "Error: not_found: client 'x' is not blocked",
    )
    .await;
    server.configure("authorization", "administrators", vec!["guest"]);
    server.reload().await;
    ops.send_line("list_clients").await;
    ops.expect_prefix("Error: not_authorized: ").await;
    guest.send_line("list_clients").await;
    guest.expect_prefix("Clients: ").await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let mut server = server(&Backend::Sqlite).await;
    server.configure("authorization", "default", "deny");
    server.reload().await;
    let mut owner = RawClient::connect(&server, "owner").await;
    let refusal = "Error: not_authorized: no rule allows it, and the default is deny: owner may \
                   not declare queue 'q'";
    owner.ask("declare_queue q", refusal).await;
    let path = server.folder().join("config.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    for (text, part) in [
        (good.replace("\"deny\"", "\"maybe\""), "maybe"),
        (
            good.replace("[authorization]", "[authorisation]"),
            "authorisation",
        ),
        (
            good.replace("\"deny\"", "\"allow\"") + "\n[limits]\nmax_prefetch = 0\n",
            "max_prefetch",
        ),
        (String::from("no setting ["), "expected `=`"),
        (String::new(), "is empty"),
    ] {
        std::fs::write(&path, &text).unwrap();
        let line = server.hang_up().await;
        assert!(
            line.contains("ERROR") && line.contains("everything stays as it is"),
            "{line}"
        );
        assert!(line.contains(part), "{part}: {line}");
        owner.ask("declare_queue q", refusal).await;
    }
    std::fs::remove_file(&path).unwrap();
    let line = server.hang_up().await;
    assert!(line.contains("everything stays as it is"), "{line}");
    owner.ask("declare_queue q", refusal).await;
    let errors = server.log("error");
    let last = errors.iter().rfind(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("read again"))
    });
    let last = last.expect("the error log has the line");
    let text = last.to_string();
    assert!(text.contains("advice"), "{text}");
}

#[tokio::test]
async fn what_needs_a_restart_is_named() {
    let mut server = Server::start(administered(Options::sqlite())).await;
    server.configure("limits", "max_prefetch", 7);
    server.configure("logging", "max_total_mb", 2000);
    server.configure("authorization", "administrators", vec!["other"]);
    let line = server.reload().await;
    assert!(
        line.contains("its rules and administrators are in force"),
        "{line}"
    );
    let warnings = server.console().expect("only after a restart").await;
    let expected = "only after a restart: [logging] max_total_mb, [limits] max_prefetch";
    assert!(warnings.contains(expected), "{warnings}");
    let mut other = RawClient::connect(&server, "other").await;
    other.send_line("hello").await;
    let hello = other.expect_prefix("Hello: ").await;
    assert!(hello.contains("\"max_prefetch\":65535"), "{hello}");
    other.send_line("list_clients").await;
    other.expect_prefix("Clients: ").await;
    let again = server.hang_up().await;
    assert!(
        again.contains("rules and administrators are the same"),
        "{again}"
    );
    other.ask("ping", "PONG").await;
}
