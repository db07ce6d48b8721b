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

#[test]
fn a_whole_last_line_without_an_ending_gets_one_wherever_the_checkpoint_ends() {
    for is_closed in [false, true] {
        for bounds in [vec![0, 3], vec![0, 2, 3], vec![0, 200, 203]] {
            let folder = tempdir().unwrap();
            let path = folder.path().join("out.jsonl");
            let (mut output, _) = open(&path).unwrap();
            let count = *bounds.last().unwrap();
            for ends in bounds.windows(2) {
                append(&mut output, ends[0]..ends[1]).unwrap();
            }
            match is_closed {
                true => output.close().unwrap(),
                false => drop(output),
            }
            let text = fs::read(&path).unwrap();
            fs::write(&path, &text[..text.len() - 1]).unwrap();
            let (mut output, report) = open(&path).unwrap();
            assert!(
                report.added_line_ending
                    && report.removed.is_none()
                    && report.other_file_bytes.is_none()
            );
            assert_eq!(fs::read(&path).unwrap(), text);
            assert_eq!(known(&output, 0..count).len(), count);
            append(&mut output, count..count + 1).unwrap();
            assert_eq!(positions(&path), whole(0..count + 1));
        }
    }
}

#[test]
fn an_unfinished_line_of_a_processed_message_is_reported_as_processed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..3).unwrap();
    output.close().unwrap();
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 10]).unwrap();
    let (output, report) = open(&path).unwrap();
    assert_eq!(report.removed.unwrap().processed, ids(2..3));
    assert_eq!(
        (positions(&path), known(&output, 0..9)),
        (whole(0..2), vec![0, 1, 2])
    );
}

/// A change that an editor makes to a file.
type Edit<'a> = dyn Fn(&[u8]) -> Vec<u8> + 'a;

#[test]
fn line_endings_changed_by_an_editor_do_not_make_another_output() {
    let dos = |text: &[u8]| {
        String::from_utf8_lossy(text)
            .replace('\n', "\r\n")
            .into_bytes()
    };
    let marked = |text: &[u8]| [b"\xef\xbb\xbf", text].concat();
    let both = |text: &[u8]| marked(&dos(text));
    let unended = |text: &[u8]| dos(&text[..text.len() - 1]);
    let blank = |text: &[u8]| [text, b"\n"].concat();
    let edits: [&Edit<'_>; 5] = [&dos, &marked, &both, &unended, &blank];
    for edit in edits {
        for has_checkpoint in [true, false] {
            let folder = tempdir().unwrap();
            let path = folder.path().join("out.jsonl");
            let (mut output, _) = open(&path).unwrap();
            append(&mut output, 0..100).unwrap();
            append(&mut output, 100..103).unwrap();
            drop(output);
            fs::write(&path, edit(&fs::read(&path).unwrap())).unwrap();
            if !has_checkpoint {
                fs::remove_file(checkpoint(&path)).unwrap();
            }
            let (mut output, report) = open(&path).unwrap();
            assert_eq!(known(&output, 0..200).len(), 103);
            assert!(report.removed.is_none() && report.other_file_bytes.is_none());
            append(&mut output, 103..104).unwrap();
            drop(output);
            assert_eq!(known(&open(&path).unwrap().0, 0..200).len(), 104);
        }
    }
}

/// Makes an output whose last append, of several pages, counts as not synced. Returns the offset of
/// that append, and the contents.
fn unsynced(path: &Path) -> (usize, Vec<u8>) {
    let (mut output, _) = open(path).unwrap();
    append(&mut output, 0..3).unwrap();
    append(&mut output, 3..7).unwrap();
    let synced = fs::metadata(path).unwrap().len();
    append(&mut output, 7..200).unwrap();
    (synced.try_into().unwrap(), fs::read(path).unwrap())
}

/// Asserts that a receiver repairs a damaged output: everything that was not acknowledged is
/// redelivered, and every line is there once, in order.
#[track_caller]
fn assert_heals(path: &Path, synced: usize, damaged: &[u8]) -> OpenReport {
    let (mut output, report) = open(path).unwrap();
    let held = positions(path);
    assert_eq!(held, whole(0..held.len()), "the first lines, whole");
    assert!(fs::read(path).unwrap().starts_with(&damaged[..synced]));
    assert_eq!(
        known(&output, 0..300).len(),
        held.len(),
        "and no others are known"
    );
    append(&mut output, held.len()..200).unwrap();
    assert_eq!(positions(path), whole(0..200));
    report
}

#[test]
fn any_lost_page_of_the_last_append_is_cut_off_with_everything_after_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    let checkpoint_then = fs::read(checkpoint(&path)).unwrap();
    let pages = synced / 512..=text.len() / 512;
    for (filling, page) in [0, 0xff, 0x01]
        .iter()
        .flat_map(|fill| pages.clone().map(move |page| (*fill, page)))
    {
        let lost = (page * 512).max(synced)..((page + 1) * 512).min(text.len());
        if lost.is_empty() {
            continue;
        }
        let mut damaged = text.clone();
        damaged[lost.clone()].fill(filling);
        fs::write(&path, &damaged).unwrap();
        fs::write(checkpoint(&path), &checkpoint_then).unwrap();
        let removed = assert_heals(&path, synced, &damaged).removed.unwrap();
        let kept = fs::read(&removed.kept_in).unwrap();
        assert!(damaged.ends_with(&kept) && kept.len() as u64 == removed.bytes);
        assert!(kept.len() >= text.len() - lost.start, "from the damage on");
        assert_eq!((mode(&removed.kept_in), removed.processed), (0o600, vec![]));
        fs::remove_file(&removed.kept_in).unwrap();
    }
}

