//! The statements that every message goes through. Each finds its rows by an index, which a test
//! checks with SQLite's query plans.

use crate::store::batch::id::Range;

pub(super) const INSERT_BATCH: &str = "INSERT INTO batches (first_seq, messages, queues, \
                                       id_stream, id_position, \
     client_id, exchange_name, routing_key, receiver_client_id, sent_time, has_suite, digests, \
     bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub(super) const INSERT_ENVELOPES: &str =
    "INSERT INTO envelopes (first_seq, ends, envelopes, shared) VALUES (?, ?, ?, ?)";

pub(super) const INSERT_WAITING: &str =
    "INSERT INTO waiting (queue_id, receiver_client_id, first_seq, copy) VALUES (?, ?, ?, ?)";

pub(super) const WRITE_DISPOSITION: &str = "INSERT OR REPLACE INTO fates (first_seq, from_index, \
                                     messages, delivered_time, \
     acknowledged_time, rejected_time) VALUES (?, ?, ?, ?, ?, ?)";

pub(super) const REMOVE_DISPOSITION: &str =
    "DELETE FROM fates WHERE first_seq = ? AND from_index = ?";

// Lists are passed as JSON parameters.

/// Selects the dispositions of a batch's messages.
macro_rules! dispositions {
    () => {
        "(SELECT json_group_array(json_array(from_index, messages, delivered_time, \
         acknowledged_time, rejected_time)) \
         FROM fates f WHERE f.first_seq = b.first_seq)"
    };
}

/// Selects the columns of a batch, from the third on.
macro_rules! batch_columns {
    () => {
        concat!(
            "b.first_seq, b.messages, b.queues, b.id_stream, b.id_position, b.client_id, \
             b.receiver_client_id, b.sent_time, b.has_suite, b.digests, ",
            dispositions!(),
            ", b.exchange_name, b.routing_key, b.bytes "
        )
    };
}

/// Selects a batch, with the columns of [`LOOK_UP`].
pub(super) const BATCH: &str = concat!(
    "SELECT 0, 0, ",
    batch_columns!(),
    "FROM batches b WHERE b.first_seq = ?"
);

/// Looks up batches by their messages' ids.
///
/// Each given range is a stream, the position after which its batches begin, and its first and its
/// last position. Each returns at least one row, which says whether a batch of the stream begins
/// above the range.
pub(super) const LOOK_UP: &str = concat!(
    "SELECT g.key, EXISTS (SELECT 1 FROM batches n WHERE n.id_stream = g.value ->> 0 AND \
     n.id_position > g.value ->> 3), ",
    batch_columns!(),
    "FROM json_each(?) g LEFT JOIN batches b ON b.id_stream = \
     g.value ->> 0 AND b.id_position > g.value ->> 1 \
     AND b.id_position <= g.value ->> 3 AND b.id_position + b.messages > g.value ->> 2"
);

/// Reads the own part and the shared part of an envelope: of a batch, and the index in it.
pub(super) const ENVELOPE: &str = "SELECT substr(envelopes, start + 1, stop - start), shared \
     FROM (SELECT e.envelopes, e.shared, json_extract(e.ends, '$[' || ?2 || ']') AS stop, \
     CASE WHEN ?2 = 0 THEN 0 ELSE json_extract(e.ends, '$[' || (?2 - 1) || ']') END AS start \
     FROM envelopes e WHERE e.first_seq = ?1)";

/// Sets a message aside: its id, the reason, the time, its batch, and its envelope.
pub(super) const SET_ASIDE: &str = "INSERT INTO rejected_messages (message_id, client_id, \
                                    receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time, envelope) \
     SELECT ?1, client_id, receiver_client_id, exchange_name, routing_key, ?2, ?3, ?5 \
     FROM batches b WHERE b.first_seq = ?4 \
     ON CONFLICT DO NOTHING RETURNING client_id, receiver_client_id, length(envelope)";

/// Removes rejected messages of a sender, older than a time: at most so many. Returns the receiver
/// and the size of each.
pub(super) const FORGET_REJECTED: &str = "DELETE FROM rejected_messages WHERE rowid IN \
     (SELECT k.rowid FROM rejected_messages k WHERE k.client_id = ? AND k.rejected_time < ? \
     ORDER BY k.rejected_time LIMIT ?) RETURNING receiver_client_id, length(envelope)";

