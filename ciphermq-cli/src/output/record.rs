//! The lines of outputs and quarantines, as JSON.
//!
//! ```text
//! {"message_id":"…","sender":"…","sender_verified":true,"message":…,"sent_time":"…","received_time":"…"}
//! ```
//!
//! `message` is the JSON value, byte for byte, if the payload is JSON; else the payload's text. If
//! the payload is neither, `message_base64` has its bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The beginning of every line, which distinguishes a torn line from other text.
pub(super) const LINE_START: &[u8] = b"{\"message_id\":\"";

/// A received message.
#[derive(Debug, Clone)]
pub(crate) struct Received<'a> {
    pub(crate) message_id: &'a str,
    /// The sender; `None` for older clients that do not identify themselves.
    pub(crate) sender: Option<&'a str>,
    /// Whether the sender has proved its identity.
    pub(crate) is_sender_verified: bool,
    /// The opened payload.
    pub(crate) payload: &'a [u8],
    /// The time of sealing, by the sender's clock; `None` if an older client does not state it.
    pub(crate) sent_time: Option<Timestamp>,
    /// The time of opening, by this machine's clock.
    pub(crate) received_time: Timestamp,
}

impl Received<'_> {
    /// Appends the line, with its line ending.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"message_id\":");
        put_text(out, self.message_id);
        out.extend_from_slice(b",\"sender\":");
        put_optional(out, self.sender);
        out.extend_from_slice(if self.is_sender_verified {
            b",\"sender_verified\":true"
        } else {
            b",\"sender_verified\":false"
        });
        match Payload::of(self.payload) {
            Payload::Json(json) => {
                out.extend_from_slice(b",\"message\":");
                put_json(out, json.get());
            }
            Payload::Text(text) => {
                out.extend_from_slice(b",\"message\":");
                put_text(out, text);
            }
            Payload::Bytes(bytes) => {
                out.extend_from_slice(b",\"message_base64\":");
                put_text(out, &STANDARD.encode(bytes));
            }
        }
        out.extend_from_slice(b",\"sent_time\":");
        match self.sent_time {
            Some(time) => put_time(out, time),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"received_time\":");
        put_time(out, self.received_time);
        out.extend_from_slice(b"}\n");
    }
}

/// A message that could not be opened, for the quarantine file.
#[derive(Debug, Clone)]
pub(crate) struct Unopened<'a> {
    pub(crate) message_id: &'a str,
    /// The reason why it could not be opened.
    pub(crate) reason: &'a str,
    /// The envelope as delivered.
    pub(crate) envelope: &'a [u8],
    /// The time at which opening failed.
    pub(crate) received_time: Timestamp,
}

impl Unopened<'_> {
    /// Appends the line, with its line ending.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"message_id\":");
        put_text(out, self.message_id);
        out.extend_from_slice(b",\"reason\":");
        put_text(out, self.reason);
        match Payload::of(self.envelope) {
            Payload::Json(json) => {
                out.extend_from_slice(b",\"envelope\":");
                put_json(out, json.get());
            }
            Payload::Text(_) | Payload::Bytes(_) => {
                out.extend_from_slice(b",\"envelope_base64\":");
                put_text(out, &STANDARD.encode(self.envelope));
            }
        }
        out.extend_from_slice(b",\"received_time\":");
        put_time(out, self.received_time);
        out.extend_from_slice(b"}\n");
    }
}

/// A payload, classified by its content.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    /// One JSON value, without the white space around it.
    Json(&'a RawValue),
    /// UTF-8 text.
    Text(&'a str),
    /// Anything else.
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Classifies a payload.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::from_str(text).map_or(Self::Text(text), Self::Json),
            Err(_) => Self::Bytes(bytes),
        }
    }

    /// The media type that a sender states.
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Text(_) => "text/plain; charset=utf-8",
            Self::Bytes(_) => "application/octet-stream",
        }
    }
}

/// The fields of an output line that identify its message.
#[derive(Debug, Deserialize)]
pub(super) struct RecordIdentity<'a> {
    #[serde(borrow)]
    pub(super) message_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) sender: Option<Cow<'a, str>>,
    /// Whether the sender has proved its identity. If not, the id alone identifies the message.
    #[serde(default)]
    pub(super) sender_verified: bool,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a time as RFC 3339 in UTC, with milliseconds.
fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    put_text(out, &format!("{time:.3}"));
}

/// Appends a JSON value on one line. Line breaks in JSON can occur only between tokens, where a
/// space means the same.
fn put_json(out: &mut Vec<u8>, json: &str) {
    let start = out.len();
    out.extend_from_slice(json.as_bytes());
    for byte in out
        .iter_mut()
        .skip(start)
        .filter(|byte| matches!(byte, b'\n' | b'\r'))
    {
        *byte = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(payload: &[u8]) -> String {
        let mut out = Vec::new();
        let received_time = "2025-09-08T07:03:00.1234Z".parse().unwrap();
        let sent_time = Some("2025-09-08T07:02:59.5Z".parse().unwrap());
        let sender = Some("sender_1");
        Received {
            message_id: "m-1",
            sender,
            is_sender_verified: true,
            payload,
            sent_time,
            received_time,
        }
        .write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_the_documented_form() {
        assert_eq!(
            line(br#"{"temperature_f": 47.8}"#),
            "{\"message_id\":\"m-1\",\"sender\":\"sender_1\",\"sender_verified\":true,\"message\":{\"temperature_f\": \
             47.8},\
             \"sent_time\":\"2025-09-08T07:02:59.500Z\",\"received_time\":\"2025-09-08T07:03:00.123Z\"}\n"
        );
        assert!(line(b"").as_bytes().starts_with(LINE_START));
    }

    #[test]
    fn json_keeps_its_bytes() {
        for json in [
            "1.10",
            "1e400",
            "12345678901234567890123",
            r#"{"b":1,"a":1,"a":2}"#,
            r#""\u0041\/""#,
            "[ ]",
            "null",
        ] {
            assert!(
                line(json.as_bytes()).contains(&format!(",\"message\":{json},\"sent_time\"")),
                "{json}"
            );
        }
    }

    #[test]
    fn json_with_line_breaks_stays_in_one_line_and_the_same_value() {
        let text = line(b" {\"a\":\r\n \"x\\n\"}\n");
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"]["a"], "x\n");
    }

    #[test]
    fn text_and_bytes_round_trip() {
        for text in [
            "",
            "hello",
            "{\"a\":",
            "tab\t\"quote\" \\ \u{1b} Zürich \u{2028}",
            "1 2",
            "NaN",
        ] {
            let value: serde_json::Value = serde_json::from_str(&line(text.as_bytes())).unwrap();
            assert_eq!(value["message"], text);
        }
        let value: serde_json::Value = serde_json::from_str(&line(b"\xff\x00")).unwrap();
        assert_eq!(
            (&value["message"], value["message_base64"].as_str()),
            (&serde_json::Value::Null, Some("/wA="))
        );
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(matches!(Payload::of(deep.as_bytes()), Payload::Json(_)));
    }

    #[test]
    fn the_sender_of_an_older_client_is_null() {
        let mut out = Vec::new();
        let received_time = Timestamp::UNIX_EPOCH;
        Received {
            message_id: "m",
            sender: None,
            is_sender_verified: false,
            payload: b"x",
            sent_time: None,
            received_time,
        }
        .write(&mut out);
        let line = String::from_utf8(out).unwrap();
        assert_eq!(
            line,
            "{\"message_id\":\"m\",\"sender\":null,\"sender_verified\":false,\"message\":\"x\",\"sent_time\":null,\"received_time\":\"1970-01-01T00:00:00.000Z\"}\n"
        );
    }

    #[test]
    fn quarantine_keeps_the_envelope_whatever_it_is() {
        for (envelope, field) in [
            (
                &b"{\"message_id\":\"m\"}"[..],
                "\"envelope\":{\"message_id\":\"m\"}",
            ),
            (b"\xff", "\"envelope_base64\":\"/w==\""),
        ] {
            let mut out = Vec::new();
            let unopened = Unopened {
                message_id: "m",
                reason: "because \"x\"",
                envelope,
                received_time: Timestamp::UNIX_EPOCH,
            };
            unopened.write(&mut out);
            let line = String::from_utf8(out).unwrap();
            assert!(line.contains(field), "{line}");
            assert!(line.contains("\"reason\":\"because \\\"x\\\"\""), "{line}");
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }
}
