use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

const BOTH: [Algorithm; 2] = [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305];

fn key(fill: u8) -> AtRestKey {
    AtRestKey::from_base64(&BASE64_STANDARD.encode([fill; 32])).unwrap()
}

/// Seals like the oldest servers: AES-256-GCM, no associated data, no algorithm in the row.
fn unbound_row(key: &AtRestKey, content: &[u8]) -> SealedRow {
    let nonce = [7; NONCE_BYTES];
    let sealed = Aes256Gcm::new(key.bytes().into())
        .encrypt(&nonce.into(), content)
        .unwrap();
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().unwrap();
    SealedRow {
        algorithm: None,
        ciphertext: BASE64_STANDARD.encode(ciphertext),
        nonce: BASE64_STANDARD.encode(nonce),
        tag: BASE64_STANDARD.encode(tag),
    }
}

/// Seals like the older servers that bound a row to its client, but not to its kind.
fn client_bound_row(key: &AtRestKey, client_id: &str, content: &[u8]) -> SealedRow {
    let nonce = [8; NONCE_BYTES];
    let aad = [
        b"CipherMQ public key at rest v1\0aes-256-gcm\0",
        client_id.as_bytes(),
    ]
    .concat();
    let payload = Payload {
        msg: content,
        aad: &aad,
    };
    let sealed = Aes256Gcm::new(key.bytes().into())
        .encrypt(&nonce.into(), payload)
        .unwrap();
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().unwrap();
    SealedRow {
        algorithm: Some("aes-256-gcm".to_owned()),
        ciphertext: BASE64_STANDARD.encode(ciphertext),
        nonce: BASE64_STANDARD.encode(nonce),
        tag: BASE64_STANDARD.encode(tag),
    }
}

/// Flips one bit of the bytes in a column.
fn flip(column: &str, bit: usize) -> String {
    let mut bytes = BASE64_STANDARD.decode(column).unwrap();
    let index = (bit / 8) % bytes.len();
    bytes[index] ^= 1 << (bit % 8);
    BASE64_STANDARD.encode(bytes)
}

#[test]
fn rows_of_both_algorithms_open_under_either_setting() {
    for sealed_with in BOTH {
        for configured in BOTH {
            let row = AtRestCipher::new(key(1), sealed_with)
                .seal(RowKind::PublicKey, "receiver_1", &[9; 32])
                .unwrap();
            assert_eq!(row.algorithm.as_deref(), Some(sealed_with.name()));
            let opened = AtRestCipher::new(key(1), configured)
                .open(RowKind::PublicKey, "receiver_1", &row)
                .unwrap();
            assert_eq!(opened, [9; 32]);
        }
    }
}

#[test]
fn columns_have_the_lengths_of_older_rows() {
    let row = AtRestCipher::new(key(1), Algorithm::Aes256Gcm)
        .seal(RowKind::PublicKey, "receiver_1", &[9; 32])
        .unwrap();
    assert_eq!(BASE64_STANDARD.decode(&row.ciphertext).unwrap().len(), 32);
    assert_eq!(BASE64_STANDARD.decode(&row.nonce).unwrap().len(), 12);
    assert_eq!(BASE64_STANDARD.decode(&row.tag).unwrap().len(), 16);
}

#[test]
fn sealing_twice_yields_different_ciphertexts() {
    let at_rest_cipher = AtRestCipher::new(key(1), Algorithm::Aes256Gcm);
    let (one, two) = (
        at_rest_cipher
            .seal(RowKind::PublicKey, "a", b"key")
            .unwrap(),
        at_rest_cipher
            .seal(RowKind::PublicKey, "a", b"key")
            .unwrap(),
    );
    assert_ne!(one.nonce, two.nonce);
    assert_ne!(one.ciphertext, two.ciphertext);
}

