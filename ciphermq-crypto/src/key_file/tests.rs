//! Tests of reading, writing and refusing single key files.

use super::*;
use std::fs;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn private(&self) -> PathBuf {
        self.0.path().join(PRIVATE_KEY_FILE)
    }

    fn public(&self) -> PathBuf {
        self.0.path().join(PUBLIC_KEY_FILE)
    }

    fn write_private(&self, contents: &[u8]) {
        ciphermq_files::write(self.private(), contents, Access::Private, Existing::Replace)
            .unwrap();
    }
}

#[test]
fn keys_round_trip() {
    let folder = Folder::new();
    let key = PrivateKey::generate().unwrap();
    write_pair(&folder.private(), &folder.public(), &key, Existing::Keep).unwrap();
    assert_eq!(
        read_private(&folder.private()).unwrap().as_bytes(),
        key.as_bytes()
    );
    assert_eq!(read_public(&folder.public()).unwrap(), *key.public_key());
    assert_eq!(
        fs::read_to_string(folder.public()).unwrap(),
        format!("{}\n", key.public_key())
    );
}

#[test]
fn never_overwrites_unless_told_to() {
    let folder = Folder::new();
    let [old, new] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    write_pair(&folder.private(), &folder.public(), &old, Existing::Keep).unwrap();
    fs::remove_file(folder.private()).unwrap();
    // The public file alone suffices to refuse both.
    let error = write_pair(&folder.private(), &folder.public(), &new, Existing::Keep).unwrap_err();
    assert!(
        matches!(&error, KeyFileError::Write(FileError::Exists(path)) if *path == folder.public())
    );
    assert!(error.advice().contains("--force"));
    assert!(!folder.private().exists());
    write_pair(&folder.private(), &folder.public(), &new, Existing::Replace).unwrap();
    assert_eq!(read_public(&folder.public()).unwrap(), *new.public_key());
}

#[test]
fn newlines_at_the_end_are_optional() {
    let folder = Folder::new();
    let key = PrivateKey::generate().unwrap();
    for ending in ["", "\n", "\r\n"] {
        folder.write_private(format!("{}{ending}", *key.to_base64()).as_bytes());
        assert_eq!(
            read_private(&folder.private()).unwrap().public_key(),
            key.public_key(),
            "{ending:?}"
        );
    }
    for (before, after) in [(" ", ""), ("", " "), ("", "\n\n"), ("\n", "")] {
        folder.write_private(format!("{before}{}{after}", *key.to_base64()).as_bytes());
        assert!(matches!(
            read_private(&folder.private()),
            Err(KeyFileError::NoKey { .. })
        ));
    }
}

#[test]
fn errors_describe_what_is_not_a_key() {
    let folder = Folder::new();
    let no_key = |contents: &[u8]| {
        folder.write_private(contents);
        let error = read_private(&folder.private()).unwrap_err();
        assert!(error.to_string().contains(PRIVATE_KEY_FILE), "{error}");
        assert!(error.advice().contains("44 characters"));
        error
    };
    assert!(matches!(
        no_key(b""),
        KeyFileError::NoKey {
            source: KeyError::Length { actual: 0, .. },
            ..
        }
    ));
    assert!(matches!(
        no_key(b"AAAA\n"),
        KeyFileError::NoKey {
            source: KeyError::Length { actual: 3, .. },
            ..
        }
    ));
    assert!(matches!(
        no_key(b"no key at all\n"),
        KeyFileError::NoKey {
            source: KeyError::NotBase64,
            ..
        }
    ));
    assert!(matches!(no_key(&[b'A'; 5000]), KeyFileError::NoText { .. }));
    assert!(matches!(no_key(&[0xff; 44]), KeyFileError::NoText { .. }));
    assert!(
        matches!(read_private(&folder.public()), Err(KeyFileError::NotFound(path)) if path == folder.public())
    );
    assert!(matches!(
        read_public(folder.0.path()),
        Err(KeyFileError::Read { .. })
    ));
}

