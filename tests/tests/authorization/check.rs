//! `ciphermq-server check`: reports the errors of a start without starting.

use std::path::Path;

use ciphermq_tests::binaries::binary;
use ciphermq_tests::{Cli, Pki};

/// Writes a configuration whose certificates are in order, with more lines.
fn write(folder: &Path, pki: &Pki, more: &str) {
    let certificate = pki.folder().join("server.crt");
    let key = pki.folder().join("server.key");
    let text = format!(
        "[tls]\ncert_path = {certificate:?}\nkey_path = {key:?}\nca_cert_path = {:?}\n{more}\n",
        pki.ca()
    );
    std::fs::write(folder.join("config.toml"), text).unwrap();
}

fn check(folder: &Path) -> Cli {
    Cli::program(binary("ciphermq-server"))
        .args(["check", "--config", "config.toml"])
        .current_dir(folder)
}

#[tokio::test]
async fn everything_that_a_start_would_use_is_checked_and_nothing_is_created() {
    let (folder, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    write(folder.path(), &pki, "");
    let checked = check(folder.path()).run().await.success();
    assert_eq!(
        checked.stderr,
        "config.toml can be used, and so can the files that it names\n"
    );
    write(folder.path(), &pki, "[admin]\n");
    let checked = check(folder.path()).run().await.success();
    assert!(
        checked.stderr.starts_with("warning: "),
        "{}",
        checked.stderr
    );
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "only the configuration is there");
}

#[tokio::test]
async fn the_errors_are_those_of_a_start() {
    let (folder, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    std::fs::write(folder.path().join("short.key"), "AAAA").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("short.key"), mode).unwrap();
    let rule = "[[authorization.rules]]\nname = \"r\"\n";
    for (more, parts) in [
        ("[limits]\nmax_prefetch = 0", ["max_prefetch", "Write"]),
        (
            "[authorization]\ndefault = \"maybe\"",
            ["`maybe`", "allow or deny"],
        ),
        (
            &format!("{rule}allow = [\"fly\"]"),
            ["`fly`", "register_key"],
        ),
        (
            &format!("{rule}allow = [\"bind\"]\nqueues = []"),
            ["queues is empty", "Leave it out"],
        ),
        (
            "[database]\nurl = \"mysql://h/d\"",
            ["[database] url", "postgres"],
        ),
        (
            "[encryption]\naes_key_file = \"no.key\"",
            ["no.key", "does not exist"],
        ),
        (
            "[encryption]\naes_key_file = \"short.key\"",
            ["short.key", "must have 32"],
        ),
        (
            "[logging]\ninfo_file_path = \"config.toml\"",
            ["same file", "file of its own"],
        ),
    ] {
        write(folder.path(), &pki, more);
        let checked = check(folder.path()).run().await.code(1);
        assert!(
            checked.stderr.starts_with("error: "),
            "{more}: {}",
            checked.stderr
        );
        for part in parts {
            assert!(
                checked.stderr.contains(part),
                "{more}: {part}: {}",
                checked.stderr
            );
        }
        let start = Cli::program(binary("ciphermq-server")).current_dir(folder.path());
        assert_eq!(start.run().await.code(1).stderr, checked.stderr, "{more}");
    }
    std::fs::remove_file(pki.folder().join("server.crt")).unwrap();
    write(folder.path(), &pki, "");
    let checked = check(folder.path()).run().await.code(1);
    assert!(checked.stderr.contains("cert_path"), "{}", checked.stderr);
}
