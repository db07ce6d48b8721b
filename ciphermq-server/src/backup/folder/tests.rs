use std::os::unix::fs::PermissionsExt as _;

use super::super::manifest::Kind;
use super::*;
use crate::model::Time;
use crate::store::offline::Contents;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Makes a backup of two files.
fn make(place: &Path) -> PathBuf {
    let path = place.join("a/backup");
    let mut folder = NewFolder::create(&path).unwrap();
    fs::write(folder.part("copied"), "companion").unwrap();
    folder.place("copied").unwrap();
    let mut part = folder.begin("written").unwrap();
    part.write(b"one ").unwrap();
    part.write(b"two").unwrap();
    folder.end(part).unwrap();
    let contents = Contents {
        schema: 1,
        commit: 2,
        waiting: 3,
    };
    let entries = folder.entries().clone();
    let manifest = Manifest::new(Kind::Sqlite, Time::now(), contents, entries, Vec::new());
    folder.complete(manifest).unwrap();
    path
}

#[test]
fn files_are_private_and_have_their_hashes() {
    let place = tempfile::tempdir().unwrap();
    let path = make(place.path());
    assert_eq!(names(&path), [manifest::NAME, "copied", "written"]);
    let manifest = Manifest::read(&path).unwrap();
    assert_eq!(manifest.bytes(), 16);
    assert_eq!(check(&path, &manifest).unwrap(), [""; 0]);
    assert_eq!(fs::read(path.join("copied")).unwrap(), b"companion");
    assert_eq!(fs::read(path.join("written")).unwrap(), b"one two");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("written"))), (0o700, 0o600));
    let target = place.path().join("target");
    take(&path, &manifest.files[1], &target).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"one two");
    // It changes after it was checked.
    fs::write(path.join("written"), "one too").unwrap();
    let again = take(&path, &manifest.files[1], &place.path().join("again"));
    assert!(matches!(again, Err(Error::Refused(_))), "{again:?}");
    fs::remove_file(path.join("copied")).unwrap();
    let faults = check(&path, &manifest).unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("copied is missing") && faults[1].contains("written has changed"));
}

#[test]
fn what_fails_leaves_only_what_was_there() {
    let place = tempfile::tempdir().unwrap();
    let new = place.path().join("new");
    let mut folder = NewFolder::create(&new).unwrap();
    folder.begin("half").unwrap().write(b"half").unwrap();
    let part = folder.begin("whole").unwrap();
    folder.end(part).unwrap();
    assert_eq!(names(&new), ["backup.json.part", "half.part", "whole"]);
    let refused = NewFolder::create(&new).err().unwrap().to_string();
    assert!(
        refused.contains("holds a backup that was interrupted"),
        "{refused}"
    );
    // Of somebody else's, in the meantime.
    fs::write(new.join("other"), "").unwrap();
    drop(folder);
    assert_eq!(names(&new), ["other"]);
    fs::remove_file(new.join("other")).unwrap();
    drop(NewFolder::create(&new).unwrap());
    assert!(new.exists(), "it was there before");
    fs::remove_dir(&new).unwrap();
    drop(NewFolder::create(&new).unwrap());
    assert!(!new.exists());
}
