//! The statements that every message goes through. Each finds its rows by an index; a test asks
//! SQLite.

use crate::store::batch::id::Range;

pub(super) const INSERT_BATCH: &str = "INSERT INTO batches (first_seq, messages, queues, \
                                       id_stream, id_position, \
     client_id, exchange_name, routing_key, receiver_client_id, sent_time, has_suite, digests) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub(super) const INSERT_ENVELOPES: &str =
    "INSERT INTO envelopes (first_seq, ends, envelopes, shared) VALUES (?, ?, ?, ?)";

pub(super) const INSERT_WAITING: &str =
    "INSERT INTO waiting (queue_id, receiver_client_id, first_seq, copy) VALUES (?, ?, ?, ?)";

pub(super) const WRITE_FATE: &str = "INSERT OR REPLACE INTO fates (first_seq, from_index, \
                                     messages, delivered_time, \
     acknowledged_time, rejected_time) VALUES (?, ?, ?, ?, ?, ?)";

pub(super) const REMOVE_FATE: &str =
    "DELETE FROM fates WHERE first_seq = ? AND from_index = ?";

// Lists are parameters as JSON.

/// What became of a batch's messages.
macro_rules! dispositions {
    () => {
        "(SELECT json_group_array(json_array(from_index, messages, delivered_time, \
         acknowledged_time, rejected_time)) \
         FROM fates f WHERE f.first_seq = b.first_seq)"
    };
}

/// Batches by their messages' ids: each given range is a stream, the position after which its
/// batches begin, and its first and its last position. Each has a row at least, which says whether
/// a batch of the stream begins above it.
pub(super) const LOOK_UP: &str = concat!(
    "SELECT g.key, EXISTS (SELECT 1 FROM batches n WHERE n.id_stream = g.value ->> 0 AND \
     n.id_position > g.value ->> 3), \
     b.first_seq, b.messages, b.queues, b.id_stream, b.id_position, b.client_id, \
     b.receiver_client_id, \
     b.sent_time, b.has_suite, b.digests, ",
    dispositions!(),
    ", b.exchange_name, b.routing_key FROM json_each(?) g LEFT JOIN batches b ON b.id_stream = \
     g.value ->> 0 AND b.id_position > g.value ->> 1 \
     AND b.id_position <= g.value ->> 3 AND b.id_position + b.messages > g.value ->> 2"
);

/// Sets a message aside: its id, the reason, the time, its batch, and its index in it.
pub(super) const SET_ASIDE: &str = "INSERT INTO rejected_messages (message_id, client_id, \
                                    receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time, envelope) \
     SELECT ?1, client_id, receiver_client_id, exchange_name, routing_key, ?2, ?3, \
     CAST(substr(envelopes, start + 1, stop - start) || COALESCE(shared, '') AS BLOB) \
     FROM (SELECT b.*, e.envelopes, e.shared, json_extract(e.ends, '$[' || ?5 || ']') AS stop, \
     CASE WHEN ?5 = 0 THEN 0 ELSE json_extract(e.ends, '$[' || (?5 - 1) || ']') END AS start \
     FROM batches b JOIN envelopes e ON e.first_seq = b.first_seq WHERE b.first_seq = ?4) \
     WHERE TRUE ON CONFLICT DO NOTHING";

pub(super) const REMOVE_ENVELOPES: &str = "DELETE FROM envelopes WHERE first_seq = ?";

pub(super) const REMOVE_WAITING: &str =
    "DELETE FROM waiting WHERE queue_id = ? AND receiver_client_id = ? AND first_seq = ?";

/// Looks at some batches: which of them are old and nothing of them waits, the last one, how many
/// they are, and how many of them are old or have no time.
pub(super) const FORGETTABLE: &str = "SELECT json_group_array(first_seq) FILTER (WHERE is_old \
     AND NOT EXISTS (SELECT 1 FROM envelopes e WHERE e.first_seq = l.first_seq)), \
     MAX(first_seq), COUNT(*), COUNT(*) FILTER (WHERE is_old IS NOT FALSE) \
     FROM (SELECT first_seq, sent_time < ? AS is_old FROM batches WHERE first_seq > ? ORDER BY \
                                      first_seq LIMIT ?) l";

