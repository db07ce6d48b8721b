//! The program in adverse environments: outputs that are full, closed or gone, resource limits,
//! names with escape sequences; and completions in a shell.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by panicking, its helpers too"
)]

use std::process::{Command, Output};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ciphermq-cli");

/// Runs a line of bash in a folder, in which `$cli` is the program.
fn bash(folder: &TempDir, line: &str) -> Output {
    let mut command = Command::new("bash");
    // In other locales bash does not write characters beyond ASCII from their escapes.
    command.env("LC_ALL", "C.UTF-8");
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("CIPHERMQ_") || variable == "RUST_LOG" {
            command.env_remove(variable);
        }
    }
    command
        .args(["-c", line])
        .env("cli", PROGRAM)
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Whether a text has characters that control a terminal, line ends aside.
fn has_controls(text: &str) -> bool {
    text.contains(|c| c != '\n' && ciphermq_client::text::is_unsafe(c))
}

#[test]
fn failing_outputs_cause_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    for (command, code) in [
        ("--help", 0),
        ("--version", 0),
        ("send --help", 0),
        ("completions zsh", 0),
        ("", 2),
        ("nope", 2),
        ("send", 2),
        ("status --config nowhere", 2),
        ("status", 1),
        ("status -vvv", 1),
        ("keygen --out keys --force", 0),
        ("certs --out certs --force --client a", 0),
        ("demo --file nowhere", 1),
    ] {
        let is_data = !matches!(command, "" | "nope" | "send" | "demo --file nowhere") && code == 0;
        for outputs in [
            ">/dev/null 2>/dev/full",
            ">&- 2>&-",
            ">/dev/null 2>&-",
            ">&- 2>/dev/full",
            "2> >(true)",
        ] {
            let outcome = bash(&folder, &format!("\"$cli\" {command} {outputs}"));
            // Data for a closed standard output is lost.
            let is_lost = is_data && outputs.starts_with(">&-");
            let code = if is_lost { 1 } else { code };
            assert_eq!(outcome.status.code(), Some(code), "{command} {outputs}");
        }
        // So is data for one that is full.
        let outcome = bash(&folder, &format!("\"$cli\" {command} >/dev/full"));
        let code = if is_data { 1 } else { code };
        assert_eq!(outcome.status.code(), Some(code), "{command} >/dev/full");
        assert_eq!(
            is_data,
            text(&outcome.stderr).contains("Standard output cannot be written"),
            "{command}: {}",
            text(&outcome.stderr)
        );
        let outcome = bash(
            &folder,
            &format!("\"$cli\" {command} 2>&1 | true; exit ${{PIPESTATUS[0]}}"),
        );
        assert_ne!(outcome.status.code(), Some(101), "{command} | true");
    }
}

#[test]
fn exceeding_the_file_size_limit_is_an_error_and_not_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["keygen --out keys", "certs --out certs"] {
        let outcome = bash(&folder, &format!("ulimit -f 0; exec \"$cli\" {command}"));
        assert_eq!(outcome.status.code(), Some(1), "{command}: {outcome:?}");
        assert!(
            text(&outcome.stderr).contains("File too large"),
            "{command}: {}",
            text(&outcome.stderr)
        );
    }
}

#[test]
fn file_names_do_not_control_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "$'a\\e[2J\\x7f\\u009b\\u202e\\u061c\\u2028b\\nerror: forged'";
    for command in [
        format!("send --to r --file {evil}"),
        format!("status --config {evil}"),
        format!("status --ca {evil}"),
        format!("receive --private-key {evil}"),
        format!("demo --file {evil}"),
        format!("keygen --out {evil}"),
        format!("keygen --out {evil} # again"),
        format!("certs --out {evil}"),
        format!("certs --client {evil}"),
        format!("certs --server-name {evil}"),
        format!("status --server {evil}"),
        format!("status --server-name {evil}"),
        format!("send --to {evil}"),
        evil.to_owned(),
        format!("completions {evil}"),
    ] {
        let outcome = bash(&folder, &format!("\"$cli\" {command}"));
        let output = format!("{}{}", text(&outcome.stdout), text(&outcome.stderr));
        assert!(!has_controls(&output), "{command}: {output:?}");
        assert!(output.contains("u{202e}"), "{command}: {output}");
    }
}

