//! Real messages, and older clients' envelopes. `tests/data/README.md` describes the source of the
//! messages, `docs/cryptography.md` the envelopes.

use std::path::PathBuf;

/// Number of lines in the file [`readings`], all distinct.
pub const READINGS: usize = 17_518;

/// Path of a file of real messages, one JSON object per line.
pub fn readings() -> PathBuf {
    path("sensor-readings.jsonl")
}

/// Test vectors of older clients' envelopes, with the key that opens them and their plaintexts.
pub fn older_envelopes() -> serde_json::Value {
    serde_json::from_str(&older_envelopes_text()).expect("older-envelopes.json is JSON")
}

/// An older client's envelope, as that client serialises it into a line, with its plaintext.
#[derive(Debug, Clone)]
pub struct OlderEnvelope {
    /// Generation of the client: `0`, `A`, `B` or `C`.
    pub generation: String,
    /// The JSON object, with its fields in their original order, and without line endings.
    pub json: String,
    /// The decrypted content.
    pub plaintext: String,
}

impl OlderEnvelope {
    /// The JSON object with `message_id` in place of its own id.
    ///
    /// # Panics
    ///
    /// If the envelope has no id.
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

/// The envelopes of [`older_envelopes`], as lines: the Python generations (0, A, B) write `", "`
/// and `": "`, the Rust one (C) writes neither space.
///
/// # Panics
///
/// If the file does not have its original format.
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
        // The file has one field per line, and all values are strings.
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
    fn every_reading_is_json_and_unique() {
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
