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

/// Which of these messages it knows to be processed.
fn known(output: &OutputFile, positions: Range<usize>) -> Vec<usize> {
    let (sender, recorder) = (ClientId::new("sender_1").unwrap(), output.recorder());
    positions
        .clone()
        .zip(ids(positions))
        .filter(|(_, id)| recorder.is_processed(Some(&sender), id))
        .map(|(position, _)| position)
        .collect()
}

/// Nothing but this unfinished line was taken out, and it is kept for its owner alone.
#[track_caller]
fn assert_torn(found: &Found, torn: &[u8]) {
    let taken_out = found.taken_out.as_ref().expect("something was taken out");
    assert!(taken_out.is_torn_line && taken_out.processed.is_empty());
    assert_eq!(taken_out.bytes, torn.len() as u64);
    assert_eq!(fs::read(&taken_out.aside).unwrap(), torn);
    assert_eq!(mode(&taken_out.aside), 0o600);
    fs::remove_file(&taken_out.aside).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_appended_is_known_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("new/deeper/out.jsonl");
    let (mut output, found) = open(&path).unwrap();
    assert_eq!((found, known(&output, 0..9).len()), (Found::default(), 0));
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
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
    let mut damages: Vec<Vec<u8>> = (1..whole.len()).map(|end| whole[..end].to_vec()).collect();
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
fn an_empty_checkpoint_is_none() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(checkpoint(&path), "").unwrap();
    let (mut output, found) = open(&path).unwrap();
    assert_eq!(found, Found::default());
    append(&mut output, 0..5).unwrap();
    output.close().unwrap();
    fs::write(checkpoint(&path), "").unwrap();
    let (output, found) = open(&path).unwrap();
    assert_eq!((found.known, found.messages, found.damaged), (0, 5, None));
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4]);
}

#[test]
fn a_file_that_holds_no_line_of_ours_is_refused_and_stays_as_it_is() {
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
            matches!(error, OutputError::NotOurs(_) | OutputError::Foreign(_)),
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
    assert!(matches!(open(&path), Err(OutputError::NotOurs(_))));
    assert!(checkpoint(&path).exists());
    fs::write(&path, "").unwrap();
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..2).unwrap();
    output.close().unwrap();
    fs::write(&path, "text\n").unwrap();
    assert!(matches!(open(&path), Err(OutputError::NotOurs(_))));
    assert_eq!(fs::read(&path).unwrap(), b"text\n");
}

#[test]
fn a_first_line_that_was_torn_or_damaged_is_ours_and_blank_lines_are_nobodys() {
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
    assert_eq!(
        (found.other_file, found.known, found.messages),
        (None, 6, 0)
    );
    assert_eq!(known(&output, 0..9), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn an_output_that_was_moved_away_after_its_receiver_was_killed_is_asked_for() {
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
fn an_output_that_is_gone_is_asked_for_even_if_its_receiver_was_killed_before_the_first_checkpoint()
{
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
    for end in 1..line(2).len() - 1 {
        let torn = &line(2)[..end];
        fs::write(&path, [&whole, torn].concat()).unwrap();
        let (mut output, found) = open(&path).unwrap();
        assert_torn(&found, torn);
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
        assert_torn(&found, torn);
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
fn a_folder_is_no_output() {
    let folder = tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OutputError::Open { .. }), "{error}");
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
fn a_whole_last_line_without_its_ending_gets_it_wherever_the_checkpoint_ends() {
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
            let (mut output, found) = open(&path).unwrap();
            assert!(found.is_ended_now && found.taken_out.is_none() && found.other_file.is_none());
            assert_eq!(fs::read(&path).unwrap(), text);
            assert_eq!(known(&output, 0..count).len(), count);
            append(&mut output, count..count + 1).unwrap();
            assert_eq!(positions(&path), whole(0..count + 1));
        }
    }
}

#[test]
fn an_unfinished_line_of_a_message_that_was_processed_is_told_as_that() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut output, _) = open(&path).unwrap();
    append(&mut output, 0..3).unwrap();
    output.close().unwrap();
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 10]).unwrap();
    let (output, found) = open(&path).unwrap();
    assert_eq!(found.taken_out.unwrap().processed, ids(2..3));
    assert_eq!(
        (positions(&path), known(&output, 0..9)),
        (whole(0..2), vec![0, 1, 2])
    );
}

/// What an editor makes of a file.
type Edit<'a> = dyn Fn(&[u8]) -> Vec<u8> + 'a;

#[test]
fn what_an_editor_does_to_line_endings_makes_no_other_output() {
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
            let (mut output, found) = open(&path).unwrap();
            assert_eq!(known(&output, 0..200).len(), 103);
            assert!(found.taken_out.is_none() && found.other_file.is_none());
            append(&mut output, 103..104).unwrap();
            drop(output);
            assert_eq!(known(&open(&path).unwrap().0, 0..200).len(), 104);
        }
    }
}

/// An output whose last append of several pages was not synced, and where it begins.
fn unsynced(path: &Path) -> (usize, Vec<u8>) {
    let (mut output, _) = open(path).unwrap();
    append(&mut output, 0..3).unwrap();
    append(&mut output, 3..7).unwrap();
    let synced = fs::metadata(path).unwrap().len();
    append(&mut output, 7..200).unwrap();
    (synced.try_into().unwrap(), fs::read(path).unwrap())
}

