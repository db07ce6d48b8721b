//! Invalid input: each is answered with a clear error, and other clients are not affected.

use std::time::Duration;

use ciphermq_tests::server::Options;
use ciphermq_tests::{
    Backend, EnvelopeText, Fixture, PATIENCE, RawClient, Server, on_both_databases, run_cases,
};

const MIB: usize = 1 << 20;

async fn broken_lines(backend: Backend) {
    let options = backend
        .options()
        .await
        .set("limits", "max_line_bytes", 64 * 1024);
    let server = Server::start(options).await;
    run_cases!(
        server,
        [
            broken_utf8,
            control_characters,
            invalid_json,
            envelopes_without_fields,
            fields_of_the_wrong_type,
            duplicate_keys,
            deep_nesting,
            rejection_reasons_with_any_text,
            lines_at_the_limit_and_over_it,
            lines_far_over_the_limit,
            packed_lines_that_expand_beyond_the_limit,
            an_ack_of_thousands_of_messages,
            connections_that_end_within_a_line,
        ]
    );
}

on_both_databases!(broken_lines);

/// Expects an error in reply to a line, and that the connection remains usable.
async fn expect_error(
    fixture: &Fixture,
    client: &mut RawClient,
    line: impl AsRef<[u8]>,
    reply: &str,
) {
    let line = line.as_ref();
    client.send_bytes([line, b"\n"].concat()).await;
    let answer = client.line().await;
    assert!(
        answer.starts_with(reply),
        "{answer:?} in answer to {}",
        String::from_utf8_lossy(line)
    );
    assert!(!answer.chars().any(char::is_control), "{answer:?}");
    client
        .ask(&format!("fetch {}", fixture.id("q")), "No messages")
        .await;
}

async fn broken_utf8(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let not_utf8 = "Error: not_utf8: a line must be UTF-8";
    let envelope = fixture.envelope("m").set("note", "@").to_string();
    let broken = [
        b"publish ",
        fixture.id("e").as_bytes(),
        b" k ",
        envelope.replace('@', "").as_bytes(),
    ]
    .concat();
    for line in [
        b"\xff".to_vec(),
        b"ping \xc3".to_vec(),
        b"declare_queue a\x80b".to_vec(),
        // An overlong encoding of '/', a surrogate, and a code point beyond Unicode.
        b"declare_queue \xc0\xaf".to_vec(),
        b"declare_queue \xed\xa0\x80".to_vec(),
        b"declare_queue \xf4\x90\x80\x80".to_vec(),
        [broken.as_slice(), b"\xfe"].concat(),
    ] {
        expect_error(&fixture, &mut client, line, not_utf8).await;
    }
}

async fn control_characters(fixture: Fixture) {
    let mut client = fixture.sender().await;
    for control in [
        "\0",
        "\u{1}",
        "\t",
        "\u{b}",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{200b}",
    ] {
        for command in [
            "declare_queue",
            "declare_exchange",
            "fetch",
            "ack",
            "resend",
            "get_key",
            "get_certificate",
        ] {
            expect_error(
                &fixture,
                &mut client,
                format!("{command} a{control}b"),
                "Error: bad_name: ",
            )
            .await;
        }
        let named = fixture
            .envelope("m")
            .set("message_id", format!("a{control}b"));
        expect_error(
            &fixture,
            &mut client,
            fixture.publish(&named),
            "Invalid message format: message_id: ",
        )
        .await;
    }
    expect_error(&fixture, &mut client, "\0\0\0", "Unknown command").await;
    expect_error(&fixture, &mut client, "ping\0", "Unknown command").await;
}

async fn invalid_json(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let good = fixture.envelope("m").to_string();
    let mut bad: Vec<String> = [
        "{", "}", "null", "[]", "7", "\"text\"", "{]", "nonsense", "{'a':1}", "{\"a\":}", "NaN",
    ]
    .map(str::to_owned)
    .into();
    // Truncated JSON, at various lengths.
    bad.extend((1..good.len()).step_by(7).map(|end| good[..end].to_owned()));
    bad.extend([
        format!("{good}{good}"),
        format!("{good},"),
        format!("{good} x"),
        good.replacen('"', "\"\\x", 1),
    ]);
    bad.push(good.replacen("\"}", "\",}", 1));
    bad.push(good.replacen(":\"A", ":\"\\ud800A", 1));
    for json in bad {
        expect_error(
            &fixture,
            &mut client,
            fixture.publish(&json),
            "Invalid message format: ",
        )
        .await;
        expect_error(
            &fixture,
            &mut client,
            fixture.publish_batch(&[&good, &json]),
            "Invalid batch format: ",
        )
        .await;
    }
}