/// Counts what waits by sender: messages that are not settled, and the bytes of the batches that
/// hold them.
pub(super) const HELD_WAITING: &str = "SELECT b.client_id, SUM(b.messages - (SELECT \
     COALESCE(SUM(f.messages), 0) FROM fates f WHERE f.first_seq = b.first_seq AND \
     (f.acknowledged_time IS NOT NULL OR f.rejected_time IS NOT NULL))), SUM(b.bytes) \
     FROM (SELECT DISTINCT first_seq FROM waiting) w CROSS JOIN batches b \
     ON b.first_seq = w.first_seq GROUP BY b.client_id";

/// Counts rejected messages and their bytes by sender and receiver.
pub(super) const HELD_REJECTED: &str = "SELECT client_id, receiver_client_id, COUNT(*), \
     SUM(length(envelope)) FROM rejected_messages GROUP BY client_id, receiver_client_id";

pub(super) const REMOVE_ENVELOPES: &str = "DELETE FROM envelopes WHERE first_seq = ?";

pub(super) const REMOVE_WAITING: &str =
    "DELETE FROM waiting WHERE queue_id = ? AND receiver_client_id = ? AND first_seq = ?";

/// Selects the removal to go on with.
pub(super) const REMOVAL: &str = "SELECT queue_id, up_to_seq, reason, after_receiver, after_seq \
                                  FROM removals r ORDER BY queue_id, up_to_seq LIMIT 1";

/// Selects the batches that wait in a queue, after one of them and up to a number.
pub(super) const REMOVABLE: &str = "SELECT w.receiver_client_id, w.first_seq, b.messages, \
     length(e.envelopes) + b.messages * COALESCE(length(e.shared), 0) \
     FROM waiting w CROSS JOIN batches b ON b.first_seq = w.first_seq \
     CROSS JOIN envelopes e ON e.first_seq = w.first_seq \
     WHERE w.queue_id = ? AND (w.receiver_client_id, w.first_seq) > (?, ?) AND w.first_seq <= ? \
     ORDER BY w.receiver_client_id, w.first_seq LIMIT ?";

/// Whether a batch waits in a queue.
pub(super) const WAITS_IN: &str = "SELECT 1 FROM waiting w WHERE w.queue_id = ? AND \
                                   w.receiver_client_id = ? AND w.first_seq = ?";

/// Examines some batches. Returns those that are old and of which nothing waits, the last one
/// examined, the number examined, and the number of those that are old or have no time.
pub(super) const FORGETTABLE: &str = "SELECT json_group_array(first_seq) FILTER (WHERE is_old \
     AND NOT EXISTS (SELECT 1 FROM envelopes e WHERE e.first_seq = l.first_seq)), \
     MAX(first_seq), COUNT(*), COUNT(*) FILTER (WHERE is_old IS NOT FALSE) \
     FROM (SELECT first_seq, sent_time < ? AS is_old FROM batches WHERE first_seq > ? ORDER BY \
                                      first_seq LIMIT ?) l";

/// Deletes batches.
pub(super) const FORGET_BATCHES: &str =
    "DELETE FROM batches WHERE first_seq IN (SELECT value FROM json_each(?))";

/// Deletes the dispositions of batches.
pub(super) const FORGET_DISPOSITIONS: &str =
    "DELETE FROM fates WHERE first_seq IN (SELECT value FROM json_each(?))";

/// Selects the lane's last batch that begins at or before a sequence number.
pub(super) const LANE_START: &str = "SELECT MAX(w.first_seq) FROM waiting w \
     WHERE w.queue_id = ? AND w.receiver_client_id = ? AND w.first_seq <= ?";

/// Selects a batch with waiting messages, without its envelopes, and whether this is the first of
/// its copies that wait.
macro_rules! waiting_batch {
    ($copy:literal, $is_first:literal) => {
        concat!(
            "SELECT b.first_seq, ",
            $copy,
            ", json_array_length(b.queues), b.id_stream, b.id_position, b.sent_time, e.ends, ",
            dispositions!(),
            ", COALESCE(length(e.shared), 0), ",
            $is_first
        )
    };
}

