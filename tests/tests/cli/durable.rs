//! What a power cut could take: names of files that were never synced in their folders.

use std::path::{Path, PathBuf};

use ciphermq_tests::faults::names::{self, Names};
use ciphermq_tests::faults::tracing;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, RawClient, Scene, Server};

use super::desk::Desk;

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
        assert!(names.made(&folder.join(name)), "{name} was not made: {names:?}");
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
    all_synced(&made, &folder, &["deep", "deep/certs", "deep/certs/a", "deep/certs/ca.key", "deep/certs/a/client.crt"]);
    for arguments in [&["--post-quantum"][..], &["rotate"]] {
        let made = traced(&folder, keygen(arguments)).await;
        all_synced(&made, &folder, &["deep/certs/receiver_private.key", "deep/certs/receiver_xwing_public.key"]);
    }
}

pub(crate) async fn a_senders_checkpoint(scene: Scene) {
    must_trace();
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.write("in.jsonl", "1\n2\n");
    let folder = real(&desk.path(""));
    let send = |more: &[&str]| {
        let send = desk.send().args(["--file", "in.jsonl", "--checkpoint", "state/deep/sent"]);
        send.args(more)
    };
    let made = traced(&folder, send(&[])).await;
    all_synced(&made, &folder, &["state", "state/deep", "state/deep/sent"]);
    // Nothing is left to be sent, and nothing is made; a run that was killed may not have synced the name.
    for more in [&[][..], &["--again"]] {
        let again = traced(&folder, send(more)).await;
        assert!(again.synced(&folder.join("state/deep")) && again.synced(&folder.join("state")));
        all_synced(&again, &folder, &[]);
    }
}

pub(crate) async fn a_receivers_files(scene: Scene) {
    must_trace();
    let desk = Desk::of(&scene);
    desk.introduce().await;
    let mut stranger = RawClient::connect(&scene.server, &desk.sender).await;
    let folder = real(&desk.path(""));
    let receive = |count: &str| {
        let options = ["--output", "new/deep/out.jsonl", "--quarantine", "aside/q.jsonl"];
        desk.cli("receive").args(options).args(["--pins", "pins/deep", "--count", count])
    };
    super::quarantine::publish_unopenable(&mut stranger, &desk.receiver).await;
    desk.send_messages(&["1"]).await;
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
    desk.send_messages(&["2"]).await;
    let again = traced(&folder, receive("1")).await;
    assert!(again.synced(&folder.join("new/deep")) && again.synced(&folder.join("new")));
}

/// A server with its database and its at-rest key in folders of their own.
fn options(folder: &Path) -> Options {
    Options {
        store: ciphermq_tests::server::Store::SqliteFile(folder.join("data/mq.db")),
        ..Options::sqlite()
    }
    .set("encryption", "aes_key_file", folder.join("keys/at-rest.key").display().to_string())
}

pub(crate) async fn a_servers_files() {
    must_trace();
    let temporary = tempfile::tempdir().unwrap();
    let folder = real(temporary.path()).join("mq");
    let log = temporary.path().join("trace");
    let mut server = Server::start(options(&folder).under(names::command(&log))).await;
    // Killed: whatever is synced was so before it said that it listens.
    server.kill9().await;
    let made = ["data", "data/mq.db", "data/mq.db-wal", "keys", "keys/at-rest.key"];
    all_synced(&Names::read(&log), &folder, &made);
    assert!(Names::read(&log).synced(folder.parent().unwrap()));

    // What a run that was killed has made is synced by the next one.
    server.launch_again().await.unwrap();
    let again = Names::read(&log);
    assert!(again.synced(&folder.join("data")) && again.synced(&folder.join("keys")));
    server.terminate().await;
}

pub(crate) async fn a_folder_of_the_database_that_cannot_be_synced() {
    must_trace();
    let temporary = tempfile::tempdir().unwrap();
    let folder = real(temporary.path());
    let data = folder.join("data");
    Server::start(options(&folder)).await.terminate().await;
    for error in ["EIO", "ENOSPC"] {
        let failing = options(&folder).under(names::failing_syncs(&data, error));
        let refusal = Server::refused(failing).await;
        assert!(!refusal.status.success());
        assert!(
            refusal.stderr.contains("cannot sync the folder") && refusal.stderr.contains("[database] url"),
            "{}",
            refusal.stderr
        );
    }
    // Some file systems do not sync folders, and say so.
    let odd = options(&folder).under(names::failing_syncs(&data, "EINVAL"));
    Server::start(odd).await.terminate().await;
}
