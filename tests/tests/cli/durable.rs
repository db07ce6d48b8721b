//! Durability of names: every created file and folder is synced in its parent folder.

use std::path::{Path, PathBuf};

use ciphermq_tests::faults::sync_trace::{self, SyncTrace};
use ciphermq_tests::faults::tracing;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, Fixture, Server};

use ciphermq_tests::workspace::Workspace;

/// An at-rest key.
const KEY: &str = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=";

/// Returns the folder's canonical path, which strace prints.
fn canonical(folder: &Path) -> PathBuf {
    std::fs::canonicalize(folder).unwrap()
}

/// Runs the command under strace, and returns the names that it created and synced.
async fn traced(folder: &Path, cli: Cli) -> SyncTrace {
    let log = folder.join("trace");
    cli.under(&sync_trace::command(&log)).run().await.success();
    SyncTrace::read(&log)
}

#[track_caller]
fn all_synced(trace: &SyncTrace, folder: &Path, made: &[&str]) {
    for name in made {
        assert!(
            trace.made(&folder.join(name)),
            "{name} was not created: {trace:?}"
        );
    }
    let unsynced: Vec<_> = trace
        .unsynced(folder)
        .into_iter()
        .filter(|name| !name.ends_with("trace"))
        .collect();
    assert!(unsynced.is_empty(), "not durable: {unsynced:?}");
}

fn require_tracing() {
    if let Err(reason) = tracing::allowed() {
        panic!("this test needs the permission to trace programs: {reason}");
    }
}

pub(crate) async fn keys_and_certificates() {
    require_tracing();
    let folder = tempfile::tempdir().unwrap();
    let folder = canonical(folder.path());
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
    require_tracing();
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in.jsonl", "1\n2\n");
    let folder = canonical(&workspace.path(""));
    let send = |more: &[&str]| {
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "state/deep/sent"]);
        send.args(more)
    };
    let made = traced(&folder, send(&[])).await;
    all_synced(&made, &folder, &["state", "state/deep", "state/deep/sent"]);
    // There is nothing left to send or to create, but a killed run may not have synced the names.
    for more in [&[][..], &["--again"]] {
        let again = traced(&folder, send(more)).await;
        assert!(again.synced(&folder.join("state/deep")) && again.synced(&folder.join("state")));
        all_synced(&again, &folder, &[]);
    }
}

pub(crate) async fn a_receivers_files(fixture: Fixture) {
    require_tracing();
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let folder = canonical(&workspace.path(""));
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
    require_tracing();
    let temporary = tempfile::tempdir().unwrap();
    let log = temporary.path().join("trace");
    let mut server = Server::start(Options::sqlite().under(sync_trace::command(&log))).await;
    let folder = canonical(server.folder());
    // It is killed, so everything that is synced was synced before it listened.
    server.kill9().await;
    let made = [
        "data",
        "data/ciphermq.db",
        "data/ciphermq.db-wal",
        "data/at-rest.key",
        "logs",
    ];
    all_synced(&SyncTrace::read(&log), &folder.join("data"), &[]);
    let trace = SyncTrace::read(&log);
    assert!(
        made.iter().all(|name| trace.made(&folder.join(name))),
        "{trace:?}"
    );
    assert!(trace.synced(&folder));

    // The next run syncs the names that a killed run has created.
    server.launch().await.unwrap();
    server.kill9().await;
    let again = SyncTrace::read(&log);
    assert!(again.synced(&folder.join("data")) && again.synced(&folder));
}

pub(crate) async fn a_database_folder_that_cannot_be_synced() {
    require_tracing();
    let temporary = tempfile::tempdir().unwrap();
    let data = canonical(temporary.path()).join("data");
    let options = || {
        let options = Options::sqlite().set("encryption", "aes_key", KEY);
        let url = format!("sqlite://{}", data.join("mq.db").display());
        options.set("database", "url", url)
    };
    Server::start(options()).await.terminate().await;
    for error in ["EIO", "ENOSPC"] {
        let failing = options().under(sync_trace::failing_syncs(&data, error));
        let refusal = Server::refused(failing).await;
        assert!(!refusal.status.success());
        assert!(
            refusal.stderr.contains("cannot sync the folder")
                && refusal.stderr.contains("[database] url"),
            "{}",
            refusal.stderr
        );
    }
    // File systems that do not support syncing folders are accepted.
    let odd = options().under(sync_trace::failing_syncs(&data, "EINVAL"));
    Server::start(odd).await.terminate().await;
}
