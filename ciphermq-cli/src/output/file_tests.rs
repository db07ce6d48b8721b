use std::fs;

use ciphermq_client::Deduplication as _;
use tempfile::tempdir;

use super::*;
use crate::output::record::Received;

fn line(position: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let id = format!("m-{position}");
    let received_time = jiff::Timestamp::UNIX_EPOCH;
    Received {
        message_id: &id,
        sender: Some("sender_1"),
        is_sender_verified: true,
        payload: b"{\"a\":1}",
        sent_time: None,
        received_time,
    }
    .write(&mut out);
    out
}

fn checkpoint(path: &Path) -> PathBuf {
    path.with_extension("checkpoint")
}

fn open_as(path: &Path, is_gone: bool) -> Result<(OutputFile, Found), OutputError> {
    OutputFile::open(Place {
        output: path,
        checkpoint: &checkpoint(path),
        is_gone,
    })
}

fn open(path: &Path) -> Result<(OutputFile, Found), OutputError> {
    open_as(path, false)
}

fn ids(positions: std::ops::Range<usize>) -> Vec<MessageId> {
    positions
        .map(|position| MessageId::new(&format!("m-{position}")).unwrap())
        .collect()
}

/// Appends these messages' lines.
fn append(output: &mut OutputFile, positions: std::ops::Range<usize>) -> Result<(), OutputError> {
    let lines: Vec<u8> = positions.clone().flat_map(line).collect();
    let (sender, ids) = (ClientId::new("sender_1").unwrap(), ids(positions));
    output.append(&lines, ids.iter().map(|id| (Some(&sender), id)))
}

/// Which of these messages it knows to be processed.
fn known(output: &OutputFile, positions: std::ops::Range<usize>) -> Vec<usize> {
    let (sender, recorder) = (ClientId::new("sender_1").unwrap(), output.recorder());
    positions
        .clone()
        .zip(ids(positions))
        .filter(|(_, id)| recorder.is_processed(Some(&sender), id))
        .map(|(position, _)| position)
        .collect()
}

#[test]
fn what_was_appended_is_known_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("new/deeper/out.jsonl");
    let (mut output, found) = open(&path).unwrap();
    assert_eq!((found, known(&output, 0..9).len()), (Found::default(), 0));
    append(&mut output, 0..2).unwrap();
    append(&mut output, 2..3).unwrap();
    // A kill: nothing is closed.
    drop(output);
    let (output, found) = open(&path).unwrap();
    // The first lines are counted by a checkpoint at once.
    let expected = Found {
        known: 2,
        messages: 1,
        ..Found::default()
    };
    assert_eq!(found, expected);
    assert_eq!(known(&output, 0..9), [0, 1, 2]);
}

#[test]
fn what_the_checkpoint_knows_is_not_read_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..100).unwrap();
    drop(output);
    // Opening writes a checkpoint: what stands there now is not read next time.
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 100..103).unwrap();
    drop(output);
    let (output, found) = open(&path).unwrap();
    assert_eq!((found.known, found.messages), (100, 3));
    assert_eq!(known(&output, 0..200).len(), 103);
    output.close().unwrap();
    assert_eq!(open(&path).unwrap().1.messages, 0);
}

#[test]
fn without_its_checkpoint_the_whole_output_is_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    fs::remove_file(checkpoint(&path)).unwrap();
    let (output, found) = open(&path).unwrap();
    assert_eq!((found.known, found.messages), (0, 5));
    assert_eq!(known(&output, 0..9).len(), 5);
}

#[test]
fn a_damaged_checkpoint_is_built_anew_from_the_output_and_kept_aside() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    let whole = fs::read(checkpoint(&path)).unwrap();
    let mut damages: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        damages.push(flipped);
    }
    for damaged in damages {
        fs::write(checkpoint(&path), &damaged).unwrap();
        let (output, found) = open(&path).unwrap();
        assert_eq!((found.known, found.messages), (0, 5));
        assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
        assert_eq!(fs::read(found.damaged.unwrap()).unwrap(), damaged);
    }
    // Where there is nothing to build it from, a person must decide.
    fs::write(checkpoint(&path), &whole[1..]).unwrap();
    fs::write(&path, "").unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OutputError::Checkpoint(_)), "{error}");
    assert!(error.advice().contains("remove it"), "{}", error.advice());
}

