//! Every command is checked against the rules, and refused with the error that fits it.

use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server, on_both_databases};

use crate::{Clients, DEFAULT, rule, with_rules};

/// Rules that allow `nobody` nothing, and `guest` everything except some receivers and queues.
const RULES: &str = r#"
[authorization]
default = "deny"
administrators = ["root"]

[[authorization.rules]]
name = "guests"
clients = ["guest"]
allow = [
    "publish", "consume", "declare", "bind", "delete", "register_key", "read_keys",
]

[[authorization.rules]]
name = "no secrets"
clients = ["guest"]
deny = ["publish"]
receivers = ["secret-*"]

[[authorization.rules]]
name = "no creation"
clients = ["guest"]
deny = ["declare"]
queues = ["new-*"]
"#;

const KEY: &str = "NV1MjXk2mLpcvYA9BriqgCLrdrS0vzBubou+25FreVQ=";

async fn server(backend: &Backend) -> Server {
    let server = Server::start(with_rules(backend.options().await, RULES)).await;
    let mut root = RawClient::connect(&server, "root").await;
    root.declare_and_bind("q", "e", "k").await;
    server
}

async fn every_command_is_refused(backend: Backend) {
    let mut server = server(&backend).await;
    let clients = Clients::of(&server);
    let envelope = EnvelopeText::modern("m", "r");
    let register = format!("register_public_key {KEY}");
    let register_own = format!("register_key nobody {KEY}");
    let publish = format!("publish e k {envelope}");
    let commands = [
        "declare_queue q",
        "declare_exchange e",
        "bind q e k",
        &publish,
        "consume q",
        "fetch q",
        "ack m",
        "reject m reason",
        "list_rejected",
        &register,
        &register_own,
        "register_signed_key e30.e30.e30",
        "get_public_key r",
        "get_key r",
        "get_signed_key r",
        "get_certificate r",
        "list_waiting_keys",
    ];
    clients.may_not("nobody", DEFAULT, &commands).await;
    for command in [
        "hello",
        "ping",
        "heartbeat",
        "resend m",
        r#"can_i {"action":"publish"}"#,
    ] {
        clients.may("nobody", command).await;
    }
    server.terminate().await;
}

/// Each message of a batch has a reply of its own, even if some are refused.
async fn messages_are_refused_singly(backend: Backend) {
    let mut server = server(&backend).await;
    let mut guest = RawClient::connect(&server, "guest").await;
    let no_secrets = |receiver: &str| {
        let reason = rule("no secrets");
        format!(
            "Error: not_authorized: {reason}: guest may not publish to exchange 'e' by 'k' for \
             '{receiver}'"
        )
    };
    for (id, receiver) in [("m1", "open"), ("m2", "secret-1")] {
        let envelope = EnvelopeText::modern(id, receiver);
        guest.send_line(&format!("publish e k {envelope}")).await;
    }
    guest.expect("ACK m1").await;
    guest.expect(&no_secrets("secret-1")).await;

    // A batch stores the others, and its lines keep their order.
    let receivers = ["open", "secret-1", "secret-1", "secret-2", "open"];
    let envelopes: Vec<_> = (3..).zip(receivers).collect();
    let texts: Vec<_> = envelopes
        .iter()
        .map(|(id, receiver)| EnvelopeText::modern(&format!("m{id}"), receiver).to_string())
        .collect();
    let batch = format!("publish_batch e k [{}]", texts.join(","));
    // A second time, when the decisions are remembered.
    for _ in 0..2 {
        guest.send_line(&batch).await;
        for (id, receiver) in &envelopes {
            let expected = match *receiver {
                "open" => format!("ACK m{id}"),
                receiver => format!("{} for message m{id}", no_secrets(receiver)),
            };
            guest.expect(&expected).await;
        }
    }
    let mut open = RawClient::connect(&server, "open").await;
    let database = server.database().await;
    let stored = "SELECT count(*) FROM messages";
    assert_eq!(database.number(stored).await, 3);
    drop(database);

    // A refused acknowledgement has a line for each of its messages, too.
    open.send_line("ack m1 m3").await;
    for id in ["m1", "m3"] {
        let reason = format!("Error: not_authorized: {DEFAULT}: open may not consume");
        open.expect(&format!("{reason} for message {id}")).await;
    }
    server.terminate().await;
}

/// A refusal does not reveal whether a name exists: it precedes every other error.
async fn refusals_come_first(backend: Backend) {
    let mut server = server(&backend).await;
    let mut clients = Clients::of(&server);
    let nowhere = clients.publish("nowhere", "k", "r");
    let unknown = ["bind nothing nowhere k", "fetch nothing", &nowhere];
    clients.may_not("nobody", DEFAULT, &unknown).await;
    server.terminate().await;
}

/// `consume` declares a queue that does not exist.
async fn consuming_does_not_declare_in_secret(backend: Backend) {
    let mut server = server(&backend).await;
    let clients = Clients::of(&server);
    let no_creation = rule("no creation");
    clients
        .may_not(
            "guest",
            &no_creation,
            &["consume new-1", "declare_queue new-1"],
        )
        .await;
    clients.may("root", "declare_queue new-1").await;
    clients.may("guest", "consume new-1").await;
    clients.may("guest", "consume other").await;
    server.terminate().await;
}

/// An administrator may do everything, and resends others' messages.
async fn administrators(backend: Backend) {
    let mut server = server(&backend).await;
    let mut guest = RawClient::connect(&server, "guest").await;
    let envelope = EnvelopeText::modern("m", "guest");
    guest.ask(&format!("publish e k {envelope}"), "ACK m").await;
    let mut root = RawClient::connect(&server, "root").await;
    root.ask("resend m", "Resend requested").await;
    let mut nobody = RawClient::connect(&server, "nobody").await;
    nobody.ask("resend m", "Unauthorized resend request").await;
    server.terminate().await;
}

on_both_databases!(
    every_command_is_refused,
    messages_are_refused_singly,
    refusals_come_first,
    consuming_does_not_declare_in_secret,
    administrators,
);
