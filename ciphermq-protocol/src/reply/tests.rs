use super::*;
use crate::administration::{BlockInfo, ClientInfo, ConnectionInfo, QuotaInfo};
use crate::ends::EndInfo;
use crate::hello::HelloLimits;
use crate::name::{ClientId, ExchangeName, QueueName, RoutingKey};
use crate::topology::{BindingCursor, ExchangeInfo, QueueInfo};
use proptest::prelude::*;

fn id(text: &str) -> MessageId {
    MessageId::new(text).unwrap()
}

fn encode(reply: &Reply) -> String {
    let mut out = BytesMut::new();
    reply.encode(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn parse(line: &str) -> Result<Reply, ReplyError> {
    Reply::parse(&Bytes::copy_from_slice(line.as_bytes()))
}

/// A delivery whose envelope has the shared part `"a": 1`.
fn packed(name: &str) -> Delivery {
    let own = format!("{{\"message_id\":\"{name}\"");
    let shared = Bytes::from_static(b",\"a\": 1}");
    Delivery {
        message_id: id(name),
        envelope: EnvelopeBytes::packed(own.into(), shared),
    }
}

fn hello() -> HelloReply {
    HelloReply {
        server: "s".into(),
        version: "2.0.0".into(),
        protocol: 1,
        client_id: ClientId::new("c").unwrap(),
        limits: HelloLimits {
            max_line_bytes: 1,
            max_prefetch: 2,
            redelivery_timeout_ms: 3,
            storage_wait_ms: 4,
        },
        packed: true,
        binary: true,
    }
}

/// Every reply and its exact text.
fn texts() -> Vec<(Reply, &'static str)> {
    let coded = ErrorReply::new(ErrorCode::NoRoute, "exchange 'e' has no queue bound by 'k'");
    vec![
        (Reply::QueueDeclared, "Queue declared\n"),
        (Reply::ExchangeDeclared, "Exchange declared\n"),
        (Reply::QueueBound, "Queue bound\n"),
        (Reply::QueueUnbound, "Queue unbound\n"),
        (Reply::QueueDeleted, "Queue deleted\n"),
        (Reply::ExchangeDeleted, "Exchange deleted\n"),
        (Reply::QueuePurged, "Queue purged\n"),
        (
            Reply::Queues(QueuesPage {
                queues: vec![QueueInfo {
                    queue: QueueName::new("q").unwrap(),
                    made_by: Some(ClientId::new("c").unwrap()),
                    bindings: 1,
                    consumers: 2,
                    messages: 3,
                    more_messages: false,
                }],
                next: Some(QueueName::new("q").unwrap()),
            }),
            "Queues: {\"queues\":[{\"queue\":\"q\",\"made_by\":\"c\",\"bindings\":1,\
             \"consumers\":2,\"messages\":3}],\"next\":\"q\"}\n",
        ),
        (
            Reply::Exchanges(ExchangesPage {
                exchanges: vec![ExchangeInfo {
                    exchange: ExchangeName::new("e").unwrap(),
                    made_by: None,
                    bindings: 1,
                }],
                next: None,
            }),
            "Exchanges: {\"exchanges\":[{\"exchange\":\"e\",\"made_by\":null,\"bindings\":1}]}\n",
        ),
        (
            Reply::Bindings(BindingsPage {
                bindings: Vec::new(),
                next: Some(BindingCursor {
                    exchange: ExchangeName::new("e").unwrap(),
                    routing_key: RoutingKey::new("k").unwrap(),
                    queue: 7,
                }),
            }),
            "Bindings: {\"bindings\":[],\"next\":{\"exchange\":\"e\",\"routing_key\":\"k\",\
             \"queue\":7}}\n",
        ),
        (
            Reply::Connections(ConnectionsPage {
                connections: vec![ConnectionInfo {
                    connection: 7,
                    client: ClientId::new("c").unwrap(),
                    address: "[::1]:1".into(),
                    since: "t".into(),
                    tls: Some("1.3".into()),
                    program: None,
                    consumer: Some("u".into()),
                    queues: vec![QueueName::new("q").unwrap()],
                    in_flight: 2,
                    packed: true,
                }],
                next: Some(7),
            }),
            "Connections: {\"connections\":[{\"connection\":7,\"client\":\"c\",\
             \"address\":\"[::1]:1\",\"since\":\"t\",\"tls\":\"1.3\",\"consumer\":\"u\",\
             \"queues\":[\"q\"],\"in_flight\":2,\"packed\":true}],\"next\":7}\n",
        ),
        (
            Reply::Clients(ClientsPage {
                clients: vec![ClientInfo {
                    client: ClientId::new("c").unwrap(),
                    connections: 1,
                    administrator: false,
                    blocked: Some(BlockInfo {
                        by: ClientId::new("ops").unwrap(),
                        since: "t".into(),
                    }),
                    quotas: vec![QuotaInfo {
                        quota: "connections".into(),
                        held: 1,
                        limit: 2000,
                    }],
                }],
                next: None,
            }),
            "Clients: {\"clients\":[{\"client\":\"c\",\"connections\":1,\
             \"blocked\":{\"by\":\"ops\",\"since\":\"t\"},\
             \"quotas\":[{\"quota\":\"connections\",\"held\":1,\"limit\":2000}]}]}\n",
        ),
        (
            Reply::Ends(EndsPage {
                ends: vec![EndInfo {
                    kind: "authority".into(),
                    subject: "CN=a".into(),
                    not_before: "t".into(),
                    not_after: "u".into(),
                }],
            }),
            "Ends: {\"ends\":[{\"kind\":\"authority\",\"subject\":\"CN=a\",\
             \"not_before\":\"t\",\"not_after\":\"u\"}]}\n",
        ),
        (
            Reply::Reloaded(Reloaded {
                changed: vec!["rules".into()],
                restart: Vec::new(),
            }),
            "Reloaded: {\"changed\":[\"rules\"],\"restart\":[]}\n",
        ),
        (Reply::ConnectionClosed, "Connection closed\n"),
        (Reply::ClientBlocked, "Client blocked\n"),
        (Reply::ClientUnblocked, "Client unblocked\n"),
        (Reply::Ack(id("m-1")), "ACK m-1\n"),
        (Reply::Subscribed, "Subscribed to queue\n"),
        (Reply::NoMessages, "No messages\n"),
        (
            Reply::Message(Delivery {
                message_id: id("m-1"),
                envelope: Bytes::from_static(b"{\"a\": 1}").into(),
            }),
            "Message: m-1 {\"a\": 1}\n",
        ),
        (
            Reply::Messages(vec![packed("m-1"), packed("m-2")]),
            "Messages: 2 {\"message_id\":\"m-1\"} {\"message_id\":\"m-2\"} {\"a\": 1}\n",
        ),
        (Reply::AckConfirmed(id("m-1")), "ACK_CONFIRMED m-1\n"),
        (Reply::AckAll(250), "ACK_ALL 250\n"),
        (Reply::AckConfirmedAll(2), "ACK_CONFIRMED_ALL 2\n"),
        (Reply::Rejected(id("m-1")), "Rejected m-1\n"),
        (Reply::ResendRequested, "Resend requested\n"),
        (Reply::UnauthorizedResend, "Unauthorized resend request\n"),
        (Reply::MessageIdNotFound, "Message ID not found\n"),
        (Reply::PublicKeyRegistered, "Public key registered\n"),
        (Reply::PublicKey("AAAA".into()), "Public key: AAAA\n"),
        (Reply::PublicKeyNotFound, "Public key not found\n"),
        (Reply::SignedKey("a.b.c".into()), "Signed key: a.b.c\n"),
        (
            Reply::Certificate(CertificateChain::from_der([[0], [1]])),
            "Certificate: AA==,AQ==\n",
        ),
        (Reply::CertificateNotFound, "Certificate not found\n"),
        (Reply::CertificateRegistered, "Certificate registered\n"),
        (
            Reply::RevocationLists(RevocationLists::from_der([[0], [1]])),
            "Revocation lists: [\"AA==\",\"AQ==\"]\n",
        ),
        (
            Reply::Hello(Box::new(hello())),
            "Hello: {\"server\":\"s\",\"version\":\"2.0.0\",\"protocol\":1,\"client_id\":\"c\",\
             \"limits\":{\"max_line_bytes\":1,\"max_prefetch\":2,\"redelivery_timeout_ms\":3,\
             \"storage_wait_ms\":4},\"packed\":true,\"binary\":true}\n",
        ),
        (
            Reply::RejectedMessages(RejectedPage {
                messages: Vec::new(),
                more: true,
            }),
            "Rejected messages: {\"messages\":[],\"more\":true}\n",
        ),
        (
            Reply::WaitingKeys(WaitingPage::default()),
            "Waiting keys: {\"keys\":[]}\n",
        ),
        (Reply::Pong, "PONG\n"),
        (Reply::HeartbeatReceived, "Heartbeat received\n"),
        (Reply::UnknownCommand, "Unknown command\n"),
        (Reply::Missing(Missing::QueueName), "Missing queue name\n"),
        (
            Reply::Missing(Missing::ExchangeName),
            "Missing exchange name\n",
        ),
        (Reply::Missing(Missing::Parameters), "Missing parameters\n"),
        (Reply::Missing(Missing::MessageId), "Missing message ID\n"),
        (Reply::Missing(Missing::PublicKey), "Missing public key\n"),
        (Reply::Missing(Missing::ClientId), "Missing client ID\n"),
        (
            Reply::InvalidMessageFormat("no object".into()),
            "Invalid message format: no object\n",
        ),
        (
            Reply::InvalidBatchFormat("empty".into()),
            "Invalid batch format: empty\n",
        ),
        (
            coded.clone().into(),
            "Error: no_route: exchange 'e' has no queue bound by 'k'\n",
        ),
        (
            coded.for_message(id("m-1")).into(),
            "Error: no_route: exchange 'e' has no queue bound by 'k' for message m-1\n",
        ),
        (
            Reply::Error(ErrorReply {
                code: None,
                text: "of a later version: who knows".into(),
                message_id: None,
            }),
            "Error: of a later version: who knows\n",
        ),
    ]
}

#[test]
fn every_reply_round_trips() {
    for (reply, text) in texts() {
        assert_eq!(encode(&reply), text);
        assert_eq!(parse(text.trim_end_matches('\n')).unwrap(), reply);
    }
}

#[test]
fn no_truncated_line_is_parsed_as_the_whole_reply() {
    for (reply, text) in texts() {
        let line = text.trim_end_matches('\n');
        for (end, _) in line.char_indices() {
            assert_ne!(
                parse(&line[..end]).ok(),
                Some(reply.clone()),
                "{end} of {line}"
            );
        }
    }
}

#[test]
fn other_lines_are_refused() {
    for line in [
        "",
        "ACK",
        "ACK ",
        "ACK a b",
        "Message: ",
        "Message: m-1",
        "Message: m-1 ",
        "Message:  {}",
        "OK",
        "Hello: {}",
        "Rejected messages: []x",
        "Waiting keys: null",
        "Queue  declared",
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
    assert!(Reply::parse(&Bytes::from_static(b"\xff")).is_err());
    assert!(Reply::parse(&Bytes::from_static(b"Message: \xff {}")).is_err());
}

#[test]
fn only_a_known_definite_code_is_definite() {
    let error = |text: &str| ErrorReply::parse(text);
    assert!(error("no_route: x").is_definite());
    assert!(!error("storage_unavailable: x").is_definite());
    assert!(!error("brand_new: x").is_definite());
}

#[test]
fn control_characters_in_a_reply_become_spaces() {
    let text = encode(&Reply::InvalidMessageFormat(
        "a\nACK m-1\r\u{1b}[31m".into(),
    ));
    assert_eq!(text, "Invalid message format: a ACK m-1  [31m\n");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_every_reply_round_trips(line in "\\PC*|(ACK|Message:|Error:|Certificate:|Public \
        key:) \\PC*") {
        if let Ok(reply) = parse(&line) {
            prop_assert_eq!(parse(encode(&reply).trim_end_matches('\n')).unwrap(), reply);
        }
    }

    #[test]
    fn a_delivery_shares_the_lines_memory(id in "[!-~]{1,255}", envelope in "\\{[ -~]{0,200}\\}") {
        let line = Bytes::from(format!("Message: {id} {envelope}"));
        let Ok(Reply::Message(delivery)) = Reply::parse(&line) else { panic!("no delivery") };
        prop_assert_eq!(&delivery.envelope.own()[..], envelope.as_bytes());
        prop_assert!(line.as_ptr_range().contains(&delivery.envelope.own().as_ptr()));
    }
}

#[test]
fn deliveries_with_the_same_shared_part_share_a_line() {
    let other = Delivery {
        message_id: id("m-3"),
        envelope: EnvelopeBytes::packed("{\"message_id\":\"m-3\"".into(), ",\"a\": 2}".into()),
    };
    let whole = Delivery {
        message_id: id("m-4"),
        envelope: Bytes::from_static(b"{}").into(),
    };
    let mut out = BytesMut::new();
    Delivery::encode_packed(
        &[packed("m-1"), packed("m-2"), other, whole, packed("m-5")],
        PackedLines::ALL,
        &mut out,
    );
    assert_eq!(
        out,
        "Messages: 2 {\"message_id\":\"m-1\"} {\"message_id\":\"m-2\"} {\"a\": 1}\n\
         Messages: 1 {\"message_id\":\"m-3\"} {\"a\": 2}\n\
         Message: m-4 {}\n\
         Messages: 1 {\"message_id\":\"m-5\"} {\"a\": 1}\n"
    );
    let mut long = packed("m-1");
    let own = format!("{{\"message_id\":\"m-1\",\"x\":\"{}\"", "x".repeat(30_000));
    long.envelope = EnvelopeBytes::packed(own.into(), ",\"a\": 1}".into());
    out.clear();
    Delivery::encode_packed(&vec![long; 7], PackedLines::ALL, &mut out);
    let counts: Vec<u8> = out
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| line[10])
        .collect();
    assert_eq!(counts, b"2221", "lines stay short");
}

#[test]
fn a_pause_survives_the_wire() {
    let limited = ErrorReply::rate_limited("too fast; slow down", Duration::from_micros(249_001));
    assert_eq!(limited.text, "too fast; slow down; retry in 250 ms");
    assert_eq!(limited.retry_after(), Some(Duration::from_millis(250)));
    let of_message = Reply::Error(limited.for_message(id("m1")));
    assert_eq!(parse(encode(&of_message).trim_end()), Ok(of_message));
    // Nobody waits for nothing, and the pause of another server's text is not guessed.
    let none = ErrorReply::rate_limited("x", Duration::ZERO);
    assert_eq!(none.retry_after(), Some(Duration::from_millis(1)));
    let without = ErrorReply::new(ErrorCode::RateLimited, "retry in a while");
    assert_eq!(without.retry_after(), Some(Duration::from_secs(1)));
    let other = ErrorReply::new(ErrorCode::NoRoute, "x; retry in 5 ms");
    assert_eq!(other.retry_after(), None);
}
