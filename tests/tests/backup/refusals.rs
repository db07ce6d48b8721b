//! What is not restored, and backups that are none.

use super::*;

pub(crate) async fn nothing_is_restored_over_a_database(backend: Backend) {
    let mut server = with_messages(&backend).await;
    let folder = back_up(&server, "backup").await;
    let restore = || program(&server, "restore").arg(&folder).run();
    match &backend {
        Backend::Sqlite => {
            expect_error(restore().await, &["there is a database", "Stop the server"]);
            // The server runs, and its files are gone.
            lose_the_database(&backend, &server).await;
            expect_error(restore().await, &["another server", "stop it"]);
        }
        Backend::Postgres(_) => {
            expect_error(
                restore().await,
                &["another server uses the PostgreSQL", "stop it"],
            );
        }
    }
    server.kill9().await;
    let restore = || program(&server, "restore").arg(&folder).run();
    match &backend {
        Backend::Sqlite => {
            // A log of the database that is gone would be taken for the restored one's.
            let log = server.folder().join("data/ciphermq.db-wal");
            std::fs::write(&log, "left").unwrap();
            expect_error(
                restore().await,
                &["ciphermq.db-wal is left of", "Move it away"],
            );
            std::fs::remove_file(&log).unwrap();
        }
        Backend::Postgres(_) => {
            expect_error(
                restore().await,
                &["holds the table", "Make an empty database"],
            );
            lose_the_database(&backend, &server).await;
        }
    }
    restore().await.success();
    expect_clean(program(&server, "verify").run().await);
    server.restart().await;
}

pub(crate) async fn a_backup_of_another_kind_is_refused(backend: Backend) {
    let server = with_messages(&backend).await;
    let folder = back_up(&server, "backup").await;
    let (other, kinds) = match &backend {
        Backend::Sqlite => (
            "postgres://nobody@127.0.0.1:1/none".to_owned(),
            "is of SQLite, and [database] is PostgreSQL",
        ),
        Backend::Postgres(_) => (
            format!("sqlite://{}", server.folder().join("other.db").display()),
            "is of PostgreSQL, and [database] is SQLite",
        ),
    };
    let restore = program(&server, "restore")
        .arg(&folder)
        .env("CIPHERMQ_DATABASE_URL", other);
    expect_error(restore.run().await, &[kinds, "of the same kind"]);
    assert!(!server.folder().join("other.db").exists());
}

pub(crate) async fn a_damaged_backup_is_refused(backend: Backend) {
    let mut server = with_messages(&backend).await;
    let folder = back_up(&server, "backup").await;
    server.terminate().await;
    lose_the_database(&backend, &server).await;
    let names = files(&folder);
    assert!(names.contains(&"backup.json".to_owned()), "{names:?}");
    for name in names {
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            for command in ["verify", "restore"] {
                let outcome = program(&server, command).arg(&folder).run().await.code(1);
                let output = outcome.stdout + &outcome.stderr;
                assert!(
                    output.contains(&name) && output.to_lowercase().contains("use another backup"),
                    "{command}, {name}, {at}: {output}"
                );
            }
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let restore = program(&server, "restore").arg(&folder).run();
        expect_error(restore.await, &[&name]);
        std::fs::remove_file(&path).unwrap();
        let restore = program(&server, "restore").arg(&folder).run();
        expect_error(restore.await, &[&name]);
        std::fs::write(&path, &bytes).unwrap();
    }
    // Nothing was written before the hashes were checked.
    program(&server, "restore")
        .arg(&folder)
        .run()
        .await
        .success();
}

