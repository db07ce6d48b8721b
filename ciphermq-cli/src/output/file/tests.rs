mod damage;
mod payloads;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

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

fn open_as(path: &Path, is_gone: bool) -> Result<(OutputFile, OpenReport), OutputError> {
    OutputFile::open(OutputLocation {
        output: path,
        checkpoint: &checkpoint(path),
        is_gone,
    })
}

fn open(path: &Path) -> Result<(OutputFile, OpenReport), OutputError> {
    open_as(path, false)
}

fn ids(positions: Range<usize>) -> Vec<MessageId> {
    positions
        .map(|position| MessageId::new(&format!("m-{position}")).unwrap())
        .collect()
}

/// Appends these messages' lines.
fn append(output: &mut OutputFile, positions: Range<usize>) -> Result<(), OutputError> {
    let lines: Vec<u8> = positions.clone().flat_map(line).collect();
    let (sender, ids) = (ClientId::new("sender_1").unwrap(), ids(positions));
    output.append(&lines, ids.iter().map(|id| (Some(&sender), id)))
}

/// The positions of those messages that the output knows to be processed.
fn known(output: &OutputFile, positions: Range<usize>) -> Vec<usize> {
    let (sender, recorder) = (ClientId::new("sender_1").unwrap(), output.recorder());
    positions
        .clone()
        .zip(ids(positions))
        .filter(|(_, id)| recorder.is_processed(Some(&sender), id))
        .map(|(position, _)| position)
        .collect()
}

/// Asserts that only this unfinished line was removed, and that it is kept in a private file.
#[track_caller]
fn assert_torn(report: &OpenReport, torn: &[u8]) {
    let removed = report.removed.as_ref().expect("something was removed");
    assert!(removed.is_torn_line && removed.processed.is_empty());
    assert_eq!(removed.bytes, torn.len() as u64);
    assert_eq!(fs::read(&removed.kept_in).unwrap(), torn);
    assert_eq!(mode(&removed.kept_in), 0o600);
    fs::remove_file(&removed.kept_in).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn appended_messages_are_known_after_a_restart() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("new/deeper/out.jsonl");
    let (mut output, report) = open(&path).unwrap();
    assert_eq!(
        (report, known(&output, 0..9).len()),
        (OpenReport::default(), 0)
    );
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    append(&mut output, 0..2).unwrap();
    append(&mut output, 2..3).unwrap();
    // As after a kill: nothing is closed.
    drop(output);
    let (output, report) = open(&path).unwrap();
    // The first append writes a checkpoint at once.
    let expected = OpenReport {
        known: 2,
        messages: 1,
        ..OpenReport::default()
    };
    assert_eq!(report, expected);
    assert_eq!(known(&output, 0..9), [0, 1, 2]);
}

#[test]
fn lines_that_the_checkpoint_covers_are_not_read_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..100).unwrap();
    drop(output);
    // Opening writes a checkpoint: the present lines are not read next time.
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 100..103).unwrap();
    drop(output);
    let (output, report) = open(&path).unwrap();
    assert_eq!((report.known, report.messages), (100, 3));
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
    let (output, report) = open(&path).unwrap();
    assert_eq!((report.known, report.messages), (0, 5));
    assert_eq!(known(&output, 0..9).len(), 5);
}

#[test]
fn a_damaged_checkpoint_is_rebuilt_from_the_output_and_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    let whole = fs::read(checkpoint(&path)).unwrap();
    let mut damages: Vec<Vec<u8>> = (1..whole.len()).map(|end| whole[..end].to_vec()).collect();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        damages.push(flipped);
    }
    for damaged in damages {
        fs::write(checkpoint(&path), &damaged).unwrap();
        let (output, report) = open(&path).unwrap();
        assert_eq!((report.known, report.messages), (0, 5));
        assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
        assert_eq!(
            fs::read(report.damaged_checkpoint.unwrap()).unwrap(),
            damaged
        );
    }
    // Without an output to rebuild it from, a person must decide.
    fs::write(checkpoint(&path), &whole[1..]).unwrap();
    fs::write(&path, "").unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OutputError::Checkpoint(_)), "{error}");
    assert!(error.advice().contains("remove it"), "{}", error.advice());
}