#[cfg(unix)]
#[test]
fn private_keys_readable_by_others_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let key = PrivateKey::generate().unwrap();
    write_pair(&folder.private(), &folder.public(), &key, Existing::Keep).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.private()), 0o600);
    for mode in [0o640, 0o604, 0o610, 0o602, 0o644, 0o660] {
        fs::set_permissions(folder.private(), fs::Permissions::from_mode(mode)).unwrap();
        let error = read_private(&folder.private()).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Exposed { mode: seen, .. } if seen == mode),
            "{error}"
        );
        assert_eq!(
            error.advice(),
            format!("run: chmod 600 {}", folder.private().display())
        );
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(folder.private(), fs::Permissions::from_mode(mode)).unwrap();
        read_private(&folder.private()).unwrap();
    }
    assert!(read_public(&folder.public()).is_ok());
}

#[test]
fn a_public_key_or_zeros_in_place_of_the_private_key_are_refused() {
    let folder = Folder::new();
    let key = PrivateKey::generate().unwrap();
    write_pair(&folder.private(), &folder.public(), &key, Existing::Keep).unwrap();
    // Written over, so that the file stays private.
    fs::write(folder.private(), fs::read(folder.public()).unwrap()).unwrap();
    let error = read_private(&folder.private()).unwrap_err();
    assert!(
        matches!(&error, KeyFileError::HoldsPublic { public, .. } if *public == folder.public()),
        "{error}"
    );
    assert!(error.advice().contains("keygen --force --out"), "{error:?}");
    fs::write(
        folder.private(),
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    )
    .unwrap();
    let error = read_private(&folder.private()).unwrap_err();
    assert!(
        matches!(
            error,
            KeyFileError::NoKey {
                source: KeyError::Invalid,
                ..
            }
        ),
        "{error}"
    );
    let advice = error.advice();
    let command = format!("`keygen --force --out {}`", folder.0.path().display());
    assert!(advice.contains(&command), "{advice}");
}

#[test]
fn x_wing_keys_round_trip() {
    let folder = Folder::new();
    let names = KeyNames::of(&folder.private()).unwrap();
    let [key, x_wing] = [(); 2].map(|()| XWingPrivateKey::generate().unwrap());
    write_pairs(&names, None, Some(&key), Existing::Keep).unwrap();
    let private = fs::read_to_string(names.x_wing_private()).unwrap();
    assert_eq!(private, format!("XWING {}\n", *key.to_base64()));
    let public = fs::read_to_string(names.x_wing_public()).unwrap();
    assert_eq!(public, format!("XWING {}\n", key.public_key().to_base64()));
    let read = read_x_wing_private(&names.x_wing_private()).unwrap();
    assert_eq!(read.public_key(), key.public_key());
    assert_eq!(
        read_x_wing_public(&names.x_wing_public()).unwrap(),
        *key.public_key()
    );

    // With one of the four present, none is written.
    let plain = PrivateKey::generate().unwrap();
    let error = write_pairs(&names, Some(&plain), Some(&x_wing), Existing::Keep).unwrap_err();
    assert!(
        matches!(error, KeyFileError::Write(FileError::Exists(path)) if path == names.x_wing_private())
    );
    assert!(!names.private().exists() && !names.public().exists());
    assert_eq!(fs::read_to_string(names.x_wing_private()).unwrap(), private);
    let written = write_pairs(&names, Some(&plain), Some(&x_wing), Existing::Replace).unwrap();
    assert_eq!(written.len(), 4);
    assert_eq!(
        read_x_wing_public(&names.x_wing_public()).unwrap(),
        *x_wing.public_key()
    );
}

