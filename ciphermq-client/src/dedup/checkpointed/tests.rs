use std::fs::{self, OpenOptions};
use std::io::Write as _;

use ciphermq_protocol::StreamId;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

/// An output of numbers, one per line, which are positions of one stream.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn output(&self) -> File {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(self.path("out"))
            .unwrap()
    }

    fn open(&self) -> Result<Checkpointed, CheckpointError> {
        Checkpointed::open(&self.path("out.checkpoint"))
    }
}

fn id(position: u64) -> MessageId {
    StreamId::new(1, 1).message_id(position).unwrap()
}

/// Writes the lines and notes them; returns the new end of the output.
fn write(output: &mut File, record: &Checkpointed, positions: std::ops::Range<u64>) -> u64 {
    for position in positions {
        writeln!(output, "{position}").unwrap();
        record.note(None, &id(position));
    }
    output.metadata().unwrap().len()
}

fn knows(record: &Checkpointed, positions: std::ops::Range<u64>) -> bool {
    let recorder = record.recorder();
    positions
        .into_iter()
        .all(|position| recorder.is_processed(None, &id(position)))
}

#[test]
fn only_the_output_after_the_checkpoint_must_be_read() {
    let fixture = Fixture::new();
    let mut output = fixture.output();
    let mut record = fixture.open().unwrap();
    assert_eq!(record.find(&output).unwrap(), Found::Nothing);
    let end = write(&mut output, &record, 0..2000);
    record.checkpoint(&output, end).unwrap();
    write(&mut output, &record, 2000..2010);
    drop(record);

    let record = fixture.open().unwrap();
    assert_eq!(record.find(&output).unwrap(), Found::Tail { offset: end });
    assert!(knows(&record, 0..2000));
    assert!(!knows(&record, 2000..2001), "that stands in the tail");
    assert_eq!(record.recorder().messages(), 2000);
}

#[test]
fn another_output_is_detected_and_recorded_messages_stay() {
    for closed in [false, true] {
        let fixture = Fixture::new();
        let mut output = fixture.output();
        let mut record = fixture.open().unwrap();
        let end = write(&mut output, &record, 0..100);
        if closed {
            record.close(&output, end).unwrap();
        } else {
            record.checkpoint(&output, end).unwrap();
            drop(record);
        }
        let text = fs::read(fixture.path("out")).unwrap();
        let replaced: Vec<u8> = text.iter().rev().copied().collect();
        let mut edited = text.clone();
        edited[0] = b'7';
        for other in [
            &b""[..],
            &text[..text.len() - 1],
            &text[1..],
            &replaced,
            &edited,
        ] {
            fs::write(fixture.path("out"), other).unwrap();
            let record = fixture.open().unwrap();
            assert_eq!(
                record.find(&output).unwrap(),
                Found::Other {
                    offset: end,
                    closed
                }
            );
            assert!(knows(&record, 0..100));
        }
        fs::write(fixture.path("out"), [&text[..], b"100\n"].concat()).unwrap();
        assert_eq!(
            fixture.open().unwrap().find(&output).unwrap(),
            Found::Tail { offset: end },
            "and the right one is known again"
        );
    }
}

#[test]
fn every_damaged_checkpoint_is_refused_and_can_be_rebuilt() {
    let fixture = Fixture::new();
    let mut output = fixture.output();
    let mut record = fixture.open().unwrap();
    let end = write(&mut output, &record, 0..10);
    record.checkpoint(&output, end).unwrap();
    drop(record);
    let path = fixture.path("out.checkpoint");
    let whole = fs::read(&path).unwrap();
    let is_refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        matches!(
            fixture.open(),
            Err(CheckpointError::Unreadable {
                reason: Unreadable::Damaged,
                ..
            })
        )
    };
    assert!((1..whole.len()).all(|end| is_refused(&whole[..end])));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        assert!(is_refused(&flipped), "{at}");
    }
    let (record, aside) = Checkpointed::rebuild(&path).unwrap();
    assert_eq!(record.find(&output).unwrap(), Found::Nothing);
    assert_eq!(aside.unwrap(), fixture.path("out.checkpoint.damaged"));
}

#[test]
fn a_second_process_is_refused() {
    let fixture = Fixture::new();
    let first = fixture.open().unwrap();
    assert!(matches!(fixture.open(), Err(CheckpointError::Locked(_))));
    drop(first);
    fixture.open().unwrap();
}