#[test]
fn rows_cannot_be_swapped_between_clients() {
    for algorithm in BOTH {
        let at_rest_cipher = AtRestCipher::new(key(1), algorithm);
        let row = at_rest_cipher
            .seal(RowKind::PublicKey, "alice", &[9; 32])
            .unwrap();
        assert!(
            matches!(at_rest_cipher.open(RowKind::PublicKey, "bob", &row), Err(Error::Refused { client_id }) if client_id == "bob")
        );
    }
}

#[test]
fn relabelled_rows_are_refused() {
    for (algorithm, other) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let at_rest_cipher = AtRestCipher::new(key(1), algorithm);
        let row = at_rest_cipher
            .seal(RowKind::PublicKey, "alice", &[9; 32])
            .unwrap();
        let relabelled = SealedRow {
            algorithm: Some(other.name().to_owned()),
            ..row.clone()
        };
        assert!(matches!(
            at_rest_cipher.open(RowKind::PublicKey, "alice", &relabelled),
            Err(Error::Refused { .. })
        ));
        let stripped = SealedRow {
            algorithm: None,
            ..row
        };
        assert!(matches!(
            at_rest_cipher.open(RowKind::PublicKey, "alice", &stripped),
            Err(Error::OlderForm { .. })
        ));
        for row in [&row_of(&at_rest_cipher), &stripped] {
            assert!(
                at_rest_cipher
                    .open_older(RowKind::PublicKey, "alice", row)
                    .is_err()
            );
        }
    }
}

fn row_of(at_rest_cipher: &AtRestCipher) -> SealedRow {
    at_rest_cipher
        .seal(RowKind::PublicKey, "alice", &[9; 32])
        .unwrap()
}

#[test]
fn bare_and_signed_keys_cannot_be_swapped() {
    let at_rest_cipher = AtRestCipher::new(key(1), Algorithm::Aes256Gcm);
    let row = row_of(&at_rest_cipher);
    assert!(matches!(
        at_rest_cipher.open(RowKind::SignedKey, "alice", &row),
        Err(Error::Refused { .. })
    ));
    let signed = at_rest_cipher
        .seal(RowKind::SignedKey, "alice", b"e30.e30.e30")
        .unwrap();
    assert!(
        at_rest_cipher
            .open(RowKind::PublicKey, "alice", &signed)
            .is_err()
    );
    // Rows that are not bound to their kind are distinguished by their contents.
    let row = client_bound_row(&key(1), "alice", &[9; 32]);
    assert!(
        at_rest_cipher
            .open_older(RowKind::PublicKey, "alice", &row)
            .is_ok()
    );
    assert!(
        at_rest_cipher
            .open_older(RowKind::SignedKey, "alice", &row)
            .is_err()
    );
    let row = client_bound_row(&key(1), "alice", b"e30.e30.e30");
    assert!(
        at_rest_cipher
            .open_older(RowKind::PublicKey, "alice", &row)
            .is_err()
    );
    assert!(
        at_rest_cipher
            .open_older(RowKind::SignedKey, "alice", &row)
            .is_ok()
    );
    assert!(
        at_rest_cipher
            .open_older(RowKind::SignedKey, "bob", &row)
            .is_err()
    );
    assert!(
        at_rest_cipher
            .open(RowKind::SignedKey, "alice", &row)
            .is_err(),
        "only adoption opens it"
    );
    assert!(
        at_rest_cipher
            .open_older(RowKind::SignedKey, "alice", &unbound_row(&key(1), &[9; 32]))
            .is_err()
    );
}

/// An older server's database was restored: the key is right, so the advice must not be to
/// configure another one.
#[test]
fn older_rows_are_refused_and_reported_as_such() {
    let at_rest_cipher = AtRestCipher::new(key(1), Algorithm::Aes256Gcm);
    for (kind, row) in [
        (RowKind::PublicKey, unbound_row(&key(1), &[9; 32])),
        (
            RowKind::PublicKey,
            client_bound_row(&key(1), "alice", &[9; 32]),
        ),
        (
            RowKind::SignedKey,
            client_bound_row(&key(1), "alice", b"e30.e30.e30"),
        ),
    ] {
        let error = at_rest_cipher.open(kind, "alice", &row).unwrap_err();
        assert!(matches!(error, Error::OlderForm { .. }), "{error}");
        assert!(error.to_string().contains("register its key again"));
        let message = error.for_client();
        assert!(
            message.starts_with("the stored public key of client 'alice' has the form of an older")
                && message.contains("accepted; let the client register its key again")
                && !message.contains('\n'),
            "{message}"
        );
    }
    // A row of another client or another kind was not written here by an older server.
    let row = client_bound_row(&key(1), "alice", &[9; 32]);
    for (kind, client) in [(RowKind::PublicKey, "bob"), (RowKind::SignedKey, "alice")] {
        let error = at_rest_cipher.open(kind, client, &row).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    }
}

