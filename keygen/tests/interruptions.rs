//! Interrupted runs: the same command completes them and replaces nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use keygen::authority::Authority;
use keygen::files::is_mismatch;

/// The files of the set, in the order in which they are put in place.
const CERTS: [&str; 8] = [
    "ca.key",
    "ca.crt",
    "server.key",
    "server.crt",
    "a/client.key",
    "a/client.crt",
    "b/client.key",
    "b/client.crt",
];
const KEYS: [&str; 4] = [
    "receiver_private.key",
    "receiver_public.key",
    "receiver_xwing_private.key",
    "receiver_xwing_public.key",
];

fn keygen(out: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keygen"))
        .args(arguments)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap()
}

fn certs(out: &Path) -> Output {
    keygen(out, &["certs", "--client", "a", "--client", "b"])
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Copies some files of a complete set into a new folder.
fn part(whole: &Path, names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let to = folder.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(whole.join(name), to).unwrap();
    }
    folder
}

fn is_unchanged(whole: &Path, part: &Path, names: &[&str]) -> bool {
    names
        .iter()
        .all(|name| fs::read(whole.join(name)).unwrap() == fs::read(part.join(name)).unwrap())
}

/// Returns the number of these files that exist.
fn count(folder: &Path, names: &[&str]) -> usize {
    names
        .iter()
        .filter(|name| folder.join(name).exists())
        .count()
}

#[test]
fn interrupted_certificate_runs_are_completed() {
    let whole = tempfile::tempdir().unwrap();
    let made = certs(whole.path());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let order: Vec<_> = text(&made.stdout)
        .lines()
        .map(|line| {
            line.rsplit_once(&format!("{}/", whole.path().display()))
                .unwrap()
                .1
        })
        .collect();
    assert_eq!(order, CERTS, "the order of the files");
    // The last one was interrupted before its report.
    for end in 0..=CERTS.len() {
        let left = &CERTS[..end];
        let folder = part(whole.path(), left);
        let at = |name: &str| folder.path().join(name);
        // A draft of the interrupted run.
        fs::write(at(".new-abcdef"), "half").unwrap();
        let again = certs(folder.path());
        assert!(
            again.status.success(),
            "after {left:?}: {}",
            text(&again.stderr)
        );
        assert!(
            is_unchanged(whole.path(), folder.path(), left),
            "after {left:?}"
        );
        let authority =
            Authority::read(&at("ca.crt"), &at("ca.key"), jiff::Timestamp::now()).unwrap();
        for pair in CERTS.chunks(2) {
            assert!(
                !is_mismatch(&at(pair[1]), &at(pair[0])),
                "{pair:?} after {left:?}"
            );
        }
        for certificate in ["server.crt", "a/client.crt", "b/client.crt"] {
            assert!(
                authority.has_issued(&at(certificate)).unwrap(),
                "{certificate} after {left:?}"
            );
        }
    }
}

#[test]
fn other_partial_certificate_sets_are_refused() {
    let whole = tempfile::tempdir().unwrap();
    assert!(certs(whole.path()).status.success());
    for subset in 1..1_u32 << CERTS.len() {
        let is_beginning = (subset + 1).is_power_of_two();
        let left: Vec<_> = (0..CERTS.len())
            .filter(|bit| subset & (1 << bit) != 0)
            .map(|bit| CERTS[bit])
            .collect();
        if is_beginning {
            continue;
        }
        let folder = part(whole.path(), &left);
        let refused = certs(folder.path());
        assert_eq!(refused.status.code(), Some(1), "{left:?}");
        assert!(
            text(&refused.stderr).contains("what to do: "),
            "{}",
            text(&refused.stderr)
        );
        assert!(is_unchanged(whole.path(), folder.path(), &left), "{left:?}");
        assert_eq!(count(folder.path(), &CERTS), left.len(), "{left:?}");
    }
}

#[test]
fn a_complete_set_is_kept_only_by_the_command_that_has_made_it() {
    let whole = tempfile::tempdir().unwrap();
    let name = ["certs", "--client", "a", "--client", "b", "--server-name"];
    let with = |more: &[&str]| keygen(whole.path(), &[&name[..], more].concat());
    assert!(with(&["mq.example.org"]).status.success());
    let folder = part(whole.path(), &CERTS);
    for same in [with(&["mq.example.org"]), certs(whole.path())] {
        assert!(same.status.success(), "{}", text(&same.stderr));
        let kept = text(&same.stdout);
        assert_eq!(kept.matches("kept ").count(), 4, "{kept}");
        assert!(!kept.contains("wrote"), "{kept}");
        assert!(text(&same.stderr).contains("Everything was there already"));
    }
    for other in [
        with(&["localhost"]),
        with(&["mq.example.org", "--server-name", "localhost"]),
        with(&["mq.example.org", "--days", "10"]),
    ] {
        assert_eq!(other.status.code(), Some(1), "{}", text(&other.stderr));
        assert!(text(&other.stderr).contains("exists already"));
    }
    // Another client's certificate, and another client's key.
    for (from, to) in [
        ("b/client.crt", "a/client.crt"),
        ("b/client.key", "a/client.key"),
    ] {
        let folder = part(whole.path(), &CERTS);
        fs::copy(whole.path().join(from), folder.path().join(to)).unwrap();
        assert_eq!(certs(folder.path()).status.code(), Some(1), "{from}");
    }
    assert!(is_unchanged(whole.path(), folder.path(), &CERTS));
}

#[test]
fn interrupted_key_pair_runs_are_completed() {
    for (files, option) in [(&KEYS[..2], None), (&KEYS[..], Some("--post-quantum"))] {
        let whole = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = option.into_iter().collect();
        assert!(keygen(whole.path(), &arguments).status.success());
        for end in 0..files.len() {
            let left = &files[..end];
            let folder = part(whole.path(), left);
            let again = keygen(folder.path(), &arguments);
            assert!(
                again.status.success(),
                "after {left:?}: {}",
                text(&again.stderr)
            );
            assert!(
                is_unchanged(whole.path(), folder.path(), left),
                "after {left:?}"
            );
            assert_eq!(count(folder.path(), files), files.len());
            if left.contains(&files[0]) {
                assert!(is_unchanged(whole.path(), folder.path(), &files[..2]));
            }
        }
        let complete = keygen(whole.path(), &arguments);
        assert_eq!(complete.status.code(), Some(1));
        assert!(text(&complete.stderr).contains("exists already"));
    }
}

#[cfg(unix)]
#[test]
fn keys_that_link_to_one_another_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    assert!(certs(folder.path()).status.success());
    let before = fs::read(folder.path().join("ca.key")).unwrap();
    fs::remove_file(folder.path().join("server.key")).unwrap();
    std::os::unix::fs::symlink("ca.key", folder.path().join("server.key")).unwrap();
    let refused = keygen(
        folder.path(),
        &["certs", "--force", "--server-name", "localhost"],
    );
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("are the same file"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(fs::read(folder.path().join("ca.key")).unwrap(), before);
}
