//! What `ciphermq-cli receive` has written, read as strictly as a program of somebody else's would.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A line of an output. Any other field, or one that is missing, is an error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// The message's id.
    pub message_id: String,
    /// Who sent it, where that is known.
    pub sender: Option<String>,
    /// Whether the sender has proved it.
    pub sender_verified: bool,
    #[serde(default, deserialize_with = "present")]
    message: Option<Box<RawValue>>,
    message_base64: Option<String>,
    /// When it was sealed, where that is known.
    pub sent_time: Option<String>,
    /// When it was opened.
    pub received_time: String,
}

/// A message that is `null` is there all the same.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Received {
    /// One line.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the line {line:?}"))
    }

    /// The JSON under `message`, byte for byte; nothing where there are bytes instead.
    ///
    /// # Panics
    ///
    /// If there are both or neither.
    pub fn json(&self) -> Option<&str> {
        assert!(
            self.message.is_some() != self.message_base64.is_some(),
            "there is one of message and message_base64: {self:?}"
        );
        self.message.as_deref().map(RawValue::get)
    }

    /// The text under `message`.
    ///
    /// # Panics
    ///
    /// If there is something else.
    pub fn text(&self) -> String {
        let json = self.json().unwrap_or_default();
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {self:?} holds no text"))
    }

    /// The bytes under `message_base64`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn bytes(&self) -> Vec<u8> {
        let text = self
            .message_base64
            .as_deref()
            .unwrap_or_else(|| panic!("{self:?} holds no bytes"));
        STANDARD
            .decode(text)
            .unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// The lines of an output; none if there is no such file.
///
/// # Panics
///
/// If it cannot be read, or holds anything but whole lines of received messages.
pub fn read(path: &Path) -> Vec<Received> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    };
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "{} ends with a torn line",
        path.display()
    );
    text.lines().map(Received::parse).collect()
}

/// Checks that exactly these JSON messages were received, each once and byte for byte, in any
/// order, and that no id stands twice.
///
/// # Panics
///
/// If not; says how many are missing, and what there is too much.
#[track_caller]
pub fn assert_exactly<'a>(received: &[Received], sent: impl IntoIterator<Item = &'a str>) {
    let mut left: HashMap<&str, i64> = HashMap::new();
    for line in sent {
        *left.entry(line).or_default() += 1;
    }
    let mut too_much = Vec::new();
    for line in received {
        let json = line.json().unwrap_or("bytes");
        match left.get_mut(json) {
            Some(count) if *count > 0 => *count -= 1,
            _ => too_much.push(json),
        }
    }
    let missing: i64 = left.values().sum();
    assert!(
        missing == 0 && too_much.is_empty(),
        "{missing} messages are missing, {} are there too often or were never sent: {:?}",
        too_much.len(),
        too_much.iter().take(5).collect::<Vec<_>>()
    );
    let ids: std::collections::HashSet<&str> = received
        .iter()
        .map(|line| line.message_id.as_str())
        .collect();
    assert_eq!(ids.len(), received.len(), "an id stands twice");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, message: &str) -> String {
        format!(
            r#"{{"message_id":"{id}","sender":"s","sender_verified":true,"message":{message},"sent_time":null,"received_time":"t"}}"#
        )
    }

    fn check(lines: &[String], sent: &[&str]) -> bool {
        let received: Vec<Received> = lines.iter().map(|line| Received::parse(line)).collect();
        std::panic::catch_unwind(|| assert_exactly(&received, sent.iter().copied())).is_ok()
    }

    #[test]
    fn exactly_means_each_once_byte_for_byte() {
        let lines = [line("1", "1.10"), line("2", "null"), line("3", "1.10")];
        assert!(check(&lines, &["null", "1.10", "1.10"]));
        assert!(!check(&lines, &["null", "1.10"]), "one too many");
        assert!(
            !check(&lines, &["null", "1.10", "1.10", "2"]),
            "one missing"
        );
        assert!(!check(&lines, &["null", "1.1", "1.10"]), "another number");
        let same_id = [line("1", "1"), line("1", "2")];
        assert!(!check(&same_id, &["1", "2"]), "the same id twice");
    }

    #[test]
    fn a_torn_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        assert!(read(&path).is_empty());
        std::fs::write(&path, line("1", "2")).unwrap();
        assert!(std::panic::catch_unwind(|| read(&path)).is_err());
        std::fs::write(&path, line("1", "2") + "\n").unwrap();
        assert_eq!(read(&path)[0].json(), Some("2"));
    }
}
