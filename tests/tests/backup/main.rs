//! Backups of running servers, their restoration, and checks of databases and backups, with the
//! built programs and on both databases.

mod refusals;
mod running;
mod verifying;

use std::path::{Path, PathBuf};

use ciphermq_tests::binaries::binary;
use ciphermq_tests::cli::Outcome;
use ciphermq_tests::{Backend, Cli, EnvelopeText, RawClient, Server, on_both_databases};

use refusals::{
    a_backup_of_another_kind_is_refused, a_damaged_backup_is_refused,
    an_interrupted_backup_is_recognised, nothing_is_restored_over_a_database,
};
use running::a_backup_of_a_busy_server_holds_what_was_acknowledged;
use verifying::{a_sound_database_has_no_fault_in_any_state, faults_are_found_and_say_what_to_do};

on_both_databases!(
    a_backup_of_a_busy_server_holds_what_was_acknowledged,
    nothing_is_restored_over_a_database,
    a_backup_of_another_kind_is_refused,
    a_damaged_backup_is_refused,
    an_interrupted_backup_is_recognised,
    a_sound_database_has_no_fault_in_any_state,
    faults_are_found_and_say_what_to_do,
);

/// The command line of `ciphermq-server` with a server's configuration.
fn program(server: &Server, command: &str) -> Cli {
    Cli::program(binary("ciphermq-server"))
        .arg("--config")
        .arg(server.folder().join("config.toml"))
        .arg(command)
        .current_dir(server.folder())
}

/// Makes a backup of a server's database.
async fn back_up(server: &Server, name: &str) -> PathBuf {
    let folder = server.folder().join(name);
    program(server, "backup").arg(&folder).run().await.success();
    folder
}

/// Checks that a command has failed with an error that contains these texts.
#[track_caller]
fn expect_error(outcome: Outcome, texts: &[&str]) {
    let outcome = outcome.code(1);
    for text in texts {
        assert!(
            outcome.stderr.contains(text),
            "{text:?} is not in:\n{}",
            outcome.stderr
        );
    }
}

/// Checks that a check was clean.
#[track_caller]
fn expect_clean(outcome: Outcome) -> String {
    let outcome = outcome.success();
    assert!(outcome.stdout.contains("has no fault"), "{outcome:?}");
    outcome.stdout
}

/// Removes the database of a server that does not run, as a lost disk would.
async fn lose_the_database(backend: &Backend, server: &Server) {
    match backend {
        Backend::Sqlite => {
            for end in ["", "-wal", "-shm"] {
                let path = server.folder().join(format!("data/ciphermq.db{end}"));
                if let Err(error) = std::fs::remove_file(&path) {
                    assert!(!end.is_empty() && error.kind() == std::io::ErrorKind::NotFound);
                }
            }
        }
        Backend::Postgres(postgres) => {
            let url = server.database_url();
            let (_, name) = url.rsplit_once('/').unwrap();
            let postgres = ciphermq_tests::Database::connect(&postgres.url("postgres")).await;
            postgres
                .execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                .await;
            postgres.execute(&format!("CREATE DATABASE {name}")).await;
        }
    }
}

/// Starts a server with a queue that holds twenty messages for `receiver`, with the sequence
/// numbers from 1 on. `sender` is an administrator.
async fn with_messages(backend: &Backend) -> Server {
    let options = backend.options().await;
    let options = options.set("authorization", "administrators", vec!["sender"]);
    let server = Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    publish(&mut sender, 0..20).await;
    server
}

async fn publish(sender: &mut RawClient, indices: std::ops::Range<usize>) {
    for index in indices {
        let envelope = EnvelopeText::older(&format!("m{index}"), "receiver").set("number", index);
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK m{index}"))
            .await;
    }
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