async fn envelopes_without_fields(fixture: Fixture) {
    let mut client = fixture.sender().await;
    for field in [
        "message_id",
        "receiver_client_id",
        "enc_session_key",
        "nonce",
        "ciphertext",
    ] {
        let lacking = fixture.envelope("m").without(field);
        let text = format!("Invalid message format: missing field `{field}`");
        expect_error(&fixture, &mut client, fixture.publish(&lacking), &text).await;
    }
    expect_error(
        &fixture,
        &mut client,
        fixture.publish(&"{}"),
        "Invalid message format: missing field",
    )
    .await;
}

async fn fields_of_the_wrong_type(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let long = "x".repeat(256);
    for field in [
        "message_id",
        "receiver_client_id",
        "enc_session_key",
        "nonce",
        "ciphertext",
        "suite",
        "sender_client_id",
    ] {
        for value in [
            serde_json::json!(7),
            serde_json::json!([]),
            serde_json::json!({}),
            serde_json::json!(true),
        ] {
            let bad = fixture.envelope("m").set(field, value);
            expect_error(
                &fixture,
                &mut client,
                fixture.publish(&bad),
                "Invalid message format: ",
            )
            .await;
        }
    }
    for field in [
        "message_id",
        "receiver_client_id",
        "sender_client_id",
        "exchange",
        "routing_key",
    ] {
        for value in ["", "a b", long.as_str()] {
            let bad = fixture.envelope("m").set(field, value);
            let text = format!("Invalid message format: {field}: a name ");
            expect_error(&fixture, &mut client, fixture.publish(&bad), &text).await;
        }
    }
}

async fn duplicate_keys(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let good = fixture.envelope("m").set("unknown", 1).to_string();
    for twice in [
        "\"message_id\":\"x\"",
        "\"tag\":null",
        "\"unknown\":2",
        "\"unkno\\u0077n\":3",
        "\"n\\u006fnce\":\"x\"",
    ] {
        let bad = good.replacen('{', &format!("{{{twice},"), 1);
        // An escaped key is the same key; the envelope already contains `tag`.
        expect_error(
            &fixture,
            &mut client,
            fixture.publish(&bad),
            "Invalid message format: duplicate field `",
        )
        .await;
    }
}

/// Parsing does not recurse, so any depth is handled. Unknown fields are kept unchanged.
async fn deep_nesting(fixture: Fixture) {
    let mut client = fixture.sender().await;
    let mut receiver = fixture.receiver(10).await;
    for (name, open, close) in [("arrays", "[", "]"), ("objects", "{\"a\":", "}")] {
        let depth = 60_000 / (open.len() + close.len());
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        expect_error(
            &fixture,
            &mut client,
            fixture.publish(&nested),
            "Invalid message format: ",
        )
        .await;
        let batch = format!("publish_batch {} k {nested}", fixture.id("e"));
        expect_error(&fixture, &mut client, batch, "Invalid batch format: ").await;
        let hello = format!("hello {{\"consumer\":{nested}}}");
        expect_error(&fixture, &mut client, hello, "Error: bad_argument: ").await;
        expect_error(
            &fixture,
            &mut client,
            open.repeat(60_000 / open.len()),
            "Unknown command",
        )
        .await;
        let envelope =
            fixture
                .envelope(name)
                .to_string()
                .replacen('{', &format!("{{\"x\":{nested},"), 1);
        fixture.publish_acked(&mut client, name, &envelope).await;
        receiver.expect(&fixture.delivery(name, &envelope)).await;
        let unfinished = envelope.replacen(close, "", 1);
        expect_error(
            &fixture,
            &mut client,
            fixture.publish(&unfinished),
            "Invalid message format: ",
        )
        .await;
    }
}

