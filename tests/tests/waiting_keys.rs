//! `list_waiting_keys`: the number of a receiver's waiting messages per key that they are sealed
//! for.

use ciphermq_protocol::waiting::{WaitingKey, WaitingPage, WaitingTally};
use ciphermq_tests::{Backend, EnvelopeText, RawClient, on_both_databases};

const OLD: &str = "00112233445566aa";
const NEW: &str = "00112233445566bb";

fn envelope(id: &str, receiver: &str, key_id: &str) -> EnvelopeText {
    EnvelopeText::modern(id, receiver).set("receiver_key_id", key_id)
}

async fn page(client: &mut RawClient, request: &str) -> WaitingPage {
    client
        .send_line(&format!("list_waiting_keys {request}"))
        .await;
    let json = client.expect_prefix("Waiting keys: ").await;
    serde_json::from_str(&json).unwrap()
}

/// Requests all pages of at most `limit` messages, and returns their sum and the number of pages.
async fn count(client: &mut RawClient, limit: u32) -> (Vec<WaitingKey>, usize) {
    let (mut tally, mut pages) = (WaitingTally::default(), 0);
    let mut request = format!(r#"{{"limit":{limit}}}"#);
    loop {
        let page = page(client, &request).await;
        pages += 1;
        tally.extend(page.keys);
        let Some(next) = page.next else {
            return (tally.into_keys(), pages);
        };
        let after = serde_json::to_string(&next).unwrap();
        request = format!(r#"{{"limit":{limit},"after":{after}}}"#);
    }
}

/// Returns the key id, the suite and the number of messages of each key.
fn counts(keys: &[WaitingKey]) -> Vec<(Option<&str>, Option<&str>, u64)> {
    keys.iter()
        .map(|key| (key.key_id.as_deref(), key.suite.as_deref(), key.messages))
        .collect()
}

async fn waiting_messages_are_counted_by_their_keys(backend: Backend) {
    let server = backend.server().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    sender.ask("declare_exchange e", "Exchange declared").await;
    // The routing key `both` leads to two queues; no key leads to `q1` alone.
    for (queue, keys) in [
        ("q1", &["both"][..]),
        ("q2", &["both", "k"]),
        ("q3", &["k3"]),
    ] {
        sender
            .ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
        for key in keys {
            sender
                .ask(&format!("bind {queue} e {key}"), "Queue bound")
                .await;
        }
    }
    receiver
        .ask("list_waiting_keys", r#"Waiting keys: {"keys":[]}"#)
        .await;

    for (id, key, envelope) in [
        ("a", "both", envelope("a", "receiver", OLD)),
        ("b", "both", envelope("b", "receiver", OLD)),
        ("c", "k", envelope("c", "receiver", NEW)),
        ("d", "k3", envelope("d", "receiver", OLD)),
        ("e", "k3", EnvelopeText::older("e", "receiver")),
        ("f", "k3", envelope("f", "receiver", "NO KEY'S ID")),
        ("g", "k3", envelope("g", "somebody", OLD)),
    ] {
        sender
            .ask(&format!("publish e {key} {envelope}"), &format!("ACK {id}"))
            .await;
    }
    let suite = Some("X25519-AES256GCM");
    let expected = [
        (None, None, 1),
        (None, suite, 1),
        (Some(OLD), suite, 3),
        (Some(NEW), suite, 1),
    ];
    for (limit, at_least) in [(10_000, 1), (4_000_000, 1), (3, 2), (1, 6)] {
        let (keys, pages) = count(&mut receiver, limit).await;
        assert_eq!(counts(&keys), expected, "{limit} at a time");
        assert!(pages >= at_least, "{pages} pages of {limit}");
    }
    // The oldest time is the server's own for the first of these messages.
    let (keys, _) = count(&mut receiver, 1).await;
    let oldest = keys[2].oldest_sent_time.as_deref().unwrap();
    let count_sent_then = format!(
        "SELECT count(*) FROM message_metadata WHERE message_id = 'a' AND sent_time = '{oldest}'"
    );
    assert_eq!(server.database().await.number(&count_sent_then).await, 1);

    // Leased messages count as waiting, acked and rejected ones do not; other clients see none.
    receiver.send_line("fetch q2").await;
    receiver.expect_prefix("Message: a ").await;
    assert_eq!(count(&mut receiver, 2).await.0[2].messages, 3);
    receiver.ask("ack a", "ACK_CONFIRMED a").await;
    receiver
        .ask("reject e it cannot be opened", "Rejected e")
        .await;
    let (keys, _) = count(&mut receiver, 2).await;
    assert_eq!(
        counts(&keys),
        [
            (None, suite, 1),
            (Some(OLD), suite, 2),
            (Some(NEW), suite, 1)
        ]
    );
    sender
        .ask("list_waiting_keys {}", r#"Waiting keys: {"keys":[]}"#)
        .await;

    for bad in ["x", "[]", r#"{"after":1}"#, r#"{"limit":-1}"#] {
        receiver
            .send_line(&format!("list_waiting_keys {bad}"))
            .await;
        receiver
            .expect_prefix("Error: bad_argument: list_waiting_keys takes a JSON object: ")
            .await;
    }
    // A cursor is a position, which need not exist.
    for after in [
        r#"{"queue":9223372036854775807,"seq":9223372036854775807}"#,
        r#"{"queue":1000000,"seq":-1}"#,
    ] {
        let beyond = page(&mut receiver, &format!(r#"{{"after":{after}}}"#)).await;
        assert_eq!(beyond, WaitingPage::default());
    }
    let before = page(
        &mut receiver,
        r#"{"after":{"queue":-1,"seq":-9223372036854775808}}"#,
    )
    .await;
    assert_eq!(counts(&before.keys), counts(&keys));
}

/// A queue that exceeds the limit of one command is counted page by page.
async fn a_long_queue_is_counted_in_pages(backend: Backend) {
    let server = backend.server().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    for batch in 0..25 {
        let envelopes: Vec<String> = (0..500)
            .map(|number| {
                let key = if number % 5 == 0 { OLD } else { NEW };
                envelope(&format!("m-{batch}-{number}"), "receiver", key).to_string()
            })
            .collect();
        sender
            .send_line(&format!("publish_batch e k [{}]", envelopes.join(",")))
            .await;
        for number in 0..500 {
            sender.expect(&format!("ACK m-{batch}-{number}")).await;
        }
    }
    let mut receiver = RawClient::connect(&server, "receiver").await;
    let first = page(&mut receiver, "{}").await;
    assert_eq!(
        first.keys.iter().map(|key| key.messages).sum::<u64>(),
        10_000
    );
    assert!(first.next.is_some());
    let (keys, pages) = count(&mut receiver, 10_000).await;
    let suite = Some("X25519-AES256GCM");
    assert_eq!(
        (counts(&keys), pages),
        (
            vec![(Some(OLD), suite, 2_500), (Some(NEW), suite, 10_000)],
            2
        )
    );
}

on_both_databases!(
    waiting_messages_are_counted_by_their_keys,
    a_long_queue_is_counted_in_pages,
);
