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

-- What has been accepted, and what became of it. A database of an older server has this table, with the
-- first seven columns and with rows: they stay as they are.
CREATE TABLE IF NOT EXISTS message_metadata (
    message_id        TEXT COLLATE "C" PRIMARY KEY,
    client_id         TEXT COLLATE "C",
    exchange_name     TEXT COLLATE "C",
    routing_key       TEXT COLLATE "C",
    sent_time         TEXT COLLATE "C",
    delivered_time    TEXT COLLATE "C",
    acknowledged_time TEXT COLLATE "C"
);
ALTER TABLE message_metadata
    ADD COLUMN IF NOT EXISTS rejected_time      TEXT COLLATE "C",
    ADD COLUMN IF NOT EXISTS receiver_client_id TEXT COLLATE "C",
    ADD COLUMN IF NOT EXISTS envelope_sha256    BYTEA,
    ADD COLUMN IF NOT EXISTS has_suite          BOOLEAN NOT NULL DEFAULT FALSE,
    ADD COLUMN IF NOT EXISTS first_seq          BIGINT,
    ADD COLUMN IF NOT EXISTS copies             BIGINT NOT NULL DEFAULT 0;
-- Every row is updated once, when its message is acknowledged: there must be room for that on its page.
ALTER TABLE message_metadata SET (fillfactor = 75);

-- What waits to be acknowledged: a row for each queue that the message went to, numbered first_seq,
-- first_seq + 1, ...; the envelope stands in the first of them.
CREATE TABLE messages (
    seq                BIGINT PRIMARY KEY,
    first_seq          BIGINT NOT NULL,
    queue_id           BIGINT NOT NULL,
    receiver_client_id TEXT COLLATE "C" NOT NULL,
    message_id         TEXT COLLATE "C" NOT NULL,
    envelope_bytes     BIGINT NOT NULL,
    envelope           BYTEA
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
-- Sealed payloads do not get smaller by compression.
ALTER TABLE messages ALTER COLUMN envelope SET STORAGE EXTERNAL;
CREATE INDEX messages_by_lane ON messages (queue_id, receiver_client_id, seq);

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
