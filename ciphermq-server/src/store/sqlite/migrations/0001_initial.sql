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

-- What has been accepted, and what became of it. With a row id: older clients' ids are random, and what
-- lands at random places of a tree should be the small entries of an index, not whole rows.
CREATE TABLE message_metadata (
    message_id         TEXT PRIMARY KEY NOT NULL,
    client_id          TEXT NOT NULL,
    exchange_name      TEXT NOT NULL,
    routing_key        TEXT NOT NULL,
    sent_time          TEXT NOT NULL,
    delivered_time     TEXT,
    acknowledged_time  TEXT,
    rejected_time      TEXT,
    receiver_client_id TEXT NOT NULL,
    envelope_sha256    BLOB NOT NULL,
    has_suite          INTEGER NOT NULL,
    first_seq          INTEGER NOT NULL,
    copies             INTEGER NOT NULL
);

-- What waits to be acknowledged: a row for each queue that the message went to, numbered first_seq,
-- first_seq + 1, ...; the envelope stands in the first of them. It is the last column, so that reading the
-- others need not go through it.
CREATE TABLE messages (
    seq                INTEGER PRIMARY KEY,
    first_seq          INTEGER NOT NULL,
    queue_id           INTEGER NOT NULL,
    receiver_client_id TEXT    NOT NULL,
    message_id         TEXT    NOT NULL,
    envelope_bytes     INTEGER NOT NULL,
    envelope           BLOB
);
CREATE INDEX messages_by_lane ON messages (queue_id, receiver_client_id, seq);

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
