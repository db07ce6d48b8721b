//! Copies, restored copies and checks beside an open store.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::*;
use crate::model::{Publish, PublishOutcome, QueueId};
use crate::store::offline::{
    Checked, Copied, Fault, TableSink, TableSource, check_postgres, check_sqlite, copy_postgres,
    copy_sqlite, restore_postgres, schema,
};
use crate::store::{BoxError, DatabaseSettings, Error, Retention};

on_both! {
    a_copy_of_an_older_schema_is_brought_up_to_date,
}

/// The tables of a copy, in memory.
#[derive(Default)]
struct Tables(HashMap<String, Vec<u8>>, String);

/// A source that breaks off in the middle of a table.
struct Broken<'a>(&'a Tables);

impl TableSource for Broken<'_> {
    type Error = BoxError;

    fn open(&mut self, table: &str) -> Result<Box<dyn Read + Send>, BoxError> {
        let bytes = self.0.0.get(table).unwrap().clone();
        if table != "batches" {
            return Ok(Box::new(Cursor::new(bytes)));
        }
        Ok(Box::new(Cursor::new(bytes[..30].to_vec()).chain(Failing)))
    }
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the disk fails"))
    }
}

impl TableSink for Tables {
    type Error = BoxError;

    fn begin(&mut self, table: &str) -> Result<(), BoxError> {
        self.1 = table.to_owned();
        assert!(self.0.insert(self.1.clone(), Vec::new()).is_none());
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), BoxError> {
        self.0.get_mut(&self.1).unwrap().extend_from_slice(piece);
        Ok(())
    }