/// A backup that is killed leaves a folder that no command takes for a backup.
pub(crate) async fn an_interrupted_backup_is_recognised(backend: Backend) {
    let server = with_messages(&backend).await;
    let folder = server.folder().join("backup");
    // The system ends the process at the first write beyond the limit.
    let limited = ["sh", "-c", "ulimit -f 1; exec \"$0\" \"$@\""].map(str::to_owned);
    let outcome = program(&server, "backup")
        .arg(&folder)
        .under(&limited)
        .run()
        .await;
    assert_eq!(outcome.code, None, "{outcome:?}");
    assert!(!files(&folder).is_empty());
    for command in ["verify", "restore"] {
        let outcome = program(&server, command).arg(&folder).run().await;
        expect_error(outcome, &["no backup, or one that was interrupted"]);
    }
    let again = program(&server, "backup").arg(&folder).run().await;
    expect_error(
        again,
        &["holds a backup that was interrupted", "remove that one"],
    );
    std::fs::remove_dir_all(&folder).unwrap();
    let folder = back_up(&server, "backup").await;
    let again = program(&server, "backup").arg(&folder).run().await;
    expect_error(again, &["holds a backup\n", "does not exist"]);
    // A folder of somebody else's is left as it is.
    let other = server.folder().join("data");
    let again = program(&server, "backup").arg(server.folder()).run().await;
    expect_error(again, &["is not empty"]);
    assert!(other.exists());
    let none = program(&server, "restore")
        .arg(server.folder().join("none"))
        .run();
    expect_error(none.await, &["there is no folder"]);
}

/// A restoration that is killed leaves no database, and does not stand in the way of the next one.
#[tokio::test]
async fn an_interrupted_restoration_leaves_no_database() {
    let backend = Backend::Sqlite;
    let mut server = with_messages(&backend).await;
    let folder = back_up(&server, "backup").await;
    server.terminate().await;
    lose_the_database(&backend, &server).await;
    let limited = ["sh", "-c", "ulimit -f 16; exec \"$0\" \"$@\""].map(str::to_owned);
    let restore = program(&server, "restore").arg(&folder).under(&limited);
    let outcome = restore.run().await;
    assert_eq!(outcome.code, None, "{outcome:?}");
    let left = files(&server.folder().join("data"));
    assert!(left.contains(&"ciphermq.db.restore".to_owned()), "{left:?}");
    let verify = program(&server, "verify").run().await;
    expect_error(verify, &["cannot read the database"]);
    // A server would begin with nothing.
    let refused = server.launch().await.unwrap_err();
    refused.expect_error(&["is being restored from a backup", "restore` again"]);
    let restore = program(&server, "restore").arg(&folder);
    restore.run().await.success();
    let left = files(&server.folder().join("data"));
    assert!(
        !left.contains(&"ciphermq.db.restore".to_owned()),
        "{left:?}"
    );
    expect_clean(program(&server, "verify").run().await);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_reported() {
    let mut server = Backend::Sqlite.server().await;
    server.terminate().await;
    lose_the_database(&Backend::Sqlite, &server).await;
    let folder = server.folder().join("backup");
    let backup = program(&server, "backup").arg(&folder).run().await;
    expect_error(
        backup,
        &["cannot read the database", "Check [database] url"],
    );
    assert!(!folder.exists(), "a failed backup leaves nothing");
    let verify = program(&server, "verify").run().await;
    expect_error(verify, &["cannot read the database"]);
    std::fs::write(
        server.folder().join("data/ciphermq.db"),
        "no database ".repeat(1000),
    )
    .unwrap();
    let verify = program(&server, "verify").run().await;
    expect_error(verify, &["is no SQLite database, or it is damaged"]);
}

#[tokio::test]
async fn an_empty_postgres_database_is_reported() {
    let backend = Backend::postgres().await;
    let mut server = backend.server().await;
    server.terminate().await;
    lose_the_database(&backend, &server).await;
    let folder = server.folder().join("backup");
    let backup = program(&server, "backup").arg(&folder).run().await;
    expect_error(
        backup,
        &["holds no tables of this server", "Check [database]"],
    );
    assert!(!folder.exists(), "a failed backup leaves nothing");
}
