//! The statements that every message goes through. Each finds its rows by an index.

/// Selects the dispositions of a batch's messages.
macro_rules! dispositions {
    () => {
        "(SELECT COALESCE(json_agg(json_build_array(from_index, messages, delivered_time, \
         acknowledged_time, \
         rejected_time))::text, '[]') FROM fates f WHERE f.first_seq = b.first_seq)"
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

/// Selects batches, with the columns of [`LOOK_UP`].
pub(super) const BATCH: &str = concat!(
    "SELECT 0::int8, FALSE, ",
    batch_columns!(),
    "FROM batches b WHERE b.first_seq = ANY($1::int8[]) ORDER BY b.first_seq"
);

/// Looks up batches by their messages' ids.
///
/// Each given range is a stream, the position after which its batches begin, and its first and its
/// last position. Each returns at least one row, which says whether a batch of the stream begins
/// above the range.
pub(super) const LOOK_UP: &str = concat!(
    "SELECT g.at - 1, EXISTS (SELECT 1 FROM batches n WHERE n.id_stream = g.stream AND \
     n.id_position > g.last), ",
    batch_columns!(),
    "FROM unnest($1::text[], $2::int8[], $3::int8[], $4::int8[]) \
     WITH ORDINALITY \
     AS g (stream, after, first, last, at) \
     LEFT JOIN batches b ON b.id_stream = g.stream AND b.id_position > g.after AND b.id_position \
     <= g.last \
     AND b.id_position + b.messages > g.first"
);

/// Writes everything about messages in a commit. There is an array for each column, empty if there
/// is nothing to write.
///
/// If the database's position is not the expected one, it divides by zero and writes nothing.
pub(super) const WRITE: &str = "WITH state AS (UPDATE server_state SET commit_number = $1, \
     last_seq = $2 / CASE WHEN commit_number = $34 THEN 1 ELSE 0 END), \
     accepted AS (INSERT INTO batches (first_seq, messages, queues, id_stream, id_position, \
                                client_id, \
     exchange_name, routing_key, receiver_client_id, sent_time, has_suite, digests, bytes) \
     SELECT * FROM unnest($3::int8[], $4::int8[], $5::text[], $6::text[], $7::int8[], $8::text[], \
                                $9::text[], \
     $10::text[], $11::text[], $12::text[], $13::bool[], $14::bytea[], $35::int8[])), \
     sealed AS (INSERT INTO envelopes (first_seq, ends, envelopes, shared) \
     SELECT * FROM unnest($3::int8[], $15::text[], $16::bytea[], $17::bytea[])), \
     placed AS (INSERT INTO waiting (queue_id, receiver_client_id, first_seq, copy) \
     SELECT * FROM unnest($18::int8[], $19::text[], $20::int8[], $21::int8[])), \
     removed AS (DELETE FROM fates f USING unnest($22::int8[], $23::int8[]) AS g (batch, \
                                from_index) \
     WHERE f.first_seq = g.batch AND f.from_index = g.from_index), \
     written AS (INSERT INTO fates (first_seq, from_index, messages, delivered_time, \
                                acknowledged_time, \
     rejected_time) \
     SELECT * FROM unnest($24::int8[], $25::int8[], $26::int8[], $27::text[], $28::text[], \
                                $29::text[]) \
     ON CONFLICT (first_seq, from_index) DO UPDATE SET messages = excluded.messages, \
     delivered_time = excluded.delivered_time, acknowledged_time = excluded.acknowledged_time, \
     rejected_time = excluded.rejected_time), \
     finished AS (DELETE FROM envelopes WHERE first_seq = ANY($30::int8[])) \
     DELETE FROM waiting w USING unnest($31::int8[], $32::text[], $33::int8[]) AS g (queue, \
                                receiver, batch) \
     WHERE w.queue_id = g.queue AND w.receiver_client_id = g.receiver AND w.first_seq = g.batch";

/// Sets a message aside: its id, the reason, the time, its batch, and its index in it.
pub(super) const SET_ASIDE: &str = "INSERT INTO rejected_messages (message_id, client_id, \
                                    receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time, envelope) \
     SELECT $1, client_id, receiver_client_id, exchange_name, routing_key, $2, $3, \
     envelope_text(substring(envelopes FROM start + 1 FOR stop - start), shared) \
     FROM (SELECT b.*, e.envelopes, e.shared, (e.ends::json ->> $5::int4)::int4 AS stop, \
     CASE WHEN $5::int4 = 0 THEN 0 ELSE (e.ends::json ->> ($5::int4 - 1))::int4 END AS start \
     FROM batches b JOIN envelopes e ON e.first_seq = b.first_seq WHERE b.first_seq = $4) m \
     ON CONFLICT DO NOTHING RETURNING client_id, receiver_client_id, \
     length(envelope)::int8";

/// Removes rejected messages of a sender, older than a time: at most so many. Returns the receiver
/// and the size of each, its id, and when it was rejected.
pub(super) const FORGET_REJECTED: &str = "DELETE FROM rejected_messages m USING \
     (SELECT message_id, rejected_time FROM rejected_messages WHERE client_id = $1 \
     AND rejected_time < $2 ORDER BY rejected_time LIMIT $3) AS old \
     WHERE m.message_id = old.message_id AND m.rejected_time = old.rejected_time \
     RETURNING m.receiver_client_id, length(m.envelope)::int8, m.message_id, m.rejected_time";

/// Counts what waits by sender: messages that are not settled, and the bytes of the batches that
/// hold them.
pub(super) const HELD_WAITING: &str = "SELECT b.client_id, SUM(b.messages - (SELECT \
     COALESCE(SUM(f.messages), 0) FROM fates f WHERE f.first_seq = b.first_seq AND \
     (f.acknowledged_time IS NOT NULL OR f.rejected_time IS NOT NULL)))::int8, SUM(b.bytes)::int8 \
     FROM (SELECT DISTINCT first_seq FROM waiting) w JOIN batches b ON b.first_seq = w.first_seq \
     WHERE b.client_id IS NOT NULL GROUP BY b.client_id";

/// Counts rejected messages and their bytes by sender and receiver.
pub(super) const HELD_REJECTED: &str = "SELECT client_id, receiver_client_id, COUNT(*), \
     SUM(length(envelope))::int8 FROM rejected_messages GROUP BY client_id, receiver_client_id";

/// Selects the removal to go on with.
pub(super) const REMOVAL: &str = "SELECT queue_id, up_to_seq, reason, after_receiver, after_seq \
                                  FROM removals ORDER BY queue_id, up_to_seq LIMIT 1";

/// Selects the batches that wait in a queue, after one of them and up to a number.
pub(super) const REMOVABLE: &str = "SELECT w.receiver_client_id, w.first_seq, b.messages, \
     length(e.envelopes) + b.messages * COALESCE(length(e.shared), 0) \
     FROM waiting w JOIN batches b ON b.first_seq = w.first_seq \
     JOIN envelopes e ON e.first_seq = w.first_seq \
     WHERE w.queue_id = $1 AND (w.receiver_client_id, w.first_seq) > ($2, $3) \
     AND w.first_seq <= $4 ORDER BY w.receiver_client_id, w.first_seq LIMIT $5";

/// Selects those of the batches that wait in another queue than this one.
pub(super) const WAITS_IN: &str = "SELECT b.first_seq FROM batches b WHERE b.first_seq = \
     ANY($1::int8[]) AND EXISTS (SELECT 1 FROM json_array_elements_text(b.queues::json) AS g \
     (queue) JOIN waiting w ON w.queue_id = g.queue::int8 AND w.receiver_client_id = \
     b.receiver_client_id AND w.first_seq = b.first_seq WHERE g.queue::int8 <> $2)";

/// Removes batches from a queue, by their receivers and numbers.
pub(super) const LEAVE: &str = "DELETE FROM waiting w USING unnest($2::text[], $3::int8[]) AS g \
     (receiver, batch) WHERE w.queue_id = $1 AND w.receiver_client_id = g.receiver AND \
     w.first_seq = g.batch";

/// Examines some batches, and deletes those that are old and of which nothing waits, with their
/// dispositions.
///
/// Returns the last one examined, the number examined, the number of those that are old or have no
/// time, and the number deleted.
pub(super) const FORGET: &str = "WITH looked AS (SELECT first_seq, sent_time < $1 AS is_old FROM \
                                 batches \
     WHERE first_seq > $2 ORDER BY first_seq LIMIT $3), \
     old AS (SELECT l.first_seq FROM looked l WHERE l.is_old \
     AND NOT EXISTS (SELECT 1 FROM envelopes e WHERE e.first_seq = l.first_seq)), \
     undone AS (DELETE FROM fates f USING old WHERE f.first_seq = old.first_seq), \
     forgotten AS (DELETE FROM batches b USING old WHERE b.first_seq = old.first_seq RETURNING 1) \
     SELECT MAX(first_seq), COUNT(*), COUNT(*) FILTER (WHERE is_old IS NOT FALSE), (SELECT \
                                 COUNT(*) FROM forgotten) FROM looked";

/// Selects the lane's last batch that begins at or before a sequence number.
pub(super) const LANE_START: &str = "SELECT MAX(w.first_seq) FROM waiting w \
     WHERE w.queue_id = $1 AND w.receiver_client_id = $2 AND w.first_seq <= $3";

/// Selects a batch with waiting messages, without its envelopes, and whether this is the first of
/// its copies that wait.
macro_rules! waiting_batch {
    ($copy:literal, $is_first:literal) => {
        concat!(
            "SELECT b.first_seq, ",
            $copy,
            ", json_array_length(b.queues::json)::int8, b.id_stream, b.id_position, b.sent_time, \
             e.ends, ",
            dispositions!(),
            ", COALESCE(length(e.shared), 0)::int8, ",
            $is_first
        )
    };
}

/// Selects a lane's batches in order, starting with one of them.
pub(super) const LANE_BATCHES: &str = concat!(
    waiting_batch!(
        "w.copy",
        "w.copy = 0 OR NOT EXISTS (SELECT 1 FROM json_array_elements_text(b.queues::json) WITH \
         ORDINALITY AS g (queue, at) JOIN waiting w2 ON w2.queue_id = g.queue::int8 AND \
         w2.receiver_client_id = w.receiver_client_id AND w2.first_seq = w.first_seq \
         WHERE g.at <= w.copy)"
    ),
    " FROM waiting w JOIN batches b ON b.first_seq = w.first_seq JOIN envelopes e ON e.first_seq = \
     w.first_seq \
     WHERE w.queue_id = $1 AND w.receiver_client_id = $2 AND w.first_seq >= $3 ORDER BY \
     w.first_seq LIMIT $4"
);

/// Selects the batches that these sequence numbers may be in.
pub(super) const BATCHES: &str = concat!(
    waiting_batch!("0::int8", "TRUE"),
    " FROM (SELECT DISTINCT (SELECT MAX(m.first_seq) FROM envelopes m WHERE m.first_seq <= g.seq) \
     AS first_seq \
     FROM unnest($1::int8[]) AS g (seq)) s JOIN batches b ON b.first_seq = s.first_seq \
     JOIN envelopes e ON e.first_seq = s.first_seq ORDER BY s.first_seq"
);

/// Selects slices of envelopes, and their shared pieces, by batches, start offsets and lengths.
pub(super) const SLICES: &str = "SELECT e.first_seq, substring(e.envelopes FROM g.start + 1 FOR \
                                 g.length), e.shared \
     FROM unnest($1::int8[], $2::int4[], $3::int4[]) AS g (batch, start, length) \
     JOIN envelopes e ON e.first_seq = g.batch";

/// Selects queues, and whether something waits in them for a receiver. `LIMIT 1` keeps it one index
/// lookup for each queue, whatever the planner thinks of the numbers.
pub(super) const LANES: &str = "SELECT q.queue_id, w.one IS NOT NULL \
     FROM (SELECT queue_id FROM queues WHERE queue_id >= $2 ORDER BY queue_id LIMIT $3) q \
     LEFT JOIN LATERAL (SELECT 1 AS one FROM waiting w \
     WHERE w.queue_id = q.queue_id AND w.receiver_client_id = $1 LIMIT 1) w ON TRUE \
     ORDER BY q.queue_id";

/// Selects what a client has rejected, and what was rejected of its messages, after a time and an
/// id: at most so many rows.
///
/// Both halves are read in the order of an index and merged, so no more is read than wanted.
pub(super) const REJECTED: &str = "SELECT message_id, client_id, receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time FROM rejected_messages \
     WHERE receiver_client_id = $1 AND (rejected_time, message_id) > ($2, $3) \
     UNION ALL SELECT message_id, client_id, receiver_client_id, \
     exchange_name, routing_key, reason, rejected_time FROM rejected_messages \
     WHERE client_id = $1 AND receiver_client_id <> $1 \
     AND (rejected_time, message_id) > ($2, $3) \
     ORDER BY rejected_time, message_id LIMIT $4";