#[test]
fn an_empty_checkpoint_counts_as_missing() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(checkpoint(&path), "").unwrap();
    let (mut output, report) = open(&path).unwrap();
    assert_eq!(report, OpenReport::default());
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    fs::write(checkpoint(&path), "").unwrap();
    let (output, report) = open(&path).unwrap();
    assert_eq!(
        (report.known, report.messages, report.damaged_checkpoint),
        (0, 5, None)
    );
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
}

#[test]
fn a_file_without_any_line_of_a_receiver_is_refused_and_not_changed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    for text in [
        "q3VhcmFudGluZQ==\n",
        "[server]\naddress = \"localhost:5672\"\n",
        "{\n \"epoch\": 1\n}\n",
        "{\"epoch\": 1}\n",
        "{\"a\":1}",
        "\u{1}\u{2}\n",
    ] {
        fs::write(&path, text).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                OutputError::Unrecognised(_) | OutputError::Foreign(_)
            ),
            "{text:?}: {error}"
        );
        assert!(error.advice().contains("Name another file"));
        assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        assert!(!checkpoint(&path).exists(), "{text:?}");
    }
    // Also with a checkpoint of a run that has received nothing, and one of another output.
    fs::write(&path, "").unwrap();
    drop(open(&path).unwrap());
    fs::write(&path, "\u{1}\u{2}\ntext\n").unwrap();
    assert!(matches!(open(&path), Err(OutputError::Unrecognised(_))));
    assert!(checkpoint(&path).exists());
    fs::write(&path, "").unwrap();
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..2).unwrap();
    output.close().unwrap();
    fs::write(&path, "text\n").unwrap();
    assert!(matches!(open(&path), Err(OutputError::Unrecognised(_))));
    assert_eq!(fs::read(&path).unwrap(), b"text\n");
}

#[test]
fn a_torn_or_damaged_first_line_is_recognised_and_blank_lines_are_accepted() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    drop(open(&path).unwrap());
    let checkpoint_then = fs::read(checkpoint(&path)).unwrap();
    for has_checkpoint in [true, false] {
        for end in 1..line(0).len() - 1 {
            fs::write(&path, &line(0)[..end]).unwrap();
            fs::write(checkpoint(&path), &checkpoint_then).unwrap();
            if !has_checkpoint {
                fs::remove_file(checkpoint(&path)).unwrap();
            }
            assert_torn(&open(&path).unwrap().1, &line(0)[..end]);
        }
        fs::write(&path, "\n\r\n \n").unwrap();
        open(&path).unwrap();
    }
    // The first page of several is lost.
    let mut text: Vec<u8> = (0..100).flat_map(line).collect();
    text[..512].fill(0);
    fs::write(&path, &text).unwrap();
    fs::write(checkpoint(&path), &checkpoint_then).unwrap();
    assert_eq!(open(&path).unwrap().1.messages, 0);
}

#[test]
fn an_output_is_not_its_own_checkpoint() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, line(0)).unwrap();
    fs::hard_link(&path, checkpoint(&path)).unwrap();
    assert!(matches!(open(&path), Err(OutputError::OneFile(_))));
    assert_eq!(fs::read(&path).unwrap(), line(0));
}

#[test]
fn an_output_moved_away_after_its_receiver_ended_is_begun_anew_without_duplicates() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    fs::rename(&path, folder.path().join("yesterday.jsonl")).unwrap();
    let (mut output, report) = open(&path).unwrap();
    assert_eq!((report.other_file_bytes, report.known), (Some(bytes), 5));
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
    append(&mut output, 5..6).unwrap();
    drop(output);
    let (output, report) = open(&path).unwrap();
    assert_eq!(
        (report.other_file_bytes, report.known, report.messages),
        (None, 6, 0)
    );
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn an_output_moved_away_after_its_receiver_was_killed_is_required() {
    let folder = tempdir().unwrap();
    let (path, moved) = (
        folder.path().join("out.jsonl"),
        folder.path().join("moved.jsonl"),
    );
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..5).unwrap();
    drop(output);
    fs::rename(&path, &moved).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OutputError::Unknown(_)), "{error}");
    assert!(error.advice().contains("--output-is-gone"));
    assert!(!path.exists(), "no file is created in its place");
    // After it is put back, everything is known.
    fs::rename(&moved, &path).unwrap();
    assert_eq!(known(&open(&path).unwrap().0, 0..9), [0, 1, 2, 3, 4]);
    // If it is lost, the messages that the checkpoint knows stay processed.
    fs::remove_file(&path).unwrap();
    open(&path).unwrap_err();
    let (output, report) = open_as(&path, true).unwrap();
    assert!(report.other_file_bytes.is_some());
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
}

