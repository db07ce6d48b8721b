use std::fs;

use super::*;
use crate::key_file::{read_public, read_x_wing_public, write_pairs};
use crate::keys::Keyring;

fn folder_with(x_wing: bool) -> (tempfile::TempDir, KeyNames) {
    let folder = tempfile::tempdir().unwrap();
    let names = KeyNames::of(&folder.path().join("receiver_private.key")).unwrap();
    let x_wing = x_wing.then(|| XWingPrivateKey::generate().unwrap());
    let key = PrivateKey::generate().unwrap();
    write_pairs(&names, Some(&key), x_wing.as_ref(), Existing::Keep).unwrap();
    (folder, names)
}

fn keyring(names: &KeyNames) -> Keyring {
    read_keyring(&names.private()).unwrap()
}

fn files(folder: &tempfile::TempDir) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    files
}

/// Returns the ids of the public key files, for which senders may seal.
fn announced(names: &KeyNames) -> Vec<KeyId> {
    let mut ids = vec![read_public(&names.public()).unwrap().key_id()];
    if names.x_wing_public().exists() {
        ids.push(read_x_wing_public(&names.x_wing_public()).unwrap().key_id());
    }
    ids
}

#[test]
fn rotation_replaces_keys_and_archives_the_old_ones() {
    for (x_wing, kinds) in [
        (false, &[Kind::X25519][..]),
        (true, &[Kind::X25519, Kind::XWing]),
    ] {
        let (folder, names) = folder_with(x_wing);
        let mut known: Vec<_> = keyring(&names).key_ids().collect();
        for round in 1..=3 {
            let old = announced(&names);
            let rotation = rotate(&names.private()).unwrap();
            assert_eq!(
                rotation.keys.iter().map(|key| key.kind).collect::<Vec<_>>(),
                kinds
            );
            assert_eq!(rotation.written.len(), kinds.len() * 3);
            let keyring = keyring(&names);
            for (key, old) in rotation.keys.iter().zip(old) {
                assert_eq!(key.old, old);
                assert_eq!(key.archived, names.archived(key.kind, old));
                assert!(!known.contains(&key.new));
                known.push(key.new);
            }
            assert_eq!(
                announced(&names),
                rotation.keys.iter().map(|key| key.new).collect::<Vec<_>>()
            );
            assert!(known.iter().all(|id| keyring.contains(*id)));
            assert_eq!(keyring.key_ids().count(), kinds.len() * (round + 1));
            let mut newest: Vec<_> = keyring
                .recipient_keys()
                .iter()
                .map(|key| key.key_id())
                .collect();
            newest.reverse();
            assert_eq!(newest, announced(&names));
            // No temporary file remains.
            assert_eq!(files(&folder).len(), kinds.len() * (2 + round));
        }
    }
}

#[test]
fn a_crash_at_any_point_leaves_keys_that_open_everything() {
    let steps = {
        let (_folder, names) = folder_with(true);
        Prepared::new(&names).unwrap().steps.len()
    };
    assert_eq!(steps, 6);
    for done in 0..=steps {
        let (_folder, names) = folder_with(true);
        let old = announced(&names);
        let prepared = Prepared::new(&names).unwrap();
        let new: Vec<_> = prepared.keys.iter().map(|key| key.new).collect();
        for step in prepared.steps.into_iter().take(done) {
            step.commit().unwrap();
        }
        let check = |keyring: &Keyring| {
            assert!(
                old.iter().all(|id| keyring.contains(*id)),
                "after {done} steps"
            );
            assert!(
                announced(&names).iter().all(|id| keyring.contains(*id)),
                "after {done} steps"
            );
            let keys = keyring.recipient_keys();
            assert_eq!(keys.len(), 2, "after {done} steps");
            assert!(keys.iter().all(|key| keyring.contains(key.key_id())));
        };
        check(&keyring(&names));
        assert_eq!(
            new.iter()
                .filter(|id| keyring(&names).contains(**id))
                .count(),
            done.saturating_sub(2).min(2)
        );
        // A retry succeeds, and archives the keys that came into use meanwhile.
        let between: Vec<_> = keyring(&names).key_ids().collect();
        let rotation = rotate(&names.private()).unwrap();
        check(&keyring(&names));
        assert!(between.iter().all(|id| keyring(&names).contains(*id)));
        assert_eq!(
            announced(&names),
            rotation.keys.iter().map(|key| key.new).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_dropped_preparation_leaves_no_files() {
    let (folder, names) = folder_with(true);
    let before = files(&folder);
    drop(Prepared::new(&names).unwrap());
    assert_eq!(files(&folder), before);
}

#[test]
fn an_archived_key_is_never_overwritten() {
    let (folder, names) = folder_with(false);
    let id = keyring(&names).newest().public_key().key_id();
    let archived = names.archived(Kind::X25519, id);
    let other = PrivateKey::generate().unwrap();
    let path = folder.path().join("public");
    super::super::write_pair(&archived, &path, &other, Existing::Keep).unwrap();
    let before = fs::read(&archived).unwrap();
    assert!(matches!(
        rotate(&names.private()),
        Err(KeyFileError::Misnamed { .. })
    ));
    assert_eq!(fs::read(&archived).unwrap(), before);
    assert_eq!(
        read_private(&names.private())
            .unwrap()
            .public_key()
            .key_id(),
        id
    );

    // Another process creates the file between the check and the move.
    fs::remove_file(&archived).unwrap();
    let prepared = Prepared::new(&names).unwrap();
    fs::write(&archived, b"theirs").unwrap();
    let error = prepared
        .steps
        .into_iter()
        .next()
        .unwrap()
        .commit()
        .unwrap_err();
    assert!(matches!(error, FileError::Exists(path) if path == archived));
    assert_eq!(fs::read(&archived).unwrap(), b"theirs");
}

#[test]
fn concurrent_rotations_lose_no_key() {
    let (_folder, names) = folder_with(true);
    let first = announced(&names);
    let rotations: Vec<Rotation> = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| rotate(&names.private()).unwrap()));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let keyring = keyring(&names);
    let made = rotations
        .iter()
        .flat_map(|rotation| rotation.keys.iter().map(|key| key.new));
    for id in made.chain(first) {
        assert!(keyring.contains(id), "{id}");
    }
}

#[cfg(unix)]
#[test]
fn archived_keys_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, names) = folder_with(true);
    rotate(&names.private()).unwrap();
    for name in files(&folder) {
        let mode = fs::metadata(folder.path().join(&name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        let expected = if name.contains("private") {
            0o600
        } else {
            0o644
        };
        assert_eq!(mode, expected, "{name}");
    }
}

#[test]
fn only_files_named_as_private_keys_are_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.key");
    let key = PrivateKey::generate().unwrap();
    super::super::write_pair(&path, &folder.path().join("my.pub"), &key, Existing::Keep).unwrap();
    assert!(matches!(rotate(&path), Err(KeyFileError::Unnamed(_))));
    let none = folder.path().join("receiver_private.key");
    assert!(matches!(rotate(&none), Err(KeyFileError::NotFound(at)) if at == none));
    assert_eq!(files(&folder), ["my.key", "my.pub"]);
}
