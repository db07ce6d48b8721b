//! What must be true of a record once the dust has settled, and what it is called when it is not.
//!
//! The checker knows nothing of how the record came about: it is given doctored ones in its own
//! tests, and records of participants that misbehave on purpose in `tests/faults/`.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::record::{Metadata, Outcome, Record, Sent, Wire};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A message was acknowledged, or accepted, and is not in the output.
    Lost(String),
    /// A message stands in the output more than once.
    Doubled(String),
    /// The output holds what nobody sent: made up, altered, or under another's name or id.
    Phantom(String),
    /// A message was definitely refused, and was accepted all the same.
    Refused(String),
    /// A sender's messages were accepted or first delivered in another order.
    Reordered(String),
    /// A message was delivered after its ack was confirmed.
    Redelivered(String),
    /// A message's metadata is missing, doubled, incomplete or wrong.
    Metadata(String),
    /// Messages wait although all of them were acknowledged.
    Waiting(u64),
    /// A participant met what must not be.
    Anomaly(String),
    /// The store or the server is not as it should be.
    Store(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "lost: {what}"),
            Self::Doubled(what) => write!(f, "doubled: {what}"),
            Self::Phantom(what) => write!(f, "phantom: {what}"),
            Self::Refused(what) => write!(f, "refused, and accepted all the same: {what}"),
            Self::Reordered(what) => write!(f, "out of order: {what}"),
            Self::Redelivered(what) => write!(f, "delivered after its ack was confirmed: {what}"),
            Self::Metadata(what) => write!(f, "metadata: {what}"),
            Self::Waiting(count) => write!(f, "{count} messages still wait"),
            Self::Anomaly(what) => write!(f, "anomaly: {what}"),
            Self::Store(what) => write!(f, "store: {what}"),
        }
    }
}

/// Checks a record after all that waited has been received and acknowledged.
///
/// # Panics
///
/// If two payloads of the record are equal: then nobody can tell which of them arrived.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut sent: HashMap<&str, (usize, &Sent)> = HashMap::with_capacity(record.sent.len());
    for (position, message) in record.sent.iter().enumerate() {
        let other = sent.insert(&message.payload, (position, message));
        assert!(other.is_none(), "sent twice: {}", message.payload);
    }
    let seen = output(record, &sent, &mut violations);
    for message in &record.sent {
        if message.outcome == Outcome::Acknowledged && !seen.contains_key(message.payload.as_str())
        {
            violations.push(Violation::Lost(format!(
                "{} of {}",
                message.payload, message.sender
            )));
        }
    }
    let rows = metadata(record, &mut violations);
    accepted_order(record, &sent, &rows, &mut violations);
    delivered_order(record, &rows, &mut violations);
    after_confirmation(record, &mut violations);
    if record.waiting > 0 {
        violations.push(Violation::Waiting(record.waiting));
    }
    violations.extend(record.anomalies.iter().cloned().map(Violation::Anomaly));
    violations
}

/// What the output holds must have been sent, and stand there once. Returns it, by payload.
fn output<'a>(
    record: &'a Record,
    sent: &HashMap<&str, (usize, &Sent)>,
    violations: &mut Vec<Violation>,
) -> HashMap<&'a str, &'a str> {
    let mut seen = HashMap::with_capacity(record.output.len());
    let mut ids = HashSet::with_capacity(record.output.len());
    for received in &record.output {
        let what = format!("{} {}", received.id, received.payload);
        let Some((_, message)) = sent.get(received.payload.as_str()) else {
            violations.push(Violation::Phantom(what));
            continue;
        };
        if message.sender != received.sender
            || message.id.as_ref().is_some_and(|id| *id != received.id)
        {
            violations.push(Violation::Phantom(format!(
                "{what} is said to be from {}",
                received.sender
            )));
        }
        if message.outcome == Outcome::Refused {
            violations.push(Violation::Refused(what.clone()));
        }
        let is_new = seen
            .insert(received.payload.as_str(), received.id.as_str())
            .is_none();
        if !ids.insert(received.id.as_str()) || !is_new {
            violations.push(Violation::Doubled(what));
        }
    }
    seen
}

