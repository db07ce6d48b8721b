//! Real messages, and older clients' envelopes. `tests/data/README.md` says where they come from.

use std::path::PathBuf;

/// How many lines [`readings`] holds, all different.
pub const READINGS: usize = 17_518;

/// A file of real messages, one JSON object a line.
pub fn readings() -> PathBuf {
    path("sensor-readings.jsonl")
}

/// Envelopes as older clients seal them, with the key that opens them and their plaintext.
pub fn older_envelopes() -> serde_json::Value {
    let path = path("older-envelopes.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("older-envelopes.json is JSON")
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
        assert_eq!(generations, HashSet::from(["A", "B", "C"]));
    }
}
