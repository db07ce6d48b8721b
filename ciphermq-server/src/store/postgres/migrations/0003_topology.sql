-- Who made a queue, an exchange or a binding; NULL in what older servers stored.
ALTER TABLE queues ADD COLUMN made_by TEXT COLLATE "C";
ALTER TABLE exchanges ADD COLUMN made_by TEXT COLLATE "C";
ALTER TABLE bindings ADD COLUMN made_by TEXT COLLATE "C";
CREATE INDEX bindings_by_queue ON bindings (queue_id);
CREATE INDEX bindings_by_maker ON bindings (made_by, exchange_name);

-- Queues whose messages are being set aside, a few at a time: those that were deleted, and those that were purged up to
-- a message. after_receiver and after_seq are the last row of `waiting` that was looked at.
CREATE TABLE removals (
    queue_id       BIGINT NOT NULL,
    up_to_seq      BIGINT NOT NULL,
    reason         TEXT NOT NULL,
    requested_time TEXT COLLATE "C" NOT NULL,
    after_receiver TEXT COLLATE "C" NOT NULL DEFAULT '',
    after_seq      BIGINT NOT NULL DEFAULT -1,
    PRIMARY KEY (queue_id, up_to_seq)
);