/// Forgets batches.
pub(super) const FORGET_BATCHES: &str =
    "DELETE FROM batches WHERE first_seq IN (SELECT value FROM json_each(?))";

/// And what became of them.
pub(super) const FORGET_FATES: &str =
    "DELETE FROM fates WHERE first_seq IN (SELECT value FROM json_each(?))";

/// The lane's batch that begins last up to a sequence number.
pub(super) const LANE_START: &str = "SELECT MAX(w.first_seq) FROM waiting w \
     WHERE w.queue_id = ? AND w.receiver_client_id = ? AND w.first_seq <= ?";

/// What is read of a batch of which something waits, without its envelopes.
macro_rules! waiting_batch {
    ($copy:literal) => {
        concat!(
            "SELECT b.first_seq, ",
            $copy,
            ", json_array_length(b.queues), b.id_stream, b.id_position, b.sent_time, e.ends, ",
            dispositions!(),
            ", COALESCE(length(e.shared), 0)"
        )
    };
}

/// A lane's batches in order, from one of them on.
pub(super) const LANE_BATCHES: &str = concat!(
    waiting_batch!("w.copy"),
    " FROM waiting w CROSS JOIN batches b ON b.first_seq = w.first_seq \
     CROSS JOIN envelopes e ON e.first_seq = w.first_seq \
     WHERE w.queue_id = ? AND w.receiver_client_id = ? AND w.first_seq >= ? ORDER BY w.first_seq \
     LIMIT ?"
);

/// The batches that these sequence numbers may be in.
pub(super) const BATCHES: &str = concat!(
    waiting_batch!("0"),
    " FROM (SELECT DISTINCT (SELECT MAX(m.first_seq) FROM envelopes m WHERE m.first_seq <= \
     g.value) AS first_seq \
     FROM json_each(?) g) s CROSS JOIN batches b ON b.first_seq = s.first_seq \
     CROSS JOIN envelopes e ON e.first_seq = s.first_seq ORDER BY s.first_seq"
);

/// Slices of envelopes, and what they share: batches, where the slices begin, and their lengths.
pub(super) const SLICES: &str = "SELECT e.first_seq, substr(e.envelopes, (g.value ->> 1) + 1, \
                                 g.value ->> 2), e.shared \
     FROM json_each(?) g CROSS JOIN envelopes e ON e.first_seq = g.value ->> 0";

/// Queues, and whether something waits in them for a receiver.
pub(super) const LANES: &str = "SELECT q.queue_id, EXISTS (SELECT 1 FROM waiting w \
     WHERE w.queue_id = q.queue_id AND w.receiver_client_id = ?1) \
     FROM queues q WHERE q.queue_id >= ?2 ORDER BY q.queue_id LIMIT ?3";

/// A list as one parameter, for `json_each`.
pub(super) fn json<T: serde::Serialize>(
    items: impl Iterator<Item = T>,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&items.collect::<Vec<_>>())
}

/// What [`LOOK_UP`] takes.
pub(super) fn range_list(ranges: &[Range]) -> Result<String, serde_json::Error> {
    json(ranges.iter().map(|range| {
        (
            range.stream.to_string(),
            range.begins_after(),
            range.first,
            range.last,
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::file::DatabaseFile;
    use sqlx::{AssertSqlSafe, Row as _};

    #[tokio::test]
    async fn every_statement_finds_its_rows_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let file = DatabaseFile::claim(&folder.path().join("mq.db"), 0).unwrap();
        file.prepare().await.unwrap();
        let mut connection = file.connect().await.unwrap();
        let texts = [
            INSERT_BATCH,
            INSERT_ENVELOPES,
            INSERT_WAITING,
            WRITE_FATE,
            REMOVE_FATE,
            LOOK_UP,
            SET_ASIDE,
            REMOVE_ENVELOPES,
            REMOVE_WAITING,
            FORGETTABLE,
            FORGET_BATCHES,
            FORGET_FATES,
            LANE_START,
            LANE_BATCHES,
            SLICES,
            LANES,
        ];
        for text in texts {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let plan: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
            // What the statements call the tables; or a table's own name.
            let reads_all = |step: &String| {
                [
                    "SCAN b", "SCAN f", "SCAN e", "SCAN w", "SCAN q", "SCAN m", "SCAN n",
                ]
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