/// One complete row for each message in the output, and no others. Returns them by id.
fn metadata<'a>(
    record: &'a Record,
    violations: &mut Vec<Violation>,
) -> HashMap<&'a str, &'a Metadata> {
    let mut rows: HashMap<&str, &Metadata> = HashMap::with_capacity(record.metadata.len());
    for row in &record.metadata {
        if rows.insert(&row.id, row).is_some() {
            violations.push(Violation::Metadata(format!("two rows of {}", row.id)));
        }
    }
    let mut arrived = HashSet::with_capacity(record.output.len());
    for received in &record.output {
        if !arrived.insert(received.id.as_str()) {
            continue;
        }
        let Some(row) = rows.get(received.id.as_str()) else {
            violations.push(Violation::Metadata(format!("none of {}", received.id)));
            continue;
        };
        let in_order = match (&row.sent, &row.delivered, &row.acknowledged) {
            (Some(sent), Some(delivered), Some(acknowledged)) => {
                sent <= delivered && delivered <= acknowledged
            }
            _ => false,
        };
        if !in_order || row.sender != received.sender {
            violations.push(Violation::Metadata(format!("{row:?}")));
        }
    }
    let refused: HashSet<&str> = record
        .sent
        .iter()
        .filter(|sent| sent.outcome == Outcome::Refused)
        .filter_map(|sent| sent.id.as_deref())
        .collect();
    for row in &record.metadata {
        if refused.contains(row.id.as_str()) {
            violations.push(Violation::Refused(row.id.clone()));
        } else if !arrived.contains(row.id.as_str()) {
            violations.push(Violation::Lost(format!(
                "{}, accepted as number {}",
                row.id, row.sequence
            )));
        }
    }
    rows
}

/// What each sender sent is accepted in its order, unless the server had reason to refuse
/// something. What the sender gave up may be accepted late, out of a connection that it had left.
fn accepted_order(
    record: &Record,
    sent: &HashMap<&str, (usize, &Sent)>,
    rows: &HashMap<&str, &Metadata>,
    violations: &mut Vec<Violation>,
) {
    if record.may_refuse {
        return;
    }
    let mut accepted: Vec<(i64, usize, &Sent)> = record
        .output
        .iter()
        .filter_map(|received| {
            let (position, message) = sent.get(received.payload.as_str())?;
            let row = rows.get(received.id.as_str())?;
            (message.outcome == Outcome::Acknowledged).then_some((
                row.sequence,
                *position,
                *message,
            ))
        })
        .collect();
    accepted.sort_unstable_by_key(|(sequence, ..)| *sequence);
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (sequence, position, message) in accepted {
        let last = last.entry(&message.sender).or_default();
        if position < *last {
            violations.push(Violation::Reordered(format!(
                "{} was accepted late, as number {sequence}",
                message.payload
            )));
        }
        *last = position.max(*last);
    }
}

/// Each sender's messages are first delivered, and so written, in the order in which they were
/// accepted.
fn delivered_order(
    record: &Record,
    rows: &HashMap<&str, &Metadata>,
    violations: &mut Vec<Violation>,
) {
    if !record.is_one_consumer {
        return;
    }
    let written = record.output.iter().map(|received| received.id.as_str());
    let delivered = record.wire.iter().filter_map(|wire| match wire {
        Wire::Delivered(id) => Some(id.as_str()),
        Wire::Confirmed(_) => None,
    });
    let mut check = |what: &str, ids: &mut dyn Iterator<Item = &str>| {
        let mut seen = HashSet::new();
        let mut last: HashMap<&str, i64> = HashMap::new();
        for row in ids.filter_map(|id| rows.get(id)) {
            if !seen.insert(row.id.as_str()) {
                continue;
            }
            let last = last.entry(&row.sender).or_insert(i64::MIN);
            if row.sequence < *last {
                let text = format!("{row:?} was {what} after number {last}");
                violations.push(Violation::Reordered(text));
            }
            *last = row.sequence.max(*last);
        }
    };
    check("written", &mut { written });
    check("first delivered", &mut { delivered });
}

fn after_confirmation(record: &Record, violations: &mut Vec<Violation>) {
    let mut confirmed = HashSet::new();
    for wire in &record.wire {
        match wire {
            Wire::Confirmed(id) => {
                confirmed.insert(id.as_str());
            }
            Wire::Delivered(id) if confirmed.contains(id.as_str()) => {
                violations.push(Violation::Redelivered(id.clone()));
            }
            Wire::Delivered(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
