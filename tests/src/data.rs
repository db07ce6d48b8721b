//! Real messages, and older clients' envelopes. `tests/data/README.md` says where the messages come
//! from, `docs/cryptography.md` what the envelopes are.

use std::path::PathBuf;

/// How many lines [`readings`] holds, all different.
pub const READINGS: usize = 17_518;

/// A file of real messages, one JSON object a line.
pub fn readings() -> PathBuf {
    path("sensor-readings.jsonl")
}

/// Envelopes as older clients seal them, with the key that opens them and their plaintext.
pub fn older_envelopes() -> serde_json::Value {
    serde_json::from_str(&older_envelopes_text()).expect("older-envelopes.json is JSON")
}

/// An older client's envelope as that client writes it into a line, and what it holds.
#[derive(Debug, Clone)]
pub struct OlderEnvelope {
    /// `0`, `A`, `B` or `C`.
    pub generation: String,
    /// The JSON object: its fields in their order, without line endings.
    pub json: String,
    /// What it opens to.
    pub plaintext: String,
}

impl OlderEnvelope {
    /// The same under another id.
    ///
    /// # Panics
    ///
    /// If it has no id.
    #[must_use]
    pub fn with_id(&self, message_id: &str) -> String {
        let object: serde_json::Value =
            serde_json::from_str(&self.json).expect("an envelope is JSON");
        let old = object["message_id"]
            .as_str()
            .expect("an envelope has an id");
        self.json.replacen(old, message_id, 1)
    }
}

/// The same envelopes, as lines: the Python generations (0, A, B) write `", "` and `": "`, the Rust
/// one (C) neither space.
///
/// # Panics
///
/// If the file is not as it was made.
pub fn older_lines() -> Vec<OlderEnvelope> {
    #[derive(serde::Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        cases: Vec<Case<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Case<'a> {
        generation: String,
        #[serde(borrow)]
        envelope: &'a serde_json::value::RawValue,
        plaintext: String,
    }
    let text = older_envelopes_text();
    let file: File<'_> = serde_json::from_str(&text).expect("older-envelopes.json holds envelopes");
    let line = |case: Case<'_>| {
        let is_python = case.generation != "C";
        let comma = if is_python { ", " } else { "," };
        // One field a line, all of them texts.
        let fields: Vec<String> = case
            .envelope
            .get()
            .lines()
            .map(|field| field.trim().trim_end_matches(','))
            .filter(|field| !matches!(*field, "{" | "}"))
            .map(|field| {
                if is_python {
                    field.to_owned()
                } else {
                    field.replacen("\": \"", "\":\"", 1)
                }
            })
            .collect();
        let json = format!("{{{}}}", fields.join(comma));
        OlderEnvelope {
            generation: case.generation,
            json,
            plaintext: case.plaintext,
        }
    };
    file.cases.into_iter().map(line).collect()
}

fn older_envelopes_text() -> String {
    let vectors = "../docs/test-vectors/older-envelopes.json";
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), vectors].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "data", name].iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reading_is_json_and_stands_once() {
        let text = std::fs::read_to_string(readings()).unwrap();
        let lines: HashSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), READINGS);
        assert_eq!(text.lines().count(), READINGS);
        for line in lines {
            let reading: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(reading["temperature_f"].is_number(), "{line}");
        }
    }

    #[test]
    fn older_envelopes_hold_every_generation() {
        let envelopes = older_envelopes();
        let generations: HashSet<&str> = envelopes["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|case| case["generation"].as_str().unwrap())
            .collect();
        assert_eq!(generations, HashSet::from(["0", "A", "B", "C"]));
    }

    #[test]
    fn older_lines_hold_the_same_envelopes() {
        let envelopes = older_envelopes();
        let cases = envelopes["cases"].as_array().unwrap();
        let lines = older_lines();
        assert_eq!(lines.len(), cases.len());
        for (line, case) in lines.iter().zip(cases) {
            assert!(!line.json.contains('\n'));
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&line.json).unwrap(),
                case["envelope"]
            );
            let again: serde_json::Value = serde_json::from_str(&line.with_id("new")).unwrap();
            assert_eq!(again["message_id"], "new");
        }
    }
}
