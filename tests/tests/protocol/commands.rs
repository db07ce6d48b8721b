//! Commands and their exact replies.

use ciphermq_tests::{Fixture, RawClient};
use rustls::ProtocolVersion;
use serde_json::Value;

pub(super) async fn every_command_over_tls_1_3(fixture: Fixture) {
    every_command(&fixture, &rustls::version::TLS13).await;
}

pub(super) async fn every_command_over_tls_1_2(fixture: Fixture) {
    every_command(&fixture, &rustls::version::TLS12).await;
}

/// The life cycle of a message, and the commands around it, as in docs/protocol.md.
async fn every_command(fixture: &Fixture, version: &'static rustls::SupportedProtocolVersion) {
    let connect = async |what| {
        let tls = fixture.tls(what).version(version);
        RawClient::handshake(fixture.server.address(), &tls)
            .await
            .unwrap()
    };
    let (mut sender, mut receiver) = (connect("sender").await, connect("receiver").await);
    assert_eq!(sender.tls_version(), Some(version.version));
    let is_newer = version.version == ProtocolVersion::TLSv1_3;
    assert_eq!(
        is_newer,
        sender.key_exchange() == Some(rustls::NamedGroup::X25519MLKEM768)
    );

    let (queue, exchange, who) = (fixture.id("q"), fixture.id("e"), fixture.id("receiver"));
    sender.ask("ping", "PONG").await;
    sender.ask("heartbeat", "Heartbeat received").await;
    sender
        .ask(&format!("declare_queue {queue}"), "Queue declared")
        .await;
    sender
        .ask(&format!("declare_queue {queue}"), "Queue declared")
        .await;
    sender
        .ask(&format!("declare_exchange {exchange}"), "Exchange declared")
        .await;
    sender
        .ask(&format!("declare_exchange {exchange}"), "Exchange declared")
        .await;
    sender
        .ask(&format!("bind {queue} {exchange} k"), "Queue bound")
        .await;
    sender
        .ask(&format!("bind {queue} {exchange} k"), "Queue bound")
        .await;

    let key = "NV1MjXk2mLpcvYA9BriqgCLrdrS0vzBubou+25FreVQ=";
    sender
        .ask(&format!("get_public_key {who}"), "Public key not found")
        .await;
    receiver
        .ask(
            &format!("register_public_key {key}"),
            "Public key registered",
        )
        .await;
    sender
        .ask(
            &format!("get_public_key {who}"),
            &format!("Public key: {key}"),
        )
        .await;

    let [one, two, three] = ["one", "two", "three"].map(|id| fixture.envelope(id));
    let ids = ["one", "two", "three"].map(|id| fixture.id(id));
    sender
        .ask(&fixture.publish(&one), &format!("ACK {}", ids[0]))
        .await;
    sender
        .send_line(&fixture.publish_batch(&[&two, &three]))
        .await;
    sender.expect(&format!("ACK {}", ids[1])).await;
    sender.expect(&format!("ACK {}", ids[2])).await;

    receiver
        .ask(&format!("fetch {queue}"), &fixture.delivery("one", &one))
        .await;
    receiver
        .ask(
            &format!("ack {}", ids[0]),
            &format!("ACK_CONFIRMED {}", ids[0]),
        )
        .await;
    sender
        .ask(&format!("resend {}", ids[0]), "Message ID not found")
        .await;
    receiver
        .ask(&format!("consume {queue}"), "Subscribed to queue")
        .await;
    receiver.expect(&fixture.delivery("two", &two)).await;
    receiver
        .ask(&format!("resend {}", ids[1]), "Unauthorized resend request")
        .await;
    sender
        .ask(&format!("resend {}", ids[1]), "Resend requested")
        .await;
    receiver.expect(&fixture.delivery("two", &two)).await;
    receiver
        .ask(
            &format!("reject {} cannot be opened", ids[1]),
            &format!("Rejected {}", ids[1]),
        )
        .await;
    receiver.expect(&fixture.delivery("three", &three)).await;
    receiver
        .ask(
            &format!("ack {}", ids[2]),
            &format!("ACK_CONFIRMED {}", ids[2]),
        )
        .await;
    sender.ask(&format!("fetch {queue}"), "No messages").await;
    sender.ask("what?", "Unknown command").await;
}

