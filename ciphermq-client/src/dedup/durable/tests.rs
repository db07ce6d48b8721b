use std::fs;

use ciphermq_protocol::StreamId;

use super::*;

fn id(position: u64) -> MessageId {
    StreamId::new(1, 1).message_id(position).unwrap()
}

fn sender() -> ClientId {
    ClientId::new("a").unwrap()
}

/// Records a group, as an ack of these messages does.
fn group(record: &mut Durable, positions: std::ops::Range<u64>) {
    for position in positions {
        record.record(Some(&sender()), &id(position)).unwrap();
    }
    record.sync().unwrap();
}

fn known(record: &Durable, positions: std::ops::Range<u64>) -> Vec<u64> {
    positions
        .filter(|&position| record.is_processed(Some(&sender()), &id(position)))
        .collect()
}

#[test]
fn synced_records_survive_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/processed");
    let mut record = Durable::open(&path).unwrap();
    group(&mut record, 0..3);
    group(&mut record, 5..6);
    let other = MessageId::new("x-1").unwrap();
    record.record(None, &other).unwrap();
    record.sync().unwrap();
    record.record(Some(&sender()), &id(9)).unwrap();
    assert!(matches!(
        Durable::open(&path),
        Err(CheckpointError::Locked(_))
    ));
    drop(record);
    let record = Durable::open(&path).unwrap();
    assert_eq!(known(&record, 0..12), [0, 1, 2, 5]);
    assert!(record.is_processed(None, &other) && !record.is_processed(Some(&sender()), &other));
    assert_eq!(record.messages(), 5);
}

#[test]
fn a_torn_last_group_is_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processed");
    let journal = folder.path().join("processed.journal");
    let mut record = Durable::open(&path).unwrap();
    group(&mut record, 0..3);
    let first = fs::read(&journal).unwrap().len();
    group(&mut record, 3..6);
    drop(record);
    let whole = fs::read(&journal).unwrap();
    for end in first..whole.len() {
        for zeros in [0, 7] {
            fs::write(&journal, [&whole[..end], &vec![0; zeros]].concat()).unwrap();
            let mut record = Durable::open(&path).unwrap();
            assert_eq!(known(&record, 0..9), [0, 1, 2], "{end}");
            group(&mut record, 7..9);
            drop(record);
            assert_eq!(
                known(&Durable::open(&path).unwrap(), 0..9),
                [0, 1, 2, 7, 8],
                "{end}"
            );
        }
    }
}

#[test]
fn damage_before_the_last_group_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processed");
    let journal = folder.path().join("processed.journal");
    let mut record = Durable::open(&path).unwrap();
    group(&mut record, 0..3);
    let first = fs::read(&journal).unwrap().len();
    group(&mut record, 3..6);
    drop(record);
    let whole = fs::read(&journal).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&journal, &flipped).unwrap();
        match Durable::open(&path) {
            Err(CheckpointError::Unreadable { .. }) => assert!(at < first, "{at}"),
            // In the last group a flipped byte cannot be distinguished from a torn one.
            Ok(record) => assert_eq!(
                (known(&record, 0..9), at >= first),
                (vec![0, 1, 2], true),
                "{at}"
            ),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_damaged_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processed");
    let mut record = Durable::open(&path).unwrap();
    group(&mut record, 0..3);
    record.compact().unwrap();
    drop(record);
    let whole = fs::read(&path).unwrap();
    let is_refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        matches!(
            Durable::open(&path),
            Err(CheckpointError::Unreadable { .. })
        )
    };
    assert!((0..whole.len()).all(|end| is_refused(&whole[..end])));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 2;
        assert!(is_refused(&flipped), "{at}");
    }
}

#[test]
fn neither_file_grows_with_the_number_of_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processed");
    let mut record = Durable::open(&path).unwrap();
    // Groups of one message, so that the journal reaches its limit.
    let mut longest = 0;
    for position in 0..8_000 {
        record.record(Some(&sender()), &id(position)).unwrap();
        if position % 2 == 0 {
            record.append().unwrap();
            record.pending.clear();
        } else {
            record.sync().unwrap();
        }
        longest = longest.max(record.journal_bytes);
    }
    assert!(longest > JOURNAL_BYTES, "the limit was never met");
    assert!(longest < JOURNAL_BYTES + 1024);
    drop(record);
    let checkpoint = fs::metadata(&path).unwrap().len();
    assert!(checkpoint < 300, "{checkpoint}");
    assert_eq!(known(&Durable::open(&path).unwrap(), 0..8_001).len(), 8_000);
}

#[test]
fn a_crash_between_checkpoint_and_new_journal_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processed");
    let journal = folder.path().join("processed.journal");
    let mut record = Durable::open(&path).unwrap();
    group(&mut record, 0..3);
    let old = fs::read(&journal).unwrap();
    record.compact().unwrap();
    drop(record);
    assert_eq!(fs::read(&journal).unwrap(), b"");
    fs::write(&journal, old).unwrap();
    assert_eq!(known(&Durable::open(&path).unwrap(), 0..9), [0, 1, 2]);
}

#[test]
fn after_a_failed_write_everything_goes_into_a_new_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processed");
    let mut record = Durable::open(&path).unwrap();
    group(&mut record, 0..3);
    let journal = std::mem::replace(
        &mut record.journal,
        File::open(folder.path().join("processed.journal")).unwrap(),
    );
    record.record(Some(&sender()), &id(3)).unwrap();
    assert!(
        record.sync().is_err(),
        "the journal is open for reading only"
    );
    record.journal = journal;
    record.sync().unwrap();
    drop(record);
    assert_eq!(known(&Durable::open(&path).unwrap(), 0..9), [0, 1, 2, 3]);
}