#[test]
fn an_output_that_was_moved_away_after_its_receiver_ended_begins_anew_and_nothing_comes_twice() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    fs::rename(&path, folder.path().join("yesterday.jsonl")).unwrap();
    let (mut output, found) = open(&path).unwrap();
    assert_eq!((found.other_file, found.known), (Some(bytes), 5));
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
    append(&mut output, 5..6).unwrap();
    drop(output);
    let (output, found) = open(&path).unwrap();
    assert_eq!((found.other_file, found.known, found.messages), (None, 6, 0));
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn an_output_that_was_moved_away_after_its_receiver_was_killed_is_asked_for() {
    let folder = tempdir().unwrap();
    let (path, moved) = (folder.path().join("out.jsonl"), folder.path().join("moved.jsonl"));
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    drop(output);
    fs::rename(&path, &moved).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OutputError::Unknown(_)), "{error}");
    assert!(error.advice().contains("--output-is-gone"));
    assert!(!path.exists(), "nothing is put where the moved one belongs");
    // Put back, it is as if nothing had happened.
    fs::rename(&moved, &path).unwrap();
    assert_eq!(known(&open(&path).unwrap().0, 0..9), [0, 1, 2, 3, 4]);
    // Gone for good: what the checkpoint knows stays processed.
    fs::remove_file(&path).unwrap();
    open(&path).unwrap_err();
    let (output, found) = open_as(&path, true).unwrap();
    assert!(found.other_file.is_some());
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
}

#[test]
fn an_output_that_is_gone_is_asked_for_even_if_its_receiver_was_killed_before_the_first_checkpoint() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    drop(open(&path).unwrap());
    fs::write(&path, line(0)).unwrap();
    fs::rename(&path, folder.path().join("moved.jsonl")).unwrap();
    assert!(matches!(open(&path), Err(OutputError::Unknown(_))));
    assert!(!path.exists());
    open_as(&path, true).unwrap();
}

#[test]
fn after_a_failed_write_no_checkpoint_claims_anything() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..2).unwrap();
    let before = fs::read(checkpoint(&path)).unwrap();
    output.file = File::open(&path).unwrap();
    assert!(matches!(
        append(&mut output, 2..3),
        Err(OutputError::Write { .. })
    ));
    output.close().unwrap();
    assert_eq!(fs::read(checkpoint(&path)).unwrap(), before);
    assert_eq!(known(&open(&path).unwrap().0, 0..9), [0, 1]);
}

#[test]
fn a_line_torn_anywhere_is_cut_off_and_the_rest_stays() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let whole = [line(0), line(1)].concat();
    for end in 0..line(2).len() - 1 {
        let torn = &line(2)[..=end];
        if torn.ends_with(b"\n") {
            continue;
        }
        fs::write(&path, [&whole, torn].concat()).unwrap();
        let (mut output, found) = open(&path).unwrap();
        assert_eq!(found.torn_bytes, torn.len() as u64);
        assert_eq!(known(&output, 0..9), [0, 1]);
        append(&mut output, 2..3).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [&whole[..], &line(2)].concat());
        drop(output);
        fs::remove_file(checkpoint(&path)).unwrap();
    }
}

#[test]
fn zeros_left_by_a_crash_of_the_machine_are_cut_off() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    for torn in [&b"\0\0\0\0"[..], b"{\"mess\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
        fs::write(&path, [&line(0), torn].concat()).unwrap();
        let (_output, found) = open(&path).unwrap();
        assert_eq!(found.torn_bytes, torn.len() as u64);
        assert_eq!(fs::read(&path).unwrap(), line(0));
        fs::remove_file(checkpoint(&path)).unwrap();
    }
}

#[test]
fn somebody_elses_unfinished_line_is_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "dear diary").unwrap();
    assert!(matches!(open(&path), Err(OutputError::Foreign(_))));
    assert_eq!(fs::read(&path).unwrap(), b"dear diary");
}

#[test]
fn lines_that_are_none_of_ours_are_counted_and_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let text = [&line(0)[..], b"# a remark\n\n", &line(1)].concat();
    fs::write(&path, &text).unwrap();
    let (_output, found) = open(&path).unwrap();
    assert_eq!(
        found,
        Found {
            messages: 2,
            other_lines: 2,
            ..Found::default()
        }
    );
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn a_second_writer_is_kept_away_until_the_first_is_gone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let first = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OutputError::Locked(_)));
    assert!(error.advice().contains("--output"));
    drop(first);
    open(&path).unwrap();
}

#[test]
fn a_file_that_was_moved_or_removed_takes_no_more_lines() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..1).unwrap();
    fs::rename(&path, folder.path().join("old.jsonl")).unwrap();
    assert!(matches!(append(&mut output, 1..2), Err(OutputError::Moved(_))));
    fs::write(&path, "").unwrap();
    assert!(matches!(append(&mut output, 1..2), Err(OutputError::Moved(_))));
    assert_eq!(fs::read(folder.path().join("old.jsonl")).unwrap(), line(0));
}

#[test]
fn a_folder_is_no_output() {
    let folder = tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OutputError::Open { .. }), "{error}");
}

#[test]
fn quarantine_lines_of_many_writers_stand_side_by_side() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data/q.jsonl");
    append_shared(&path, b"one\n").unwrap();
    append_shared(&path, b"two\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
}
