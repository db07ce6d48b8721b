-- Tells this program's databases from others': "CMQ1".
PRAGMA application_id = 1129140529;

-- One row. Each commit counts it up, and takes its sequence numbers from it.
CREATE TABLE server_state (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    commit_number INTEGER NOT NULL,
    last_seq      INTEGER NOT NULL
);
INSERT INTO server_state (id, commit_number, last_seq) VALUES (1, 0, 0);

CREATE TABLE exchanges (
    exchange_name TEXT PRIMARY KEY NOT NULL
) WITHOUT ROWID;

CREATE TABLE queues (
    queue_id   INTEGER PRIMARY KEY,
    queue_name TEXT NOT NULL UNIQUE
);

CREATE TABLE bindings (
    exchange_name TEXT    NOT NULL,
    routing_key   TEXT    NOT NULL,
    queue_id      INTEGER NOT NULL,
    PRIMARY KEY (exchange_name, routing_key, queue_id)
) WITHOUT ROWID;

-- What has been accepted: messages that one commit accepted of one sender, for one receiver, by one route, under
-- ids that follow one another. The ids are id_stream and the position in ten hexadecimal digits, from id_position
-- on; one that CipherMQ did not make is an id_stream of its own, at position -1. The copy of the message at `index`
-- (from 0) for the queue at `copy` has the number first_seq + index * (number of queues) + copy.
CREATE TABLE batches (
    first_seq          INTEGER PRIMARY KEY,
    messages           INTEGER NOT NULL,
    queues             TEXT NOT NULL,      -- a JSON list of queue ids
    id_stream          TEXT NOT NULL,
    id_position        INTEGER NOT NULL,
    client_id          TEXT NOT NULL,
    exchange_name      TEXT NOT NULL,
    routing_key        TEXT NOT NULL,
    receiver_client_id TEXT NOT NULL,
    sent_time          TEXT NOT NULL,
    has_suite          INTEGER NOT NULL,
    digests            BLOB                -- SHA-256 of each envelope, if they have no suite
);
CREATE UNIQUE INDEX batches_by_id ON batches (id_stream, id_position);

-- What became of a batch's messages, from their delivery on: runs of messages with the same times.
CREATE TABLE fates (
    first_seq         INTEGER NOT NULL,    -- the batch
    from_index        INTEGER NOT NULL,
    messages          INTEGER NOT NULL,
    delivered_time    TEXT NOT NULL,
    acknowledged_time TEXT,
    rejected_time     TEXT,
    PRIMARY KEY (first_seq, from_index)
) WITHOUT ROWID;

-- The envelopes of batches of which something waits, one after the other; of packed ones, the messages' own pieces, and
-- the piece that they share.
CREATE TABLE envelopes (
    first_seq INTEGER PRIMARY KEY,
    ends      TEXT NOT NULL,               -- a JSON list: where each envelope ends among all of them
    envelopes BLOB NOT NULL,
    shared    BLOB                         -- follows each of them
);

-- Where they wait.
CREATE TABLE waiting (
    queue_id           INTEGER NOT NULL,
    receiver_client_id TEXT    NOT NULL,
    first_seq          INTEGER NOT NULL,
    copy               INTEGER NOT NULL,   -- which of the batch's queues this is, from 0
    PRIMARY KEY (queue_id, receiver_client_id, first_seq)
) WITHOUT ROWID;

-- For people: a row a message. A batch has at most 128.
CREATE VIEW message_metadata AS
WITH RECURSIVE positions (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM positions WHERE i < 127)
SELECT
    CASE WHEN b.id_position < 0 THEN b.id_stream ELSE b.id_stream || printf('%010x', b.id_position + p.i) END AS message_id,
    b.client_id, b.exchange_name, b.routing_key, b.sent_time,
    f.delivered_time, f.acknowledged_time, f.rejected_time, b.receiver_client_id,
    CASE WHEN b.digests IS NOT NULL THEN substr(b.digests, p.i * 32 + 1, 32) END AS envelope_sha256,
    b.has_suite, b.first_seq + p.i * json_array_length(b.queues) AS first_seq, json_array_length(b.queues) AS copies
FROM batches b JOIN positions p ON p.i < b.messages
LEFT JOIN fates f ON f.first_seq = b.first_seq AND f.from_index <= p.i AND p.i < f.from_index + f.messages;

-- For people: what waits, a row for each queue that a message went to.
CREATE VIEW messages AS
WITH RECURSIVE positions (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM positions WHERE i < 127)
SELECT
    c.first_seq + w.copy AS seq, c.first_seq, w.queue_id, w.receiver_client_id, c.message_id,
    c.stop - c.start + COALESCE(length(e.shared), 0) AS envelope_bytes,
    CAST(substr(e.envelopes, c.start + 1, c.stop - c.start) || COALESCE(e.shared, '') AS BLOB) AS envelope
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
JOIN waiting w ON w.first_seq = c.batch;

-- What receivers could not use.
CREATE TABLE rejected_messages (
    message_id         TEXT NOT NULL,
    client_id          TEXT NOT NULL,
    receiver_client_id TEXT NOT NULL,
    exchange_name      TEXT NOT NULL,
    routing_key        TEXT NOT NULL,
    reason             TEXT NOT NULL,
    rejected_time      TEXT NOT NULL,
    envelope           BLOB NOT NULL,
    PRIMARY KEY (message_id, rejected_time)
);

CREATE TABLE public_keys (
    client_id             TEXT PRIMARY KEY NOT NULL,
    public_key_ciphertext TEXT NOT NULL,
    nonce                 TEXT NOT NULL,
    tag                   TEXT NOT NULL,
    algorithm             TEXT
) WITHOUT ROWID;

CREATE TABLE signed_keys (
    client_id             TEXT PRIMARY KEY NOT NULL,
    signed_key_ciphertext TEXT NOT NULL,
    nonce                 TEXT NOT NULL,
    tag                   TEXT NOT NULL,
    algorithm             TEXT
) WITHOUT ROWID;

-- Chains that clients have connected with. The one with the highest commit number is the client's last.
CREATE TABLE certificates (
    client_id     TEXT    NOT NULL,
    fingerprint   TEXT    NOT NULL,
    chain         TEXT    NOT NULL,
    seen_time     TEXT    NOT NULL,
    commit_number INTEGER NOT NULL,
    PRIMARY KEY (client_id, fingerprint)
) WITHOUT ROWID;