#[test]
fn a_checkpoint_is_due_after_a_bounded_part_of_the_output() {
    let fixture = Fixture::new();
    let mut output = fixture.output();
    let mut record = fixture.open().unwrap();
    assert!(record.is_closed() && !record.is_due(0) && record.is_due(1));
    let end = write(&mut output, &record, 0..10);
    record.checkpoint(&output, end).unwrap();
    assert!(!record.is_closed());
    assert!(!record.is_due(end + DUE_BYTES - 1) && record.is_due(end + DUE_BYTES));
}

#[test]
fn the_file_has_the_documented_form() {
    let fixture = Fixture::new();
    let mut output = fixture.output();
    let record = fixture.open().unwrap();
    let end = write(&mut output, &record, 0..3);
    let consumer = format!("consumer {}", record.consumer_id());
    record.close(&output, end).unwrap();
    let text = fs::read_to_string(fixture.path("out.checkpoint")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let sum = hex::encode(Sha256::digest("0\n1\n2\n"));
    assert_eq!(
        lines[..4],
        [
            "ciphermq-processed 1",
            &format!("output 6 {sum} closed"),
            &consumer,
            "unnamed-stream 00000000-0001-8000-8000-010000000000 0-2"
        ]
    );
    assert!(lines[4].starts_with("sha256 ") && lines.len() == 5);
}

#[test]
fn the_consumers_id_is_the_same_at_each_start() {
    let fixture = Fixture::new();
    let mut output = fixture.output();
    let mut record = fixture.open().unwrap();
    let id = record.consumer_id().to_owned();
    drop(record);
    record = fixture.open().unwrap();
    assert_eq!(record.consumer_id(), id, "before anything was written");
    let end = write(&mut output, &record, 0..3);
    record.checkpoint(&output, end).unwrap();
    drop(record);
    assert_eq!(fixture.open().unwrap().consumer_id(), id);
}

#[test]
fn a_checkpoint_without_a_consumer_id_gets_one() {
    let fixture = Fixture::new();
    let mut output = fixture.output();
    let older = crate::checkpoint::encode(super::KIND, "other sender_1 z-1\n");
    fs::write(fixture.path("out.checkpoint"), older).unwrap();
    let mut record = fixture.open().unwrap();
    let id = record.consumer_id().to_owned();
    let end = write(&mut output, &record, 0..3);
    record.checkpoint(&output, end).unwrap();
    drop(record);
    let record = fixture.open().unwrap();
    assert_eq!(record.consumer_id(), id);
    assert_eq!(record.recorder().messages(), 4);
}

#[test]
fn an_output_of_lines_is_recognised_after_an_editor_wherever_a_checkpoint_ended() {
    let fixture = Fixture::new();
    let path = fixture.path("out");
    for lines in [1, 2, 700, 1500, 70_000] {
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(fixture.path("out.checkpoint"));
        let mut output = fixture.output();
        let mut record = fixture.open().unwrap();
        let end = write(&mut output, &record, 0..lines);
        record.checkpoint(&output, end).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let dos = text.replace('\n', "\r\n");
        let tail = "7\n";
        for (edited, offset) in [
            (text[..text.len() - 1].to_owned(), end - 1),
            (dos.clone() + tail, dos.len() as u64),
            (format!("\u{feff}{text}{tail}"), end + 3),
            (format!("\u{feff}{dos}{tail}"), dos.len() as u64 + 3),
            (dos[..dos.len() - 2].to_owned(), dos.len() as u64 - 2),
            (dos[..dos.len() - 1].to_owned(), dos.len() as u64 - 1),
        ] {
            fs::write(&path, &edited).unwrap();
            assert_eq!(record.find_lines(&output).unwrap(), Found::Tail { offset });
            assert!(matches!(record.find(&output).unwrap(), Found::Other { .. }));
        }
        let altered = dos.replacen('0', "8", 1);
        let continued = dos[..dos.len() - 1].to_owned() + "7\n";
        for other in [
            &dos[..dos.len() - 3],
            &dos[1..],
            &altered,
            &continued,
            "\r\n",
            "",
        ] {
            fs::write(&path, other).unwrap();
            let found = record.find_lines(&output).unwrap();
            // Only the last 4,096 bytes of a long output are compared.
            let is_beyond = other == altered && text.len() > 4096;
            assert!(
                is_beyond || matches!(found, Found::Other { .. }),
                "{lines}: {found:?}"
            );
        }
        fs::write(&path, &text).unwrap();
        assert_eq!(
            record.find_lines(&output).unwrap(),
            Found::Tail { offset: end }
        );
    }
}
