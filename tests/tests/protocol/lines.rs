//! Lines on the socket: fragmentation, line endings, order.

use std::time::Duration;

use ciphermq_tests::Fixture;

pub(super) async fn pipelined_commands_are_answered_in_order(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let mut lines = String::new();
    let mut replies = Vec::new();
    // Commands that wait for the store are mixed with commands that do not.
    for index in 0..200 {
        let message = format!("m{index}");
        lines += &format!("declare_queue {}\n", fixture.id(&format!("q{index}")));
        replies.push("Queue declared".to_owned());
        lines += &format!("{}\n", fixture.publish(&fixture.envelope(&message)));
        replies.push(format!("ACK {}", fixture.id(&message)));
        lines += "ping\nnonsense\n";
        replies.extend(["PONG", "Unknown command"].map(str::to_owned));
        lines += &format!("ack {}\n", fixture.id("never"));
        let text = "Error: not_found: no such message waits or was acknowledged for message ";
        replies.push(format!("{text}{}", fixture.id("never")));
        lines += &format!("get_public_key {}\n", fixture.id("nobody"));
        replies.push("Public key not found".to_owned());
    }
    client.send_bytes(&lines).await;
    for reply in replies {
        client.expect(&reply).await;
    }
}

pub(super) async fn lines_may_come_in_pieces(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let envelope = fixture.envelope("m").set("note", "温度 — Zürich");
    let line = format!("{}\nping\n", fixture.publish(&envelope));
    for byte in line.as_bytes() {
        client.send_bytes([*byte]).await;
    }
    client.expect(&format!("ACK {}", fixture.id("m"))).await;
    client.expect("PONG").await;
    client.send_bytes("pi").await;
    client.expect_silence(Duration::from_millis(50)).await;
    client.send_bytes("ng\nping\npi").await;
    client.expect("PONG").await;
    client.expect("PONG").await;
    client.send_bytes("ng\n").await;
    client.expect("PONG").await;
    let mut receiver = fixture.receiver(1).await;
    receiver.expect(&fixture.delivery("m", &envelope)).await;
}

pub(super) async fn both_line_endings(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    client.send_bytes("ping\r\nping\n\r\n\nping\r").await;
    for reply in ["PONG", "PONG", "Unknown command", "Unknown command"] {
        client.expect(reply).await;
    }
    client.send_bytes("\n").await;
    client.expect("PONG").await;
    // The ending does not become part of a name.
    client
        .send_bytes(format!("declare_queue {}\r\n", fixture.id("q")))
        .await;
    client.expect("Queue declared").await;
    client
        .ask(&format!("fetch {}", fixture.id("q")), "No messages")
        .await;
    client.send_bytes("a\rb\n").await;
    client.expect("Unknown command").await;
}

pub(super) async fn deliveries_stand_between_replies(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.receiver(1000).await;
    let mut lines = String::new();
    for index in 0..500 {
        lines += &format!(
            "{}\n",
            fixture.publish(&fixture.envelope(&format!("m{index}")))
        );
    }
    let pings = "ping\n".repeat(500);
    tokio::join!(sender.send_bytes(&lines), receiver.send_bytes(&pings));
    let (mut delivered, mut pongs) = (0, 0);
    while delivered + pongs < 1000 {
        match receiver.line().await.as_str() {
            "PONG" => pongs += 1,
            line => {
                let message = format!("m{delivered}");
                assert_eq!(
                    line,
                    fixture.delivery(&message, &fixture.envelope(&message))
                );
                delivered += 1;
            }
        }
    }
    assert_eq!((delivered, pongs), (500, 500));
}

pub(super) async fn nothing_is_sent_unasked(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    client.expect_silence(Duration::from_secs(1)).await;
    client.ask("ping", "PONG").await;
    client.expect_silence(Duration::from_secs(1)).await;
}
