-- The text of an envelope whose own part is binary: see docs/protocol.md. Others are as they are.
-- SQLite has no function for base64: `groups` has the values in groups of 3 bytes, in hexadecimal.
DROP VIEW messages;
CREATE VIEW messages AS
WITH RECURSIVE positions (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM positions WHERE i < 127)
SELECT
    o.seq, o.first_seq, o.queue_id, o.receiver_client_id, o.message_id,
    length(o.own) + COALESCE(length(o.shared), 0) AS envelope_bytes,
    CAST(CASE WHEN hex(substr(o.own, 1, 1)) <> '01' OR length(o.own) < 31 + o.id_bytes + o.time_bytes THEN o.own ELSE
        '{"message_id":"' || substr(o.own, 4, o.id_bytes)
        || '","sent_time":"' || substr(o.own, 4 + o.id_bytes, o.time_bytes) || (
            WITH RECURSIVE
            parts (part, key, value) AS (
                SELECT 1, '","nonce":"', substr(o.own, 4 + o.id_bytes + o.time_bytes, 12)
                UNION ALL SELECT 2, '","ciphertext":"', substr(o.own, 32 + o.id_bytes + o.time_bytes)
                UNION ALL SELECT 3, '","tag":"', substr(o.own, 16 + o.id_bytes + o.time_bytes, 16)
            ),
            blocks (part, block, bytes, value) AS (
                SELECT part, 1, length(value), substr(value, 1, 49152) FROM parts
                UNION ALL SELECT e.part, e.block + 49152, e.bytes, substr(p.value, e.block + 49152, 49152)
                FROM blocks e JOIN parts p ON p.part = e.part WHERE e.block + 49152 <= e.bytes
            ),
            pieces (part, block, at, value) AS (
                SELECT part, block, 1, value FROM blocks
                UNION ALL SELECT part, block, at + 768, value FROM pieces WHERE at + 768 <= length(value)
            ),
            groups (part, block, piece, at, value, hex) AS (
                SELECT part, block, at, 1, substr(value, at, 768), hex(substr(value, at, 3)) || '0000' FROM pieces
                UNION ALL SELECT part, block, piece, at + 3, value, hex(substr(value, at + 3, 3)) || '0000'
                FROM groups WHERE at + 3 <= length(value)
            ),
            numbers (part, block, piece, at, bytes, number) AS (
                SELECT part, block, piece, at, COALESCE(length(value), 0) - at + 1,
                    (instr('0123456789ABCDEF', substr(hex, 1, 1)) - 1 << 20)
                    + (instr('0123456789ABCDEF', substr(hex, 2, 1)) - 1 << 16)
                    + (instr('0123456789ABCDEF', substr(hex, 3, 1)) - 1 << 12)
                    + (instr('0123456789ABCDEF', substr(hex, 4, 1)) - 1 << 8)
                    + (instr('0123456789ABCDEF', substr(hex, 5, 1)) - 1 << 4)
                    + instr('0123456789ABCDEF', substr(hex, 6, 1)) - 1
                FROM groups LIMIT -1
            ),
            alphabet (letters) AS (SELECT 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'),
            texts (part, text) AS (
                SELECT part, group_concat(text, '') FROM (
                    SELECT part, CASE WHEN bytes < 1 THEN '' ELSE
                        substr(letters, (number >> 18) + 1, 1) || substr(letters, (number >> 12 & 63) + 1, 1)
                        || CASE WHEN bytes > 1 THEN substr(letters, (number >> 6 & 63) + 1, 1) ELSE '=' END
                        || CASE WHEN bytes > 2 THEN substr(letters, (number & 63) + 1, 1) ELSE '=' END
                    END AS text FROM numbers CROSS JOIN alphabet ORDER BY part, block, piece, at
                ) GROUP BY part
            )
            SELECT group_concat(key || text, '') FROM (SELECT p.key, t.text FROM parts p JOIN texts t ON t.part = p.part ORDER BY p.part)
        ) || '"' END || COALESCE(o.shared, '') AS BLOB) AS envelope
FROM (
    SELECT n.*,
        (instr('0123456789ABCDEF', substr(n.head, 1, 1)) - 1) * 16 + (instr('0123456789ABCDEF', substr(n.head, 2, 1)) - 1) AS id_bytes,
        (instr('0123456789ABCDEF', substr(n.head, 3, 1)) - 1) * 16 + (instr('0123456789ABCDEF', substr(n.head, 4, 1)) - 1) AS time_bytes
    FROM (
        SELECT c.first_seq + w.copy AS seq, c.first_seq, w.queue_id, w.receiver_client_id, c.message_id,
            substr(e.envelopes, c.start + 1, c.stop - c.start) AS own, e.shared,
            hex(substr(e.envelopes, c.start + 2, 2)) || '0000' AS head
        FROM (
            SELECT b.first_seq AS batch, b.first_seq + p.i * json_array_length(b.queues) AS first_seq,
                CASE WHEN b.id_position < 0 THEN b.id_stream ELSE b.id_stream || printf('%010x', b.id_position + p.i) END AS message_id,
                CASE WHEN p.i = 0 THEN 0 ELSE json_extract(e.ends, '$[' || (p.i - 1) || ']') END AS start,
                json_extract(e.ends, '$[' || p.i || ']') AS stop
            FROM batches b JOIN envelopes e ON e.first_seq = b.first_seq JOIN positions p ON p.i < b.messages
            WHERE NOT EXISTS (SELECT 1 FROM fates f WHERE f.first_seq = b.first_seq AND f.from_index <= p.i
                AND p.i < f.from_index + f.messages AND (f.acknowledged_time IS NOT NULL OR f.rejected_time IS NOT NULL))
        ) c
        JOIN envelopes e ON e.first_seq = c.batch
        JOIN waiting w ON w.first_seq = c.batch
    ) n
) o;
