//! Doctored records: the checker must see what is wrong with each, and nothing in the sound one.

use super::*;
use crate::faults::record::Received;

/// Two senders, five messages each; the last of each refused, the one before of unknown outcome:
/// accepted of one sender, not accepted of the other.
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
                record.wire.push(Wire::Delivered(id.clone()));
                record.wire.push(Wire::Delivered(id.clone()));
                record.wire.push(Wire::Confirmed(id.clone()));
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

/// What the checker says to a doctored record, with the kinds of the violations alone.
fn doctored(doctor: impl FnOnce(&mut Record)) -> HashSet<String> {
    let mut record = sound();
    doctor(&mut record);
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
    // Acknowledged, and gone without a trace.
    let gone = doctored(|record| {
        record.output.remove(1);
        record.metadata.remove(1);
    });
    assert_eq!(gone, kinds(["Lost"]));
    // Accepted with an outcome that the sender does not know, and never handed over.
    assert_eq!(
        doctored(|record| drop(record.output.remove(3))),
        kinds(["Lost"])
    );
}

#[test]
fn a_doubled_message() {
    assert_eq!(
        doctored(|record| record.output.push(record.output[0].clone())),
        kinds(["Doubled"])
    );
    // Under another id: sent twice, as a sender does that forgets its ids.
    let again = doctored(|record| {
        record.sent.iter_mut().for_each(|sent| sent.id = None);
        let mut row = record.metadata[3].clone();
        row.id = "again".to_owned();
        let mut received = record.output[3].clone();
        received.id = "again".to_owned();
        record.output.push(received);
        record.metadata.push(row);
    });
    assert_eq!(again, kinds(["Doubled"]));
}

#[test]
fn a_phantom_message() {
    let made_up = doctored(|record| {
        record.output.push(Received {
            id: "x".to_owned(),
            sender: "a".to_owned(),
            payload: "x".to_owned(),
        });
    });
    assert_eq!(made_up, kinds(["Phantom", "Metadata"]));
    assert!(
        doctored(|record| record.output[0].payload.push(' ')).contains("Phantom"),
        "altered"
    );
    assert!(
        doctored(|record| record.output[0].sender = "b".to_owned()).contains("Phantom"),
        "another's name"
    );
    assert!(
        doctored(|record| record.output[0].id = "a1".to_owned()).contains("Phantom"),
        "another's id"
    );
}

#[test]
fn a_refused_message_that_was_accepted() {
    let delivered = doctored(|record| {
        record.output.push(Received {
            id: "a4".to_owned(),
            sender: "a".to_owned(),
            payload: "payload a 4".to_owned(),
        });
    });
    assert!(delivered.contains("Refused"));
    let stored = doctored(|record| {
        let mut row = record.metadata[3].clone();
        row.id = "a4".to_owned();
        record.metadata.push(row);
    });
    assert_eq!(stored, kinds(["Refused"]));
}

#[test]
fn messages_out_of_order() {
    assert_eq!(
        doctored(|record| record.output.swap(0, 1)),
        kinds(["Reordered"]),
        "written"
    );
    let again = doctored(|record| record.wire.insert(4, Wire::Delivered("a1".to_owned())));
    assert_eq!(again, kinds([]), "delivered again, in any order");
    let first_delivered = doctored(|record| {
        let moved = record.wire.remove(3);
        record.wire.insert(0, moved);
    });
    assert_eq!(first_delivered, kinds(["Reordered"]));
    let several = doctored(|record| {
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
    assert_eq!(doctored(accepted), kinds(["Reordered"]));
    let with_reason = |record: &mut Record| {
        accepted(record);
        record.may_refuse = true;
    };
    assert_eq!(
        doctored(with_reason),
        kinds([]),
        "what was put off and tried again takes its new place"
    );
}

#[test]
fn a_delivery_after_the_confirmation() {
    let again = doctored(|record| record.wire.push(Wire::Delivered("a0".to_owned())));
    assert_eq!(again, kinds(["Redelivered"]));
}

#[test]
fn metadata_that_is_not_as_it_should_be() {
    let metadata = kinds(["Metadata"]);
    assert_eq!(
        doctored(|record| drop(record.metadata.remove(0))),
        metadata,
        "missing"
    );
    assert_eq!(
        doctored(|record| record.metadata[0].delivered = None),
        metadata
    );
    assert_eq!(
        doctored(|record| record.metadata[0].acknowledged = None),
        metadata
    );
    assert_eq!(doctored(|record| record.metadata[0].sent = None), metadata);
    assert_eq!(
        doctored(|record| record.metadata[0].sent = Some("3".to_owned())),
        metadata,
        "backwards"
    );
    assert_eq!(
        doctored(|record| record.metadata[0].acknowledged = Some("1".to_owned())),
        metadata,
        "backwards"
    );
    assert_eq!(
        doctored(|record| record.metadata.push(record.metadata[0].clone())),
        metadata,
        "two rows"
    );
    assert!(
        doctored(|record| record.metadata[0].sender = "b".to_owned()).contains("Metadata"),
        "another's"
    );
}

#[test]
fn what_still_waits_and_what_should_not_have_been_answered() {
    assert_eq!(doctored(|record| record.waiting = 1), kinds(["Waiting"]));
    assert_eq!(
        doctored(|record| record.anomalies.push("Unknown command".to_owned())),
        kinds(["Anomaly"])
    );
}

#[test]
#[should_panic(expected = "sent twice")]
fn equal_payloads_cannot_be_judged() {
    doctored(|record| record.sent.push(record.sent[0].clone()));
}