async fn rejection_reasons_with_any_text(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.receiver(100).await;
    let odd = [
        "",
        " ",
        "\0",
        "a\0b",
        "\u{1b}[2J\u{202e}",
        "'; DROP TABLE messages; --",
        "\u{1F512} 温度",
    ];
    for (index, reason) in odd.iter().enumerate() {
        let message = format!("m{index}");
        let (envelope, id) = (fixture.envelope(&message), fixture.id(&message));
        sender
            .ask(&fixture.publish(&envelope), &format!("ACK {id}"))
            .await;
        receiver
            .expect(&fixture.delivery(&message, &envelope))
            .await;
        receiver
            .ask(&format!("reject {id} {reason}"), &format!("Rejected {id}"))
            .await;
    }
    let kept = format!(
        "SELECT count(*) FROM rejected_messages WHERE message_id LIKE '%{}'",
        fixture.id("")
    );
    let odd = i64::try_from(odd.len()).unwrap();
    assert_eq!(fixture.server.database().await.number(&kept).await, odd);
}

const LIMIT: usize = 64 * 1024;
const TOO_LONG: &str = "Error: line_too_long: a line has at most 65536 bytes";

async fn lines_at_the_limit_and_over_it(fixture: Fixture) {
    let mut bystander = fixture.client("bystander").await;
    let mut sender = fixture.sender().await;
    let length = fixture
        .publish(&fixture.envelope("m").set("ciphertext", ""))
        .len();
    let longest = fixture
        .envelope("m")
        .set("ciphertext", "x".repeat(LIMIT - length));
    let line = fixture.publish(&longest);
    assert_eq!(line.len(), LIMIT);
    sender.ask(&line, &format!("ACK {}", fixture.id("m"))).await;
    // The line ending does not count, whether it has one byte or two.
    sender
        .ask(&format!("{line}\r"), &format!("ACK {}", fixture.id("m")))
        .await;
    sender.send_bytes(format!("ping\n{line}x\nping\n")).await;
    sender.expect("PONG").await;
    sender.expect(TOO_LONG).await;
    sender.expect_closed().await;

    let mut endless = fixture.client("endless").await;
    endless.send_bytes("x".repeat(LIMIT + 1)).await;
    endless.expect(TOO_LONG).await;
    endless.expect_closed().await;
    bystander.ask("ping", "PONG").await;
}

/// The reply arrives although the client is still sending.
async fn lines_far_over_the_limit(fixture: Fixture) {
    for _ in 0..5 {
        let mut client = fixture.client("client").await;
        // The server does not wait for the rest.
        let _ = client.try_send(&vec![b'x'; 4 * MIB]).await;
        client.expect(TOO_LONG).await;
        client.expect_closed().await;
    }
}

/// The messages of a packed line are stored with the shared fields in each of them.
async fn packed_lines_that_expand_beyond_the_limit(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.client("receiver").await;
    let own = |index: usize| {
        let id = fixture.id(&format!("m{index:02}"));
        format!(
            r#"{{"message_id":"{id}","sent_time":"","nonce":"AA==","ciphertext":"AA==","tag":"AA=="}}"#
        )
    };
    let (receiver_id, note) = (fixture.id("receiver"), "x".repeat(8000));
    let shared = format!(
        r#"{{"receiver_client_id":"{receiver_id}","enc_session_key":"AA==","note":"{note}"}}"#
    );
    let line = |count: usize| {
        let own: Vec<String> = (0..count).map(own).collect();
        let (exchange, own) = (fixture.id("e"), own.join(" "));
        format!("publish_packed {exchange} k {count} {own} {shared}")
    };
    let fits = LIMIT / (shared.len() + own(0).len());
    sender.send_line(&line(fits)).await;
    for index in 0..fits {
        sender
            .expect(&format!("ACK {}", fixture.id(&format!("m{index:02}"))))
            .await;
    }
    let too_long = line(fits + 2);
    assert!(too_long.len() < LIMIT / 4);
    sender.send_line(&too_long).await;
    sender.expect(TOO_LONG).await;
    sender.expect_closed().await;
    for index in 0..fits {
        let id = fixture.id(&format!("m{index:02}"));
        receiver
            .send_line(&format!("fetch {}", fixture.id("q")))
            .await;
        receiver.expect_prefix(&format!("Message: {id} ")).await;
        receiver.ack(&id).await;
    }
    receiver
        .ask(&format!("fetch {}", fixture.id("q")), "No messages")
        .await;
}

