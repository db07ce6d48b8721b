//! Compares received messages with sent ones: each exactly once, byte for byte.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use ciphermq_files::advice;

use crate::exit::Failure;
use crate::output::Payload;

/// The messages of a file, each as two hashes with random keys, so that large files can be compared
/// in memory.
pub(super) struct Expected {
    hashers: [RandomState; 2],
    messages: HashMap<[u64; 2], u64>,
    count: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    message: Option<&'a RawValue>,
    message_base64: Option<String>,
}

/// Deserializes a present `null` as `Some`: it is a message, too.
fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Expected {
    /// Reads the file to be sent.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be read.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let mut expected = Self {
            hashers: Default::default(),
            messages: HashMap::new(),
            count: 0,
        };
        let lines = each_line(file, |line| {
            if !line.is_empty() {
                let hash = expected.hash(&as_received(line));
                *expected.messages.entry(hash).or_default() += 1;
                expected.count += 1;
            }
        });
        lines.map_err(|error| {
            Failure::new(
                format!("The file {} cannot be read: {error}.", file.display()),
                advice(&error).unwrap_or("Name a file with one message per line, with --file."),
            )
        })?;
        Ok(expected)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of messages.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Compares an output of `receive`.
    ///
    /// # Errors
    ///
    /// [`Failure`] with the numbers of messages that are missing, duplicated, or were never sent.
    pub(super) fn compare(&self, output: &Path) -> Result<(), Failure> {
        let mut left = self.messages.clone();
        let (mut unknown, mut broken) = (0u64, 0u64);
        let lines = each_line(output, |line| match received(line) {
            Some(message) => {
                let hash = self.hash(&message);
                match left.get_mut(&hash) {
                    Some(count @ 1..) => *count -= 1,
                    _ => unknown += 1,
                }
            }
            None => broken += 1,
        });
        lines.map_err(|error| {
            Failure::plain(format!(
                "The output {} cannot be read: {error}.",
                output.display()
            ))
        })?;
        let missing: u64 = left.values().sum();
        if (missing, unknown, broken) == (0, 0, 0) {
            return Ok(());
        }
        Err(Failure::new(
            format!(
                "The received messages are not those that were sent: {missing} messages are \
                 missing, {unknown} are duplicates or were never sent, {broken} lines cannot be \
                 read."
            ),
            format!(
                "This must never happen. Please report it, with the folder of {}.",
                output.display()
            ),
        ))
    }

    fn hash(&self, message: &Message) -> [u64; 2] {
        self.hashers
            .each_ref()
            .map(|hasher| hasher.hash_one(message))
    }
}

/// A message in the form of an output line.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Message {
    Json(String),
    Bytes(Vec<u8>),
}

fn as_received(line: &[u8]) -> Message {
    match Payload::of(line) {
        Payload::Json(json) => Message::Json(json.get().to_owned()),
        // Text is a JSON string in the output.
        Payload::Text(text) => Message::Json(serde_json::to_string(text).unwrap_or_default()),
        Payload::Bytes(bytes) => Message::Bytes(bytes.to_owned()),
    }
}

fn received(line: &[u8]) -> Option<Message> {
    match serde_json::from_slice(line).ok()? {
        Line {
            message: Some(json),
            message_base64: None,
        } => Some(Message::Json(json.get().to_owned())),
        Line {
            message: None,
            message_base64: Some(text),
        } => Some(Message::Bytes(STANDARD.decode(text).ok()?)),
        Line { .. } => None,
    }
}

fn each_line(path: &Path, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = line
            .strip_suffix(b"\n")
            .map_or(&line[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
        visit(text);
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Received;

    fn files(sent: &[&[u8]], arrived: &[&[u8]]) -> Result<(), Failure> {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::write(&input, sent.join(&b"\n"[..])).unwrap();
        let mut lines = Vec::new();
        for payload in arrived {
            let received_time = jiff::Timestamp::UNIX_EPOCH;
            Received {
                message_id: "m",
                sender: None,
                is_sender_verified: true,
                payload,
                sent_time: None,
                received_time,
            }
            .write(&mut lines);
        }
        std::fs::write(&output, lines).unwrap();
        Expected::read(&input).unwrap().compare(&output)
    }

    #[test]
    fn equal_messages_are_equal_whatever_their_content() {
        let messages: &[&[u8]] = &[
            b"{\"a\": 1.10}",
            b"text",
            b"\"text\"",
            b"\xff\xfe",
            b"same",
            b"same",
            b"null",
            "Zürich".as_bytes(),
        ];
        files(messages, messages).unwrap();
        let reversed: Vec<&[u8]> = messages.iter().rev().copied().collect();
        files(messages, &reversed).unwrap();
    }

    #[test]
    fn every_difference_is_found() {
        let sent: &[&[u8]] = &[b"{\"a\":1}", b"b", b"b"];
        for (arrived, says) in [
            (&[&b"{\"a\":1}"[..], b"b"][..], "1 messages are missing, 0"),
            (
                &[b"{\"a\":1}", b"b", b"b", b"b"],
                "0 messages are missing, 1",
            ),
            (
                &[b"{\"a\":1}", b"{\"a\":1}", b"b"],
                "1 messages are missing, 1",
            ),
            (&[b"{\"a\": 1}", b"b", b"b"], "1 messages are missing, 1"),
            (&[], "3 messages are missing, 0"),
        ] {
            let failure = files(sent, arrived).unwrap_err().to_string();
            assert!(failure.contains(says), "{failure}");
        }
    }

    #[test]
    fn unreadable_lines_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::write(&input, "a\r\n\n\r\n").unwrap();
        std::fs::write(
            &output,
            "{\"message\":\"a\"}\nrubbish\n{\"message_id\":\"x\"}\n",
        )
        .unwrap();
        let expected = Expected::read(&input).unwrap();
        assert_eq!(expected.count(), 1);
        assert!(
            expected
                .compare(&output)
                .unwrap_err()
                .to_string()
                .contains("2 lines cannot be read")
        );
    }
}
