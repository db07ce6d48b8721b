-- The text of an envelope whose own part is binary: see docs/protocol.md. Others are as they are.
CREATE OR REPLACE FUNCTION envelope_text(own BYTEA, shared BYTEA) RETURNS BYTEA LANGUAGE SQL IMMUTABLE AS $$
SELECT CASE
    WHEN substring(own FROM 1 FOR 1) <> '\x01'::bytea OR length(own) < 3 THEN own
    WHEN length(own) < 31 + get_byte(own, 1) + get_byte(own, 2) THEN own
    ELSE '{"message_id":"'::bytea || substring(own FROM 4 FOR get_byte(own, 1))
        || '","sent_time":"'::bytea || substring(own FROM 4 + get_byte(own, 1) FOR get_byte(own, 2))
        || convert_to('","nonce":"' || encode(substring(own FROM 4 + get_byte(own, 1) + get_byte(own, 2) FOR 12), 'base64')
        || '","ciphertext":"'
        || translate(encode(substring(own FROM 32 + get_byte(own, 1) + get_byte(own, 2)), 'base64'), E'\n', '')
        || '","tag":"' || encode(substring(own FROM 16 + get_byte(own, 1) + get_byte(own, 2) FOR 16), 'base64')
        || '"', 'UTF8')
END || COALESCE(shared, ''::bytea)
$$;

CREATE OR REPLACE VIEW messages AS
SELECT
    c.first_seq + w.copy AS seq, c.first_seq, w.queue_id, w.receiver_client_id, c.message_id,
    (c.stop - c.start + COALESCE(length(e.shared), 0))::bigint AS envelope_bytes,
    envelope_text(substring(e.envelopes FROM c.start + 1 FOR c.stop - c.start), e.shared) AS envelope
FROM (
    SELECT b.first_seq AS batch, b.first_seq + p.i * json_array_length(b.queues::json) AS first_seq,
        CASE WHEN b.id_position < 0 THEN b.id_stream ELSE b.id_stream || lpad(to_hex(b.id_position + p.i), 10, '0') END AS message_id,
        CASE WHEN p.i = 0 THEN 0 ELSE (e.ends::json ->> (p.i - 1)::int)::int END AS start,
        (e.ends::json ->> p.i::int)::int AS stop
    FROM batches b JOIN envelopes e ON e.first_seq = b.first_seq
    CROSS JOIN LATERAL generate_series(0, b.messages - 1) AS p (i)
    WHERE NOT EXISTS (SELECT 1 FROM fates f WHERE f.first_seq = b.first_seq AND f.from_index <= p.i
        AND p.i < f.from_index + f.messages AND (f.acknowledged_time IS NOT NULL OR f.rejected_time IS NOT NULL))
) c
JOIN envelopes e ON e.first_seq = c.batch
JOIN waiting w ON w.first_seq = c.batch;