#[test]
fn the_wrong_key_is_reported_as_such() {
    let row = AtRestCipher::new(key(1), Algorithm::Aes256Gcm)
        .seal(RowKind::PublicKey, "alice", &[9; 32])
        .unwrap();
    {
        let error = AtRestCipher::new(key(2), Algorithm::Aes256Gcm)
            .open(RowKind::PublicKey, "alice", &row)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("'alice' does not fit the key configured"),
            "{text}"
        );
        assert!(text.contains("aes_key_file"), "{text}");
        // The client gets what it can act on, in one line; the operator gets the rest.
        let text = crate::keys::Error::AtRest(error).for_client();
        assert!(
            text.contains("configured; let the client register its key again"),
            "{text}"
        );
        assert!(!text.contains("aes_key") && !text.contains('\n'), "{text}");
    }
}

#[test]
fn the_oldest_rows_open_as_bytes_and_as_base64() {
    let public = [0x5a; 32];
    let text = BASE64_STANDARD.encode(public);
    for content in [
        public.to_vec(),
        text.clone().into_bytes(),
        format!("{text}\n").into_bytes(),
    ] {
        for algorithm in BOTH {
            let at_rest_cipher = AtRestCipher::new(key(3), algorithm);
            let row = unbound_row(&key(3), &content);
            assert_eq!(
                at_rest_cipher
                    .open_older(RowKind::PublicKey, "anyone", &row)
                    .unwrap(),
                public
            );
            assert!(matches!(
                at_rest_cipher.open(RowKind::PublicKey, "anyone", &row),
                Err(Error::OlderForm { .. })
            ));
        }
    }
    for content in [&b"short"[..], &[1; 33], &[0xff; 44], b""] {
        let row = unbound_row(&key(3), content);
        let opened = AtRestCipher::new(key(3), Algorithm::Aes256Gcm).open_older(
            RowKind::PublicKey,
            "anyone",
            &row,
        );
        assert!(matches!(opened, Err(Error::Refused { .. })), "{content:?}");
    }
}

