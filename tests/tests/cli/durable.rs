//! What a power cut could take: names of files that were never synced in their folders.

use std::path::{Path, PathBuf};

use ciphermq_tests::faults::names::{self, Names};
use ciphermq_tests::faults::tracing;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, Fixture, Server};

use super::workspace::Workspace;

/// An at-rest key.
const KEY: &str = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=";

/// The folder's path as the system knows it, in which strace tells of it.
fn real(folder: &Path) -> PathBuf {
    std::fs::canonicalize(folder).unwrap()
}

/// Runs the command traced, and returns what it made and synced.
async fn traced(folder: &Path, cli: Cli) -> Names {
    let log = folder.join("trace");
    cli.under(&names::command(&log)).run().await.success();
    Names::read(&log)
}

#[track_caller]
fn all_synced(names: &Names, folder: &Path, made: &[&str]) {
    for name in made {
        assert!(
            names.made(&folder.join(name)),
            "{name} was not made: {names:?}"
        );
    }
    let unsynced: Vec<_> = names
        .unsynced(folder)
        .into_iter()
        .filter(|name| !name.ends_with("trace"))
        .collect();
    assert!(unsynced.is_empty(), "a power cut could take {unsynced:?}");
}

fn must_trace() {
    if let Err(reason) = tracing::allowed() {
        panic!("programs cannot be traced here, so this test has shown nothing: {reason}");
    }
}

pub(crate) async fn keys_and_certificates() {
    must_trace();
    let folder = tempfile::tempdir().unwrap();
    let folder = real(folder.path());
    let out = folder.join("deep/certs");
    let keygen = |arguments: &[&str]| Cli::keygen().args(arguments).arg("--out").arg(&out);
    let made = traced(&folder, keygen(&["certs", "--client", "a"])).await;
    all_synced(
        &made,
        &folder,
        &[
            "deep",
            "deep/certs",
            "deep/certs/a",
            "deep/certs/ca.key",
            "deep/certs/a/client.crt",
        ],
    );
    for arguments in [&["--post-quantum"][..], &["rotate"]] {
        let made = traced(&folder, keygen(arguments)).await;
        all_synced(
            &made,
            &folder,
            &[
                "deep/certs/receiver_private.key",
                "deep/certs/receiver_xwing_public.key",
            ],
        );
    }
}

pub(crate) async fn a_senders_checkpoint(fixture: Fixture) {
    must_trace();
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
    workspace.write("in.jsonl", "1\n2\n");
    let folder = real(&workspace.path(""));
    let send = |more: &[&str]| {
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "state/deep/sent"]);
        send.args(more)
    };
    let made = traced(&folder, send(&[])).await;
    all_synced(&made, &folder, &["state", "state/deep", "state/deep/sent"]);
    // Nothing is left to be sent, and nothing is made; a run that was killed may not have synced
    // the name.
    for more in [&[][..], &["--again"]] {
        let again = traced(&folder, send(more)).await;
        assert!(again.synced(&folder.join("state/deep")) && again.synced(&folder.join("state")));
        all_synced(&again, &folder, &[]);
    }
}

pub(crate) async fn a_receivers_files(fixture: Fixture) {
    must_trace();
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
    let folder = real(&workspace.path(""));
    let receive = |count: &str| {
        let options = [
            "--output",
            "new/deep/out.jsonl",
            "--quarantine",
            "aside/q.jsonl",
        ];
        workspace
            .cli("receive")
            .args(options)
            .args(["--pins", "pins/deep", "--count", count])
    };
    workspace.send_messages(&["for a key that is lost"]).await;
    workspace.new_key_pair();
    workspace.cli("register-key").run().await.success();
    workspace.send_messages(&["1"]).await;
    let made = traced(&folder, receive("1")).await;
    all_synced(
        &made,
        &folder,
        &[
            "new",
            "new/deep",
            "new/deep/out.jsonl",
            "new/deep/out.jsonl.ciphermq-receive",
            "aside",
            "aside/q.jsonl",
            "pins",
            "pins/deep",
        ],
    );
    workspace.send_messages(&["2"]).await;
    let again = traced(&folder, receive("1")).await;
    assert!(again.synced(&folder.join("new/deep")) && again.synced(&folder.join("new")));
}

pub(crate) async fn a_servers_files() {
    must_trace();
    let temporary = tempfile::tempdir().unwrap();
    let log = temporary.path().join("trace");
    let mut server = Server::start(Options::sqlite().under(names::command(&log))).await;
    let folder = real(server.folder());
    // Killed: whatever is synced was so before it said that it listens.
    server.kill9().await;
    let made = [
        "data",
        "data/ciphermq.db",
        "data/ciphermq.db-wal",
        "data/at-rest.key",
        "logs",
    ];
    all_synced(&Names::read(&log), &folder.join("data"), &[]);
    let names = Names::read(&log);
    assert!(
        made.iter().all(|name| names.made(&folder.join(name))),
        "{names:?}"
    );
    assert!(names.synced(&folder));

    // What a run that was killed has made is synced by the next one.
    server.launch_again().await.unwrap();
    server.kill9().await;
    let again = Names::read(&log);
    assert!(again.synced(&folder.join("data")) && again.synced(&folder));
}

pub(crate) async fn a_folder_of_the_database_that_cannot_be_synced() {
    must_trace();
    let temporary = tempfile::tempdir().unwrap();
    let data = real(temporary.path()).join("data");
    let options = || {
        let options = Options::sqlite().set("encryption", "aes_key", KEY);
        let url = format!("sqlite://{}", data.join("mq.db").display());
        options.set("database", "url", url)
    };
    Server::start(options()).await.terminate().await;
    for error in ["EIO", "ENOSPC"] {
        let failing = options().under(names::failing_syncs(&data, error));
        let refusal = Server::refused(failing).await;
        assert!(!refusal.status.success());
        assert!(
            refusal.stderr.contains("cannot sync the folder")
                && refusal.stderr.contains("[database] url"),
            "{}",
            refusal.stderr
        );
    }
    // Some file systems do not sync folders, and say so.
    let odd = options().under(names::failing_syncs(&data, "EINVAL"));
    Server::start(odd).await.terminate().await;
}