#[test]
fn a_missing_output_is_required_even_if_its_receiver_was_killed_before_the_first_checkpoint() {
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
fn no_checkpoint_is_written_after_a_failed_write() {
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
    for end in 1..line(2).len() - 1 {
        let torn = &line(2)[..end];
        fs::write(&path, [&whole, torn].concat()).unwrap();
        let (mut output, report) = open(&path).unwrap();
        assert_torn(&report, torn);
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
        let (_output, report) = open(&path).unwrap();
        assert_torn(&report, torn);
        assert_eq!(fs::read(&path).unwrap(), line(0));
        fs::remove_file(checkpoint(&path)).unwrap();
    }
}

#[test]
fn a_foreign_unfinished_line_is_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "dear diary").unwrap();
    assert!(matches!(open(&path), Err(OutputError::Foreign(_))));
    assert_eq!(fs::read(&path).unwrap(), b"dear diary");
}

#[test]
fn foreign_lines_are_counted_and_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let text = [&line(0)[..], b"# a remark\n\n", &line(1)].concat();
    fs::write(&path, &text).unwrap();
    let (_output, report) = open(&path).unwrap();
    assert_eq!(
        report,
        OpenReport {
            messages: 2,
            foreign_lines: 2,
            ..OpenReport::default()
        }
    );
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn a_second_writer_is_refused_until_the_first_ends() {
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
fn nothing_is_appended_to_a_file_that_was_moved_or_removed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..1).unwrap();
    fs::rename(&path, folder.path().join("old.jsonl")).unwrap();
    assert!(matches!(
        append(&mut output, 1..2),
        Err(OutputError::Moved(_))
    ));
    fs::write(&path, "").unwrap();
    assert!(matches!(
        append(&mut output, 1..2),
        Err(OutputError::Moved(_))
    ));
    assert_eq!(fs::read(folder.path().join("old.jsonl")).unwrap(), line(0));
}

#[test]
fn a_folder_cannot_be_an_output() {
    let folder = tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OutputError::Open { .. }), "{error}");
}

#[test]
fn the_advice_fits_the_cause() {
    let path = || PathBuf::from("f");
    let source = || io::Error::from(io::ErrorKind::StorageFull);
    let unwritten = CheckpointError::Write {
        path: path(),
        source: source(),
    };
    for (error, then) in [
        (
            OutputError::Open {
                path: path(),
                source: source(),
            },
            "--output",
        ),
        (
            OutputError::Write {
                path: path(),
                source: source(),
            },
            "delivered again",
        ),
        (
            OutputError::Quarantine {
                path: path(),
                source: source(),
            },
            "--quarantine",
        ),
        (OutputError::Checkpoint(unwritten), "--checkpoint"),
    ] {
        let advice = error.advice();
        assert!(
            advice.contains("disk is full") && advice.contains(then),
            "{error}: {advice}"
        );
        assert!(!advice.contains("may write"), "{advice}");
    }
}

/// The positions of the whole lines in the file, in order; `None` for every other line.
fn positions(path: &Path) -> Vec<Option<usize>> {
    let text = fs::read(path).unwrap();
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines
        .map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).ok()?;
            value["message_id"]
                .as_str()?
                .strip_prefix("m-")?
                .parse()
                .ok()
        })
        .collect()
}

fn whole(positions: Range<usize>) -> Vec<Option<usize>> {
    positions.map(Some).collect()
}