    fn end(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl TableSource for Tables {
    type Error = BoxError;

    fn open(&mut self, table: &str) -> Result<Box<dyn Read + Send>, BoxError> {
        Ok(Box::new(Cursor::new(self.0.remove(table).unwrap())))
    }
}

/// Checks a database, and returns what was read and the faults.
async fn check(settings: &DatabaseSettings) -> (Checked, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut report = |fault| faults.push(fault);
    let checked = match settings {
        DatabaseSettings::Sqlite { path, .. } => check_sqlite(path, &mut report),
        DatabaseSettings::Postgres(settings) => check_postgres(settings, &mut report).await,
    };
    (checked.unwrap(), faults)
}

/// Copies a database into another, new one.
async fn copy(from: &DatabaseSettings, to: &DatabaseSettings) -> i64 {
    match (from, to) {
        (
            DatabaseSettings::Sqlite { path: from, .. },
            DatabaseSettings::Sqlite { path: to, .. },
        ) => {
            std::fs::create_dir(to.parent().unwrap()).unwrap();
            copy_sqlite(from, to, 0).unwrap().schema
        }
        (DatabaseSettings::Postgres(from), DatabaseSettings::Postgres(to)) => {
            let mut tables = Tables::default();
            let copied: Copied = copy_postgres(from, &mut tables).await.unwrap();
            let broken = restore_postgres(to, &copied, &mut Broken(&tables)).await;
            assert_eq!(broken.unwrap_err().to_string(), "the disk fails");
            // It has left nothing.
            restore_postgres(to, &copied, &mut tables).await.unwrap();
            // Once there are tables, nothing is restored over them.
            let again = restore_postgres(to, &copied, &mut tables)
                .await
                .unwrap_err();
            assert!(again.to_string().contains("holds the table"), "{again}");
            copied.contents.schema
        }
        _ => unreachable!(),
    }
}

fn to(queues: &[QueueId], message_id: &str) -> Arc<Publish> {
    publish("s", queues, envelope(message_id, "r", true, "AAAA"))
}

/// The version before the size of a batch was stored.
async fn a_copy_of_an_older_schema_is_brought_up_to_date(database: &Database) {
    const ROWS: &str = "INSERT INTO queues (queue_name) VALUES ('a'), ('b'), ('c'); \
        DELETE FROM queues WHERE queue_name = 'c'; \
        INSERT INTO exchanges (exchange_name) VALUES ('e'); \
        INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES ('e', 'k', 1); \
        INSERT INTO batches (first_seq, messages, queues, id_stream, id_position, client_id, \
        exchange_name, routing_key, receiver_client_id, sent_time, has_suite) \
        VALUES (1, 1, '[1]', 'old', -1, 's', 'e', 'k', 'r', '2026-01-01T00:00:00.000000Z', TRUE); \
        INSERT INTO fates (first_seq, from_index, messages, delivered_time, acknowledged_time) \
        VALUES (1, 0, 1, '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z'); \
        UPDATE server_state SET commit_number = 7, last_seq = 1";
    let last = schema(matches!(database, Database::Postgres(..)));
    database.make_older(last - 1, ROWS).await;
    let (checked, faults) = check(&database.settings()).await;
    assert_eq!((checked.contents.schema, checked.batches), (last - 1, 1));
    assert_eq!(faults, []);
    let other = match database {
        Database::Sqlite(_) => Database::sqlite().await,
        Database::Postgres(postgres, _) => {
            let name = postgres.create_database().await;
            let settings = DatabaseSettings::Postgres(at(postgres.url(&name)));
            assert_eq!(copy(&database.settings(), &settings).await, last - 1);
            let store = crate::store::open(&settings).await.unwrap();
            return continue_with(store, &settings, last).await;
        }
    };
    assert_eq!(
        copy(&database.settings(), &other.settings()).await,
        last - 1
    );
    continue_with(other.open().await, &other.settings(), last).await;
}

/// Uses a database that was restored from an older schema.
async fn continue_with(mut store: crate::store::Store, settings: &DatabaseSettings, last: i64) {
    let topology = store.reader.topology().await.unwrap();
    assert_eq!((topology.queues.len(), topology.bindings.len()), (2, 1));
    // The number of the queue that was deleted is not given again.
    let queue = queues(&mut store, &["d"]).await[0];
    assert_eq!(queue.0, 4);
    let outcomes = publish_all(&mut store, vec![to(&[queue], "old"), to(&[queue], "new")]).await;
    assert_eq!(outcomes.commit.0, 9);
    assert!(!matches!(
        outcomes.publishes[0],
        PublishOutcome::Stored { .. }
    ));
    assert!(matches!(
        outcomes.publishes[1],
        PublishOutcome::Stored { .. }
    ));
    let (checked, faults) = check(settings).await;
    assert_eq!(
        (checked.contents.schema, checked.contents.waiting),
        (last, 1)
    );
    assert_eq!(faults, []);
    close(store).await;
}

/// A backup that reads for long neither delays maintenance nor fails it; the log is emptied later.
#[tokio::test]
async fn a_reader_does_not_hold_up_the_writer() {
    let database = Database::sqlite().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let DatabaseSettings::Sqlite { path, .. } = database.settings() else {
        unreachable!()
    };
    let log = path.with_file_name("mq.db-wal");
    let log_bytes = || std::fs::metadata(&log).unwrap().len();
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let count = || -> i64 {
        let text = "SELECT COUNT(*) FROM batches";
        reader.query_row(text, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(), 0);
    publish_all(&mut store, vec![to(&[queue], "m")]).await;
    let begun = Instant::now();
    store
        .committer
        .maintain(&Retention::default())
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(log_bytes() > 0);
    assert_eq!(count(), 0, "it sees its snapshot");
    reader.execute_batch("COMMIT").unwrap();
    store
        .committer
        .maintain(&Retention::default())
        .await
        .unwrap();
    assert_eq!((log_bytes(), count()), (0, 1));
    close(store).await;
}

#[tokio::test]
async fn a_newer_schema_is_left_to_newer_programs() {
    let database = Database::sqlite().await;
    close(database.open().await).await;
    database
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
             execution_time) VALUES (9999, 'later', TRUE, '', 0)",
        )
        .await;
    let DatabaseSettings::Sqlite { path, .. } = database.settings() else {
        unreachable!()
    };
    let error = copy_sqlite(&path, &path.with_file_name("copy.db"), 0).unwrap_err();
    match error {
        Error::Unusable(text) => assert!(text.contains("newer version of the server"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_copy_leaves_the_reserve_of_the_disk_to_the_server() {
    let database = Database::sqlite().await;
    close(database.open().await).await;
    let DatabaseSettings::Sqlite { path, .. } = database.settings() else {
        unreachable!()
    };
    // More than any disk has.
    let error = copy_sqlite(&path, &path.with_file_name("copy.db"), u64::MAX).unwrap_err();
    match error {
        Error::Unusable(text) => assert!(text.contains("nearly full"), "{text}"),
        other => panic!("{other:?}"),
    }
    copy_sqlite(&path, &path.with_file_name("other.db"), 1 << 20).unwrap();
}
