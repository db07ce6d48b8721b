use super::*;

fn manifest() -> Manifest {
    let contents = Contents {
        schema: 6,
        commit: 42,
        waiting: 7,
    };
    let file = File {
        name: "queues.copy".into(),
        bytes: 3,
        sha256: hex::encode(Sha256::digest("abc")),
        columns: vec!["queue_id".into(), "queue_name".into()],
    };
    let sequence = Sequence {
        table: "queues".into(),
        column: "queue_id".into(),
        last: 9,
        is_given: true,
    };
    Manifest::new(
        Kind::Postgres,
        Time::now(),
        contents,
        vec![file],
        vec![sequence],
    )
}

fn refusal(folder: &Path) -> String {
    match Manifest::read(folder) {
        Err(Error::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path()).contains("no backup, or one that was interrupted"));
    manifest().write(folder.path()).unwrap();
    let read = Manifest::read(folder.path()).unwrap();
    assert_eq!(read.contents(), manifest().contents());
    let copied = read.copied(".copy");
    assert_eq!(copied.tables[0].name, "queues");
    assert_eq!(copied.tables[0].columns, ["queue_id", "queue_name"]);
    assert_eq!((copied.sequences[0].last, read.bytes()), (9, 3));
}

#[test]
fn a_flipped_bit_in_any_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    manifest().write(folder.path()).unwrap();
    let path = folder.path().join(NAME);
    let text = fs::read(&path).unwrap();
    for at in 0..text.len() {
        let mut flipped = text.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, flipped).unwrap();
        let found = refusal(folder.path());
        // The number of the format may become that of a later one.
        assert!(
            found.contains("changed or is damaged") || found.contains("has the format"),
            "{at}: {found}"
        );
    }
}

#[test]
fn later_formats_and_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let later = Manifest {
        format: FORMAT + 1,
        ..manifest()
    };
    later.write(folder.path()).unwrap();
    assert!(refusal(folder.path()).contains("has the format 2, and this program knows 1"));
    for name in ["../queues.copy", "/etc/passwd", "..", "", NAME] {
        let folder = tempfile::tempdir().unwrap();
        let mut leading_out = manifest();
        leading_out.files[0].name = name.into();
        leading_out.write(folder.path()).unwrap();
        assert!(refusal(folder.path()).contains("no plain name"), "{name}");
    }
}