#[test]
fn damaged_columns_are_named() {
    let at_rest_cipher = AtRestCipher::new(key(1), Algorithm::Aes256Gcm);
    let row = at_rest_cipher
        .seal(RowKind::PublicKey, "a", &[9; 32])
        .unwrap();
    let short = BASE64_STANDARD.encode([0; 3]);
    for (row, wanted) in [
        (
            SealedRow {
                nonce: String::from("???"),
                ..row.clone()
            },
            "nonce",
        ),
        (
            SealedRow {
                nonce: short.clone(),
                ..row.clone()
            },
            "nonce",
        ),
        (
            SealedRow {
                tag: short,
                ..row.clone()
            },
            "tag",
        ),
        (
            SealedRow {
                ciphertext: String::from("*"),
                ..row.clone()
            },
            "public_key_ciphertext",
        ),
    ] {
        assert!(
            matches!(at_rest_cipher.open(RowKind::PublicKey, "a", &row), Err(Error::Damaged { column, .. }) if column == wanted)
        );
    }
    let unknown = SealedRow {
        algorithm: Some(String::from("rot13")),
        ..row
    };
    assert!(matches!(
        at_rest_cipher.open(RowKind::PublicKey, "a", &unknown),
        Err(Error::UnknownAlgorithm { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..2000), client in "\\PC{1,40}") {
        for algorithm in BOTH {
            let at_rest_cipher = AtRestCipher::new(key(1), algorithm);
            let row = at_rest_cipher.seal(RowKind::PublicKey, &client, &bytes).unwrap();
            prop_assert_eq!(&at_rest_cipher.open(RowKind::PublicKey, &client, &row).unwrap(), &bytes);
        }
    }

    #[test]
    fn any_flipped_bit_is_detected(bit in 0_usize..10_000) {
        for algorithm in BOTH {
            let at_rest_cipher = AtRestCipher::new(key(1), algorithm);
            let row = at_rest_cipher.seal(RowKind::PublicKey, "a", &[9; 32]).unwrap();
            for changed in [
                SealedRow { ciphertext: flip(&row.ciphertext, bit), ..row.clone() },
                SealedRow { nonce: flip(&row.nonce, bit), ..row.clone() },
                SealedRow { tag: flip(&row.tag, bit), ..row.clone() },
            ] {
                prop_assert!(at_rest_cipher.open(RowKind::PublicKey, "a", &changed).is_err());
            }
        }
    }
}

#[test]
fn debug_does_not_reveal_the_key() {
    let at_rest_cipher = AtRestCipher::new(key(0x41), Algorithm::Aes256Gcm);
    let shown = format!("{at_rest_cipher:?} {:?}", KeySource::Inline(key(0x41)));
    assert!(
        !shown.contains("65") && !shown.contains("QUFB") && shown.contains("[secret]"),
        "{shown}"
    );
}

#[test]
fn a_key_file_is_created_once_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/deep/at-rest.key");
    let source = KeySource::File {
        path: path.clone(),
        create_if_missing: true,
    };
    let first = source.load().unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let second = KeySource::File {
        path: path.clone(),
        create_if_missing: false,
    }
    .load()
    .unwrap();
    assert_eq!(first.bytes(), second.bytes());
    assert_ne!(first.bytes(), &[0; 32]);
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "no temporary file is left");
}

#[test]
fn servers_that_start_simultaneously_agree_on_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let source = KeySource::File {
        path: folder.path().join("at-rest.key"),
        create_if_missing: true,
    };
    let barrier = std::sync::Barrier::new(8);
    let keys: Vec<AtRestKey> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    source.load().unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(keys.iter().all(|other| other.bytes() == keys[0].bytes()));
}

#[test]
fn a_missing_key_file_that_the_configuration_names_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("named.key");
    let error = KeySource::File {
        path: path.clone(),
        create_if_missing: false,
    }
    .load()
    .unwrap_err();
    assert!(error.to_string().contains(MAKE_KEY), "{error}");
    assert!(!path.exists());
}

#[test]
fn key_files_that_are_exposed_or_contain_no_key_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("at-rest.key");
    let good = BASE64_STANDARD.encode([4; 32]);
    let load = |content: &[u8], mode| {
        // Created anew: with mode 0400, only root could overwrite it.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        KeySource::File {
            path: path.clone(),
            create_if_missing: true,
        }
        .load()
    };
    assert_eq!(
        load(format!("  {good}\n").as_bytes(), 0o600)
            .unwrap()
            .bytes(),
        &[4; 32]
    );
    assert_eq!(load(good.as_bytes(), 0o400).unwrap().bytes(), &[4; 32]);
    for mode in [0o640, 0o604, 0o620, 0o602] {
        let error = load(good.as_bytes(), mode).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    let wrong_length = BASE64_STANDARD.encode([4; 31]);
    let endless = vec![b'A'; 100_000];
    for content in [
        &b""[..],
        b"not base64!",
        &[0xff, 0xfe],
        wrong_length.as_bytes(),
        &endless,
    ] {
        let error = load(content, 0o600).unwrap_err();
        assert!(matches!(error, KeyError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(MAKE_KEY), "{error}");
        assert_eq!(
            std::fs::read(&path).unwrap(),
            content,
            "an existing file is never overwritten"
        );
    }
}
