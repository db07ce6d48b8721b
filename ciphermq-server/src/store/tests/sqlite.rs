//! Behaviour that only a file needs.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::fixture::*;
use crate::model::{AckOutcome, PublishOutcome, Seq};
use crate::store::{DatabaseSettings, Error, Space, open};

fn at(path: &Path) -> DatabaseSettings {
    DatabaseSettings::Sqlite {
        path: path.to_owned(),
        disk_reserve: 0,
    }
}

fn unusable(error: Error) -> String {
    match error {
        Error::Unusable(text) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_file_and_its_folder_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/mq.db");
    let mut store = open(&at(&path)).await.unwrap();
    queues(&mut store, &["q"]).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (
            mode(&folder.path().join("a")),
            mode(&folder.path().join("a/b"))
        ),
        (0o700, 0o700)
    );
    for name in ["mq.db", "mq.db-wal", "mq.db-shm", "mq.db.lock"] {
        assert_eq!(mode(&folder.path().join("a/b").join(name)), 0o600, "{name}");
    }
    close(store).await;
}

#[tokio::test]
async fn every_path_to_the_file_leads_to_the_same_lock() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("mq.db");
    let store = open(&at(&real)).await.unwrap();
    symlink(&real, folder.path().join("link.db")).unwrap();
    symlink(folder.path(), folder.path().join("self")).unwrap();
    for path in ["link.db", "self/mq.db", "./self/self/link.db"] {
        let path = folder.path().join(path);
        let text = unusable(open(&at(&path)).await.unwrap_err());
        assert!(
            text.contains(&format!("another server (process {})", std::process::id())),
            "{text}"
        );
    }
    close(store).await;
    close(open(&at(&folder.path().join("link.db"))).await.unwrap()).await;
}

#[tokio::test]
async fn foreign_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "These are notes and no database at all. ".repeat(50)).unwrap();
    assert!(unusable(open(&at(&text)).await.unwrap_err()).contains("is no SQLite database"));
    assert!(
        fs::read_to_string(&text)
            .unwrap()
            .starts_with("These are notes")
    );

    assert!(unusable(open(&at(folder.path())).await.unwrap_err()).contains("directory"));
    assert!(
        unusable(open(&at(&text.join("mq.db"))).await.unwrap_err())
            .contains("cannot use the database file")
    );
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    assert!(
        unusable(
            open(&at(&folder.path().join("dangling")))
                .await
                .unwrap_err()
        )
        .contains("No such file")
    );

    let database = Database::sqlite().await;
    let DatabaseSettings::Sqlite { path, .. } = database.settings() else {
        unreachable!()
    };
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    database.execute("CREATE TABLE recipes (name TEXT)").await;
    assert!(unusable(open(&at(&path)).await.unwrap_err()).contains("another program"));
}

/// A server was killed at its first start, after the list of migrations was created and before the
/// first of them.
#[tokio::test]
async fn an_interrupted_first_start_is_completed() {
    let database = Database::sqlite().await;
    let DatabaseSettings::Sqlite { path, .. } = database.settings() else {
        unreachable!()
    };
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    let list = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT \
                NULL, \
                installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT \
                NULL, \
                checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)";
    database.execute(list).await;
    close(open(&at(&path)).await.unwrap()).await;
}

#[tokio::test]
async fn there_is_no_room_below_the_reserve() {
    let folder = tempfile::tempdir().unwrap();
    let with = |disk_reserve| DatabaseSettings::Sqlite {
        path: folder.path().join("mq.db"),
        disk_reserve,
    };
    let store = open(&with(u64::MAX)).await.unwrap();
    assert!(store.committer.space() == Space::None);
    close(store).await;
    let store = open(&with(1)).await.unwrap();
    assert!(store.committer.space() != Space::None);
    close(store).await;
}

#[tokio::test]
async fn external_writes_clear_the_cache() {
    let database = Database::sqlite().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    publish_all(&mut store, vec![message("a", queue), message("b", queue)]).await;
    let again = publish_all(&mut store, vec![message("a", queue)]).await;
    assert_eq!(again.publishes, [PublishOutcome::Duplicate]);
    database
        .execute(
            "DELETE FROM waiting WHERE first_seq = 1; DELETE FROM envelopes WHERE first_seq = 1; \
             DELETE FROM batches WHERE first_seq = 1",
        )
        .await;
    let outcomes = ack_all(&mut store, vec![ack("a", "r"), ack("b", "r")]).await;
    assert_eq!(
        outcomes.acks,
        [
            AckOutcome::NotFound,
            AckOutcome::Done(vec![(queue, Seq(2))])
        ]
    );
    let again = publish_all(&mut store, vec![message("a", queue), message("b", queue)]).await;
    assert_eq!(
        again.publishes,
        [
            PublishOutcome::Stored { first: Seq(3) },
            PublishOutcome::Duplicate
        ]
    );
    close(store).await;
}
