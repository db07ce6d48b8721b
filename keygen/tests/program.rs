//! The program's output and exit codes.

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
fn creates_a_key_pair_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = keygen(folder.path(), &["--out", "new/keys"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "wrote new/keys/receiver_private.key\nwrote new/keys/receiver_public.key\n"
    );
    let key = key_file::read_private(&folder.path().join("new/keys/receiver_private.key")).unwrap();
    let public =
        key_file::read_public(&folder.path().join("new/keys/receiver_public.key")).unwrap();
    assert_eq!(key.public_key(), &public);
    assert!(text(&output.stderr).contains(&public.to_base64()));
    assert!(
        !text(&output.stderr).contains(key.to_base64().as_str()),
        "the private key is not printed"
    );

    let again = keygen(folder.path(), &["--out", "new/keys"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(text(&again.stdout), "");
    let lines: Vec<_> = text(&again.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines.contains(&"error: new/keys/receiver_private.key exists already"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("what to do: ") && line.contains("--force")),
        "{lines:?}"
    );
    assert_eq!(
        key_file::read_public(&folder.path().join("new/keys/receiver_public.key")).unwrap(),
        public
    );

    let forced = keygen(folder.path(), &["--out", "new/keys", "--force"]);
    assert!(forced.status.success());
    assert_ne!(
        key_file::read_public(&folder.path().join("new/keys/receiver_public.key")).unwrap(),
        public
    );
}

#[test]
fn adds_a_post_quantum_key_pair() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("certs").join(name);
    let fresh = keygen(folder.path(), &["--post-quantum", "--out", "fresh"]);
    assert!(fresh.status.success(), "{}", text(&fresh.stderr));
    assert_eq!(
        text(&fresh.stdout),
        "wrote fresh/receiver_private.key\nwrote fresh/receiver_public.key\n\
         wrote fresh/receiver_xwing_private.key\nwrote fresh/receiver_xwing_public.key\n"
    );

    assert!(keygen(folder.path(), &[]).status.success());
    let before = std::fs::read(at("receiver_private.key")).unwrap();
    let added = keygen(folder.path(), &["--post-quantum"]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    assert_eq!(
        text(&added.stdout),
        "wrote certs/receiver_xwing_private.key\nwrote certs/receiver_xwing_public.key\n\
         kept certs/receiver_private.key\nkept certs/receiver_public.key\n"
    );
    assert_eq!(std::fs::read(at("receiver_private.key")).unwrap(), before);
    let public = key_file::read_x_wing_public(&at("receiver_xwing_public.key")).unwrap();
    let keyring = key_file::read_keyring(&at("receiver_private.key")).unwrap();
    assert!(keyring.contains(public.key_id()));
    assert_eq!(keyring.recipient_keys().len(), 2);
    assert!(text(&added.stderr).contains(&public.key_id().to_string()));
    let private = key_file::read_x_wing_private(&at("receiver_xwing_private.key")).unwrap();
    assert!(!text(&added.stderr).contains(private.to_base64().as_str()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(at("receiver_xwing_private.key")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    let again = keygen(folder.path(), &["--post-quantum"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("error: certs/receiver_xwing_private.key exists already"));
    assert!(text(&again.stderr).contains("keygen rotate"));
    assert_eq!(
        key_file::read_x_wing_public(&at("receiver_xwing_public.key")).unwrap(),
        public
    );
    let forced = keygen(folder.path(), &["--post-quantum", "--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert_eq!(text(&forced.stdout).lines().count(), 4);
    assert_ne!(std::fs::read(at("receiver_private.key")).unwrap(), before);
    assert_ne!(
        key_file::read_x_wing_public(&at("receiver_xwing_public.key")).unwrap(),
        public
    );

    // An unreadable key is not treated as a missing one.
    std::fs::write(at("receiver_private.key"), "garbage").unwrap();
    std::fs::remove_file(at("receiver_xwing_private.key")).unwrap();
    let garbage = keygen(folder.path(), &["--post-quantum"]);
    assert_eq!(garbage.status.code(), Some(1));
    assert!(text(&garbage.stderr).contains("receiver_private.key holds no X25519 key"));
    assert!(!at("receiver_xwing_private.key").exists());
}

#[test]
fn rotates_existing_keys() {
    let folder = tempfile::tempdir().unwrap();
    let private = folder.path().join("certs/receiver_private.key");
    let none = keygen(folder.path(), &["rotate"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("error: there is no key file certs/receiver_private.key"));
    assert!(!folder.path().join("certs").exists());

    assert!(keygen(folder.path(), &[]).status.success());
    let old = key_file::read_keyring(&private)
        .unwrap()
        .newest()
        .public_key()
        .key_id();
    let rotated = keygen(folder.path(), &["rotate", "--out", "certs"]);
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    assert_eq!(
        text(&rotated.stdout),
        format!(
            "wrote certs/receiver_private.{old}.key\nwrote certs/receiver_private.key\nwrote \
             certs/receiver_public.key\n"
        )
    );
    let keyring = key_file::read_keyring(&private).unwrap();
    let new = keyring.newest().public_key();
    assert!(keyring.contains(old) && new.key_id() != old);
    assert_eq!(
        key_file::read_public(&folder.path().join("certs/receiver_public.key")).unwrap(),
        *new
    );
    let output = text(&rotated.stderr);
    for what in [
        &new.key_id().to_string(),
        &old.to_string(),
        "certs/receiver_private.",
        "Restart the receiver",
        "ciphermq-cli register-key",
        "within 5 minutes",
        "ciphermq-cli keys",
    ] {
        assert!(output.contains(what), "{what}: {output}");
    }
    assert!(!output.contains(keyring.newest().to_base64().as_str()));

    // With both kinds, and once more: no key is lost.
    assert!(keygen(folder.path(), &["--post-quantum"]).status.success());
    let before: Vec<_> = key_file::read_keyring(&private)
        .unwrap()
        .key_ids()
        .collect();
    let rotated = keygen(folder.path(), &["rotate"]);
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    assert_eq!(text(&rotated.stdout).lines().count(), 6);
    assert!(text(&rotated.stderr).contains("The new X-Wing key has the key id"));
    let keyring = key_file::read_keyring(&private).unwrap();
    assert_eq!(keyring.key_ids().count(), before.len() + 2);
    assert!(before.iter().all(|id| keyring.contains(*id)));
}

#[cfg(unix)]
#[test]
fn a_private_key_that_others_may_read_is_not_rotated() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    assert!(keygen(folder.path(), &[]).status.success());
    let private = folder.path().join("certs/receiver_private.key");
    let before = std::fs::read(&private).unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [&["rotate"][..], &["--post-quantum"]] {
        let refused = keygen(folder.path(), arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            text(&refused.stderr).contains("what to do: run: chmod 600 certs/receiver_private.key"),
            "{}",
            text(&refused.stderr)
        );
    }
    assert_eq!(std::fs::read(&private).unwrap(), before);
    assert_eq!(
        std::fs::read_dir(folder.path().join("certs"))
            .unwrap()
            .count(),
        2
    );
}

#[test]
fn creates_certificates_and_adds_to_them() {
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
    assert!(text(&output.stderr).contains("is kept"));
    assert!(folder.path().join("certs/sender_2/client.crt").is_file());
}

#[test]
fn wrong_arguments_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code) in [
        (&["certs", "--client", "../x"][..], 2),
        (&["certs", "--server-name", "not a host"][..], 2),
        (&["certs", "--new-ca"][..], 2),
        (&["certs", "--days", "0"][..], 2),
        (&["certs", "--days", "4000"][..], 2),
        (&["--force", "certs"][..], 2),
        (&["--post-quantum", "rotate"][..], 2),
        (&["rotate", "--force"][..], 2),
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

/// Runs a line of bash in a folder, where `$keygen` is the program.
fn bash(folder: &Path, line: &str) -> Output {
    Command::new("bash")
        .args(["-c", line])
        .env("keygen", env!("CARGO_BIN_EXE_keygen"))
        // By which $'\u202e' is one character, in UTF-8.
        .env("LC_ALL", "C.UTF-8")
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn failing_output_does_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    for (command, code) in [
        ("--help", 0),
        ("--version", 0),
        ("--force", 0),
        ("rotate", 0),
        ("certs --force --client a", 0),
        ("nope", 2),
        ("certs --client ../a", 2),
        ("certs --client", 2),
        ("--out /dev/null/a", 1),
    ] {
        for outputs in [
            ">/dev/null 2>/dev/full",
            ">&- 2>&-",
            ">/dev/null 2>&-",
            "2> >(true)",
            "> >(exec >&-)",
        ] {
            let ran = bash(folder.path(), &format!("\"$keygen\" {command} {outputs}"));
            // What is printed on a closed standard output is lost.
            let is_lost = code == 0 && outputs.starts_with(">&-");
            assert_eq!(
                ran.status.code(),
                Some(if is_lost { 1 } else { code }),
                "{command} {outputs}: {ran:?}"
            );
        }
        // Output that cannot be printed is an error.
        let ran = bash(folder.path(), &format!("\"$keygen\" {command} >/dev/full"));
        assert_eq!(ran.status.code(), Some(code.max(1)), "{command} >/dev/full");
    }
}

#[test]
fn a_file_size_limit_is_an_error_and_not_a_signal_death() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["--out keys", "certs"] {
        let ran = bash(
            folder.path(),
            &format!("ulimit -f 0; exec \"$keygen\" {command}"),
        );
        assert_eq!(ran.status.code(), Some(1), "{command}: {ran:?}");
        assert!(
            text(&ran.stderr).contains("File too large"),
            "{command}: {ran:?}"
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn names_cannot_control_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "$'a\\e[2J\\x7f\\u009b\\u202e\\u061c\\nerror: forged'";
    for command in [
        format!("--out {evil}"),
        format!("--out {evil} # again"),
        format!("rotate --out {evil}"),
        format!("certs --out {evil}"),
        format!("certs --client {evil}"),
        format!("certs --server-name {evil}"),
        evil.to_owned(),
    ] {
        let ran = bash(folder.path(), &format!("\"$keygen\" {command}"));
        let output = format!("{}{}", text(&ran.stdout), text(&ran.stderr));
        let is_unsafe = |c| c != '\n' && ciphermq_crypto::text::is_unsafe(c);
        assert!(!output.contains(is_unsafe), "{command}: {output:?}");
        assert!(output.contains("u{202e}"), "{command}: {output}");
        // Success cannot be made to look like an error.
        let forged = output.lines().any(|line| line.starts_with("error: forged"));
        assert!(!ran.status.success() || !forged, "{command}: {output}");
    }
}
