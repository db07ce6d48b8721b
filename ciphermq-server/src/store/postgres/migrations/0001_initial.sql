-- One row. Each commit counts it up, and takes its sequence numbers from it.
CREATE TABLE server_state (
    id            SMALLINT PRIMARY KEY CHECK (id = 1),
    commit_number BIGINT NOT NULL,
    last_seq      BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO server_state (id, commit_number, last_seq) VALUES (1, 0, 0);

CREATE TABLE exchanges (
    exchange_name TEXT COLLATE "C" PRIMARY KEY
);

CREATE TABLE queues (
    queue_id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_name TEXT COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE bindings (
    exchange_name TEXT COLLATE "C" NOT NULL,
    routing_key   TEXT COLLATE "C" NOT NULL,
    queue_id      BIGINT NOT NULL,
    PRIMARY KEY (exchange_name, routing_key, queue_id)
);

-- What has been accepted: messages that one commit accepted of one sender, for one receiver, by one route, under
-- ids that follow one another. The ids are id_stream and the position in ten hexadecimal digits, from id_position
-- on; one that CipherMQ did not make is an id_stream of its own, at position -1. The copy of the message at `index`
-- (from 0) for the queue at `copy` has the number first_seq + index * (number of queues) + copy. Rows of older
-- servers have negative numbers, and neither receiver nor queues.
CREATE TABLE batches (
    first_seq          BIGINT PRIMARY KEY,
    messages           BIGINT NOT NULL,
    queues             TEXT NOT NULL,      -- a JSON list of queue ids
    id_stream          TEXT COLLATE "C" NOT NULL,
    id_position        BIGINT NOT NULL,
    client_id          TEXT COLLATE "C",
    exchange_name      TEXT COLLATE "C",
    routing_key        TEXT COLLATE "C",
    receiver_client_id TEXT COLLATE "C",
    sent_time          TEXT COLLATE "C",
    has_suite          BOOLEAN NOT NULL,
    digests            BYTEA               -- SHA-256 of each envelope, if they have no suite
);
CREATE UNIQUE INDEX batches_by_id ON batches (id_stream, id_position);

-- What became of a batch's messages, from their delivery on: runs of messages with the same times.
CREATE TABLE fates (
    first_seq         BIGINT NOT NULL,     -- the batch
    from_index        BIGINT NOT NULL,
    messages          BIGINT NOT NULL,
    delivered_time    TEXT COLLATE "C" NOT NULL,
    acknowledged_time TEXT COLLATE "C",
    rejected_time     TEXT COLLATE "C",
    PRIMARY KEY (first_seq, from_index)
);

-- The envelopes of batches of which something waits, one after the other; of packed ones, the messages' own pieces, and
-- the piece that they share. They are sealed and in base64: compressing them takes long and gains little.
CREATE TABLE envelopes (
    first_seq BIGINT PRIMARY KEY,
    ends      TEXT NOT NULL,               -- a JSON list: where each envelope ends among all of them
    envelopes BYTEA NOT NULL,
    shared    BYTEA                        -- follows each of them
);
ALTER TABLE envelopes ALTER COLUMN envelopes SET STORAGE EXTERNAL;

-- Where they wait.
CREATE TABLE waiting (
    queue_id           BIGINT NOT NULL,
    receiver_client_id TEXT COLLATE "C" NOT NULL,
    first_seq          BIGINT NOT NULL,
    copy               BIGINT NOT NULL,    -- which of the batch's queues this is, from 0
    PRIMARY KEY (queue_id, receiver_client_id, first_seq)
);

-- A database of an older server has one row a message. They are taken over, and the table is kept as it was
-- under another name.
DO $$
BEGIN
    IF to_regclass('message_metadata') IS NOT NULL THEN
        ALTER TABLE message_metadata RENAME TO older_message_metadata;
        INSERT INTO batches (first_seq, messages, queues, id_stream, id_position, client_id, exchange_name, routing_key,
            sent_time, has_suite)
        SELECT -row_number() OVER (ORDER BY message_id), 1, '[]',
            CASE WHEN ours THEN left(message_id, 26) ELSE message_id END,
            CASE WHEN ours THEN ('x' || right(message_id, 10))::bit(40)::bigint ELSE -1 END,
            client_id, exchange_name, routing_key, sent_time::text, FALSE
        FROM (SELECT *, message_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' AS ours
            FROM older_message_metadata) m;
        INSERT INTO fates (first_seq, from_index, messages, delivered_time, acknowledged_time)
        SELECT b.first_seq, 0, 1, COALESCE(m.delivered_time::text, m.acknowledged_time::text), m.acknowledged_time::text
        FROM (SELECT -row_number() OVER (ORDER BY message_id) AS first_seq, * FROM older_message_metadata) m
        JOIN batches b ON b.first_seq = m.first_seq
        WHERE m.delivered_time IS NOT NULL OR m.acknowledged_time IS NOT NULL;
    END IF;
END
$$;

-- For people: a row a message.
CREATE VIEW message_metadata AS
SELECT
    CASE WHEN b.id_position < 0 THEN b.id_stream ELSE b.id_stream || lpad(to_hex(b.id_position + p.i), 10, '0') END AS message_id,
    b.client_id, b.exchange_name, b.routing_key, b.sent_time,
    f.delivered_time, f.acknowledged_time, f.rejected_time, b.receiver_client_id,
    substring(b.digests FROM (p.i * 32 + 1)::int FOR 32) AS envelope_sha256,
    b.has_suite, b.first_seq + p.i * json_array_length(b.queues::json) AS first_seq,
    json_array_length(b.queues::json)::bigint AS copies
FROM batches b CROSS JOIN LATERAL generate_series(0, b.messages - 1) AS p (i)
LEFT JOIN fates f ON f.first_seq = b.first_seq AND f.from_index <= p.i AND p.i < f.from_index + f.messages;

-- For people: what waits, a row for each queue that a message went to.
CREATE VIEW messages AS
SELECT
    c.first_seq + w.copy AS seq, c.first_seq, w.queue_id, w.receiver_client_id, c.message_id,
    (c.stop - c.start + COALESCE(length(e.shared), 0))::bigint AS envelope_bytes,
    substring(e.envelopes FROM c.start + 1 FOR c.stop - c.start) || COALESCE(e.shared, ''::bytea) AS envelope
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

-- What receivers could not use.
CREATE TABLE rejected_messages (
    message_id         TEXT COLLATE "C" NOT NULL,
    client_id          TEXT COLLATE "C" NOT NULL,
    receiver_client_id TEXT COLLATE "C" NOT NULL,
    exchange_name      TEXT COLLATE "C" NOT NULL,
    routing_key        TEXT COLLATE "C" NOT NULL,
    reason             TEXT NOT NULL,
    rejected_time      TEXT COLLATE "C" NOT NULL,
    envelope           BYTEA NOT NULL,
    PRIMARY KEY (message_id, rejected_time)
);

-- Older servers have this table too, without the last column.
CREATE TABLE IF NOT EXISTS public_keys (
    client_id             TEXT COLLATE "C" PRIMARY KEY,
    public_key_ciphertext TEXT,
    nonce                 TEXT,
    tag                   TEXT
);
ALTER TABLE public_keys ADD COLUMN IF NOT EXISTS algorithm TEXT;

CREATE TABLE signed_keys (
    client_id             TEXT COLLATE "C" PRIMARY KEY,
    signed_key_ciphertext TEXT NOT NULL,
    nonce                 TEXT NOT NULL,
    tag                   TEXT NOT NULL,
    algorithm             TEXT
);

-- Chains that clients have connected with. The one with the highest commit number is the client's last.
CREATE TABLE certificates (
    client_id     TEXT COLLATE "C" NOT NULL,
    fingerprint   TEXT COLLATE "C" NOT NULL,
    chain         TEXT NOT NULL,
    seen_time     TEXT COLLATE "C" NOT NULL,
    commit_number BIGINT NOT NULL,
    PRIMARY KEY (client_id, fingerprint)
);
