//! The program: what it prints where, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use ciphermq_crypto::key_file;

fn keygen(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keygen"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn makes_a_key_pair_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = keygen(folder.path(), &["--out", "made/here"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "wrote made/here/receiver_private.key\nwrote made/here/receiver_public.key\n"
    );
    let key = key_file::read_private(&folder.path().join("made/here/receiver_private.key")).unwrap();
    let public = key_file::read_public(&folder.path().join("made/here/receiver_public.key")).unwrap();
    assert_eq!(key.public_key(), &public);
    assert!(text(&output.stderr).contains(&public.to_base64()));
    assert!(
        !text(&output.stderr).contains(key.to_base64().as_str()),
        "the private key is not printed"
    );

    let again = keygen(folder.path(), &["--out", "made/here"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(text(&again.stdout), "");
    let lines: Vec<_> = text(&again.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines.contains(&"error: made/here/receiver_private.key exists already"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("what to do: ") && line.contains("--force")),
        "{lines:?}"
    );
    assert_eq!(
        key_file::read_public(&folder.path().join("made/here/receiver_public.key")).unwrap(),
        public
    );

    let forced = keygen(folder.path(), &["--out", "made/here", "--force"]);
    assert!(forced.status.success());
    assert_ne!(
        key_file::read_public(&folder.path().join("made/here/receiver_public.key")).unwrap(),
        public
    );
}

#[test]
fn makes_certificates_and_adds_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let output = keygen(
        folder.path(),
        &[
            "certs",
            "--out",
            "certs",
            "--server-name",
            "localhost",
            "--client",
            "sender_1",
            "--client",
            "receiver_1",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut written: Vec<_> = text(&output.stdout).lines().collect();
    written.sort_unstable();
    assert_eq!(
        written,
        [
            "wrote certs/ca.crt",
            "wrote certs/ca.key",
            "wrote certs/receiver_1/client.crt",
            "wrote certs/receiver_1/client.key",
            "wrote certs/sender_1/client.crt",
            "wrote certs/sender_1/client.key",
            "wrote certs/server.crt",
            "wrote certs/server.key",
        ]
    );
    let output = keygen(folder.path(), &["certs", "--client", "sender_2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("kept certs/server.crt\n"));
    assert!(text(&output.stderr).contains("stays"));
    assert!(folder.path().join("certs/sender_2/client.crt").is_file());
}

#[test]
fn wrong_arguments_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code) in [
        (&["certs", "--client", "../x"][..], 1),
        (&["certs", "--server-name", "not a host"][..], 1),
        (&["certs", "--new-ca"][..], 2),
        (&["certs", "--days", "0"][..], 2),
        (&["certs", "--days", "4000"][..], 2),
        (&["--force", "certs"][..], 2),
        (&["unknown"][..], 2),
    ] {
        let output = keygen(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(text(&output.stdout), "");
        assert!(
            text(&output.stderr).starts_with("error: "),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