pub(super) async fn missing_arguments(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    for (line, reply) in [
        ("declare_queue", "Missing queue name"),
        ("declare_queue ", "Missing queue name"),
        ("declare_exchange", "Missing exchange name"),
        ("bind", "Missing parameters"),
        ("bind q", "Missing parameters"),
        ("bind q e", "Missing parameters"),
        ("bind q e ", "Missing parameters"),
        ("publish", "Missing parameters"),
        ("publish e", "Missing parameters"),
        ("publish e k", "Missing parameters"),
        ("publish e k ", "Missing parameters"),
        ("publish_batch", "Missing parameters"),
        ("publish_batch e k", "Missing parameters"),
        ("consume", "Missing queue name"),
        ("fetch", "Missing queue name"),
        ("ack", "Missing message ID"),
        ("ack ", "Missing message ID"),
        ("reject", "Missing message ID"),
        ("resend", "Missing message ID"),
        ("register_public_key", "Missing public key"),
        ("register_key", "Missing client ID"),
        ("register_key client", "Missing public key"),
        ("register_signed_key", "Missing public key"),
        ("get_public_key", "Missing client ID"),
        ("get_key", "Missing client ID"),
        ("get_signed_key", "Missing client ID"),
        ("get_certificate", "Missing client ID"),
        ("", "Unknown command"),
        (" ", "Unknown command"),
        (" ping", "Unknown command"),
        ("PING", "Unknown command"),
        ("Declare_queue q", "Unknown command"),
    ] {
        client.ask(line, reply).await;
    }
}

pub(super) async fn names(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    let longest = fixture.id(&"x".repeat(255 - fixture.id("").len()));
    assert_eq!(longest.len(), 255);
    for good in [longest.as_str(), "Zürich→Bern/温度", "a:b\"c\\d{}[]'"] {
        client
            .ask(&format!("declare_queue {good}"), "Queue declared")
            .await;
    }
    let too_long = format!("{longest}x");
    for bad in [
        "a b",
        " a",
        "a ",
        "a\tb",
        "a\u{1}b",
        "a\u{a0}b",
        "a\u{202e}b",
        "a\u{7f}",
        &too_long,
    ] {
        client.send_line(&format!("declare_queue {bad}")).await;
        client
            .expect_prefix("Error: bad_name: queue: a name h")
            .await;
    }
    for c in [
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{e0041}',
    ] {
        for command in ["declare_queue", "declare_exchange", "consume"] {
            client.send_line(&format!("{command} a{c}b")).await;
            client.expect_prefix("Error: bad_name: ").await;
        }
        client
            .send_line(&format!("bind {longest} {longest} a{c}b"))
            .await;
        client.expect_prefix("Error: ").await;
    }
    client
        .ask(
            &format!("declare_exchange {too_long}"),
            "Error: bad_name: exchange: a name has at most 255 bytes, this one has 256",
        )
        .await;
    client
        .send_line("bind no_such_queue no_such_exchange k")
        .await;
    client.expect_prefix("Error: not_found: ").await;
    client
        .ask(
            &format!("declare_queue {}", fixture.id("q")),
            "Queue declared",
        )
        .await;
    client
        .send_line(&format!("bind {} no_such_exchange k", fixture.id("q")))
        .await;
    client.expect_prefix("Error: not_found: ").await;
    for bad in ["0", "-1", "many", "+1", "1 1", "1.5"] {
        client
            .ask(
                &format!("consume {} {bad}", fixture.id("q")),
                "Error: bad_argument: prefetch must be a whole number, 1 or more",
            )
            .await;
    }
}

/// A number that is too large is reduced to the server's maximum.
pub(super) async fn large_numbers(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    for large in [
        "65536",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        &"9".repeat(300),
    ] {
        client
            .ask(
                &format!("consume {} {large}", fixture.id("q")),
                "Subscribed to queue",
            )
            .await;
        for (list, reply) in [
            ("list_rejected", "Rejected messages: "),
            ("list_waiting_keys", "Waiting keys: "),
        ] {
            client
                .send_line(&format!("{list} {{\"limit\":{large}}}"))
                .await;
            client.expect_prefix(reply).await;
            for bad in ["-1", "1.5", "\"1\""] {
                client
                    .send_line(&format!("{list} {{\"limit\":{bad}}}"))
                    .await;
                client.expect_prefix("Error: bad_argument: ").await;
            }
        }
    }
}