#[test]
fn errors_name_the_kind_of_another_key() {
    let folder = Folder::new();
    let names = KeyNames::of(&folder.private()).unwrap();
    let (key, x_wing) = (
        PrivateKey::generate().unwrap(),
        XWingPrivateKey::generate().unwrap(),
    );
    write_pairs(&names, Some(&key), Some(&x_wing), Existing::Keep).unwrap();
    let other = |error: KeyFileError, path: PathBuf, is: Kind, should_be: Kind| {
        assert!(
            error.to_string().contains(&format!("holds an {is} key")),
            "{error}"
        );
        assert!(error.advice().contains("_xwing_"));
        assert!(
            matches!(&error, KeyFileError::OtherKind { path: at, found, expected } if *at == path && *found == is && *expected == should_be),
            "{error}"
        );
    };
    let (x25519, xwing) = (Kind::X25519, Kind::XWing);
    let path = names.x_wing_private();
    other(read_private(&path).unwrap_err(), path, xwing, x25519);
    let path = names.x_wing_public();
    other(read_public(&path).unwrap_err(), path, xwing, x25519);
    let path = names.private();
    other(read_x_wing_private(&path).unwrap_err(), path, x25519, xwing);
    let path = names.public();
    other(read_x_wing_public(&path).unwrap_err(), path, x25519, xwing);

    // A public key in place of a private one.
    fs::copy(names.x_wing_public(), names.x_wing_private()).unwrap();
    restrict(&names.x_wing_private());
    let error = read_x_wing_private(&names.x_wing_private()).unwrap_err();
    assert!(error.advice().contains("XWING"), "{}", error.advice());
    assert!(matches!(
        error,
        KeyFileError::NoKey {
            source: KeyError::Length {
                expected: 32,
                actual: 1216
            },
            ..
        }
    ));
    for garbage in [
        "",
        "XWING",
        "XWING \n",
        "xwing AAAA",
        "XWING  AAAA",
        "no key at all",
    ] {
        folder.write_private(garbage.as_bytes());
        let error = read_x_wing_private(&folder.private()).unwrap_err();
        assert!(
            matches!(
                &error,
                KeyFileError::NoKey {
                    kind: Kind::XWing,
                    ..
                }
            ),
            "{garbage:?}: {error}"
        );
        assert!(error.to_string().contains(PRIVATE_KEY_FILE), "{error}");
    }
}

