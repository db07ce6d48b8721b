//! What the program does without a server: help, usage errors, keys and certificates, and errors
//! that come before anything is connected.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reports by panicking, its helpers too"
)]

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder to run the program in, where nothing of the user's environment is seen.
struct Place(TempDir);

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ciphermq-cli"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("CIPHERMQ_") || variable == "RUST_LOG" {
                command.env_remove(variable);
            }
        }
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Ran {
        self.command(line).output().unwrap().into()
    }

    /// Runs what must fail, and checks the error's two parts.
    fn fails(&self, line: &str, code: i32) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(code), "{line}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{line}");
        let (what, advice) = ran
            .stderr
            .split_once('\n')
            .unwrap_or_else(|| panic!("{line}: {}", ran.stderr));
        assert!(what.starts_with("error: "), "{line}: {what}");
        assert!(
            !advice.trim().is_empty(),
            "{line}: says not what to do: {}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("panicked"), "{line}: {}", ran.stderr);
        ran.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

const COMMANDS: [&str; 12] = [
    "send",
    "receive",
    "demo",
    "keygen",
    "certs",
    "register-key",
    "get-key",
    "fetch",
    "ack",
    "resend",
    "status",
    "completions",
];

#[test]
fn help_names_every_command_and_exit_code() {
    let ran = Place::new().run("--help");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for command in COMMANDS {
        assert!(ran.stdout.contains(&format!("  {command} ")), "{command}");
    }
    for code in ["  0 ", "  1 ", "  2 ", "  3 ", "  4 ", "130, 143"] {
        assert!(ran.stdout.contains(code), "{code}");
    }
}

#[test]
fn every_command_has_help_and_completions_know_it() {
    let place = Place::new();
    let script = place.run("completions bash");
    assert_eq!(script.code, Some(0));
    for command in COMMANDS {
        let help = place.run(&format!("{command} --help"));
        assert_eq!(help.code, Some(0), "{command}: {}", help.stderr);
        assert!(help.stdout.contains("Usage:"), "{command}");
        assert!(script.stdout.contains(command), "{command}");
    }
}

#[test]
fn usage_errors_end_with_2_and_say_both_parts() {
    let place = Place::new();
    for line in [
        "send",
        "send --to",
        "send --to r --batch-size 0",
        "send --to r --to s --to r --message x",
        "send --to r --to s --file f --checkpoint c",
        "send --to r --to s --file f --checkpoint c --checkpoint c",
        "send --to r --file - --checkpoint c",
        "sned",
        "ack",
        "receive --count none",
        "status --nope",
        "completions tcsh",
    ] {
        place.fails(line, 2);
    }
    let error = place.fails("status --config nowhere.toml", 2);
    assert!(error.contains("nowhere.toml"), "{error}");
    std::fs::write(place.path("client.toml"), "sever = \"x\"\n").unwrap();
    let error = place.fails("status --config client.toml", 2);
    assert!(
        error.contains("sever") && error.contains("line 1"),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_told_before_anything_is_connected() {
    let place = Place::new();
    let error = place.fails("send --to receiver_1 --file nowhere.jsonl", 1);
    assert!(error.contains("nowhere.jsonl"), "{error}");
    let error = place.fails("receive", 1);
    assert!(
        error.contains("certs/receiver_private.key") && error.contains("keygen"),
        "{error}"
    );
    let error = place.fails("status", 1);
    assert!(error.contains("certs/ca.crt"), "{error}");
    assert!(!place.path("data").exists(), "nothing was made");
}

#[test]
fn keygen_makes_a_pair_once_and_the_private_one_is_private() {
    let place = Place::new();
    let made = place.run("keygen --out certs");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(
        made.stdout,
        "wrote certs/receiver_private.key\nwrote certs/receiver_public.key\n"
    );
    let private = place.path("certs/receiver_private.key");
    assert_eq!(
        std::fs::metadata(&private).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = std::fs::read(&private).unwrap();
    assert_eq!(before.len(), 45, "base64 of 32 bytes and a newline");
    let error = place.fails("keygen --out certs", 1);
    assert!(
        error.contains("exists already") && error.contains("--force"),
        "{error}"
    );
    assert_eq!(std::fs::read(&private).unwrap(), before);
    assert_eq!(place.run("keygen --out certs --force").code, Some(0));
    assert_ne!(std::fs::read(&private).unwrap(), before);
}

#[test]
fn certs_makes_what_the_defaults_look_for_and_adds_clients_later() {
    let place = Place::new();
    let made = place.run("certs --server-name localhost --client sender_1 --client receiver_1");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for file in [
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "sender_1/client.crt",
        "receiver_1/client.key",
    ] {
        assert!(place.path("certs").join(file).is_file(), "{file}");
    }
    let added = place.run("certs --client late");
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert!(
        added.stdout.contains("wrote certs/late/client.crt\n"),
        "{}",
        added.stdout
    );
    let error = place.fails("certs --client ../evil", 2);
    assert!(error.contains("../evil"), "{error}");
}

/// A certificate, its key and nobody who listens: the error is the server's absence, not a file's.
#[test]
fn a_server_that_is_not_there_is_named() {
    let place = Place::new();
    assert_eq!(
        place
            .run("certs --client sender_1 --client receiver_1")
            .code,
        Some(0)
    );
    assert_eq!(place.run("keygen").code, Some(0));
    // Bound and not listening would need more than the standard library: a port that was free a
    // moment ago.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for line in [
        "status",
        "send --to receiver_1 --message x",
        "receive",
        "get-key receiver_1",
        "fetch",
        "ack a",
        "resend a",
        "register-key",
    ] {
        let error = place.fails(&format!("{line} --server {address}"), 1);
        assert!(error.contains(&address.to_string()), "{line}: {error}");
    }
    let mut by_variable = place.command("status");
    let ran = Ran::from(
        by_variable
            .env("CIPHERMQ_SERVER", address.to_string())
            .output()
            .unwrap(),
    );
    assert!(ran.stderr.contains(&address.to_string()), "{}", ran.stderr);
}

#[test]
fn keys_of_others_and_broken_keys_are_refused() {
    let place = Place::new();
    assert_eq!(place.run("keygen").code, Some(0));
    let private = place.path("certs/receiver_private.key");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = place.fails("receive", 1);
    assert!(
        error.contains("chmod 600 certs/receiver_private.key\n"),
        "{error}"
    );
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&private, "c2hvcnQ=\n").unwrap();
    let error = place.fails("receive", 1);
    assert!(
        error.contains("certs/receiver_private.key holds no X25519 key"),
        "{error}"
    );
}

#[test]
fn outputs_that_cannot_be_used_are_refused_and_left_alone() {
    let place = Place::new();
    assert_eq!(place.run("keygen").code, Some(0));
    std::fs::write(place.path("diary"), "dear diary").unwrap();
    let error = place.fails("receive --output diary", 1);
    assert!(
        error.contains("diary") && error.contains("--output"),
        "{error}"
    );
    assert_eq!(std::fs::read(place.path("diary")).unwrap(), b"dear diary");
    place.fails("receive --output certs", 1);
    place.fails("receive --output diary/below", 1);
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let place = Place::new();
    let mut child = place
        .command("completions zsh")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn a_demo_needs_messages_and_an_empty_folder() {
    let place = Place::new();
    // A server that must not be started: these errors come before it.
    let copy = place.path("bin/ciphermq-cli");
    std::fs::create_dir(place.path("bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_ciphermq-cli"), &copy).unwrap();
    let demo = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        Ran::from(
            command
                .arg("demo")
                .args(arguments)
                .current_dir(place.0.path())
                .output()
                .unwrap(),
        )
    };
    let ran = demo(&[]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("bin/ciphermq-server") && ran.stderr.contains("cargo build"),
        "{}",
        ran.stderr
    );

    std::fs::File::create(place.path("bin/ciphermq-server"))
        .unwrap()
        .write_all(b"#!/bin/sh\nexit 9\n")
        .unwrap();
    std::fs::set_permissions(
        place.path("bin/ciphermq-server"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    std::fs::write(place.path("empty"), "\n\n").unwrap();
    std::fs::write(place.path("one"), "a\n").unwrap();
    for (arguments, says) in [
        (&["--file", "nowhere"][..], "nowhere"),
        (&["--file", "empty"], "holds no messages"),
        (&["--file", "one", "--out", "bin"], "is not empty"),
        (
            &["--file", "one", "--out", "new"],
            "ended before it was ready",
        ),
    ] {
        let ran = demo(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
    assert!(Path::new(&place.path("new/certs/sender_1/client.crt")).is_file());
}