/// The last hello applies to the lines after it. A consumer id that it omits stays in effect.
pub(super) async fn hello_again(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.client("receiver").await;
    let hello = async |client: &mut RawClient, json: &str| {
        client.send_line(&format!("hello {json}")).await;
        client.expect_prefix("Hello: ").await;
    };
    hello(&mut receiver, "{\"consumer\":\"one\",\"packed\":true}").await;
    let envelopes = ["a", "b"].map(|id| fixture.envelope(id));
    sender.send_line(&fixture.publish_batch(&envelopes)).await;
    for id in ["a", "b"] {
        sender.expect(&format!("ACK {}", fixture.id(id))).await;
    }
    let consume = format!("consume {} 2", fixture.id("q"));
    receiver.ask(&consume, "Subscribed to queue").await;
    for (id, envelope) in ["a", "b"].iter().zip(&envelopes) {
        receiver.expect(&fixture.delivery(id, envelope)).await;
    }
    let (a, b) = (fixture.id("a"), fixture.id("b"));
    receiver
        .ask(&format!("ack {a} {a}"), "ACK_CONFIRMED_ALL 2")
        .await;
    hello(&mut receiver, "{}").await;
    receiver.send_line(&format!("ack {a} {b}")).await;
    receiver.expect(&format!("ACK_CONFIRMED {a}")).await;
    receiver.expect(&format!("ACK_CONFIRMED {b}")).await;
    // It is still the consumer `one`, which another connection takes over.
    let mut newer = fixture.client("receiver").await;
    hello(&mut newer, "{\"consumer\":\"one\"}").await;
    receiver.expect_closed().await;
    newer.ask("ping", "PONG").await;
}

pub(super) async fn hello(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    for line in [
        "hello",
        "hello {}",
        "hello {\"client\":\"test 1.0\",\"of_later_versions\":[1]}",
        "hello {\"packed\":null,\"client\":null,\"consumer\":null}",
    ] {
        client.send_line(line).await;
        let json: Value = serde_json::from_str(&client.expect_prefix("Hello: ").await).unwrap();
        assert_eq!(json["server"], "ciphermq-server");
        assert_eq!(json["protocol"], 1);
        assert_eq!(json["client_id"], fixture.id("client"));
        assert!(json["version"].is_string());
        let limits = serde_json::json!({"max_line_bytes": 16_777_216, "max_prefetch": 65535,
            "redelivery_timeout_ms": 30_000, "storage_wait_ms": 8_000});
        assert_eq!(json["limits"], limits);
    }
    for bad in ["{", "[]", "7", "null", "{\"consumer\":7}", "{\"packed\":1}"] {
        client.send_line(&format!("hello {bad}")).await;
        no_rust(&client.expect_prefix("Error: bad_argument: ").await);
    }
    for bad in [
        "[]",
        "7",
        "{\"after\":7}",
        "{\"after\":{\"queue\":\"x\",\"seq\":1}}",
        "{\"after\":{\"queue\":1,\"seq\":1e30}}",
        "{\"after\":{\"rejected_time\":1,\"message_id\":1}}",
        "{\"limit\":\"x\"}",
        "{\"limit\":-1}",
    ] {
        for list in ["list_rejected", "list_waiting_keys"] {
            client.send_line(&format!("{list} {bad}")).await;
            no_rust(&client.expect_prefix("Error: bad_argument: ").await);
        }
    }
    client.send_line("hello {\"consumer\":\"a b\"}").await;
    client.expect_prefix("Error: bad_name: consumer: ").await;
    client.ask("ping", "PONG").await;
}

/// Checks that an error for a client does not contain names of Rust types.
fn no_rust(text: &str) {
    for word in ["struct ", "u32", "u64", "i64", "Request", "Cursor", "tuple"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}
