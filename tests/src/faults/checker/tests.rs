//! Tests with manipulated records: the checker must find the violation in each, and none in the
//! sound one.

use super::*;
use crate::faults::record::Received;

/// A record of two senders with five messages each. The last message of each was refused. The
/// outcome of the one before is unknown: it was accepted from one sender, and not from the other.
fn sound() -> Record {
    let mut record = Record {
        is_one_consumer: true,
        ..Record::default()
    };
    for (sender, late) in [("a", 0), ("b", 1)] {
        for position in 0..5 {
            let (id, payload) = (
                format!("{sender}{position}"),
                format!("payload {sender} {position}"),
            );
            let outcome = match position {
                4 => Outcome::Refused,
                3 => Outcome::Unknown,
                _ => Outcome::Acknowledged,
            };
            let sent = Sent {
                sender: sender.to_owned(),
                id: Some(id.clone()),
                payload: payload.clone(),
                outcome,
            };
            record.sent.push(sent);
            if position < 3 || (position == 3 && sender == "a") {
                record.output.push(Received {
                    id: id.clone(),
                    sender: sender.to_owned(),
                    payload,
                });
                record.wire.push(WireEvent::Delivered(id.clone()));
                record.wire.push(WireEvent::Delivered(id.clone()));
                record.wire.push(WireEvent::Confirmed(id.clone()));
                record.metadata.push(Metadata {
                    id,
                    sender: sender.to_owned(),
                    sequence: position * 2 + late,
                    sent: Some("1".to_owned()),
                    delivered: Some("2".to_owned()),
                    acknowledged: Some("2".to_owned()),
                });
            }
        }
    }
    record
}

/// The kinds of violations that the checker finds in a manipulated record.
fn violations(manipulate: impl FnOnce(&mut Record)) -> HashSet<String> {
    let mut record = sound();
    manipulate(&mut record);
    let kind = |violation: &Violation| {
        format!("{violation:?}")
            .split('(')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    check(&record).iter().map(kind).collect()
}

fn kinds<const N: usize>(kinds: [&str; N]) -> HashSet<String> {
    kinds.map(str::to_owned).into()
}

#[test]
fn a_sound_record_has_no_violations() {
    assert_eq!(check(&sound()), []);
    assert_eq!(sound().redeliveries(), 7);
}

#[test]
fn a_lost_message() {
    // Acknowledged, and missing without a trace.
    let gone = violations(|record| {
        record.output.remove(1);
        record.metadata.remove(1);
    });
    assert_eq!(gone, kinds(["Lost"]));
    // Accepted with an outcome that the sender does not know, and never received.
    assert_eq!(
        violations(|record| drop(record.output.remove(3))),
        kinds(["Lost"])
    );
}

#[test]
fn a_duplicated_message() {
    assert_eq!(
        violations(|record| record.output.push(record.output[0].clone())),
        kinds(["Duplicated"])
    );
    // Under another id, as if a sender that has lost its ids had sent it twice.
    let again = violations(|record| {
        record.sent.iter_mut().for_each(|sent| sent.id = None);
        let mut row = record.metadata[3].clone();
        row.id = "again".to_owned();
        let mut received = record.output[3].clone();
        received.id = "again".to_owned();
        record.output.push(received);
        record.metadata.push(row);
    });
    assert_eq!(again, kinds(["Duplicated"]));
}

#[test]
fn a_phantom_message() {
    let forged = violations(|record| {
        record.output.push(Received {
            id: "x".to_owned(),
            sender: "a".to_owned(),
            payload: "x".to_owned(),
        });
    });
    assert_eq!(forged, kinds(["Phantom", "Metadata"]));
    assert!(
        violations(|record| record.output[0].payload.push(' ')).contains("Phantom"),
        "altered"
    );
    assert!(
        violations(|record| record.output[0].sender = "b".to_owned()).contains("Phantom"),
        "another sender"
    );
    assert!(
        violations(|record| record.output[0].id = "a1".to_owned()).contains("Phantom"),
        "another message's id"
    );
}

#[test]
fn a_refused_message_that_was_accepted() {
    let delivered = violations(|record| {
        record.output.push(Received {
            id: "a4".to_owned(),
            sender: "a".to_owned(),
            payload: "payload a 4".to_owned(),
        });
    });
    assert!(delivered.contains("Refused"));
    let stored = violations(|record| {
        let mut row = record.metadata[3].clone();
        row.id = "a4".to_owned();
        record.metadata.push(row);
    });
    assert_eq!(stored, kinds(["Refused"]));
}

#[test]
fn messages_out_of_order() {
    assert_eq!(
        violations(|record| record.output.swap(0, 1)),
        kinds(["Reordered"]),
        "written"
    );
    let again = violations(|record| record.wire.insert(4, WireEvent::Delivered("a1".to_owned())));
    assert_eq!(again, kinds([]), "delivered again, in any order");
    let first_delivered = violations(|record| {
        let moved = record.wire.remove(3);
        record.wire.insert(0, moved);
    });
    assert_eq!(first_delivered, kinds(["Reordered"]));
    let several = violations(|record| {
        record.output.swap(0, 1);
        record.is_one_consumer = false;
    });
    assert_eq!(
        several,
        kinds([]),
        "another consumer may hold the one before"
    );
    let accepted = |record: &mut Record| {
        let (one, two) = (record.metadata[0].sequence, record.metadata[1].sequence);
        (record.metadata[0].sequence, record.metadata[1].sequence) = (two, one);
        record.output.swap(0, 1);
        record.wire.clear();
    };
    assert_eq!(violations(accepted), kinds(["Reordered"]));
    let with_reason = |record: &mut Record| {
        accepted(record);
        record.may_refuse = true;
    };
    assert_eq!(
        violations(with_reason),
        kinds([]),
        "a message that was deferred and retried takes its new place"
    );
}

#[test]
fn a_delivery_after_the_confirmation() {
    let again = violations(|record| record.wire.push(WireEvent::Delivered("a0".to_owned())));
    assert_eq!(again, kinds(["Redelivered"]));
}

#[test]
fn wrong_metadata() {
    let metadata = kinds(["Metadata"]);
    assert_eq!(
        violations(|record| drop(record.metadata.remove(0))),
        metadata,
        "missing"
    );
    assert_eq!(
        violations(|record| record.metadata[0].delivered = None),
        metadata
    );
    assert_eq!(
        violations(|record| record.metadata[0].acknowledged = None),
        metadata
    );
    assert_eq!(
        violations(|record| record.metadata[0].sent = None),
        metadata
    );
    assert_eq!(
        violations(|record| record.metadata[0].sent = Some("3".to_owned())),
        metadata,
        "backwards"
    );
    assert_eq!(
        violations(|record| record.metadata[0].acknowledged = Some("1".to_owned())),
        metadata,
        "backwards"
    );
    assert_eq!(
        violations(|record| record.metadata.push(record.metadata[0].clone())),
        metadata,
        "two rows"
    );
    assert!(
        violations(|record| record.metadata[0].sender = "b".to_owned()).contains("Metadata"),
        "another sender"
    );
}

#[test]
fn waiting_messages_and_unexpected_replies() {
    assert_eq!(violations(|record| record.waiting = 1), kinds(["Waiting"]));
    assert_eq!(
        violations(|record| record.anomalies.push("Unknown command".to_owned())),
        kinds(["Anomaly"])
    );
}

#[test]
#[should_panic(expected = "sent twice")]
fn equal_payloads_cannot_be_judged() {
    violations(|record| record.sent.push(record.sent[0].clone()));
}
