use super::*;
use ciphermq_protocol::envelope::OwnPart;

/// Two messages for one queue, of which the first is acknowledged.
fn sound() -> StoredBatch {
    let ids = ["a", "b"].map(|_| ());
    let stream = ciphermq_protocol::message_id::StreamId::new(1, 2);
    let envelope = |position: u64| {
        let id = stream.message_id(position).unwrap();
        format!(
            "{{\"message_id\":\"{id}\",\"receiver_client_id\":\"r\",\"enc_session_key\":\"\",\
             \"nonce\":\"\",\"tag\":\"\",\"ciphertext\":\"\"}}"
        )
    };
    let envelopes: Vec<String> = (5..)
        .zip(ids)
        .map(|(position, ())| envelope(position))
        .collect();
    let own = envelopes.concat().into_bytes();
    StoredBatch {
        first_seq: 10,
        messages: 2,
        queues: "[3]".into(),
        stream: stream.to_string()[..26].into(),
        position: 5,
        receiver: Some("r".into()),
        sent_time: Some("2026-01-01T00:00:00.000001Z".into()),
        digests: Some(
            envelopes
                .iter()
                .flat_map(|envelope| Sha256::digest(envelope).to_vec())
                .collect(),
        ),
        bytes: Some(count(own.len())),
        dispositions:
            "[[0,1,\"2026-01-01T00:00:00.000002Z\",\"2026-01-01T00:00:00.000003Z\",null]]".into(),
        envelopes: Some(StoredEnvelopes {
            ends: format!("[{},{}]", envelopes[0].len(), own.len()),
            own,
            shared: None,
        }),
        lanes: 1,
    }
}

fn faults(batch: &StoredBatch) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = BatchCheck::new(11);
    check.batch(batch, &mut |fault| found.push(fault.to_string()));
    found
}

/// The same messages in the binary form.
fn sound_binary() -> StoredBatch {
    let stream = ciphermq_protocol::message_id::StreamId::new(1, 2);
    let own = [5, 6].map(|position| {
        let part = OwnPart {
            message_id: &stream.message_id(position).unwrap(),
            sent_time: "t",
            nonce: &[1; 12],
            ciphertext: b"\n",
            tag: &[1; 16],
        };
        part.to_binary().unwrap()
    });
    let shared = b",\"receiver_client_id\":\"r\",\"enc_session_key\":\"\"}".as_slice();
    let text = |own: &Bytes| EnvelopeBytes::packed(own.clone(), shared.into()).to_bytes();
    let digests = own
        .iter()
        .flat_map(|own| Sha256::digest(text(own)).to_vec());
    let bytes = own.concat();
    StoredBatch {
        digests: Some(digests.collect()),
        bytes: Some(count(bytes.len() + shared.len())),
        envelopes: Some(StoredEnvelopes {
            ends: format!("[{},{}]", own[0].len(), bytes.len()),
            own: bytes,
            shared: Some(shared.to_vec()),
        }),
        ..sound()
    }
}

#[test]
fn a_batch_in_the_binary_form_is_checked_by_its_texts() {
    assert_eq!(faults(&sound_binary()), [""; 0]);
    let mut without = sound_binary();
    without.digests = None;
    assert_eq!(faults(&without), [""; 0]);
    // The last byte of a ciphertext, and the length of an id.
    for (at, what) in [(0, "has changed"), (1, "has changed")] {
        let mut altered = sound_binary();
        let own = &mut altered.envelopes.as_mut().unwrap().own;
        let at = match at {
            0 => own.len() - 1,
            at => at,
        };
        own[at] ^= 1;
        assert!(faults(&altered)[0].contains(what), "{:?}", faults(&altered));
        altered.digests = None;
        let is_readable = at != 1;
        assert_eq!(faults(&altered).is_empty(), is_readable, "{at}");
    }
}

#[test]
fn a_sound_batch_has_no_fault() {
    assert_eq!(faults(&sound()), [""; 0]);
    let mut settled = sound();
    settled.dispositions = "[[0,2,\"2026-01-02\",null,\"2026-01-02\"]]".into();
    (settled.envelopes, settled.lanes) = (None, 0);
    assert_eq!(faults(&settled), [""; 0]);
    // One of an older server, of which nothing but its times is known.
    let older = StoredBatch {
        first_seq: -1,
        messages: 1,
        queues: "[]".into(),
        stream: "m".into(),
        position: -1,
        dispositions: "[]".into(),
        ..StoredBatch::default()
    };
    assert_eq!(faults(&older), [""; 0]);
}

