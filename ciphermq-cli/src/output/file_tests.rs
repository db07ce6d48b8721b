use std::fs;

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
        payload: b"{\"a\":1}",
        sent_time: None,
        received_time,
    }
    .write(&mut out);
    out
}

fn open(path: &Path) -> Result<(OutputFile, Found, Vec<String>), OutputError> {
    let mut ids = Vec::new();
    let (output, found) = OutputFile::open(path, |sender, id| ids.push(format!("{}/{id}", sender.unwrap())))?;
    Ok((output, found, ids))
}

#[test]
fn what_was_appended_is_known_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("new/deeper/out.jsonl");
    let (mut output, found, ids) = open(&path).unwrap();
    assert_eq!((found, ids.len()), (Found::default(), 0));
    output.append(&[line(0), line(1)].concat()).unwrap();
    output.append(&line(2)).unwrap();
    drop(output);
    let (_output, found, ids) = open(&path).unwrap();
    assert_eq!(
        found,
        Found {
            messages: 3,
            ..Found::default()
        }
    );
    assert_eq!(ids, ["sender_1/m-0", "sender_1/m-1", "sender_1/m-2"]);
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
        let (mut output, found, ids) = open(&path).unwrap();
        assert_eq!(
            found,
            Found {
                messages: 2,
                torn_bytes: torn.len() as u64,
                other_lines: 0
            }
        );
        assert_eq!(ids.len(), 2);
        output.append(&line(2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [&whole[..], &line(2)].concat());
    }
}

#[test]
fn zeros_left_by_a_crash_of_the_machine_are_cut_off() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    for torn in [&b"\0\0\0\0"[..], b"{\"mess\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
        fs::write(&path, [&line(0), torn].concat()).unwrap();
        let (_output, found, _) = open(&path).unwrap();
        assert_eq!(found.torn_bytes, torn.len() as u64);
        assert_eq!(fs::read(&path).unwrap(), line(0));
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
    let (_output, found, _) = open(&path).unwrap();
    assert_eq!(
        found,
        Found {
            messages: 2,
            torn_bytes: 0,
            other_lines: 2
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
    let (mut output, ..) = open(&path).unwrap();
    output.append(&line(0)).unwrap();
    fs::rename(&path, folder.path().join("old.jsonl")).unwrap();
    assert!(matches!(output.append(&line(1)), Err(OutputError::Moved(_))));
    fs::write(&path, "").unwrap();
    assert!(matches!(output.append(&line(1)), Err(OutputError::Moved(_))));
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
