//! The program without a server: help, usage errors, keys and certificates, and errors that are
//! reported before connecting.

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

/// A folder to run the program in, without the user's `CIPHERMQ_` variables.
struct Workspace(TempDir);

/// The outcome of a run.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Workspace {
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

    fn run(&self, line: &str) -> Outcome {
        self.command(line).output().unwrap().into()
    }

    /// Runs a command that must fail, and checks that the error has advice.
    fn fails(&self, line: &str, code: i32) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.code, Some(code), "{line}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{line}");
        let (what, advice) = outcome
            .stderr
            .split_once('\n')
            .unwrap_or_else(|| panic!("{line}: {}", outcome.stderr));
        assert!(what.starts_with("error: "), "{line}: {what}");
        assert!(
            !advice.trim().is_empty(),
            "{line}: no advice: {}",
            outcome.stderr
        );
        assert!(
            !outcome.stderr.contains("panicked"),
            "{line}: {}",
            outcome.stderr
        );
        outcome.stderr
    }
}

impl From<Output> for Outcome {
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
    let outcome = Workspace::new().run("--help");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    for command in COMMANDS {
        assert!(
            outcome.stdout.contains(&format!("  {command} ")),
            "{command}"
        );
    }
    for code in [
        "  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  5  ", "130, 143",
    ] {
        assert!(outcome.stdout.contains(code), "{code}");
    }
}

#[test]
fn every_command_has_help_and_completions_know_it() {
    let workspace = Workspace::new();
    let script = workspace.run("completions bash");
    assert_eq!(script.code, Some(0));
    for command in COMMANDS {
        let help = workspace.run(&format!("{command} --help"));
        assert_eq!(help.code, Some(0), "{command}: {}", help.stderr);
        assert!(help.stdout.contains("Usage:"), "{command}");
        assert!(script.stdout.contains(command), "{command}");
    }
}

#[test]
fn usage_errors_have_exit_code_2_and_advice() {
    let workspace = Workspace::new();
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
        workspace.fails(line, 2);
    }
    let error = workspace.fails("status --config nowhere.toml", 2);
    assert!(error.contains("nowhere.toml"), "{error}");
    std::fs::write(workspace.path("client.toml"), "sever = \"x\"\n").unwrap();
    let error = workspace.fails("status --config client.toml", 2);
    assert!(
        error.contains("sever") && error.contains("line 1"),
        "{error}"
    );
}

#[test]
fn missing_files_are_reported_before_connecting() {
    let workspace = Workspace::new();
    let error = workspace.fails("send --to receiver_1 --file nowhere.jsonl", 1);
    assert!(error.contains("nowhere.jsonl"), "{error}");
    let error = workspace.fails("receive", 1);
    assert!(
        error.contains("certs/receiver_private.key") && error.contains("keygen"),
        "{error}"
    );
    let error = workspace.fails("status", 1);
    assert!(error.contains("certs/ca.crt"), "{error}");
    assert!(!workspace.path("data").exists(), "nothing was made");
}

#[test]
fn keygen_makes_a_key_pair_once_and_the_private_key_is_private() {
    let workspace = Workspace::new();
    let made = workspace.run("keygen --out certs");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(
        made.stdout,
        "wrote certs/receiver_private.key\nwrote certs/receiver_public.key\n"
    );
    let private = workspace.path("certs/receiver_private.key");
    assert_eq!(
        std::fs::metadata(&private).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = std::fs::read(&private).unwrap();
    assert_eq!(before.len(), 45, "base64 of 32 bytes and a newline");
    let error = workspace.fails("keygen --out certs", 1);
    assert!(
        error.contains("exists already") && error.contains("--force"),
        "{error}"
    );
    assert_eq!(std::fs::read(&private).unwrap(), before);
    assert_eq!(workspace.run("keygen --out certs --force").code, Some(0));
    assert_ne!(std::fs::read(&private).unwrap(), before);
}

#[test]
fn certs_makes_the_files_that_are_used_by_default_and_adds_clients_later() {
    let workspace = Workspace::new();
    let made = workspace.run("certs --server-name localhost --client sender_1 --client receiver_1");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for file in [
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "sender_1/client.crt",
        "receiver_1/client.key",
    ] {
        assert!(workspace.path("certs").join(file).is_file(), "{file}");
    }
    let added = workspace.run("certs --client late");
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert!(
        added.stdout.contains("wrote certs/late/client.crt\n"),
        "{}",
        added.stdout
    );
    let error = workspace.fails("certs --client ../evil", 2);
    assert!(error.contains("../evil"), "{error}");
}

#[test]
fn certificates_are_requested_signed_renewed_and_revoked() {
    let workspace = Workspace::new();
    for (line, written) in [
        ("keygen authority --out ca", "ca/ca.crt"),
        ("keygen csr --client a --out client", "client/a/client.csr"),
        (
            "keygen sign client/a/client.csr --client a --out ca",
            "ca/a/client.crt",
        ),
        (
            "keygen renew a --out ca --key client/a/client.key",
            "ca/a/client.csr",
        ),
        ("keygen revoke a --out ca", "ca/ca.crl"),
        ("keygen crl --out ca", "ca/ca.crl"),
    ] {
        let made = workspace.run(line);
        assert_eq!(made.code, Some(0), "{line}: {}", made.stderr);
        let last = made.stdout.lines().last().unwrap();
        assert_eq!(last, format!("wrote {written}"), "{line}");
    }
    let error = workspace.fails("keygen sign client/a/client.csr --client b --out ca", 1);
    assert!(error.contains("for the client `a`, not for `b`"), "{error}");
    workspace.fails("keygen csr --client ../evil", 2);
}

/// All files exist and nothing listens at the address: the error is about the server, not a file.
#[test]
fn an_unreachable_server_is_named() {
    let workspace = Workspace::new();
    assert_eq!(
        workspace
            .run("certs --client sender_1 --client receiver_1")
            .code,
        Some(0)
    );
    assert_eq!(workspace.run("keygen").code, Some(0));
    // A port that was free a moment ago: the standard library cannot bind without listening.
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
        let error = workspace.fails(&format!("{line} --server {address}"), 1);
        assert!(error.contains(&address.to_string()), "{line}: {error}");
    }
    let mut by_variable = workspace.command("status");
    let outcome = Outcome::from(
        by_variable
            .env("CIPHERMQ_SERVER", address.to_string())
            .output()
            .unwrap(),
    );
    assert!(
        outcome.stderr.contains(&address.to_string()),
        "{}",
        outcome.stderr
    );
}