/// What a receiver makes of a damaged output: all comes again that was not acknowledged, and stands
/// there once, in order.
#[track_caller]
fn assert_heals(path: &Path, synced: usize, damaged: &[u8]) -> Found {
    let (mut output, found) = open(path).unwrap();
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
    found
}

#[test]
fn any_page_of_the_last_append_that_the_disk_has_lost_is_cut_off_with_all_behind_it() {
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
        let taken_out = assert_heals(&path, synced, &damaged).taken_out.unwrap();
        let kept = fs::read(&taken_out.aside).unwrap();
        assert!(damaged.ends_with(&kept) && kept.len() as u64 == taken_out.bytes);
        assert!(kept.len() >= text.len() - lost.start, "from the damage on");
        assert_eq!(
            (mode(&taken_out.aside), taken_out.processed),
            (0o600, vec![])
        );
        fs::remove_file(&taken_out.aside).unwrap();
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
            if let Some(taken_out) = assert_heals(&path, synced, &damaged).taken_out {
                fs::remove_file(taken_out.aside).unwrap();
            }
        }
    }
}

#[test]
fn what_the_disk_held_before_is_not_taken_for_lines_of_this_output() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    // Lines that stand further up, and a part of one, in place of a page.
    let (from, to) = (synced + line(7).len() * 2, synced + 2048);
    let mut damaged = text.clone();
    damaged.copy_within(0..to - from, from);
    fs::write(&path, &damaged).unwrap();
    let (mut output, found) = open(&path).unwrap();
    assert!(found.taken_out.unwrap().lines > 0);
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
fn a_line_that_somebody_has_damaged_is_taken_out_and_the_whole_ones_behind_it_stay() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    let third = synced + line(7).len() * 2;
    for damage in ["", "x", "\"}\n{"] {
        let mut edited = text.clone();
        edited.splice(third + 40..third + 41, damage.bytes());
        fs::write(&path, &edited).unwrap();
        let (mut output, found) = open(&path).unwrap();
        let rest: Vec<_> = whole(0..9).into_iter().chain(whole(10..200)).collect();
        assert_eq!(positions(&path), rest, "{damage:?}");
        let taken_out = found.taken_out.unwrap();
        assert_eq!(fs::read(&taken_out.aside).unwrap(), edited[third..]);
        assert!(!taken_out.is_torn_line && taken_out.lines > 0);
        // If it was not acknowledged it comes again.
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
fn without_a_checkpoint_texts_stay_and_a_strangers_file_is_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let text = [
        &line(0)[..],
        b"{\"message_id\":\"m-1\", damaged\n",
        &line(2),
    ]
    .concat();
    fs::write(&path, &text).unwrap();
    let (_output, found) = open(&path).unwrap();
    assert_eq!(
        (found.messages, found.other_lines, found.taken_out),
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
fn a_line_with_zeros_in_a_file_of_ours_is_cut_off_without_a_checkpoint_too() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, [line(0), line(1), line(2)].concat()).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 10], line(0).len() as u64 + 20)
        .unwrap();
    let (output, found) = open(&path).unwrap();
    assert_eq!(
        (positions(&path), known(&output, 0..9)),
        (whole(0..1), vec![0])
    );
    assert!(!found.taken_out.unwrap().is_torn_line);
}

/// What stands after the checkpoint, of a receiver that was killed.
fn written_after_the_checkpoint(path: &Path, lines: &[u8]) {
    let (mut output, _) = open(path).unwrap();
    append(&mut output, 0..3).unwrap();
    drop(output);
    drop(open(path).unwrap());
    let text = [&fs::read(path).unwrap(), lines].concat();
    fs::write(path, text).unwrap();
}

/// The line of a message, and its id.
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

/// Opened again, these lines are all there, and known.
#[track_caller]
fn assert_stays(payloads: &[Vec<u8>]) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let lines = payloads.iter().zip(3..);
    let lines: Vec<u8> = lines
        .flat_map(|(payload, position)| received(position, payload))
        .collect();
    written_after_the_checkpoint(&path, &lines);
    let text = fs::read(&path).unwrap();
    for has_checkpoint in [true, false] {
        let (output, found) = open(&path).unwrap();
        assert_eq!(
            (found.taken_out, found.other_lines, found.is_ended_now),
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
fn a_line_with_any_character_that_json_leaves_as_it_is_stays() {
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

/// Texts, JSON strings, and anything.
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
fn acknowledged_messages_that_are_cut_off_with_damage_are_all_named() {
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
    let (_output, found) = open(&path).unwrap();
    assert_eq!(positions(&path), [Some(9), Some(0)]);
    let taken_out = found.taken_out.unwrap();
    assert_eq!(taken_out.processed, ids(1..4));
    assert_eq!(fs::read(taken_out.aside).unwrap(), text[kept..]);
}

#[test]
fn an_editor_that_ends_lines_with_cr_alone_has_all_of_them_named() {
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
    let (_output, found) = open(&path).unwrap();
    let taken_out = found.taken_out.unwrap();
    assert_eq!(taken_out.processed, ids(0..3));
    assert_eq!((taken_out.lines, taken_out.is_torn_line), (3, false));
    assert_eq!(fs::read(taken_out.aside).unwrap(), text);
}
