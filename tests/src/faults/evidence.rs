//! The content of the database after all faults.

use super::checker::Violation;
use super::record::Metadata;
use crate::{Backend, Database};

/// Reads the metadata of all messages for a receiver.
///
/// # Panics
///
/// If they cannot be read.
pub async fn metadata(database: &Database, receiver: &str) -> Vec<Metadata> {
    let rows = database
        .rows(&format!(
            "SELECT message_id, client_id, first_seq, sent_time, delivered_time, acknowledged_time \
             FROM message_metadata WHERE receiver_client_id = '{receiver}'"
        ))
        .await;
    rows.into_iter()
        .map(|row| {
            let mut row = row.into_iter();
            let mut next = || row.next().flatten();
            Metadata {
                id: next().unwrap_or_default(),
                sender: next().unwrap_or_default(),
                sequence: next()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default(),
                sent: next(),
                delivered: next(),
                acknowledged: next(),
            }
        })
        .collect()
}

/// Number of messages for a receiver that still wait.
///
/// # Panics
///
/// If the database cannot be queried.
pub async fn waiting(database: &Database, receiver: &str) -> u64 {
    let count = database
        .number(&format!(
            "SELECT count(*) FROM messages WHERE receiver_client_id = '{receiver}'"
        ))
        .await;
    u64::try_from(count).unwrap_or_default()
}

/// Everything that must be the same before and after a restart: the numbers of rows, and the last
/// sequence number.
///
/// # Panics
///
/// If the database cannot be queried.
pub async fn state(database: &Database) -> Vec<(String, i64)> {
    let mut state = Vec::new();
    for sql in [
        "SELECT count(*) FROM messages",
        "SELECT count(*) FROM message_metadata",
        Database::ACKNOWLEDGED,
        "SELECT count(*) FROM rejected_messages",
        "SELECT count(*) FROM bindings",
        "SELECT last_seq FROM server_state",
    ] {
        state.push((sql.to_owned(), database.number(sql).await));
    }
    state
}

/// Runs the database's own integrity check.
///
/// # Panics
///
/// If the database cannot be queried, or PostgreSQL finds an index damaged.
pub async fn integrity(backend: &Backend, database: &Database) -> Vec<Violation> {
    let complaints = if backend.is_postgres() {
        // amcheck is part of PostgreSQL. It compares every index with its table, and checks the
        // pages of the tables.
        database
            .execute("CREATE EXTENSION IF NOT EXISTS amcheck")
            .await;
        let indexes = "SELECT bt_index_check(index => c.oid, heapallindexed => true)::text FROM \
                       pg_index i \
                       JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
                       WHERE a.amname = 'btree' AND c.relpersistence = 'p' AND i.indisvalid \
                       AND c.relnamespace = 'public'::regnamespace";
        // The query fails if an index is damaged.
        database.rows(indexes).await;
        database
            .rows(
                "SELECT c.relname || ': ' || h.msg FROM pg_class c, verify_heapam(c.oid) h \
                 WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace",
            )
            .await
    } else {
        let mut rows = database.rows("PRAGMA integrity_check").await;
        rows.retain(|row| row.first().and_then(|text| text.as_deref()) != Some("ok"));
        rows
    };
    complaints
        .into_iter()
        .map(|row| Violation::Store(format!("{row:?}")))
        .collect()
}