#[test]
fn the_last_append_may_end_anywhere_or_with_zeros() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    let checkpoint_then = fs::read(checkpoint(&path)).unwrap();
    for end in (synced..synced + 2 * line(7).len()).step_by(11) {
        for zeros in [0, 1, 5000] {
            let damaged = [&text[..end], &vec![0; zeros][..]].concat();
            fs::write(&path, &damaged).unwrap();
            fs::write(checkpoint(&path), &checkpoint_then).unwrap();
            if let Some(removed) = assert_heals(&path, synced, &damaged).removed {
                fs::remove_file(removed.kept_in).unwrap();
            }
        }
    }
}

#[test]
fn stale_disk_contents_are_not_taken_for_lines_of_this_output() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    // Copies of earlier lines, and a part of one, in place of a page.
    let (from, to) = (synced + line(7).len() * 2, synced + 2048);
    let mut damaged = text.clone();
    damaged.copy_within(0..to - from, from);
    fs::write(&path, &damaged).unwrap();
    let (mut output, report) = open(&path).unwrap();
    assert!(report.removed.unwrap().lines > 0);
    for missing in 0..200 {
        if known(&output, missing..missing + 1).is_empty() {
            append(&mut output, missing..missing + 1).unwrap();
        }
    }
    let mut all = positions(&path);
    all.sort_unstable();
    assert_eq!(all, whole(0..200));
}

#[test]
fn a_line_damaged_by_an_editor_is_removed_and_whole_lines_after_it_stay() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    let third = synced + line(7).len() * 2;
    for damage in ["", "x", "\"}\n{"] {
        let mut edited = text.clone();
        edited.splice(third + 40..third + 41, damage.bytes());
        fs::write(&path, &edited).unwrap();
        let (mut output, report) = open(&path).unwrap();
        let rest: Vec<_> = whole(0..9).into_iter().chain(whole(10..200)).collect();
        assert_eq!(positions(&path), rest, "{damage:?}");
        let removed = report.removed.unwrap();
        assert_eq!(fs::read(&removed.kept_in).unwrap(), edited[third..]);
        assert!(!removed.is_torn_line && removed.lines > 0);
        // If it was not acknowledged, it is redelivered.
        append(&mut output, 9..10).unwrap();
        assert_eq!(known(&output, 0..300).len(), 200);
        drop(output);
        fs::write(&path, &text).unwrap();
        fs::remove_file(checkpoint(&path)).unwrap();
        drop(open(&path).unwrap());
        fs::write(&path, &text[..synced]).unwrap();
        fs::remove_file(checkpoint(&path)).unwrap();
        let (mut output, _) = open(&path).unwrap();
        append(&mut output, 7..200).unwrap();
    }
}

#[test]
fn without_a_checkpoint_text_stays_and_a_foreign_file_is_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let text = [
        &line(0)[..],
        b"{\"message_id\":\"m-1\", damaged\n",
        &line(2),
    ]
    .concat();
    fs::write(&path, &text).unwrap();
    let (_output, report) = open(&path).unwrap();
    assert_eq!(
        (report.messages, report.foreign_lines, report.removed),
        (2, 1, None)
    );
    assert_eq!(fs::read(&path).unwrap(), text);
    for foreign in [
        &b"\x89PNG\r\n\x1a\n\0\0\0\0"[..],
        b"\0\0\0\x01\0\0",
        b"{\"mess\0\0age",
    ] {
        let path = folder.path().join("picture");
        fs::write(&path, foreign).unwrap();
        assert!(
            matches!(open(&path), Err(OutputError::Foreign(_))),
            "{foreign:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), foreign);
    }
}

#[test]
fn a_line_with_zeros_in_an_output_is_cut_off_even_without_a_checkpoint() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, [line(0), line(1), line(2)].concat()).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 10], line(0).len() as u64 + 20)
        .unwrap();
    let (output, report) = open(&path).unwrap();
    assert_eq!(
        (positions(&path), known(&output, 0..9)),
        (whole(0..1), vec![0])
    );
    assert!(!report.removed.unwrap().is_torn_line);
}

