use super::*;
use crate::envelope::OwnPart;
use crate::name::MessageId;
use crate::{Command, Delivery, LineDecoder, PackedLines, Reply, messages_at_most};

const SHARED: &str = r#"{"receiver_client_id":"receiver_1","enc_session_key":"AA=="}"#;

fn envelopes(ids: &[&str]) -> Vec<EnvelopeBytes> {
    let shared = after_brace(SHARED.as_bytes()).unwrap();
    let own = |id: &&str| {
        OwnPart {
            message_id: &MessageId::new(id).unwrap(),
            sent_time: "t",
            nonce: &[10; 12],
            ciphertext: b"\nsealed {\n",
            tag: &[1; 16],
        }
        .to_binary()
    };
    let own = ids.iter().map(|id| own(id).unwrap());
    own.map(|own| EnvelopeBytes::packed(own, shared.clone()))
        .collect()
}

/// Decodes a stream byte by byte.
fn decode(stream: &[u8], limit: usize) -> Vec<Option<Bytes>> {
    let (mut decoder, mut buffer) = (LineDecoder::new(limit), BytesMut::new());
    let mut lines = Vec::new();
    for byte in stream {
        buffer.put_u8(*byte);
        match decoder.decode(&mut buffer) {
            Ok(None) => {}
            Ok(line) => lines.push(line),
            Err(_) => {
                lines.push(None);
                return lines;
            }
        }
    }
    assert!(buffer.is_empty(), "{buffer:?}");
    lines
}

fn publish(ids: &[&str]) -> BytesMut {
    let mut line = BytesMut::new();
    let envelopes = envelopes(ids);
    put(
        PUBLISH,
        "e k ",
        envelopes.iter(),
        envelopes[0].shared().unwrap(),
        &mut line,
    );
    line
}

#[test]
fn a_publish_is_a_line_and_bytes_and_reads_back() {
    let line = publish(&["m-1", "m-2"]);
    let own = 3 + 3 + 1 + 12 + 16 + 10;
    let header = format!("publish_binary {} e k 2 {SHARED}\n", 2 * (4 + own));
    assert!(line.starts_with(header.as_bytes()));
    assert!(line[header.len()..].starts_with(&[0, 0, 0, 45, 1, 3, 1, b'm']));
    let stream = [&b"ping\n"[..], &line, b"heartbeat\r\n", &line].concat();
    let lines = decode(&stream, 1000);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0].as_deref(), Some(&b"ping"[..]));
    assert_eq!(lines[2].as_deref(), Some(&b"heartbeat"[..]));
    for line in [&lines[1], &lines[3]] {
        let Ok(command) = Command::parse(line.as_ref().unwrap()) else {
            panic!("{line:?}")
        };
        let Command::PublishPacked {
            exchange,
            routing_key,
            envelopes: read,
        } = &command
        else {
            panic!("{command:?}")
        };
        assert_eq!((exchange.as_str(), routing_key.as_str()), ("e", "k"));
        let raw: Vec<_> = read.iter().map(|envelope| envelope.raw().clone()).collect();
        assert_eq!(raw, envelopes(&["m-1", "m-2"]));
        assert!(raw.iter().all(EnvelopeBytes::is_binary));
        let mut again = BytesMut::new();
        command.encode(&mut again);
        assert_eq!(again, publish(&["m-1", "m-2"]));
    }
    assert_eq!(messages_at_most(&line), 2);
}

#[test]
fn the_line_may_end_with_a_carriage_return() {
    let line = publish(&["m-1"]);
    let end = memchr::memchr(b'\n', &line).unwrap();
    let with_return = [&line[..end], b"\r", &line[end..]].concat();
    let lines = decode(&with_return, 1000);
    assert!(Command::parse(lines[0].as_ref().unwrap()).is_ok());
}

#[test]
fn the_limit_counts_the_line_and_the_bytes_after_it() {
    let line = publish(&["m-1", "m-2"]);
    assert!(decode(&line, line.len() - 1)[0].is_some());
    assert_eq!(decode(&line, line.len() - 2), [None]);
    let long = format!("publish_binary {} e k 1 {{}}\n", u128::MAX);
    assert_eq!(decode(long.as_bytes(), 1000), [None]);
    // Without a number they are lines, and refused.
    for word in [
        "publish_binary x e k 1 {}",
        "publish_binary  e",
        "publish_binary",
    ] {
        let lines = decode(format!("{word}\n").as_bytes(), 1000);
        assert!(
            Command::parse(lines[0].as_ref().unwrap()).is_err(),
            "{word}"
        );
    }
}

#[test]
fn every_truncation_and_wrong_length_is_refused() {
    let line = publish(&["m-1", "m-2"]);
    let header = memchr::memchr(b'\n', &line).unwrap() + 1;
    for length in header..line.len() {
        let cut = Bytes::copy_from_slice(&line[..length]);
        assert!(Command::parse(&cut).is_err(), "{length}");
    }
    for (count, is_good) in [
        ("2", true),
        ("1", false),
        ("3", false),
        ("0", false),
        ("x", false),
    ] {
        let text =
            String::from_utf8_lossy(&line[..header]).replace(" 2 {", &format!(" {count} {{"));
        let frame = Bytes::from([text.as_bytes(), &line[header..]].concat());
        assert_eq!(Command::parse(&frame).is_ok(), is_good, "{count}");
    }
    for length in [0u32, 1, 44, 46, 1 << 31, u32::MAX] {
        let mut bad = line.clone();
        bad[header..header + 4].copy_from_slice(&length.to_be_bytes());
        assert!(Command::parse(&bad.freeze()).is_err(), "{length}");
    }
}

#[test]
fn deliveries_are_written_in_the_form_that_the_client_takes() {
    let deliveries: Vec<Delivery> = envelopes(&["m-1", "m-2"])
        .into_iter()
        .zip(["m-1", "m-2"])
        .map(|(envelope, id)| Delivery {
            message_id: MessageId::new(id).unwrap(),
            envelope,
        })
        .collect();
    for takes_binary in [true, false] {
        let mut out = BytesMut::new();
        let taken = PackedLines {
            binary: takes_binary,
            ..PackedLines::ALL
        };
        Delivery::encode_packed(&deliveries, taken, &mut out);
        let word = if takes_binary {
            DELIVER
        } else {
            "Messages: 2 {\"message_id\""
        };
        assert!(out.starts_with(word.as_bytes()), "{out:?}");
        let lines = decode(&out, 1000);
        assert_eq!(lines.len(), 1);
        let read = Reply::parse(lines[0].as_ref().unwrap()).unwrap();
        assert_eq!(read, Reply::Messages(deliveries.clone()));
    }
    let mut whole = BytesMut::new();
    deliveries[0].encode(&mut whole);
    let text = deliveries[0].envelope.to_bytes();
    assert_eq!(whole, [&b"Message: m-1 "[..], &text, b"\n"].concat());
    assert!(text.starts_with(b"{\"message_id\":\"m-1\",") && text.ends_with(b"}"));
}
