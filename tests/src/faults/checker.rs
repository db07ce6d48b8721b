//! The guarantees that a record must satisfy, and their violations.
//!
//! The checker does not depend on how the record was made. Its own tests give it manipulated
//! records, and `tests/faults/` gives it records of participants that misbehave on purpose.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::record::{Metadata, Outcome, Record, Sent, WireEvent};

/// A violated guarantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A message was acknowledged or accepted, but is not in the output.
    Lost(String),
    /// A message is in the output more than once.
    Duplicated(String),
    /// A message in the output was never sent in this form: it is forged or altered, or its sender
    /// or id is another one.
    Phantom(String),
    /// A message was refused, but accepted nevertheless.
    Refused(String),
    /// A sender's messages were accepted or first delivered in another order.
    Reordered(String),
    /// A message was delivered after its ack was confirmed.
    Redelivered(String),
    /// A message's metadata is missing, duplicated, incomplete or wrong.
    Metadata(String),
    /// This number of messages still waits, although all were acknowledged.
    Waiting(u64),
    /// A participant observed something that must not happen.
    Anomaly(String),
    /// The store is damaged, or has lost something in a restart.
    Store(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "lost: {what}"),
            Self::Duplicated(what) => write!(f, "duplicated: {what}"),
            Self::Phantom(what) => write!(f, "phantom: {what}"),
            Self::Refused(what) => write!(f, "refused, but accepted: {what}"),
            Self::Reordered(what) => write!(f, "out of order: {what}"),
            Self::Redelivered(what) => write!(f, "delivered after its ack was confirmed: {what}"),
            Self::Metadata(what) => write!(f, "metadata: {what}"),
            Self::Waiting(count) => write!(f, "{count} messages still wait"),
            Self::Anomaly(what) => write!(f, "anomaly: {what}"),
            Self::Store(what) => write!(f, "store: {what}"),
        }
    }
}

/// Checks a record after all waiting messages have been received and acknowledged.
///
/// # Panics
///
/// If two payloads of the record are equal, since it cannot be determined which of them arrived.
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

/// Checks that every message in the output was sent, and is there once. Returns the ids by payload.
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
                "{what} is attributed to {}",
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
            violations.push(Violation::Duplicated(what));
        }
    }
    seen
}

/// Checks that there is one complete row for each message in the output, and no other. Returns the
/// rows by id.
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

/// Checks that each sender's messages were accepted in the order in which they were sent, unless
/// the server could refuse some. A message that the sender gave up may be accepted late, from a
/// connection that the sender had already closed.
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

/// Checks that each sender's messages were first delivered, and so written, in the order in which
/// they were accepted.
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
        WireEvent::Delivered(id) => Some(id.as_str()),
        WireEvent::Confirmed(_) => None,
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

/// Checks that no message was delivered after its ack was confirmed.
fn after_confirmation(record: &Record, violations: &mut Vec<Violation>) {
    let mut confirmed = HashSet::new();
    for wire in &record.wire {
        match wire {
            WireEvent::Confirmed(id) => {
                confirmed.insert(id.as_str());
            }
            WireEvent::Delivered(id) if confirmed.contains(id.as_str()) => {
                violations.push(Violation::Redelivered(id.clone()));
            }
            WireEvent::Delivered(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
