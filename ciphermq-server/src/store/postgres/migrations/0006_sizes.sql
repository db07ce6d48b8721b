-- The size of a batch's envelopes; 0 for one of which nothing waited before.
ALTER TABLE batches ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
UPDATE batches b SET bytes = length(e.envelopes) + COALESCE(length(e.shared), 0) FROM envelopes e
    WHERE e.first_seq = b.first_seq;