/// Makes an output of a killed receiver, with these lines after the checkpoint.
fn write_after_checkpoint(path: &Path, lines: &[u8]) {
    let (mut output, _) = open(path).unwrap();
    append(&mut output, 0..3).unwrap();
    drop(output);
    drop(open(path).unwrap());
    let text = [&fs::read(path).unwrap(), lines].concat();
    fs::write(path, text).unwrap();
}

/// The line of a message with this payload.
fn received(position: usize, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Received {
        message_id: &format!("m-{position}"),
        sender: Some("sender_1"),
        is_sender_verified: true,
        payload,
        sent_time: None,
        received_time: jiff::Timestamp::UNIX_EPOCH,
    }
    .write(&mut out);
    out
}

/// Asserts that lines with these payloads are kept and known when the output is opened again.
#[track_caller]
fn assert_stays(payloads: &[Vec<u8>]) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let lines = payloads.iter().zip(3..);
    let lines: Vec<u8> = lines
        .flat_map(|(payload, position)| received(position, payload))
        .collect();
    write_after_checkpoint(&path, &lines);
    let text = fs::read(&path).unwrap();
    for has_checkpoint in [true, false] {
        let (output, report) = open(&path).unwrap();
        assert_eq!(
            (
                report.removed,
                report.foreign_lines,
                report.added_line_ending
            ),
            (None, 0, false)
        );
        assert_eq!(
            known(&output, 0..payloads.len() + 9).len(),
            payloads.len() + 3
        );
        assert!(fs::read(&path).unwrap() == text);
        if has_checkpoint {
            fs::remove_file(checkpoint(&path)).unwrap();
        }
    }
}

#[test]
fn a_line_with_any_character_that_json_does_not_escape_stays() {
    let characters = (0..=0x10_ffff).filter_map(char::from_u32);
    let payloads = characters
        .collect::<Vec<char>>()
        .chunks(64)
        .flat_map(|characters| {
            let text: String = characters.iter().collect();
            let raw = text.replace(['"', '\\'], "").replace(|c| c < ' ', "");
            [
                format!("\"{raw}\"").into_bytes(),
                format!("{{\"{raw}\":1}}").into_bytes(),
                text.into_bytes(),
            ]
        })
        .collect::<Vec<_>>();
    assert_stays(&payloads);
    let alone = (0..0x300)
        .filter_map(char::from_u32)
        .chain(['\u{feff}', '\u{2028}', '\u{2029}']);
    let alone: Vec<_> = alone
        .flat_map(|c| [format!("\"{c}\"").into_bytes(), c.to_string().into_bytes()])
        .collect();
    assert_stays(&alone);
    let bytes = (0..=255_u8).map(|byte| vec![byte, 0xff, byte]);
    assert_stays(&bytes.collect::<Vec<_>>());
}

/// Generates texts, JSON strings and arbitrary bytes.
fn payload() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let texts = "\\PC*|[\u{0}-\u{a0}]*|\"[ -!#-\\[\\]-\u{a0}]*\"";
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![texts.prop_map(String::into_bytes), bytes]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn every_line_that_is_written_is_recognised_as_whole(
        payloads in proptest::collection::vec(payload(), 1..40),
    ) {
        assert_stays(&payloads);
    }
}

#[test]
fn acknowledged_messages_that_are_cut_off_with_damage_are_all_reported() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..6).unwrap();
    output.close().unwrap();
    // A new record, then damage between those that the checkpoint knows.
    let mut text = [line(9), line(0), line(1), line(2), line(3)].concat();
    let kept = line(9).len() + line(0).len();
    text[kept + 30] = 1;
    fs::write(&path, &text).unwrap();
    let (_output, report) = open(&path).unwrap();
    assert_eq!(positions(&path), [Some(9), Some(0)]);
    let removed = report.removed.unwrap();
    assert_eq!(removed.processed, ids(1..4));
    assert_eq!(fs::read(removed.kept_in).unwrap(), text[kept..]);
}

#[test]
fn lines_that_an_editor_ended_with_cr_alone_are_all_reported() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..3).unwrap();
    output.close().unwrap();
    let mut text = fs::read(&path).unwrap();
    for byte in text.iter_mut().filter(|byte| **byte == b'\n') {
        *byte = b'\r';
    }
    fs::write(&path, &text).unwrap();
    let (_output, report) = open(&path).unwrap();
    let removed = report.removed.unwrap();
    assert_eq!(removed.processed, ids(0..3));
    assert_eq!((removed.lines, removed.is_torn_line), (3, false));
    assert_eq!(fs::read(removed.kept_in).unwrap(), text);
}