fn restrict(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[test]
fn a_keyring_has_all_private_keys_of_the_folder() {
    let folder = Folder::new();
    let names = KeyNames::of(&folder.private()).unwrap();
    let keys = [(); 3].map(|()| PrivateKey::generate().unwrap());
    let x_wing = [(); 3].map(|()| XWingPrivateKey::generate().unwrap());
    let unused = folder.0.path().join("unused");
    let archive = |key: &PrivateKey| {
        let path = names.archived(Kind::X25519, key.public_key().key_id());
        write_pair(&path, &unused, key, Existing::Replace).unwrap();
    };
    let archive_x_wing = |key: &XWingPrivateKey| {
        let mut files = NewFiles::new();
        let path = names.archived(Kind::XWing, key.public_key().key_id());
        stage_x_wing_private(&mut files, &path, key, Existing::Keep).unwrap();
        files.commit().unwrap();
    };
    write_pairs(&names, Some(&keys[0]), None, Existing::Keep).unwrap();
    let read = || read_keyring(&names.private()).unwrap();
    assert_eq!(read().key_ids().count(), 1);
    archive(&keys[1]);
    archive(&keys[2]);
    // An archived copy of the newest key, as an interrupted rotation leaves it, counts once.
    archive(&keys[0]);
    assert_eq!(read().keys().count(), 3);
    assert_eq!(read().newest().public_key(), keys[0].public_key());
    archive_x_wing(&x_wing[1]);
    assert_eq!(
        read().recipient_keys().len(),
        1,
        "an older key alone is not announced"
    );
    write_pairs(&names, None, Some(&x_wing[0]), Existing::Keep).unwrap();
    archive_x_wing(&x_wing[0]);
    archive_x_wing(&x_wing[2]);
    let keyring = read();
    assert_eq!(keyring.x_wing_keys().count(), 3);
    assert_eq!(
        keyring.recipient_keys(),
        [
            x_wing[0].public_key().clone().into(),
            (*keys[0].public_key()).into()
        ]
    );
    // Files of another receiver, and files that are not named like older keys.
    for name in [
        "other_private.66687aadf862bd77.key",
        "receiver_private.old.key",
        "receiver_private.66687aadf862bd77.key.bak",
    ] {
        fs::write(folder.0.path().join(name), "garbage").unwrap();
    }
    assert_eq!(read().key_ids().count(), 6);

    // A key file with another name has no others.
    let alone = folder.0.path().join("alone.key");
    write_pair(&alone, &unused, &keys[1], Existing::Replace).unwrap();
    assert_eq!(read_keyring(&alone).unwrap().key_ids().count(), 1);
}

#[test]
fn errors_name_the_bad_file_of_a_keyring() {
    let folder = Folder::new();
    let names = KeyNames::of(&folder.private()).unwrap();
    let (key, other) = (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    );
    let x_wing = XWingPrivateKey::generate().unwrap();
    let missing = read_keyring(&names.private()).unwrap_err();
    assert!(matches!(missing, KeyFileError::NotFound(path) if path == names.private()));
    write_pairs(&names, Some(&key), Some(&x_wing), Existing::Keep).unwrap();

    let refused = |path: &Path, contents: &str| {
        let before = fs::read(path).ok();
        ciphermq_files::write(
            path,
            contents.as_bytes(),
            Access::Private,
            Existing::Replace,
        )
        .unwrap();
        let error = read_keyring(&names.private()).unwrap_err();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        match before {
            Some(before) => {
                ciphermq_files::write(path, &before, Access::Private, Existing::Replace).unwrap();
            }
            None => fs::remove_file(path).unwrap(),
        }
        read_keyring(&names.private()).unwrap();
        error
    };
    let (id, other_id) = (key.public_key().key_id(), other.public_key().key_id());
    let plain = format!("{}\n", *other.to_base64());
    let marked = format!("XWING {}\n", *x_wing.to_base64());
    for path in [
        names.private(),
        names.x_wing_private(),
        names.archived(Kind::X25519, id),
        names.archived(Kind::XWing, id),
    ] {
        assert!(matches!(
            refused(&path, "garbage"),
            KeyFileError::NoKey { .. }
        ));
        assert!(matches!(
            refused(&path, &"A".repeat(5000)),
            KeyFileError::NoText { .. }
        ));
    }
    for (path, contents) in [
        (names.private(), &marked),
        (names.x_wing_private(), &plain),
        (names.archived(Kind::X25519, id), &marked),
        (names.archived(Kind::XWing, id), &plain),
    ] {
        assert!(matches!(
            refused(&path, contents),
            KeyFileError::OtherKind { .. }
        ));
    }
    let error = refused(&names.archived(Kind::X25519, id), &plain);
    assert!(
        matches!(error, KeyFileError::Misnamed { named, found, .. } if named == id && found == other_id)
    );
    assert!(
        error
            .advice()
            .contains(&format!("receiver_private.{other_id}.key"))
    );
    let error = refused(&names.archived(Kind::XWing, id), &marked);
    assert!(
        matches!(error, KeyFileError::Misnamed { named, found, .. } if named == id && found == x_wing.public_key().key_id())
    );

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let archived = names.archived(Kind::X25519, id);
        fs::copy(names.private(), &archived).unwrap();
        for path in [names.private(), names.x_wing_private(), archived] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let error = read_keyring(&names.private()).unwrap_err();
            assert_eq!(error.advice(), format!("run: chmod 600 {}", path.display()));
            restrict(&path);
        }
        read_keyring(&names.private()).unwrap();
    }
}
