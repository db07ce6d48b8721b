//! `publish` and `publish_batch`: deduplication, errors, routing.

use ciphermq_tests::{EnvelopeText, Fixture};

const IN_USE: &str = "Error: id_in_use: another message has this id; give this one a new id";

/// Checks that the receiver gets only this message, once.
async fn delivered_once(fixture: &Fixture, message_id: &str, envelope: &EnvelopeText) {
    let mut receiver = fixture.receiver(100).await;
    receiver
        .expect(&fixture.delivery(message_id, envelope))
        .await;
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn the_same_id_again(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (envelope, ack) = (fixture.envelope("m"), format!("ACK {}", fixture.id("m")));
    sender.ask(&fixture.publish(&envelope), &ack).await;
    sender.ask(&fixture.publish(&envelope), &ack).await;
    let other = envelope.clone().set("ciphertext", "YW5vdGhlcg==");
    sender.ask(&fixture.publish(&other), IN_USE).await;
    // The bytes are compared, not the parsed values.
    let spaced = envelope.to_string().replacen(':', ": ", 1);
    sender.ask(&fixture.publish(&spaced), IN_USE).await;
    sender.ask(&fixture.publish(&envelope), &ack).await;
    delivered_once(&fixture, "m", &envelope).await;
}

pub(super) async fn the_same_id_of_another_client(fixture: Fixture) {
    let (mut sender, mut other) = (fixture.sender().await, fixture.client("other").await);
    let old = fixture.envelope("old");
    fixture.publish_acked(&mut sender, "old", &old).await;
    other.ask(&fixture.publish(&old), IN_USE).await;
    let new = EnvelopeText::modern(&fixture.id("new"), &fixture.id("receiver"));
    fixture.publish_acked(&mut other, "new", &new).await;
    sender.ask(&fixture.publish(&new), IN_USE).await;
    let mut receiver = fixture.receiver(100).await;
    receiver.expect(&fixture.delivery("old", &old)).await;
    receiver.expect(&fixture.delivery("new", &new)).await;
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn the_same_id_with_a_suite(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let first = EnvelopeText::modern(&fixture.id("m"), &fixture.id("receiver"));
    let again = first.clone().set("ciphertext", "c2VhbGVkIGFuZXc=");
    let ack = format!("ACK {}", fixture.id("m"));
    sender.ask(&fixture.publish(&first), &ack).await;
    sender.ask(&fixture.publish(&again), &ack).await;
    // An older client's message with the id of a current client's is another message.
    sender
        .ask(&fixture.publish(&first.clone().without("suite")), IN_USE)
        .await;
    delivered_once(&fixture, "m", &first).await;
}

/// By another route, or to another receiver, it is another message, which would not arrive there.
pub(super) async fn the_same_id_by_another_route(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (q, e) = (fixture.id("q"), fixture.id("e"));
    let elsewhere = fixture.id("elsewhere");
    for (line, reply) in [
        (format!("declare_exchange {elsewhere}"), "Exchange declared"),
        (format!("bind {q} {e} other"), "Queue bound"),
        (format!("bind {q} {elsewhere} k"), "Queue bound"),
    ] {
        sender.ask(&line, reply).await;
    }
    let (older, modern) = (
        fixture.envelope("older"),
        EnvelopeText::modern(&fixture.id("modern"), &fixture.id("receiver")),
    );
    for (id, envelope) in [("older", &older), ("modern", &modern)] {
        let ack = format!("ACK {}", fixture.id(id));
        sender.ask(&fixture.publish(envelope), &ack).await;
        for route in [format!("{e} other"), format!("{elsewhere} k")] {
            sender
                .ask(&format!("publish {route} {envelope}"), IN_USE)
                .await;
        }
        let to_another = envelope.clone().set("receiver_client_id", "somebody");
        sender.ask(&fixture.publish(&to_another), IN_USE).await;
        sender.ask(&fixture.publish(envelope), &ack).await;
    }
    let mut receiver = fixture.receiver(100).await;
    receiver.expect(&fixture.delivery("older", &older)).await;
    receiver.expect(&fixture.delivery("modern", &modern)).await;
    receiver.ask("ping", "PONG").await;
}

/// A client expects one line per message, even if the route is invalid.
pub(super) async fn a_batch_by_an_invalid_route_is_answered_message_by_message(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let envelopes = ["a", "b"].map(|id| fixture.envelope(id));
    let batch = format!("[{},{}]", envelopes[0], envelopes[1]);
    let long = "x".repeat(256);
    for route in [format!("{long} k"), format!("{} {long}", fixture.id("e"))] {
        sender
            .send_line(&format!("publish_batch {route} {batch}"))
            .await;
        for id in ["a", "b"] {
            let reply = sender.expect_prefix("Error: bad_name: ").await;
            assert!(
                reply.ends_with(&format!(" for message {}", fixture.id(id))),
                "{reply}"
            );
        }
        sender.ask("ping", "PONG").await;
    }
    let mut receiver = fixture.receiver(100).await;
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn the_same_id_inside_one_batch(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let one = fixture.envelope("m");
    let other = one.clone().set("ciphertext", "YW5vdGhlcg==");
    let ack = format!("ACK {}", fixture.id("m"));
    sender
        .send_line(&fixture.publish_batch(&[&one, &one, &other, &one]))
        .await;
    sender.expect(&ack).await;
    sender.expect(&ack).await;
    sender
        .expect(&format!("{IN_USE} for message {}", fixture.id("m")))
        .await;
    sender.expect(&ack).await;
    delivered_once(&fixture, "m", &one).await;
}

pub(super) async fn the_same_id_in_pipelined_commands(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let one = fixture.envelope("m");
    let other = one.clone().set("ciphertext", "YW5vdGhlcg==");
    let mut lines = String::new();
    for envelope in [&one, &one, &other, &one] {
        lines += &(fixture.publish(envelope) + "\n");
    }
    lines += &(fixture.publish_batch(&[&other, &one]) + "\n");
    sender.send_bytes(&lines).await;
    let (ack, of_batch) = (
        format!("ACK {}", fixture.id("m")),
        format!("{IN_USE} for message {}", fixture.id("m")),
    );
    for reply in [&ack, &ack, IN_USE, &ack, &of_batch, &ack] {
        sender.expect(reply).await;
    }
    delivered_once(&fixture, "m", &one).await;
}

pub(super) async fn the_same_id_after_its_ack(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (envelope, ack) = (fixture.envelope("m"), format!("ACK {}", fixture.id("m")));
    sender.ask(&fixture.publish(&envelope), &ack).await;
    let mut receiver = fixture.receiver(10).await;
    receiver.expect(&fixture.delivery("m", &envelope)).await;
    receiver.ack(&fixture.id("m")).await;
    sender.ask(&fixture.publish(&envelope), &ack).await;
    sender
        .ask(&fixture.publish(&envelope.set("x", 1)), IN_USE)
        .await;
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn errors_of_single_messages(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (e, s) = (fixture.id("e"), fixture.id("sender"));
    let envelope = fixture.envelope("m");
    for (line, reply) in [
        (
            format!("publish {e} nowhere {envelope}"),
            format!(
                "Error: no_route: exchange '{e}' has no queue bound by 'nowhere'; bind one first"
            ),
        ),
        (
            format!("publish no.such.exchange k {envelope}"),
            "Error: not_found: exchange 'no.such.exchange' does not exist; declare it first"
                .to_owned(),
        ),
        (
            fixture.publish(&envelope.clone().set("sender_client_id", "somebody")),
            format!(
                "Error: sender_mismatch: the envelope names somebody as its sender, the \
                 certificate {s}"
            ),
        ),
        (
            fixture.publish(&envelope.clone().set("exchange", "elsewhere")),
            format!(
                "Error: route_mismatch: the envelope names the exchange elsewhere, the command {e}"
            ),
        ),
        (
            fixture.publish(&envelope.clone().set("routing_key", "other")),
            "Error: route_mismatch: the envelope names the routing key other, the command k"
                .to_owned(),
        ),
        (
            fixture.publish(&envelope),
            format!("ACK {}", fixture.id("m")),
        ),
    ] {
        sender.ask(&line, &reply).await;
    }
    let agreeing = fixture
        .envelope("n")
        .set("sender_client_id", s)
        .set("exchange", e)
        .set("routing_key", "k");
    fixture.publish_acked(&mut sender, "n", &agreeing).await;
}

pub(super) async fn a_batch_is_answered_message_by_message(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let good = ["a", "b", "c"].map(|id| fixture.envelope(id));
    let bad = fixture.envelope("bad").set("sender_client_id", "somebody");
    sender
        .send_line(&fixture.publish_batch(&[&good[0], &bad, &good[1], &good[2]]))
        .await;
    sender.expect(&format!("ACK {}", fixture.id("a"))).await;
    let refused = sender.expect_prefix("Error: sender_mismatch: ").await;
    assert!(
        refused.ends_with(&format!(" for message {}", fixture.id("bad"))),
        "{refused}"
    );
    sender.expect(&format!("ACK {}", fixture.id("b"))).await;
    sender.expect(&format!("ACK {}", fixture.id("c"))).await;
    let mut receiver = fixture.receiver(10).await;
    for (id, envelope) in ["a", "b", "c"].iter().zip(&good) {
        receiver.expect(&fixture.delivery(id, envelope)).await;
    }
    receiver.ask("ping", "PONG").await;

    // Without a route, the error is reported for each message.
    let [x, y] = ["x", "y"].map(|id| fixture.envelope(id));
    sender
        .send_line(&format!(
            "publish_batch {} nowhere [{x},{y}]",
            fixture.id("e")
        ))
        .await;
    for id in ["x", "y"] {
        let refused = sender.expect_prefix("Error: no_route: ").await;
        assert!(
            refused.ends_with(&format!(" for message {}", fixture.id(id))),
            "{refused}"
        );
    }
    sender.ask("ping", "PONG").await;
}

pub(super) async fn an_invalid_batch_stores_nothing(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (good, lacking) = (
        fixture.envelope("a"),
        fixture.envelope("b").without("nonce"),
    );
    let command = format!("publish_batch {} k", fixture.id("e"));
    for bad in [
        "[]".to_owned(),
        "{}".to_owned(),
        "7".to_owned(),
        "[".to_owned(),
        good.to_string(),
        format!("[{good}"),
        format!("[{good},]"),
        format!("[{good},7]"),
        format!("[{good},{lacking}]"),
        format!("[{good}] [{good}]"),
    ] {
        sender.send_line(&format!("{command} {bad}")).await;
        sender.expect_prefix("Invalid batch format: ").await;
    }
    sender
        .send_line(&format!("{command} [{good},{lacking}]"))
        .await;
    let text = sender
        .expect_prefix("Invalid batch format: message 2 of the batch: ")
        .await;
    assert!(text.contains("missing field `nonce`"), "{text}");
    let mut receiver = fixture.receiver(10).await;
    receiver.ask("ping", "PONG").await;
    // White space is allowed wherever JSON allows it.
    sender
        .send_line(&format!(
            "{command}  [ {good} , {} ] ",
            fixture.envelope("b")
        ))
        .await;
    sender.expect(&format!("ACK {}", fixture.id("a"))).await;
    sender.expect(&format!("ACK {}", fixture.id("b"))).await;
    receiver.expect(&fixture.delivery("a", &good)).await;
    receiver
        .expect(&fixture.delivery("b", &fixture.envelope("b")))
        .await;
}

pub(super) async fn envelopes_arrive_byte_for_byte(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.receiver(10).await;
    let odd = format!(
        "{{ \"z\" : [1, 2.50e+3, {{\"deep\": null}}], \
         \"message_id\":\"{}\",\t\"receiver_client_id\":\"\\u0072{}\", \
         \"enc_session_key\":\"\",\"nonce\":\"not base64!\",\"ciphertext\":\"\\/\\ud83d\\ude00 温度 \
         \u{1F512}\",\"é\":\"\\u0000\" }}",
        fixture.id("m"),
        fixture.id("eceiver"),
    );
    fixture.publish_acked(&mut sender, "m", &odd).await;
    receiver.expect(&fixture.delivery("m", &odd)).await;
    // White space around the envelope is not part of it.
    let plain = fixture.envelope("n");
    sender
        .send_line(&format!("publish {} k  {plain}  ", fixture.id("e")))
        .await;
    sender.expect(&format!("ACK {}", fixture.id("n"))).await;
    receiver.expect(&fixture.delivery("n", &plain)).await;
    // A large envelope, in the older form with the tag at the end of the ciphertext.
    let large = fixture
        .envelope("o")
        .without("tag")
        .set("ciphertext", "x".repeat(3_000_000));
    fixture.publish_acked(&mut sender, "o", &large).await;
    let line = receiver.line().await;
    assert!(
        line == fixture.delivery("o", &large),
        "{} bytes differ",
        line.len()
    );
}

pub(super) async fn a_message_goes_to_every_bound_queue(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    fixture.bind_queue(&mut sender, "second").await;
    let envelope = fixture.envelope("m");
    fixture.publish_acked(&mut sender, "m", &envelope).await;
    for queue in ["q", "second"] {
        let mut receiver = fixture.client("receiver").await;
        receiver
            .ask(
                &format!("fetch {}", fixture.id(queue)),
                &fixture.delivery("m", &envelope),
            )
            .await;
        receiver
            .ask(&format!("fetch {}", fixture.id(queue)), "No messages")
            .await;
        receiver.close().await.unwrap();
    }
}
