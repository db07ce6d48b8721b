//! A backup that is made while messages flow.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ciphermq_tests::sdk::{self, Keys, connect, next, number, submit};

use super::*;

/// The number of messages that are acknowledged before the backup begins.
const BEFORE: u64 = 2000;

/// The server is killed after the backup, and its database lost. What was acknowledged before the
/// backup began is in it, in order and once, and the database is sound.
pub(crate) async fn a_backup_of_a_busy_server_holds_what_was_acknowledged(backend: Backend) {
    let mut server = backend.server().await;
    let keys = Keys::new();
    let receiver = connect(&server, "receiver").await;
    // Starting it declares and binds the queue, and registers the key.
    sdk::consumer(&receiver, keys.keyring())
        .start()
        .await
        .unwrap()
        .close()
        .await;
    let sender = connect(&server, "sender").await;
    let publisher = sender.publisher(receiver.id()).start().await.unwrap();
    submit(&publisher, 0..BEFORE).await;
    publisher.flush().await.unwrap();
    // Some are received before, so that batches are settled in part.
    let mut early = sdk::consumer(&receiver, keys.keyring())
        .start()
        .await
        .unwrap();
    for expected in 0..100 {
        let message = next(&mut early).await;
        assert_eq!(number(&message), expected);
        message.ack().await.unwrap();
    }
    early.close().await;
    receiver.close().await;

    let stop = Arc::new(AtomicBool::new(false));
    let flowing = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut sent = BEFORE;
            while !stop.load(Ordering::Relaxed) {
                submit(&publisher, sent..sent + 50).await;
                publisher.flush().await.unwrap();
                sent += 50;
            }
            (publisher, sent)
        }
    });
    let folder = server.folder().join("backup");
    let outcome = program(&server, "backup")
        .arg(&folder)
        .run()
        .await
        .success();
    let running = expect_clean(program(&server, "verify").run().await);
    stop.store(true, Ordering::Relaxed);
    let (publisher, sent) = flowing.await.unwrap();
    assert!(sent > BEFORE, "nothing was sent during the backup");
    assert!(running.contains(" messages wait"), "{running}");
    drop(publisher);
    sender.close().await;

    // What is printed names the key, which is not in the backup.
    assert!(outcome.stdout.contains("at-rest.key"), "{outcome:?}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in files(&folder) {
        assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
        assert!(!name.ends_with(".part") && name != "at-rest.key", "{name}");
    }
    let manifest = std::fs::read_to_string(folder.join("backup.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let waiting = manifest["waiting"].as_u64().unwrap();
    assert!((BEFORE - 100..=sent - 100).contains(&waiting), "{waiting}");
    expect_clean(program(&server, "verify").arg(&folder).run().await);

    server.kill9().await;
    lose_the_database(&backend, &server).await;
    let outcome = program(&server, "restore").arg(&folder).run().await;
    let printed = outcome.success().stdout;
    assert!(
        printed.contains(&format!("{waiting} messages wait")),
        "{printed}"
    );
    let checked = expect_clean(program(&server, "verify").run().await);
    let commit = manifest["commit"].as_u64().unwrap();
    assert!(
        checked.contains(&format!("commit {commit}, ")),
        "{checked}, not {commit}"
    );
    server.restart().await;

    let receiver = connect(&server, "receiver").await;
    let mut late = sdk::consumer(&receiver, keys.keyring())
        .start()
        .await
        .unwrap();
    let mut received = BTreeSet::new();
    for expected in 100..100 + waiting {
        let message = next(&mut late).await;
        assert_eq!(number(&message), expected, "in order, and once");
        assert!(received.insert(message.message_id().clone()));
        message.ack_later().unwrap();
    }
    assert_eq!(late.flush_acks().await.confirmed, waiting);
    let database = server.database().await;
    assert_eq!(database.number("SELECT count(*) FROM messages").await, 0);
    // A queue made now does not get the number of one before.
    let mut maker = RawClient::connect(&server, "maker").await;
    maker.declare_and_bind("another", "e", "k").await;
    assert_eq!(
        database
            .number("SELECT count(DISTINCT queue_id) FROM queues")
            .await,
        2
    );
    late.close().await;
    server.terminate().await;
    let checked = expect_clean(program(&server, "verify").run().await);
    assert!(checked.contains(", 0 messages wait"), "{checked}");
}

/// The backup is made from the log of a killed server, too, and nothing is left beside the
/// database.
#[tokio::test]
async fn a_killed_servers_log_is_backed_up() {
    let mut server = with_messages(&Backend::Sqlite).await;
    server.kill9().await;
    let folder = back_up(&server, "backup").await;
    lose_the_database(&Backend::Sqlite, &server).await;
    let restored = program(&server, "restore").arg(&folder).run().await;
    assert!(restored.success().stdout.contains("20 messages wait"));
    assert_eq!(
        files(&server.folder().join("data"))
            .iter()
            .filter(|name| name.contains(".restore"))
            .count(),
        0
    );
    server.restart().await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver.ask("consume q 100", "Subscribed to queue").await;
    for index in 0..20 {
        receiver.expect_prefix(&format!("Message: m{index} ")).await;
    }
}