/// Selects a lane's batches in order, starting with one of them.
pub(super) const LANE_BATCHES: &str = concat!(
    waiting_batch!(
        "w.copy",
        "w.copy = 0 OR NOT EXISTS (SELECT 1 FROM json_each(b.queues) g CROSS JOIN waiting w2 ON \
         w2.queue_id = g.value AND w2.receiver_client_id = w.receiver_client_id AND w2.first_seq = \
         w.first_seq WHERE g.key < w.copy)"
    ),
    " FROM waiting w CROSS JOIN batches b ON b.first_seq = w.first_seq \
     CROSS JOIN envelopes e ON e.first_seq = w.first_seq \
     WHERE w.queue_id = ? AND w.receiver_client_id = ? AND w.first_seq >= ? ORDER BY w.first_seq \
     LIMIT ?"
);

/// Selects the batches that these sequence numbers may be in.
pub(super) const BATCHES: &str = concat!(
    waiting_batch!("0", "TRUE"),
    " FROM (SELECT DISTINCT (SELECT MAX(m.first_seq) FROM envelopes m WHERE m.first_seq <= \
     g.value) AS first_seq \
     FROM json_each(?) g) s CROSS JOIN batches b ON b.first_seq = s.first_seq \
     CROSS JOIN envelopes e ON e.first_seq = s.first_seq ORDER BY s.first_seq"
);

/// Selects slices of envelopes, and their shared pieces, by batches, start offsets and lengths.
pub(super) const SLICES: &str = "SELECT e.first_seq, substr(e.envelopes, (g.value ->> 1) + 1, \
                                 g.value ->> 2), e.shared \
     FROM json_each(?) g CROSS JOIN envelopes e ON e.first_seq = g.value ->> 0";

/// Selects queues, and whether something waits in them for a receiver.
pub(super) const LANES: &str = "SELECT q.queue_id, EXISTS (SELECT 1 FROM waiting w \
     WHERE w.queue_id = q.queue_id AND w.receiver_client_id = ?1) \
     FROM queues q WHERE q.queue_id >= ?2 ORDER BY q.queue_id LIMIT ?3";

/// Selects what a client has rejected, and what was rejected of its messages, after a time and an
/// id: at most so many rows.
///
/// Both halves are read in the order of an index and merged, so no more is read than wanted.
pub(super) const REJECTED: &str = "SELECT message_id, client_id, receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time FROM rejected_messages \
     WHERE receiver_client_id = ?1 AND (rejected_time, message_id) > (?2, ?3) \
     UNION ALL SELECT message_id, client_id, receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time FROM rejected_messages \
     WHERE client_id = ?1 AND receiver_client_id <> ?1 \
     AND (rejected_time, message_id) > (?2, ?3) \
     ORDER BY rejected_time, message_id LIMIT ?4";

/// Formats a list as one parameter for `json_each`.
pub(super) fn json<T: serde::Serialize>(
    items: impl Iterator<Item = T>,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&items.collect::<Vec<_>>())
}

/// Formats ranges as the parameter of [`LOOK_UP`].
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
            WRITE_DISPOSITION,
            REMOVE_DISPOSITION,
            LOOK_UP,
            ENVELOPE,
            SET_ASIDE,
            FORGET_REJECTED,
            REMOVE_ENVELOPES,
            REMOVE_WAITING,
            BATCH,
            REMOVABLE,
            REMOVAL,
            WAITS_IN,
            FORGETTABLE,
            FORGET_BATCHES,
            FORGET_DISPOSITIONS,
            LANE_START,
            LANE_BATCHES,
            SLICES,
            LANES,
            REJECTED,
        ];
        for text in texts {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let plan: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
            // The aliases of the tables in the statements, or the tables' own names.
            let reads_all = |step: &String| {
                [
                    "SCAN b", "SCAN f", "SCAN e", "SCAN w", "SCAN w2", "SCAN q", "SCAN m",
                    "SCAN n", "SCAN k",
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
