//! The output of `ciphermq-cli receive`, parsed as strictly as a third-party program might.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A line of the output. An unknown or missing field is an error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// The message's id.
    pub message_id: String,
    /// Client id of the sender, if known.
    pub sender: Option<String>,
    /// Whether the sender was authenticated.
    pub sender_verified: bool,
    #[serde(default, deserialize_with = "present")]
    message: Option<Box<RawValue>>,
    message_base64: Option<String>,
    /// Time at which the message was sealed, if known.
    pub sent_time: Option<String>,
    /// Time at which the message was opened.
    pub received_time: String,
}

/// Keeps `"message": null` apart from a missing field: by default, serde maps both to `None`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Received {
    /// Parses one line.
    ///
    /// # Panics
    ///
    /// If it is not a valid record.
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the line {line:?}"))
    }

    /// The JSON in `message`, byte for byte, or `None` if the record has `message_base64` instead.
    ///
    /// # Panics
    ///
    /// If it has both or neither.
    pub fn json(&self) -> Option<&str> {
        assert!(
            self.message.is_some() != self.message_base64.is_some(),
            "exactly one of message and message_base64 is expected: {self:?}"
        );
        self.message.as_deref().map(RawValue::get)
    }

    /// The string in `message`.
    ///
    /// # Panics
    ///
    /// If it is not a string.
    pub fn text(&self) -> String {
        let json = self.json().unwrap_or_default();
        serde_json::from_str(json)
            .unwrap_or_else(|error| panic!("{error}: {self:?} contains no string"))
    }

    /// The decoded bytes in `message_base64`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn bytes(&self) -> Vec<u8> {
        let text = self
            .message_base64
            .as_deref()
            .unwrap_or_else(|| panic!("{self:?} contains no bytes"));
        STANDARD
            .decode(text)
            .unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Reads the records of an output file. A missing file has none.
///
/// # Panics
///
/// If it cannot be read, or contains anything but complete lines of valid records.
pub fn read(path: &Path) -> Vec<Received> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    };
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "{} ends with an incomplete line",
        path.display()
    );
    text.lines().map(Received::parse).collect()
}

/// Checks that exactly the JSON messages `sent` were received, each once and byte for byte, in any
/// order, and that all ids are unique.
///
/// # Panics
///
/// If not. The message has the number of missing messages, and the first unexpected ones.
#[track_caller]
pub fn assert_exactly<'a>(received: &[Received], sent: impl IntoIterator<Item = &'a str>) {
    let mut left: HashMap<&str, i64> = HashMap::new();
    for line in sent {
        *left.entry(line).or_default() += 1;
    }
    let mut unexpected = Vec::new();
    for line in received {
        let json = line.json().unwrap_or("bytes");
        match left.get_mut(json) {
            Some(count) if *count > 0 => *count -= 1,
            _ => unexpected.push(json),
        }
    }
    let missing: i64 = left.values().sum();
    assert!(
        missing == 0 && unexpected.is_empty(),
        "{missing} messages are missing, {} were received too often or never sent: {:?}",
        unexpected.len(),
        unexpected.iter().take(5).collect::<Vec<_>>()
    );
    let ids: std::collections::HashSet<&str> = received
        .iter()
        .map(|line| line.message_id.as_str())
        .collect();
    assert_eq!(ids.len(), received.len(), "an id occurs twice");
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
    fn an_incomplete_line_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        assert!(read(&path).is_empty());
        std::fs::write(&path, line("1", "2")).unwrap();
        assert!(std::panic::catch_unwind(|| read(&path)).is_err());
        std::fs::write(&path, line("1", "2") + "\n").unwrap();
        assert_eq!(read(&path)[0].json(), Some("2"));
    }
}
