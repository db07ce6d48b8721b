-- The size of a batch's envelopes; 0 for one of which nothing waited before.
ALTER TABLE batches ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE batches SET bytes = (SELECT length(e.envelopes) + COALESCE(length(e.shared), 0) FROM envelopes e
    WHERE e.first_seq = batches.first_seq) WHERE first_seq IN (SELECT first_seq FROM envelopes);