#[test]
fn numbers_are_refused_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    for (command, reason) in [
        ("receive --count 0", "it must be at least 1"),
        ("receive --count ten", "it is not a whole number"),
        ("receive --prefetch 0", "it must be at least 1"),
        ("receive --prefetch 4294967296", "it is too large"),
        ("bench --window 0", "it must be at least 1"),
        ("bench --messages 99999999999999999999", "it is too large"),
    ] {
        let outcome = bash(&folder, &format!("\"$cli\" {command}"));
        assert_eq!(outcome.status.code(), Some(2), "{command}");
        let error = text(&outcome.stderr);
        assert!(error.contains(reason), "{command}: {error}");
        assert!(!error.contains("type"), "{command}: {error}");
    }
}

#[test]
fn addresses_names_and_durations_are_checked_before_anything_is_created() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        bash(
            &folder,
            "\"$cli\" keygen && \"$cli\" certs --client sender_1 --client receiver_1"
        )
        .status
        .success()
    );
    let fails = |line: &str, says: &str| {
        for command in [
            "receive --output out.jsonl",
            "send --to r --message x",
            "status",
        ] {
            let outcome = bash(&folder, &format!("\"$cli\" {command} --pins pins {line}"));
            let output = text(&outcome.stderr);
            assert_eq!(outcome.status.code(), Some(2), "{command} {line}: {output}");
            assert!(output.contains(says), "{command} {line}: {output}");
            assert!(
                output.starts_with("error: ")
                    && !output.contains("..\n")
                    && !output.contains(".. "),
                "{output}"
            );
        }
        assert!(!folder.path().join("out.jsonl").exists() && !folder.path().join("pins").exists());
    };
    for address in [
        "localhost:99999",
        "localhost:0",
        "localhost:",
        "localhost:port",
        ":5672",
        "''",
        "tls://localhost:5672",
        "'local host:5672'",
        "[::1",
        "[localhost]:5672",
        "[::1]:99999",
        "::1:2:3:4:5:6:7:8",
        "localhost:5672:1",
    ] {
        fails(&format!("--server {address}"), "is not a server address");
    }
    fails("--server-name 'a b'", "is not a valid server name");
    fails("--server-name ''", "is not a valid server name");
    for seconds in ["0", "never", "nan", "inf", "1e300", "5ss", "''"] {
        fails(&format!("--connect-timeout {seconds}"), "--connect-timeout");
    }
    fails("--retries 0", "--retries");
    // From the environment and the configuration file as well.
    let outcome = bash(&folder, "CIPHERMQ_SERVER=localhost:99999 \"$cli\" status");
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    let outcome = bash(
        &folder,
        "echo 'server = \"localhost:99999\"' >client.toml; \"$cli\" status --config client.toml",
    );
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    for line in [
        "certs --client ../evil",
        "certs --server-name 'a b'",
        "bench --spawn mysql",
    ] {
        let outcome = bash(&folder, &format!("\"$cli\" {line}"));
        assert_eq!(outcome.status.code(), Some(2), "{line}: {outcome:?}");
    }
}

/// The completions that bash offers for these words, the last of which is being typed.
fn completed(folder: &TempDir, words: &[&str]) -> Vec<String> {
    let list: String = words.iter().map(|word| format!("'{word}' ")).collect();
    let last = words.len() - 1;
    let (word, before) = (words[last], words[last - 1]);
    let outcome = bash(
        folder,
        &format!(
            "complete() {{ for name; do :; done; function=$2; bound=$name; }}
             source <(\"$cli\" completions bash)
             [ \"$bound\" = ciphermq-cli ] || exit 9
             COMP_WORDS=({list}); COMP_CWORD={last}
             $function '{}' '{word}' '{before}'
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words[0]
        ),
    );
    assert!(outcome.status.success(), "{words:?}: {outcome:?}");
    text(&outcome.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_subcommands_and_their_flags() {
    let folder = tempfile::tempdir().unwrap();
    let completed = |words: &[&str]| completed(&folder, words);
    assert_eq!(completed(&["ciphermq-cli", "sen"]), ["send"]);
    assert_eq!(
        completed(&["ciphermq-cli", "send", "--checkp"]),
        ["--checkpoint"]
    );
    assert_eq!(
        completed(&["/usr/bin/ciphermq-cli", "-v", "receive", "--idle"]),
        ["--idle-exit"]
    );
    assert_eq!(completed(&["ciphermq-cli", "get-key", "--sav"]), ["--save"]);
    assert_eq!(completed(&["ciphermq-cli", "status", "--js"]), ["--json"]);
    assert_eq!(completed(&["ciphermq-cli", "keygen", "rot"]), ["rotate"]);
    assert_eq!(completed(&["ciphermq-cli", "completions", "ba"]), ["bash"]);
}
