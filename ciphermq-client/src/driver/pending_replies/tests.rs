use ciphermq_protocol::{ClientId, Command};
use tokio::sync::oneshot;

use super::*;

fn pending(is_consuming: bool, expected: impl IntoIterator<Item = Expected>) -> PendingReplies {
    let mut pending = PendingReplies::new(1000, is_consuming);
    expected
        .into_iter()
        .for_each(|expected| pending.expect(expected));
    pending
}

fn request(client: &str) -> Expected {
    let command = Command::GetPublicKey {
        client_id: ClientId::new(client).unwrap(),
    };
    Expected::Request(Request {
        command,
        answer: oneshot::channel().0,
    })
}

fn published(numbers: &[u64]) -> Expected {
    let publisher = OutboxId::Publisher(PublisherId(7));
    Expected::Items(publisher, Line::new(numbers.to_vec()))
}

/// Describes each line of `text` briefly; stops at the first violation.
fn read(pending: &mut PendingReplies, text: &str) -> Vec<String> {
    let mut buffer = BytesMut::from(text.as_bytes());
    let mut meanings = Vec::new();
    loop {
        match pending.next(&mut buffer) {
            Ok(None) => return meanings,
            Ok(Some(answer)) => meanings.push(meaning(answer)),
            Err(violation) => {
                meanings.push(format!("violation: {violation}"));
                return meanings;
            }
        }
    }
}

fn meaning(answer: Answer) -> String {
    let item = |answer: ItemAnswer| {
        let end = if answer.is_last { ", last" } else { "" };
        match answer.about {
            ReplyScope::One(number, id) => format!("{number} {id}{end}"),
            ReplyScope::All(numbers) => format!("{numbers:?}{end}"),
        }
    };
    match answer {
        Answer::Deliveries(deliveries) => {
            let ids: Vec<&str> = deliveries
                .iter()
                .map(|delivery| delivery.message_id.as_str())
                .collect();
            format!("delivery {}", ids.join(" "))
        }
        Answer::Request(request, _) => match request.command {
            Command::GetPublicKey { client_id } => format!("reply to {client_id}"),
            other => format!("reply to {other:?}"),
        },
        Answer::Items(OutboxId::Publisher(_), answer) => format!("published {}", item(answer)),
        Answer::Items(OutboxId::Acks, answer) => format!("acked {}", item(answer)),
        Answer::Pong => "pong".to_owned(),
        Answer::Ended(error) => format!("ended: {error}"),
    }
}

#[test]
fn replies_belong_to_the_commands_in_their_order() {
    let acks = Expected::Items(OutboxId::Acks, Line::new(vec![5, 6]));
    let mut pending = pending(
        false,
        [
            request("a"),
            published(&[1, 2]),
            Expected::Pong,
            acks,
            request("b"),
        ],
    );
    assert!(pending.is_outstanding());
    let text = "Public key: x\nACK m1\nError: no_route: no queue for message m2\nPONG\n\
                ACK_CONFIRMED m5\nError: not_found: unknown for message m6\nPublic key not found\n";
    assert_eq!(
        read(&mut pending, text),
        [
            "reply to a",
            "published 1 m1",
            "published 2 m2, last",
            "pong",
            "acked 5 m5",
            "acked 6 m6, last",
            "reply to b"
        ]
    );
    assert!(!pending.is_outstanding());
}

#[test]
fn message_lines_are_deliveries_only_when_consuming() {
    let acks = || Expected::Items(OutboxId::Acks, Line::new(vec![1, 2]));
    let text = "Message: d1 {}\nACK_CONFIRMED m1\nMessage: d2 {}\nACK_CONFIRMED m2\n";
    assert_eq!(
        read(&mut pending(true, [acks()]), text),
        [
            "delivery d1",
            "acked 1 m1",
            "delivery d2",
            "acked 2 m2, last"
        ]
    );
    assert_eq!(
        read(&mut pending(false, [request("a")]), "Message: d1 {}\n"),
        ["reply to a"]
    );
    assert!(read(&mut pending(false, [acks()]), text)[0].starts_with("violation"));
}

#[test]
fn one_line_refuses_a_whole_batch() {
    for reply in [
        "Invalid batch format: broken",
        "Missing parameters",
        "Unknown command",
        "Error: storage_full: no room",
        "Error: something_new: what is it",
    ] {
        let mut pending = pending(false, [published(&[1, 2, 3]), Expected::Pong]);
        assert_eq!(
            read(&mut pending, &format!("{reply}\nPONG\n")),
            ["published [1, 2, 3], last", "pong"],
            "{reply}"
        );
    }
}

#[test]
fn one_line_acknowledges_a_whole_batch() {
    let acks = Expected::Items(OutboxId::Acks, Line::new(vec![4, 5]));
    let mut pending = pending(true, [published(&[1, 2, 3]), acks, Expected::Pong]);
    assert_eq!(
        read(
            &mut pending,
            "ACK_ALL 3\nMessages: 1 {\"message_id\":\"d1\",\"sent_time\":\"\",\"nonce\":\"\",\"ciphertext\":\"\",\"tag\":\"\"} \
             {\"a\":1}\nACK_CONFIRMED_ALL 2\nPONG\n"
        ),
        [
            "published [1, 2, 3], last",
            "delivery d1",
            "acked [4, 5], last",
            "pong"
        ]
    );
}

#[test]
fn unexpected_replies_are_violations() {
    for (expected, text) in [
        (None, "PONG\n"),
        (None, "Error: overloaded: too much\n"),
        (Some(Expected::Pong), "ACK m1\n"),
        (Some(published(&[1])), "PONG\n"),
        (Some(published(&[1])), "ACK_CONFIRMED m1\n"),
        (
            Some(published(&[1, 2])),
            "ACK m1\nInvalid batch format: too late\n",
        ),
        (
            Some(published(&[1, 2])),
            "ACK m1\nError: no_route: about nobody\n",
        ),
        (Some(published(&[1, 2])), "ACK_ALL 1\n"),
        (Some(published(&[1, 2])), "ACK_ALL 3\n"),
        (Some(published(&[1, 2])), "ACK m1\nACK_ALL 2\n"),
        (Some(Expected::Pong), "ACK_ALL 1\n"),
        (
            Some(Expected::Items(OutboxId::Acks, Line::new(vec![1]))),
            "ACK m1\n",
        ),
        (Some(Expected::Pong), "what is this\n"),
        (Some(Expected::Pong), "\n"),
    ] {
        let read = read(&mut pending(false, expected), text);
        assert!(
            read.last().unwrap().starts_with("violation"),
            "{text:?}: {read:?}"
        );
    }
}

#[test]
fn lines_may_arrive_in_fragments() {
    let text = "ACK m1\r\nMessage: d1 {\"a\": 1}\nACK m2\n";
    for cut in 0..text.len() {
        let mut pending = pending(true, [published(&[1, 2])]);
        let (mut buffer, mut meanings) = (BytesMut::new(), Vec::new());
        for piece in [&text[..cut], &text[cut..]] {
            buffer.extend_from_slice(piece.as_bytes());
            while let Some(answer) = pending.next(&mut buffer).unwrap() {
                meanings.push(meaning(answer));
            }
        }
        assert_eq!(
            meanings,
            ["published 1 m1", "delivery d1", "published 2 m2, last"],
            "cut at {cut}"
        );
    }
}

#[test]
fn an_endless_line_is_a_violation() {
    let text = "x".repeat(1001);
    assert!(read(&mut pending(false, [Expected::Pong]), &text)[0].starts_with("violation"));
}
