//! Outputs that a crash or an editor has damaged.

use ciphermq_files::beside;
use sha2::{Digest as _, Sha256};

use super::*;

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

/// The note of a repair of this output from `end` on, whose copy has number 1.
fn note_of(path: &Path, end: usize, copy: &[u8]) -> String {
    let output = fs::read(path).unwrap();
    let before = &output[end.saturating_sub(256 * 1024).min(output.len())..end.min(output.len())];
    let [before, copy] = [before, copy].map(|bytes| hex::encode(Sha256::digest(bytes)));
    format!("ciphermq-repair 2\n{end} 1 {before} {copy}\n")
}

/// Makes a note for an output and a copy.
type Made<'a> = dyn Fn(&Path, &[u8]) -> String + 'a;

/// A note that was left behind puts nothing back over lines that were written since.
#[test]
fn a_note_of_another_output_or_copy_does_not_count() {
    let end = line(7).len();
    let other_output = |path: &Path, copy: &[u8]| {
        let other = beside(path, ".other");
        fs::write(&other, "x".repeat(end)).unwrap();
        note_of(&other, end, copy)
    };
    let other_copy = |path: &Path, _: &[u8]| note_of(path, end, b"something else");
    let beyond_the_end = |path: &Path, copy: &[u8]| note_of(path, 1 << 20, copy);
    let notes: [&Made<'_>; 3] = [&other_output, &other_copy, &beyond_the_end];
    for made in notes {
        let folder = tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (mut output, _) = open(&path).unwrap();
        append(&mut output, 0..10).unwrap();
        drop(output);
        let text = fs::read(&path).unwrap();
        let note = beside(&path, ".ciphermq-repair");
        let copy = beside(&path, ".damaged-1");
        fs::write(&copy, "damage").unwrap();
        fs::write(&note, made(&path, b"damage")).unwrap();
        let (mut output, _) = open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), text);
        assert!(!note.exists(), "it is gone before anything is written");
        assert_eq!(fs::read(&copy).unwrap(), b"damage");
        append(&mut output, 10..12).unwrap();
        assert_eq!(positions(&path), whole(0..12));
    }
    // Nor does one that is left when its output was removed, and a new one is made.
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, "").unwrap();
    let note = beside(&path, ".ciphermq-repair");
    fs::write(beside(&path, ".damaged-1"), "damage").unwrap();
    fs::write(&note, note_of(&path, 0, b"damage")).unwrap();
    fs::remove_file(&path).unwrap();
    drop(open(&path).unwrap());
    assert!(!note.exists() && fs::read(&path).unwrap().is_empty());
}

#[test]
fn a_repair_that_a_power_failure_has_interrupted_is_made_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (synced, text) = unsynced(&path);
    let third = synced + line(7).len() * 2;
    let mut edited = text.clone();
    edited.remove(third + 40);
    let rest: Vec<_> = whole(0..9).into_iter().chain(whole(10..200)).collect();
    let (copy, note) = (
        beside(&path, ".damaged-1"),
        beside(&path, ".ciphermq-repair"),
    );
    let moved = [&text[..third], &text[third + line(9).len()..]].concat();
    // Of the lines that move, any sector and the length may be as before or as after.
    for step in 1..5 {
        let mut torn = edited.clone();
        for sector in (third / 512 + 1..moved.len() / 512).step_by(step) {
            let sector = sector * 512..(sector + 1) * 512;
            torn[sector.clone()].copy_from_slice(&moved[sector]);
        }
        torn.truncate(if step % 2 == 0 {
            moved.len()
        } else {
            edited.len()
        });
        fs::write(&path, &torn).unwrap();
        fs::write(&copy, &edited[third..]).unwrap();
        fs::write(&note, note_of(&path, third, &edited[third..])).unwrap();
        drop(open(&path).unwrap());
        assert_eq!(positions(&path), rest, "{step}");
        assert_eq!(fs::read(&copy).unwrap(), edited[third..]);
        assert!(!note.exists() && !beside(&path, ".damaged-2").exists());
        fs::write(&path, &text[..synced]).unwrap();
        fs::remove_file(checkpoint(&path)).unwrap();
        fs::remove_file(&copy).unwrap();
        let (mut output, _) = open(&path).unwrap();
        append(&mut output, 7..200).unwrap();
    }

    // Something else in the note's place is not overwritten, and prevents the repair.
    fs::write(&path, &edited).unwrap();
    fs::write(&note, "mine").unwrap();
    open(&path).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), edited);
    assert_eq!(fs::read(&note).unwrap(), b"mine");
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
