//! The statements that every message goes through. Each finds its rows by an index; a test asks SQLite.

use std::sync::LazyLock;

use super::statement::MultiRow;

pub(super) static INSERT_METADATA: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "INSERT INTO message_metadata (message_id, client_id, exchange_name, routing_key, sent_time, \
         receiver_client_id, envelope_sha256, has_suite, first_seq, copies)",
        10,
        "ON CONFLICT (message_id) DO NOTHING",
    )
});

pub(super) static INSERT_MESSAGES: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "INSERT INTO messages (seq, first_seq, queue_id, receiver_client_id, message_id, envelope_bytes, envelope)",
        7,
        "",
    )
});

// Results come as one row of JSON: each row would be handed from SQLite's thread to this one by itself.

pub(super) static FIND_UNACKNOWLEDGED: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "WITH given (position, id, client) AS (",
        3,
        ") SELECT json_group_array(json_array(position, message_metadata.rowid, first_seq, copies)) \
         FROM given CROSS JOIN message_metadata ON message_id = given.id AND receiver_client_id = given.client \
         AND acknowledged_time IS NULL AND rejected_time IS NULL",
    )
});

pub(super) static ACKNOWLEDGE: LazyLock<MultiRow> = LazyLock::new(|| {
    // The server's clock may be set back between two of these times; none is ever before the one it follows.
    MultiRow::new(
        "WITH given (metadata, delivered, acknowledged) AS (",
        3,
        ") UPDATE message_metadata SET \
         delivered_time = COALESCE(delivered_time, MAX(sent_time, given.delivered)), \
         acknowledged_time = MAX(COALESCE(delivered_time, MAX(sent_time, given.delivered)), given.acknowledged) \
         FROM given WHERE message_metadata.rowid = given.metadata",
    )
});

pub(super) static DELIVERED: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "WITH given (id, delivered) AS (",
        2,
        ") UPDATE message_metadata SET delivered_time = MAX(sent_time, given.delivered) \
         FROM given WHERE message_id = given.id AND delivered_time IS NULL",
    )
});

/// Messages by id.
pub(super) const TAKEN: &str = "SELECT message_id, first_seq, client_id, envelope_sha256, has_suite FROM message_metadata \
     WHERE message_id IN (SELECT value FROM json_each(?))";

/// The queues of copies.
pub(super) const PLACES: &str = "SELECT json_group_array(json_array(seq, queue_id)) FROM messages \
     WHERE seq IN (SELECT value FROM json_each(?))";

/// Removes copies.
pub(super) const REMOVE: &str = "DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))";

/// What became of messages, by id.
pub(super) const FATES: &str = "SELECT message_id, receiver_client_id, acknowledged_time IS NOT NULL FROM message_metadata \
     WHERE message_id IN (SELECT value FROM json_each(?))";

/// Finds what can be forgotten. Only servers that forget pay for it.
pub(super) const FORGET_INDEX: &str = "CREATE INDEX IF NOT EXISTS message_metadata_finished ON message_metadata (sent_time) \
     WHERE acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL";

/// Forgets some metadata of messages that are acknowledged or rejected.
pub(super) const FORGET: &str = "DELETE FROM message_metadata WHERE message_id IN (SELECT message_id FROM message_metadata \
                      WHERE (acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL) AND sent_time < ? \
                      ORDER BY sent_time LIMIT ?)";

/// A lane's messages in order, without their envelopes.
pub(super) const LANE_SIZES: &str = "SELECT seq, envelope_bytes FROM messages \
     WHERE queue_id = ? AND receiver_client_id = ? AND seq > ? ORDER BY seq LIMIT ?";

/// A lane's messages up to one of them.
pub(super) const LANE: &str = "SELECT m.seq, m.message_id, \
     COALESCE(m.envelope, (SELECT f.envelope FROM messages f WHERE f.seq = m.first_seq)) \
     FROM messages m WHERE m.queue_id = ? AND m.receiver_client_id = ? AND m.seq > ? AND m.seq <= ? ORDER BY m.seq";

/// Queues, and whether something waits in them for a receiver.
pub(super) const LANES: &str = "SELECT q.queue_id, EXISTS (SELECT 1 FROM messages m \
     WHERE m.queue_id = q.queue_id AND m.receiver_client_id = ?1) \
     FROM queues q WHERE q.queue_id >= ?2 ORDER BY q.queue_id LIMIT ?3";

/// A lane's messages in order, with the sizes of the envelopes that stand in it.
pub(super) const ENVELOPE_SIZES: &str = "SELECT seq, CASE WHEN seq = first_seq THEN envelope_bytes ELSE 0 END FROM messages \
     WHERE queue_id = ? AND receiver_client_id = ? AND seq > ? ORDER BY seq LIMIT ?";

/// The envelopes that stand in a lane, up to a message.
pub(super) const ENVELOPES: &str = "SELECT d.sent_time, m.envelope \
     FROM messages m LEFT JOIN message_metadata d ON d.message_id = m.message_id \
     WHERE m.queue_id = ? AND m.receiver_client_id = ? AND m.seq > ? AND m.seq <= ? AND m.seq = m.first_seq \
     ORDER BY m.seq";

/// Messages by sequence number, without their envelopes.
pub(super) const SIZES: &str =
    "SELECT seq, envelope_bytes FROM messages WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq";

/// Messages by sequence number.
pub(super) const MESSAGES: &str = "SELECT m.seq, m.message_id, \
     COALESCE(m.envelope, (SELECT f.envelope FROM messages f WHERE f.seq = m.first_seq)) \
     FROM messages m WHERE m.seq IN (SELECT value FROM json_each(?)) ORDER BY m.seq";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::file::DatabaseFile;
    use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr as _};

    #[tokio::test]
    async fn every_statement_finds_its_rows_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let file = DatabaseFile::claim(&folder.path().join("mq.db"), 0).unwrap();
        let mut connection = file.first_connection().await.unwrap();
        sqlx::query(FORGET_INDEX).execute(&mut connection).await.unwrap();
        let mut texts: Vec<String> = [
            TAKEN,
            PLACES,
            REMOVE,
            FATES,
            FORGET,
            LANE_SIZES,
            LANE,
            LANES,
            ENVELOPE_SIZES,
            ENVELOPES,
            SIZES,
            MESSAGES,
        ]
        .map(str::to_owned)
        .into();
        for statement in [
            &INSERT_METADATA,
            &INSERT_MESSAGES,
            &FIND_UNACKNOWLEDGED,
            &ACKNOWLEDGE,
            &DELIVERED,
        ] {
            for rows in [1, 100] {
                let items = vec![(); rows];
                let (text, _) = statement.pieces(&items).next().unwrap();
                texts.push(text.into_sql_str().as_str().to_owned());
            }
        }
        for text in texts {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let plan: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
            // `m`, `f`, `d` and `q` are what the statements call the tables, whose names begin with `m` and `q` too.
            let reads_all = |step: &String| {
                ["SCAN m", "SCAN f", "SCAN d", "SCAN q"]
                    .iter()
                    .any(|scan| step.starts_with(scan))
            };
            let sorts = |step: &String| step.contains("TEMP B-TREE");
            assert!(
                !plan.iter().any(|step| reads_all(step) || sorts(step)),
                "{text}\n{plan:#?}"
            );
        }
    }
}
