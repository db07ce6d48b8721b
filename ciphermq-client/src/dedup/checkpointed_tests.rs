use std::fs::{self, OpenOptions};
use std::io::Write as _;

use ciphermq_protocol::StreamId;
use tempfile::TempDir;

use super::*;

/// An output of numbers, one per line, which are positions of one stream.
struct Scene {
    folder: TempDir,
}

impl Scene {
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
fn only_what_follows_the_checkpoint_must_be_read() {
    let scene = Scene::new();
    let mut output = scene.output();
    let mut record = scene.open().unwrap();
    assert_eq!(record.find(&output).unwrap(), Found::Nothing);
    let end = write(&mut output, &record, 0..2000);
    record.checkpoint(&output, end).unwrap();
    write(&mut output, &record, 2000..2010);
    drop(record);

    let record = scene.open().unwrap();
    assert_eq!(record.find(&output).unwrap(), Found::Tail { offset: end });
    assert!(knows(&record, 0..2000));
    assert!(!knows(&record, 2000..2001), "that stands in the tail");
    assert_eq!(record.recorder().messages(), 2000);
}

#[test]
fn an_output_that_was_moved_cut_or_replaced_is_told_and_what_was_counted_stays() {
    for closed in [false, true] {
        let scene = Scene::new();
        let mut output = scene.output();
        let mut record = scene.open().unwrap();
        let end = write(&mut output, &record, 0..100);
        if closed {
            record.close(&output, end).unwrap();
        } else {
            record.checkpoint(&output, end).unwrap();
            drop(record);
        }
        let text = fs::read(scene.path("out")).unwrap();
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
            fs::write(scene.path("out"), other).unwrap();
            let record = scene.open().unwrap();
            assert_eq!(
                record.find(&output).unwrap(),
                Found::Other {
                    offset: end,
                    closed
                }
            );
            assert!(knows(&record, 0..100));
        }
        fs::write(scene.path("out"), [&text[..], b"100\n"].concat()).unwrap();
        assert_eq!(
            scene.open().unwrap().find(&output).unwrap(),
            Found::Tail { offset: end },
            "and the right one is known again"
        );
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_refused_and_it_can_be_built_anew() {
    let scene = Scene::new();
    let mut output = scene.output();
    let mut record = scene.open().unwrap();
    let end = write(&mut output, &record, 0..10);
    record.checkpoint(&output, end).unwrap();
    drop(record);
    let path = scene.path("out.checkpoint");
    let whole = fs::read(&path).unwrap();
    let is_refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        matches!(
            scene.open(),
            Err(CheckpointError::Unreadable {
                reason: Unreadable::Damaged,
                ..
            })
        )
    };
    assert!((0..whole.len()).all(|end| is_refused(&whole[..end])));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        assert!(is_refused(&flipped), "{at}");
    }
    let (record, aside) = Checkpointed::rebuild(&path).unwrap();
    assert_eq!(record.find(&output).unwrap(), Found::Nothing);
    assert_eq!(aside.unwrap(), scene.path("out.checkpoint.damaged"));
}

#[test]
fn a_second_process_is_refused() {
    let scene = Scene::new();
    let first = scene.open().unwrap();
    assert!(matches!(scene.open(), Err(CheckpointError::Locked(_))));
    drop(first);
    scene.open().unwrap();
}

#[test]
fn a_checkpoint_is_due_after_a_bounded_part_of_the_output() {
    let scene = Scene::new();
    let mut output = scene.output();
    let mut record = scene.open().unwrap();
    assert!(record.is_closed() && !record.is_due(0) && record.is_due(1));
    let end = write(&mut output, &record, 0..10);
    record.checkpoint(&output, end).unwrap();
    assert!(!record.is_closed());
    assert!(!record.is_due(end + DUE_BYTES - 1) && record.is_due(end + DUE_BYTES));
}

#[test]
fn the_file_has_the_documented_form() {
    let scene = Scene::new();
    let mut output = scene.output();
    let record = scene.open().unwrap();
    let end = write(&mut output, &record, 0..3);
    let consumer = format!("consumer {}", record.consumer_id());
    record.close(&output, end).unwrap();
    let text = fs::read_to_string(scene.path("out.checkpoint")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let sum = hex(&Sha256::digest("0\n1\n2\n"));
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
    let scene = Scene::new();
    let mut output = scene.output();
    let mut record = scene.open().unwrap();
    let id = record.consumer_id().to_owned();
    drop(record);
    record = scene.open().unwrap();
    assert_eq!(record.consumer_id(), id, "before anything was written");
    let end = write(&mut output, &record, 0..3);
    record.checkpoint(&output, end).unwrap();
    drop(record);
    assert_eq!(scene.open().unwrap().consumer_id(), id);
}

#[test]
fn a_checkpoint_of_before_there_were_ids_gets_one() {
    let scene = Scene::new();
    let mut output = scene.output();
    let older = crate::checkpoint::encode(super::KIND, "other sender_1 z-1\n");
    fs::write(scene.path("out.checkpoint"), older).unwrap();
    let mut record = scene.open().unwrap();
    let id = record.consumer_id().to_owned();
    let end = write(&mut output, &record, 0..3);
    record.checkpoint(&output, end).unwrap();
    drop(record);
    let record = scene.open().unwrap();
    assert_eq!(record.consumer_id(), id);
    assert_eq!(record.recorder().messages(), 4);
}

#[test]
fn an_output_of_lines_is_recognised_after_an_editor_wherever_a_checkpoint_ended() {
    let scene = Scene::new();
    let path = scene.path("out");
    for lines in [1, 2, 700, 1500, 70_000] {
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(scene.path("out.checkpoint"));
        let mut output = scene.output();
        let mut record = scene.open().unwrap();
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
        ] {
            fs::write(&path, &edited).unwrap();
            assert_eq!(record.find_lines(&output).unwrap(), Found::Tail { offset });
            assert!(matches!(record.find(&output).unwrap(), Found::Other { .. }));
        }
        let altered = dos.replacen('0', "8", 1);
        for other in [&dos[..dos.len() - 3], &dos[1..], &altered, "\r\n", ""] {
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