/// An ack may name more ids than one commit handles, and unknown ones among them.
async fn an_ack_of_thousands_of_messages(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.client("receiver").await;
    for name in ["a1", "a2"] {
        let publish = fixture.publish(&fixture.envelope(name));
        sender
            .ask(&publish, &format!("ACK {}", fixture.id(name)))
            .await;
    }
    let mut ids: Vec<String> = (0..10_000).map(|n| format!("{n:x}")).collect();
    ids[4095] = fixture.id("a1");
    ids[9999] = fixture.id("a2");
    receiver.send_line(&format!("ack {}", ids.join(" "))).await;
    for (index, id) in ids.iter().enumerate() {
        let reply = match index {
            4095 | 9999 => format!("ACK_CONFIRMED {id}"),
            _ => format!(
                "Error: not_found: no such message waits or was acknowledged for message {id}"
            ),
        };
        receiver.expect(&reply).await;
    }
    receiver
        .ask(&format!("fetch {}", fixture.id("q")), "No messages")
        .await;
    let too_many = format!("ack a{}", " a".repeat(20_000));
    let refusal =
        "Error: bad_argument: an ack names at most 16384 messages; name the others in another one";
    receiver.ask(&too_many, refusal).await;
}

async fn connections_that_end_within_a_line(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let line = fixture.publish(&fixture.envelope("m"));
    for end in (0..line.len()).step_by(10) {
        let mut client = fixture.client("sender").await;
        client.send_bytes(&line[..end]).await;
        if end % 20 == 0 {
            client.close().await.unwrap();
        }
    }
    // Incomplete lines have no effect.
    sender
        .ask(
            &format!("resend {}", fixture.id("m")),
            "Message ID not found",
        )
        .await;
    sender.ask(&line, &format!("ACK {}", fixture.id("m"))).await;
}

/// A server that may buffer 8 MiB of unfinished lines receives 150 of almost 1 MiB each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_lines_of_many_connections_take_bounded_memory() {
    let options = Options::sqlite().set("limits", "max_line_bytes", "1MiB");
    let mut server = Server::start(options.set("limits", "max_buffered_bytes", "8MiB")).await;
    let mut bystander = RawClient::connect(&server, "bystander").await;
    bystander.ask("declare_queue q", "Queue declared").await;
    bystander
        .ask("declare_exchange e", "Exchange declared")
        .await;
    bystander.ask("bind q e k", "Queue bound").await;
    let before = server.rss_bytes();

    let mut clients = tokio::task::JoinSet::new();
    for index in 0..150 {
        let mut client = RawClient::connect(&server, &format!("unfinished_{}", index % 10)).await;
        clients.spawn(async move {
            // The server stops reading from most of them, which then block.
            let _ = tokio::time::timeout(
                Duration::from_secs(5),
                client.try_send(&vec![b'x'; MIB - 1]),
            )
            .await;
            client
        });
    }
    let clients = clients.join_all().await;
    let grown = server.process().peak_rss_bytes() - before;
    assert!(
        grown < 100 << 20,
        "{} MiB for unfinished lines",
        grown >> 20
    );
    // Meanwhile other clients are served, even with lines that need memory.
    for index in 0..20 {
        let id = format!("m{index}");
        let envelope = EnvelopeText::older(&id, "nobody").set("ciphertext", "x".repeat(50_000));
        bystander
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
    // Clients whose lines do not fit receive an error in time. Those whose lines fit keep their
    // memory until the time limit for an unfinished line.
    let mut waiting = tokio::task::JoinSet::new();
    for mut client in clients {
        waiting.spawn(async move { client.read_line(PATIENCE).await });
    }
    let mut refused = 0;
    while refused < 20 {
        match waiting
            .join_next()
            .await
            .expect("some are refused")
            .unwrap()
        {
            Ok(Some(line)) => {
                assert!(line.starts_with("Error: overloaded: "), "{line}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    bystander.ask("ping", "PONG").await;
    server.terminate().await;
}

/// Replies that a client requests and does not read wait in the database, not in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_are_not_read_take_bounded_memory() {
    let mut server = Server::start(Options::sqlite()).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    const MESSAGES: usize = 100;
    for index in 0..MESSAGES {
        let envelope = EnvelopeText::older(&format!("m{index}"), "receiver")
            .set("ciphertext", "x".repeat(MIB));
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK m{index}"))
            .await;
    }
    let mut receiver = RawClient::connect(&server, "receiver").await;
    let before = server.rss_bytes();
    receiver.send_bytes("fetch q\n".repeat(MESSAGES)).await;
    // By then the server has stopped reading; the sockets buffer some replies.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = server.rss_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "{} MiB for unread replies", grown >> 20);
    for index in 0..MESSAGES {
        receiver.expect_prefix(&format!("Message: m{index} ")).await;
    }
    server.terminate().await;
}
