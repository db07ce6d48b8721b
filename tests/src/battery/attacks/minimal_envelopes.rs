//! Lines of the greatest length with as many messages as possible.

use std::fmt::Write as _;

use ciphermq_protocol::DEFAULT_MAX_LINE_BYTES;

use crate::battery::attack::Extent;
use crate::battery::target::Target;

const ROUTE: &str = "battery battery_minimal";

pub(super) async fn run(target: &'static Target, connections: usize) {
    target.bind_queues(1, ROUTE).await;
    let length = match target.args.extent {
        Extent::Full => DEFAULT_MAX_LINE_BYTES,
        Extent::Short => DEFAULT_MAX_LINE_BYTES / 8,
    };
    let client = target.client_id().to_owned();
    let line = move |round| line(&client, round, length);
    target.ask_endlessly(connections, line).await;
}

/// A line of at most this length. Some 158,900 envelopes fit into 16 MiB.
fn line(client: &str, round: usize, length: usize) -> String {
    // A short id for a short envelope, and a different one for each client and round.
    let who = client
        .bytes()
        .fold(0u16, |sum, byte| sum.wrapping_mul(31) ^ u16::from(byte));
    let mut line = format!("publish_batch {ROUTE} [");
    for number in 0.. {
        let before = line.len();
        let separator = if number == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            "{separator}{{\"message_id\":\"{who:x}{round:x}-{number:x}\",\
             \"receiver_client_id\":\"r\",\"enc_session_key\":\"\",\"nonce\":\"\",\
             \"ciphertext\":\"\"}}"
        );
        if line.len() >= length {
            line.truncate(before);
            break;
        }
    }
    line + "]\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_possible_and_has_unique_ids() {
        let line = line("mallory", 1, DEFAULT_MAX_LINE_BYTES);
        assert!(line.len() <= DEFAULT_MAX_LINE_BYTES + 1);
        let (_, json) = line.split_once('[').unwrap();
        let envelopes: Vec<serde_json::Value> = serde_json::from_str(&format!("[{json}")).unwrap();
        assert!(envelopes.len() > 140_000, "{}", envelopes.len());
        let ids: std::collections::HashSet<_> = envelopes
            .iter()
            .map(|envelope| envelope["message_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), envelopes.len());
    }
}
