//! What stands in a transaction, up to the commit itself.

use ciphermq_protocol::MessageId;
use rusqlite::{Connection, params};

use super::change::change;
use super::error::strange;
use super::sql::{
    INSERT_BATCH, INSERT_ENVELOPES, INSERT_WAITING, KNOWN, REMOVE_ENVELOPES, REMOVE_FATE, REMOVE_WAITING,
    SET_ASIDE, WRITE_FATE, range_list,
};
use crate::store::batch::accept::{Accepted, NewBatch};
use crate::store::batch::fate::runs;
use crate::store::batch::ledger::{Entries, Ledger, lanes};
use crate::store::batch::{BatchRow, queues, queues_text};
use crate::store::model::{CommitNumber, Outcomes, Transaction};

/// Everything up to the commit itself.
pub(super) fn write(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<Outcomes> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut ledger = known(connection, transaction.message_ids())?;
    let mut accepted = Accepted::new(&transaction.publishes, &ledger);
    let (commit, last): (i64, i64) = connection
        .prepare_cached(
            "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + ? \
             RETURNING commit_number, last_seq",
        )?
        .query_row([accepted.copies], |row| Ok((row.get(0)?, row.get(1)?)))?;
    accepted.number(last - accepted.copies + 1);
    let mut outcomes = Outcomes {
        commit: CommitNumber(commit),
        ..Outcomes::default()
    };
    for given in &transaction.changes {
        outcomes.changes.push(change(connection, outcomes.commit, given)?);
    }
    for batch in &accepted.batches {
        let row = batch.row();
        insert(connection, batch, &row)?;
        if transaction.settles() {
            ledger.add(row).map_err(strange)?;
        }
    }
    outcomes.publishes = accepted.outcomes;
    outcomes.acks = transaction.acks.iter().map(|ack| ledger.ack(ack)).collect();
    outcomes.rejections = transaction
        .rejections
        .iter()
        .map(|rejection| ledger.reject(rejection))
        .collect();
    for (id, time) in &transaction.deliveries {
        ledger.deliver(id, *time);
    }
    record(connection, &ledger.entries())?;
    Ok(outcomes)
}

/// The batches of messages, by the messages' ids.
fn known<'a>(connection: &Connection, ids: impl Iterator<Item = &'a MessageId>) -> rusqlite::Result<Ledger> {
    let mut ledger = Ledger::default();
    let Some(ranges) = range_list(ids).map_err(strange)? else {
        return Ok(ledger);
    };
    let mut statement = connection.prepare_cached(KNOWN)?;
    let mut rows = statement.query([ranges])?;
    while let Some(row) = rows.next()? {
        let fates = row.get_ref(10)?.as_str()?;
        let batch = BatchRow {
            first_seq: row.get(0)?,
            messages: row.get(1)?,
            queues: queues(row.get_ref(2)?.as_str()?).map_err(strange)?,
            stream: row.get(3)?,
            position: row.get(4)?,
            sender: row.get(5)?,
            receiver: row.get(6)?,
            sent_time: row.get(7)?,
            has_suite: row.get(8)?,
            digests: row.get(9)?,
            fates: runs(fates).map_err(strange)?,
        };
        ledger.add(batch).map_err(strange)?;
    }
    Ok(ledger)
}

fn insert(connection: &Connection, batch: &NewBatch<'_>, row: &BatchRow) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT_BATCH)?.execute(params![
        row.first_seq,
        row.messages,
        queues_text(&row.queues),
        row.stream,
        row.position,
        row.sender,
        batch.first.exchange.as_str(),
        batch.first.routing_key.as_str(),
        row.receiver,
        row.sent_time,
        row.has_suite,
        row.digests,
    ])?;
    connection.prepare_cached(INSERT_ENVELOPES)?.execute(params![
        row.first_seq,
        batch.ends(),
        batch.envelopes(),
        batch.shared(),
    ])?;
    let mut statement = connection.prepare_cached(INSERT_WAITING)?;
    for (copy, (queue, receiver)) in (0i64..).zip(lanes(row)) {
        statement.execute(params![queue.0, receiver, row.first_seq, copy])?;
    }
    Ok(())
}

/// Writes what became of messages.
fn record(connection: &Connection, entries: &Entries<'_>) -> rusqlite::Result<()> {
    for rejected in entries.rejected {
        connection.prepare_cached(SET_ASIDE)?.execute(params![
            rejected.message_id.as_str(),
            rejected.reason,
            rejected.time,
            rejected.batch,
            rejected.index,
        ])?;
    }
    let mut remove = connection.prepare_cached(REMOVE_FATE)?;
    for (batch, from) in &entries.removed {
        remove.execute([batch, from])?;
    }
    let mut write = connection.prepare_cached(WRITE_FATE)?;
    for (batch, run) in &entries.written {
        write.execute(params![
            batch,
            run.from,
            run.messages,
            run.fate.delivered,
            run.fate.acknowledged,
            run.fate.rejected,
        ])?;
    }
    let mut remove = connection.prepare_cached(REMOVE_ENVELOPES)?;
    let mut leave = connection.prepare_cached(REMOVE_WAITING)?;
    for batch in &entries.finished {
        remove.execute([batch.first_seq])?;
        for (queue, receiver) in lanes(batch) {
            leave.execute(params![queue.0, receiver, batch.first_seq])?;
        }
    }
    Ok(())
}
