//! `ciphermq-server check`: reports the errors of a start without starting.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ciphermq_tests::binaries::binary;
use ciphermq_tests::pki::Request;
use ciphermq_tests::{Authority, Cli, Pki};

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
    let lines: Vec<&str> = checked.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[0].starts_with("[tls] ca_cert_path: a certificate ends at ")
            && lines[1].starts_with("[tls] cert_path: a certificate ends at "),
        "{lines:?}"
    );
    assert_eq!(
        lines[2],
        "config.toml can be used, and so can the files that it names"
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

#[tokio::test]
async fn the_ends_of_certificates_are_reported() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = |days: u64| now.as_secs() + days * 24 * 60 * 60;
    let pki = Pki::of(Authority::until("short", until(10)));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &pki, "");
    let checked = check(folder.path()).run().await.success().stderr;
    let warning = "warning: [tls] ca_cert_path: a certificate ends within 14 days, at ";
    assert!(checked.starts_with(warning), "{checked}");
    assert!(
        checked.contains("\nCheck the clock; if it is right, renew"),
        "{checked}"
    );

    // One that has ended fails, unless another one of its name replaces it.
    let ended = Authority::expired("short");
    let ca = pki.ca();
    std::fs::write(&ca, ended.certificate_pem()).unwrap();
    let checked = check(folder.path()).run().await.code(1).stderr;
    let error =
        "error: [tls] ca_cert_path: a certificate expired at 2021-01-01T00:00:00Z (CN=short";
    assert!(checked.starts_with(error), "{checked}");
    assert!(!checked.contains("can be used"), "{checked}");
    let both = [&ended, &ended.renewed("short")].map(Authority::certificate_pem);
    std::fs::write(&ca, both.concat()).unwrap();
    let checked = check(folder.path()).run().await.success().stderr;
    assert!(
        checked.starts_with("warning: [tls] ca_cert_path"),
        "{checked}"
    );
    let request = Request::named("localhost").server_names(&["localhost"]);
    let expired = pki.authority().issue(request.expired());
    let (certificate, key) = (
        pki.folder().join("server.crt"),
        pki.folder().join("server.key"),
    );
    std::fs::write(certificate, expired.certificate_pem()).unwrap();
    std::fs::write(key, expired.key_pem()).unwrap();
    let checked = check(folder.path()).run().await.code(1).stderr;
    let error = "error: [tls] cert_path: a certificate expired at 2021-01-01T00:00:00Z";
    assert!(checked.contains(error), "{checked}");
}