#[test]
fn readable_and_broken_private_keys_are_refused() {
    let workspace = Workspace::new();
    assert_eq!(workspace.run("keygen").code, Some(0));
    let private = workspace.path("certs/receiver_private.key");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = workspace.fails("receive", 1);
    assert!(
        error.contains("chmod 600 certs/receiver_private.key\n"),
        "{error}"
    );
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&private, "c2hvcnQ=\n").unwrap();
    let error = workspace.fails("receive", 1);
    assert!(
        error.contains("certs/receiver_private.key holds no X25519 key"),
        "{error}"
    );
}

#[test]
fn unusable_outputs_are_refused_and_left_alone() {
    let workspace = Workspace::new();
    assert_eq!(workspace.run("keygen").code, Some(0));
    std::fs::write(workspace.path("diary"), "dear diary").unwrap();
    let error = workspace.fails("receive --output diary", 1);
    assert!(
        error.contains("diary") && error.contains("--output"),
        "{error}"
    );
    assert_eq!(
        std::fs::read(workspace.path("diary")).unwrap(),
        b"dear diary"
    );
    workspace.fails("receive --output certs", 1);
    workspace.fails("receive --output new/", 2);
    assert!(!workspace.path("new").exists());
    workspace.fails("receive --output diary/below", 1);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let workspace = Workspace::new();
    let mut child = workspace
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
    let workspace = Workspace::new();
    // There is no server beside this copy: these errors are reported before it is started.
    let copy = workspace.path("bin/ciphermq-cli");
    std::fs::create_dir(workspace.path("bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_ciphermq-cli"), &copy).unwrap();
    let demo = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        Outcome::from(
            command
                .arg("demo")
                .args(arguments)
                .current_dir(workspace.0.path())
                .output()
                .unwrap(),
        )
    };
    let outcome = demo(&[]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("bin/ciphermq-server") && outcome.stderr.contains("cargo build"),
        "{}",
        outcome.stderr
    );

    std::fs::File::create(workspace.path("bin/ciphermq-server"))
        .unwrap()
        .write_all(b"#!/bin/sh\nexit 9\n")
        .unwrap();
    std::fs::set_permissions(
        workspace.path("bin/ciphermq-server"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    std::fs::write(workspace.path("empty"), "\n\n").unwrap();
    std::fs::write(workspace.path("one"), "a\n").unwrap();
    for (arguments, says) in [
        (&["--file", "nowhere"][..], "nowhere"),
        (&["--file", "empty"], "holds no messages"),
        (&["--file", "one", "--out", "bin"], "is not empty"),
        (
            &["--file", "one", "--out", "new"],
            "ended before it was ready",
        ),
    ] {
        let outcome = demo(arguments);
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(says),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
    assert!(Path::new(&workspace.path("new/certs/sender_1/client.crt")).is_file());
}

#[test]
fn checkpoints_are_counted_as_they_were_given() {
    let workspace = Workspace::new();
    for (options, what) in [
        (
            "--to a --to b --checkpoint z1 --checkpoint z1",
            "--checkpoint names the file z1 twice: each receiver needs one of its own.",
        ),
        (
            "--to a --to b --checkpoint z1",
            "There are 2 receivers, and --checkpoint names 1 file.",
        ),
        (
            "--to a --checkpoint z1 --checkpoint z2",
            "There is 1 receiver, and --checkpoint names 2 files.",
        ),
    ] {
        let stderr = workspace.fails(&format!("send --file f {options}"), 2);
        assert!(stderr.starts_with(&format!("error: {what}")), "{stderr}");
    }
}

#[test]
fn empty_paths_are_usage_errors() {
    let workspace = Workspace::new();
    for line in [
        "receive --output",
        "receive --checkpoint",
        "receive --quarantine",
        "receive --private-key",
        "send --to a --file",
        "send --to a --file f --checkpoint",
        "status --ca",
        "status --cert",
        "status --key",
        "status --pins",
        "status --config",
        "demo --file",
        "demo --out",
        "keygen --out",
        "certs --out",
    ] {
        let outcome: Outcome = workspace.command(line).arg("").output().unwrap().into();
        assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
        let text = "a value is required";
        assert!(outcome.stderr.contains(text), "{line}: {}", outcome.stderr);
    }
}