#[test]
fn every_broken_rule_is_one_fault() {
    type Break = fn(&mut StoredBatch);
    let cases: [(Break, &str); 18] = [
        (|b| b.messages = 0, "it has 0 messages"),
        (|b| b.messages = 129, "it has 129 messages"),
        (|b| b.queues = "[3".into(), "its queues cannot be read"),
        (|b| b.queues = "[]".into(), "it has no queues"),
        (|b| b.first_seq = 11, "go beyond the last one, 11"),
        (|b| b.digests = Some(vec![0; 32]), "32 bytes of digests"),
        (|b| b.bytes = Some(1), "batches.bytes is 1"),
        (|b| b.lanes = 0, "1 of its messages wait, and no row"),
        (|b| b.envelopes = None, "their envelopes are missing"),
        (
            |b| b.dispositions = "[[1,2,\"2026-02\",null,null]]".into(),
            "from_index 1 with 2 messages is not within its 2",
        ),
        (
            |b| b.dispositions = "[[0,1,\"2026-02\",null,null],[0,2,\"2026-02\",null,null]]".into(),
            "overlaps the row before it",
        ),
        (
            |b| b.dispositions = "[[0,1,\"2026-02\",\"2026-02\",\"2026-02\"]]".into(),
            "both acknowledged and rejected",
        ),
        (
            |b| b.dispositions = "[[0,1,\"2025\",\"2026-02\",null]]".into(),
            "times that go back",
        ),
        (
            |b| b.dispositions = "[[0,1,\"2026-03\",\"2026-02\",null]]".into(),
            "times that go back",
        ),
        (
            |b| b.envelopes.as_mut().unwrap().ends = "[1]".into(),
            "does not cut",
        ),
        (|b| b.receiver = Some("s".into()), "is for r"),
        (
            |b| {
                b.digests = None;
                b.position = 4;
            },
            "is that of",
        ),
        (
            |b| b.envelopes.as_mut().unwrap().own[40] ^= 1,
            "has changed",
        ),
    ];
    for (breaks, expected) in cases {
        let mut batch = sound();
        breaks(&mut batch);
        let found = faults(&batch);
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{expected}: {found:?}"
        );
        assert!(found.len() <= 2, "{expected}: {found:?}");
    }
    let mut settled = sound();
    settled.dispositions = "[[0,2,\"2026-02\",\"2026-02\",null]]".into();
    let found = faults(&settled);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("waiting, first_seq 10: none of its messages waits"));
    assert!(found[1].starts_with("envelopes, first_seq 10: none of its messages waits"));
}

#[test]
fn batches_do_not_overlap() {
    let mut found = Vec::new();
    let mut check = BatchCheck::new(100);
    let (one, mut next) = (sound(), sound());
    next.first_seq = 11;
    for batch in [&one, &next] {
        check.batch(batch, &mut |fault| found.push(fault.to_string()));
    }
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("overlap those of the batch before"));
    assert_eq!((check.batches, check.waiting), (2, 2));
}

#[test]
fn a_lane_belongs_to_its_batch() {
    let sound = || StoredLane {
        queue: 3,
        receiver: "r".into(),
        first_seq: 10,
        copy: 1,
        queues: Some("[2,3]".into()),
        batch_receiver: Some("r".into()),
        has_envelopes: true,
        has_queue: true,
    };
    let faults = |lane: &StoredLane| {
        let mut found = Vec::new();
        check_lane(lane, &mut |fault| found.push(fault.what));
        found
    };
    assert_eq!(faults(&sound()), [""; 0]);
    type Break = fn(&mut StoredLane);
    let cases: [(Break, &str); 6] = [
        (|lane| lane.queues = None, "its batch is missing"),
        (
            |lane| lane.has_envelopes = false,
            "its envelopes are missing",
        ),
        (|lane| lane.has_queue = false, "its queue does not exist"),
        (
            |lane| lane.receiver = "s".into(),
            "its batch is for another receiver",
        ),
        (
            |lane| lane.copy = 0,
            "its batch has another queue at this copy",
        ),
        (
            |lane| lane.copy = -1,
            "its batch has another queue at this copy",
        ),
    ];
    for (breaks, expected) in cases {
        let mut lane = sound();
        breaks(&mut lane);
        assert_eq!(faults(&lane), [expected]);
    }
}
