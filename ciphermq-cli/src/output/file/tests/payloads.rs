//! Lines of any payload stay, and damaged ones are reported.

use super::*;

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
