-- Who made a queue, an exchange or a binding; NULL in what older servers stored. The number of a queue that is deleted
-- is never given to another one.
CREATE TABLE numbered_queues (
    queue_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_name TEXT NOT NULL UNIQUE,
    made_by    TEXT
);
INSERT INTO numbered_queues (queue_id, queue_name) SELECT queue_id, queue_name FROM queues;
DROP TABLE queues;
ALTER TABLE numbered_queues RENAME TO queues;
ALTER TABLE exchanges ADD COLUMN made_by TEXT;
ALTER TABLE bindings ADD COLUMN made_by TEXT;
CREATE INDEX bindings_by_queue ON bindings (queue_id);
CREATE INDEX bindings_by_maker ON bindings (made_by, exchange_name);

-- Queues whose messages are being set aside, a few at a time: those that were deleted, and those that were purged up to
-- a message. after_receiver and after_seq are the last row of `waiting` that was looked at.
CREATE TABLE removals (
    queue_id       INTEGER NOT NULL,
    up_to_seq      INTEGER NOT NULL,
    reason         TEXT NOT NULL,
    requested_time TEXT NOT NULL,
    after_receiver TEXT NOT NULL DEFAULT '',
    after_seq      INTEGER NOT NULL DEFAULT -1,
    PRIMARY KEY (queue_id, up_to_seq)
) WITHOUT ROWID;
