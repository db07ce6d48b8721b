use super::*;
use proptest::prelude::*;

const ENVELOPE: &str = r#"{"message_id":"m-1","receiver_client_id":"r","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"Yw=="}"#;

fn parse(line: &str) -> Result<Command, CommandError> {
    Command::parse(&Bytes::copy_from_slice(line.as_bytes()))
}

fn reply_to(line: &str) -> String {
    replies(&parse(line).unwrap_err())
}

fn replies(error: &CommandError) -> String {
    let mut out = BytesMut::new();
    for reply in error.replies() {
        reply.encode(&mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

fn encode(command: &Command) -> String {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// Two own parts of a packed line, and their shared part.
const PACKED: &str = r#"2 {"message_id":"m-1","sent_time":"t","nonce":"Yg==","ciphertext":"Yw==","tag":"ZA=="} {"message_id":"m-2","sent_time":"t","nonce":"Yg==","ciphertext":"","tag":"ZA=="} {"receiver_client_id":"r","enc_session_key":"YQ==","suite":"a b"}"#;

/// Every command in every form, as on the wire.
fn lines() -> Vec<String> {
    let fingerprint = "0123456789abcdef".repeat(4);
    vec![
        "declare_queue q".into(),
        "declare_exchange e".into(),
        "bind q e k".into(),
        format!("publish e k {ENVELOPE}"),
        format!(
            "publish_batch e k [{ENVELOPE},{}]",
            ENVELOPE.replace("m-1", "m-2")
        ),
        format!("publish_packed e k {PACKED}"),
        "consume q".into(),
        "consume q 4294967295".into(),
        "fetch q".into(),
        "ack m-1".into(),
        "ack m-1 m-2 m-3".into(),
        "reject m-1 cannot be opened: wrong key".into(),
        "reject m-1 ".into(),
        "resend m-1".into(),
        "register_public_key AAAA".into(),
        "register_key r AAAA".into(),
        "get_public_key r".into(),
        "register_signed_key a.b.c".into(),
        "get_signed_key r".into(),
        "get_certificate r".into(),
        format!("get_certificate r {fingerprint}"),
        "register_certificate AA==,AQ==".into(),
        "get_crl".into(),
        r#"hello {"consumer":"c"}"#.into(),
        r#"list_rejected {"limit":10}"#.into(),
        r#"can_i {"action":"publish","exchange":"e","receiver":"r"}"#.into(),
        r#"list_waiting_keys {"after":{"queue":1,"seq":2}}"#.into(),
        "unbind q e k".into(),
        "delete_queue q".into(),
        "delete_queue q if-empty".into(),
        "delete_queue q if-empty if-unused".into(),
        "delete_exchange e".into(),
        "delete_exchange e if-unused".into(),
        "purge_queue q".into(),
        r#"list_queues {"after":"q","limit":10}"#.into(),
        r#"list_exchanges {"exchange":"e"}"#.into(),
        r#"list_bindings {"after":{"exchange":"e","routing_key":"k","queue":7}}"#.into(),
        r#"list_connections {"after":7,"client":"c","limit":10}"#.into(),
        "close_connection 18446744073709551615".into(),
        r#"list_clients {"after":"c"}"#.into(),
        "block_client c".into(),
        "unblock_client c".into(),
        "list_ends".into(),
        "reload".into(),
        "ping".into(),
        "heartbeat".into(),
    ]
}

#[test]
fn every_command_round_trips() {
    for line in lines() {
        assert_eq!(encode(&parse(&line).unwrap()), format!("{line}\n"));
    }
}

#[test]
fn older_spellings_are_equivalent() {
    assert_eq!(
        parse("get_key r").unwrap(),
        parse("get_public_key r").unwrap()
    );
    assert_eq!(parse("hello").unwrap(), parse("hello {}").unwrap());
    assert_eq!(
        parse("list_rejected").unwrap(),
        parse("list_rejected {}").unwrap()
    );
    assert_eq!(
        parse("delete_queue q if-unused if-empty").unwrap(),
        parse("delete_queue q if-empty if-unused").unwrap()
    );
    for word in ["list_queues", "list_exchanges", "list_bindings"] {
        assert_eq!(
            parse(word).unwrap(),
            parse(&format!("{word} {{}}")).unwrap()
        );
    }
    assert_eq!(
        parse("list_waiting_keys").unwrap(),
        parse("list_waiting_keys {}").unwrap()
    );
}

#[test]
fn missing_arguments_get_the_documented_replies() {
    for (line, reply) in [
        ("declare_queue", "Missing queue name\n"),
        ("declare_queue ", "Missing queue name\n"),
        ("declare_exchange", "Missing exchange name\n"),
        ("bind", "Missing parameters\n"),
        ("bind q", "Missing parameters\n"),
        ("bind q e", "Missing parameters\n"),
        ("bind q e ", "Missing parameters\n"),
        ("publish", "Missing parameters\n"),
        ("publish e", "Missing parameters\n"),
        ("publish e k", "Missing parameters\n"),
        ("publish_batch e k ", "Missing parameters\n"),
        ("publish_packed e k ", "Missing parameters\n"),
        ("register_certificate", "Missing parameters\n"),
        ("consume", "Missing queue name\n"),
        ("fetch", "Missing queue name\n"),
        ("ack", "Missing message ID\n"),
        ("reject", "Missing message ID\n"),
        ("resend", "Missing message ID\n"),
        ("register_public_key", "Missing public key\n"),
        ("register_key", "Missing client ID\n"),
        ("register_key r", "Missing public key\n"),
        ("get_public_key", "Missing client ID\n"),
        ("get_key", "Missing client ID\n"),
        ("get_signed_key", "Missing client ID\n"),
        ("get_certificate", "Missing client ID\n"),
        ("unbind", "Missing parameters\n"),
        ("unbind q e", "Missing parameters\n"),
        ("delete_queue", "Missing queue name\n"),
        ("delete_exchange", "Missing exchange name\n"),
        ("purge_queue", "Missing queue name\n"),
        ("close_connection", "Missing parameters\n"),
        (
            "close_connection -1",
            "Error: bad_argument: a connection is a number of `list_connections`\n",
        ),
        ("block_client", "Missing client ID\n"),
        ("unblock_client", "Missing client ID\n"),
        ("register_signed_key", "Missing public key\n"),
    ] {
        assert_eq!(reply_to(line), reply, "{line:?}");
    }
}

#[test]
fn other_lines_are_unknown_commands() {
    for line in [
        "",
        " ",
        "publishe k",
        " ping",
        "Ping",
        "\u{feff}ping",
        "GET / HTTP/1.1",
        "{}",
    ] {
        assert_eq!(reply_to(line), "Unknown command\n", "{line:?}");
    }
}

#[test]
fn invalid_names_are_refused_with_a_code() {
    for line in [
        "declare_queue a b",
        "declare_queue a\u{7}",
        "bind q e k x",
        "ack m-1  m-2",
        "get_key a\tb",
    ] {
        let reply = reply_to(line);
        assert!(
            reply.starts_with("Error: bad_name: ") || reply == "Missing message ID\n",
            "{line:?}: {reply}"
        );
        assert_eq!(reply.matches(char::is_control).count(), 1, "{reply:?}");
    }
    assert!(
        reply_to(&format!("declare_queue {}", "x".repeat(256)))
            .starts_with("Error: bad_name: queue: ")
    );
}

#[test]
fn malformed_arguments_are_refused_with_a_code() {
    for line in [
        "consume q 0",
        "consume q -1",
        "consume q x",
        "consume q +1",
        "consume q 1.0",
        "get_certificate r 00",
        "get_certificate r x y",
        "hello x",
        "hello []",
        "hello {\"consumer\":1}",
        "hello {} {}",
        "list_rejected null",
        "list_rejected {\"limit\":-1}",
        "list_waiting_keys [null,null]",
        "delete_queue q if-emptied",
        "delete_queue q if-empty ",
        "delete_exchange e if-empty",
        "list_queues {\"after\":\"a b\"}",
        "list_exchanges []",
        "list_bindings {\"after\":{}}",
    ] {
        assert!(
            reply_to(line).starts_with("Error: bad_argument: "),
            "{line:?}"
        );
    }
    let error = Command::parse(&Bytes::from_static(b"declare_queue \xff")).unwrap_err();
    assert!(replies(&error).starts_with("Error: not_utf8: "));
}

#[test]
fn a_prefetch_that_overflows_is_clamped() {
    for prefetch in ["4294967296", "18446744073709551616", &"9".repeat(300)] {
        let line = format!("consume q {prefetch}");
        assert_eq!(
            parse(&line).unwrap(),
            parse("consume q 4294967295").unwrap()
        );
    }
}

/// The sender expects a line for each message of a batch; only a malformed batch gets a single
/// line.
#[test]
fn a_batch_with_an_invalid_route_is_refused_message_by_message() {
    let other = ENVELOPE.replace("m-1", "m-2");
    let name = "x".repeat(256);
    for (route, what) in [
        ("e\u{7} k", "exchange"),
        (&format!("{name} k"), "exchange"),
        ("e k\u{200b}", "routing key"),
        (&format!("e {name}"), "routing key"),
    ] {
        for line in [
            format!("publish_batch {route} [{ENVELOPE},{other}]"),
            format!("publish_packed {route} {PACKED}"),
        ] {
            let replies = reply_to(&line);
            let lines: Vec<&str> = replies.lines().collect();
            assert_eq!(lines.len(), 2, "{lines:?}");
            for (line, id) in lines.iter().zip(["m-1", "m-2"]) {
                assert!(
                    line.starts_with(&format!("Error: bad_name: {what}: ")),
                    "{line}"
                );
                assert!(line.ends_with(&format!(" for message {id}")), "{line}");
            }
        }
        let single = reply_to(&format!("publish {route} {ENVELOPE}"));
        assert!(
            single.starts_with(&format!("Error: bad_name: {what}: ")),
            "{single}"
        );
        let none = reply_to(&format!("publish_batch {route} [{{}}]"));
        assert!(
            none.starts_with("Invalid batch format: ") && none.lines().count() == 1,
            "{none}"
        );
    }
}

#[test]
fn malformed_envelopes_get_the_documented_replies() {
    for json in ["x", "[]", "{}", "null", r#"{"message_id":"m"}"#] {
        assert!(
            reply_to(&format!("publish e k {json}")).starts_with("Invalid message format: "),
            "{json}"
        );
    }
    for json in [
        "x",
        "[]",
        "{}",
        "[1]",
        "[{}]",
        &format!("[{ENVELOPE},{{}}]"),
        &format!("[{ENVELOPE}] x"),
        ENVELOPE,
    ] {
        assert!(
            reply_to(&format!("publish_batch e k {json}")).starts_with("Invalid batch format: "),
            "{json}"
        );
    }
}

#[test]
fn the_envelopes_of_a_batch_are_kept_byte_for_byte_and_share_its_memory() {
    let spaced = ENVELOPE.replace(',', " ,  ");
    let line = Bytes::from(format!("publish_batch e k  [ {ENVELOPE} , {spaced} ] "));
    let Command::PublishBatch { envelopes, .. } = Command::parse(&line).unwrap() else {
        panic!("no batch")
    };
    assert_eq!(envelopes[0].raw().to_bytes(), ENVELOPE);
    assert_eq!(envelopes[1].raw().to_bytes(), spaced);
    let memory = line.as_ptr_range();
    assert!(
        envelopes
            .iter()
            .all(|envelope| memory.contains(&envelope.raw().own().as_ptr()))
    );
}

#[test]
fn no_truncated_line_is_parsed_as_a_publish() {
    for line in lines() {
        for end in 0..line.len() {
            match parse(&line[..end]) {
                Ok(command) => assert!(
                    !matches!(
                        command,
                        Command::Publish { .. } | Command::PublishBatch { .. }
                    ),
                    "{end} of {line}"
                ),
                Err(error) => assert_eq!(replies(&error).matches('\n').count(), 1),
            }
        }
    }
}

#[test]
fn a_reason_with_a_line_ending_stays_one_line() {
    let reject = Command::Reject {
        message_id: MessageId::new("m").unwrap(),
        reason: "a\nping\r\n".into(),
    };
    assert_eq!(encode(&reject), "reject m a ping  \n");
}

#[test]
fn reply_lines_are_counted() {
    let counts: Vec<usize> = lines()
        .iter()
        .map(|line| parse(line).unwrap().reply_lines())
        .collect();
    assert_eq!(
        counts.iter().filter(|count| **count == 1).count(),
        lines().len() - 3
    );
    assert_eq!((counts[4], counts[5], counts[10]), (2, 2, 3));
}

proptest! {
    #[test]
    fn no_line_panics_and_every_command_round_trips(line in "\\PC*|(publish|publish_packed|ack|bind|delete_queue|consume|hello|reject|get_certificate) \
        \\PC*") {
        if let Ok(command) = parse(&line) {
            prop_assert_eq!(parse(encode(&command).trim_end_matches('\n')).unwrap(), command);
        }
    }

    #[test]
    fn no_bytes_panic(line: Vec<u8>) {
        let _ = Command::parse(&Bytes::from(line));
    }

    #[test]
    fn names_round_trip(queue in "[!-~]{1,255}", exchange in "[a-zÀ-ž温]{1,40}", key in "[!-~]{1,50}") {
        let bind = Command::Bind {
            queue: QueueName::new(&queue).unwrap(),
            exchange: ExchangeName::new(&exchange).unwrap(),
            routing_key: RoutingKey::new(&key).unwrap(),
        };
        prop_assert_eq!(parse(encode(&bind).trim_end_matches('\n')).unwrap(), bind);
    }
}
