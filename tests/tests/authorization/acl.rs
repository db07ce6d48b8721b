//! The section `[acl]` of older configurations: roles by client id.

use ciphermq_tests::server::Options;
use ciphermq_tests::{RawClient, Server};

use crate::{Clients, DEFAULT};

const KEY: &str = "NV1MjXk2mLpcvYA9BriqgCLrdrS0vzBubou+25FreVQ=";

#[tokio::test]
async fn roles_are_rules() {
    let options = Options::sqlite()
        .set("acl", "sender_cns", vec!["sender_1"])
        .set("acl", "receiver_cns", vec!["receiver_1"])
        .set("acl", "admin_cns", vec!["admin"]);
    let mut server = Server::start(options).await;
    let console = server.console().text();
    assert!(console.contains("[acl] is in force"), "{console}");

    // Both begin as clients of that time do.
    let register = format!("register_public_key {KEY}");
    let mut receiver = RawClient::connect(&server, "receiver_1").await;
    receiver.ask(&register, "Public key registered").await;
    for client_id in ["receiver_1", "sender_1"] {
        let mut client = RawClient::connect(&server, client_id).await;
        client
            .declare_and_bind("receiver_1_queue", "e", "receiver_1_key")
            .await;
    }
    receiver
        .ask("consume receiver_1_queue", "Subscribed to queue")
        .await;
    let mut sender = RawClient::connect(&server, "sender_1").await;
    let key = format!("Public key: {KEY}");
    sender.ask("get_public_key receiver_1", &key).await;
    let mut clients = Clients::of(&server);
    let publish = clients.publish("e", "receiver_1_key", "receiver_1");
    sender.ask(&publish, "ACK m1").await;
    receiver.expect_prefix("Message: m1 ").await;
    receiver.ask("ack m1", "ACK_CONFIRMED m1").await;
    receiver.ask("heartbeat", "Heartbeat received").await;

    clients
        .may_not(
            "sender_1",
            DEFAULT,
            &["consume receiver_1_queue", "ack m1", &register],
        )
        .await;
    clients.may_not("receiver_1", DEFAULT, &[&publish]).await;
    let anything = [
        &publish,
        "consume receiver_1_queue",
        "declare_queue q",
        "get_key receiver_1",
    ];
    for other in ["other", "sender_2"] {
        clients.may_not(other, DEFAULT, &anything).await;
    }
    for command in anything {
        clients.may("admin", command).await;
    }
    server.terminate().await;
}

/// A section without client ids refuses nobody.
#[tokio::test]
async fn a_section_without_clients_has_no_effect() {
    let none: Vec<String> = Vec::new();
    let mut server = Server::start(Options::sqlite().set("acl", "sender_cns", none)).await;
    let console = server.console().text();
    assert!(console.contains("[acl] has no effect yet"), "{console}");
    Clients::of(&server).may("anybody", "declare_queue q").await;
    server.terminate().await;
}
