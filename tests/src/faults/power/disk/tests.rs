use super::*;
use crate::faults::power::Loss;

/// A program's calls, each of which ends before the next one begins.
fn disk(before: &[(&str, &str)], calls: Vec<Call>) -> Disk {
    let before = before
        .iter()
        .map(|(path, content)| (path.into(), Some(content.as_bytes().to_vec())))
        .collect();
    let events = (10..).step_by(10).zip(calls).map(|(start, call)| Event {
        start,
        end: start + 5,
        call,
    });
    let runs = vec![(String::from("program"), events.collect())];
    Disk::build(&[PathBuf::from("/top")], &before, runs)
}

fn open(path: &str) -> Call {
    Call::Open {
        descriptor: 3,
        path: path.into(),
        creates: true,
        truncates: false,
        appends: false,
    }
}

fn write(path: &str, offset: Option<u64>, data: &str) -> Call {
    Call::Write {
        descriptor: 3,
        path: path.into(),
        offset,
        data: data.into(),
    }
}

fn sync(path: &str) -> Call {
    Call::Sync(path.into())
}

fn rename(from: &str, to: &str) -> Call {
    Call::Rename {
        from: from.into(),
        to: to.into(),
    }
}

/// The files after a power failure at the end.
fn left(disk: &Disk, without: &[SyncKind], loss: Loss) -> Vec<(String, String)> {
    let image = disk.image(disk.ticks(), without, loss);
    let text =
        |content: Option<Vec<u8>>| String::from_utf8(content.unwrap_or_default()).expect("text");
    let files = image
        .into_iter()
        .map(|(path, content)| (path.display().to_string(), text(content)));
    files.collect()
}

fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files
        .iter()
        .map(|(path, content)| ((*path).into(), (*content).into()))
        .collect()
}

#[test]
fn a_file_needs_its_own_sync_and_its_folders() {
    let calls = || {
        vec![
            open("/top/a"),
            write("/top/a", None, "x"),
            write("/top/a", None, "y"),
        ]
    };
    let with = |syncs: &[&str]| {
        let disk = disk(
            &[],
            [calls(), syncs.iter().map(|path| sync(path)).collect()].concat(),
        );
        left(&disk, &[], Loss::Everything)
    };
    assert_eq!(with(&[]), files(&[]));
    assert_eq!(with(&["/top/a"]), files(&[]));
    assert_eq!(with(&["/top"]), files(&[("/top/a", "")]));
    assert_eq!(with(&["/top/a", "/top"]), files(&[("/top/a", "xy")]));
}

#[test]
fn a_sync_covers_what_was_done_before_it_began() {
    let at = |start, end, call| Event { start, end, call };
    let events = vec![
        at(10, 11, open("/top/a")),
        at(12, 13, sync("/top")),
        at(20, 30, write("/top/a", Some(0), "x")),
        at(25, 40, sync("/top/a")),
    ];
    let runs = vec![(String::from("program"), events)];
    let disk = Disk::build(&[PathBuf::from("/top")], &Tree::new(), runs);
    assert_eq!(left(&disk, &[], Loss::Everything), files(&[("/top/a", "")]));
}

#[test]
fn a_rename_is_there_or_not_and_its_file_may_be_empty() {
    let calls = vec![
        open("/top/new"),
        write("/top/new", None, "new"),
        rename("/top/new", "/top/a"),
    ];
    let disk = disk(&[("/top/a", "old")], calls);
    let left = |loss| left(&disk, &[], loss);
    assert_eq!(left(Loss::Everything), files(&[("/top/a", "old")]));
    assert_eq!(left(Loss::Data), files(&[("/top/a", "")]));
    assert_eq!(left(Loss::Contents), files(&[("/top/a", "\0\0\0")]));
    assert_eq!(left(Loss::Nothing), files(&[("/top/a", "new")]));
    assert!(disk.placed()[Path::new("/top/a")].contains(&b"new".to_vec()));
}

#[test]
fn sectors_survive_one_by_one() {
    let (old, new) = ("o".repeat(2048), "n".repeat(2048));
    let calls = vec![write("/top/a", Some(0), &new)];
    let disk = disk(&[("/top/a", &old)], calls);
    let torn = |seed| left(&disk, &[], Loss::Some(seed))[0].1.clone();
    let images: BTreeSet<String> = (0..100).map(torn).collect();
    assert!(images.contains(&new) && images.len() > 5);
    for image in images {
        assert_eq!(image.len(), 2048);
        for sector in image.as_bytes().chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
        }
    }
}

#[test]
fn a_kind_of_sync_can_be_left_out() {
    let calls = vec![
        open("/top/a"),
        sync("/top"),
        write("/top/a", None, "x"),
        sync("/top/a"),
    ];
    let disk = disk(&[], calls);
    let kinds: Vec<SyncKind> = disk.sync_kinds().into_keys().collect();
    assert_eq!(format!("{kinds:?}"), "[/ of program, a of program]");
    assert_eq!(left(&disk, &kinds[..1], Loss::Everything), files(&[]));
    assert_eq!(
        left(&disk, &kinds[1..], Loss::Everything),
        files(&[("/top/a", "")])
    );
}
