//! Writes the messages of a transaction, up to the commit itself.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use ciphermq_protocol::envelope::EnvelopeBytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::change::change;
use super::error::corrupt_row;
use super::sql::{
    ENVELOPE, INSERT_BATCH, INSERT_ENVELOPES, INSERT_WAITING, LOOK_UP, REMOVE_DISPOSITION,
    REMOVE_ENVELOPES, REMOVE_WAITING, SET_ASIDE, WRITE_DISPOSITION, range_list,
};
use crate::model::{
    Amount, ChangeOutcome, CommitNumber, HeldBySender, Outcomes, Publish, Transaction,
};
use crate::store::batch::accept::{Accepted, NewBatch};
use crate::store::batch::disposition::disposition_ranges;
use crate::store::batch::id::Range;
use crate::store::batch::live::{Narrowed, narrow, queues_of};
use crate::store::batch::settlement::{Settlement, SettlementRows, lanes};
use crate::store::batch::tail_cache::{TailCache, stream_ends};
use crate::store::batch::{BatchRow, queues, queues_text};

/// The results of a transaction if it is committed.
pub(super) struct WrittenTransaction {
    pub(super) outcomes: Outcomes,
    /// The argument for [`TailCache::keep`].
    pub(super) settlement: Settlement,
    pub(super) ends: Vec<Range>,
}

/// Writes everything, up to the commit itself. `checks_queues`: whether queues of the messages may
/// have been deleted.
pub(super) fn write(
    connection: &Connection,
    tail_cache: &mut SessionCache,
    transaction: &Transaction,
    checks_queues: bool,
) -> rusqlite::Result<WrittenTransaction> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    tail_cache.forget_if_changed(connection)?;
    let (mut settlement, unknown) = tail_cache.batches.recall(transaction.message_ids());
    let ends = look_up(connection, unknown, &mut settlement)?;
    let (publishes, narrowed) = live(connection, checks_queues, &transaction.publishes)?;
    let mut rooms = transaction.rooms.clone();
    let mut accepted = Accepted::new(&publishes, &settlement, &mut rooms);
    let (commit, last): (i64, i64) = connection
        .prepare_cached(
            "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + ? \
             RETURNING commit_number, last_seq",
        )?
        .query_row([accepted.copies], |row| Ok((row.get(0)?, row.get(1)?)))?;
    accepted.assign_seqs(last - accepted.copies + 1);
    let mut outcomes = Outcomes {
        commit: CommitNumber(commit),
        ..Outcomes::default()
    };
    for given in &transaction.changes {
        let outcome = match given.comes_last() {
            true => ChangeOutcome::Done,
            false => change(connection, outcomes.commit, given, &mut rooms)?,
        };
        outcomes.changes.push(outcome);
    }
    for batch in &accepted.batches {
        let row = batch.row();
        insert(connection, batch, &row)?;
        settlement.add(row).map_err(corrupt_row)?;
    }
    accepted.add_held(&mut outcomes.held);
    outcomes.publishes = accepted.outcomes;
    settlement.apply(transaction, &mut outcomes);
    record(connection, &settlement.rows(), &mut outcomes.held)?;
    for (outcome, given) in outcomes.changes.iter_mut().zip(&transaction.changes) {
        if given.comes_last() {
            *outcome = change(connection, outcomes.commit, given, &mut rooms)?;
        }
    }
    outcomes.narrowed = narrowed;
    Ok(WrittenTransaction {
        outcomes,
        settlement,
        ends,
    })
}

/// The publishes to store, and those of them that go to fewer queues than they were meant for.
type Live<'a> = (Cow<'a, [Arc<Publish>]>, Narrowed);

/// Leaves out queues that were deleted while messages waited for this commit.
fn live<'a>(
    connection: &Connection,
    checks_queues: bool,
    publishes: &'a [Arc<Publish>],
) -> rusqlite::Result<Live<'a>> {
    if !checks_queues {
        return Ok((Cow::Borrowed(publishes), Vec::new()));
    }
    let mut exist = queues_of(publishes);
    let wanted = exist.len();
    let mut find = connection.prepare_cached("SELECT 1 FROM queues WHERE queue_id = ?")?;
    let mut failure = None;
    exist.retain(|queue| {
        find.exists([queue.0]).unwrap_or_else(|error| {
            failure = Some(error);
            true
        })
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    if exist.len() == wanted {
        return Ok((Cow::Borrowed(publishes), Vec::new()));
    }
    let (publishes, narrowed) = narrow(publishes, &exist);
    Ok((Cow::Owned(publishes), narrowed))
}

/// A connection's cache of the database.
pub(super) struct SessionCache {
    pub(super) batches: TailCache,
    /// SQLite's `data_version`, which changes once somebody else has written.
    data_version: i64,
}

impl SessionCache {
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            batches: TailCache::default(),
            data_version: data_version(connection)?,
        })
    }

    /// Clears the cache if somebody else has written: SQLite lets everybody write who can open the
    /// file, such as a person with the `sqlite3` shell.
    fn forget_if_changed(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let found = data_version(connection)?;
        if std::mem::replace(&mut self.data_version, found) != found {
            self.batches.clear();
        }
        Ok(())
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// Adds the batches that hold ids of these ranges. Returns the ranges above which no batch of their
/// stream begins.
fn look_up(
    connection: &Connection,
    ranges: Vec<Range>,
    settlement: &mut Settlement,
) -> rusqlite::Result<Vec<Range>> {
    if ranges.is_empty() {
        return Ok(ranges);
    }
    let mut statement = connection.prepare_cached(LOOK_UP)?;
    let mut rows = statement.query([range_list(&ranges).map_err(corrupt_row)?])?;
    let mut goes_on = HashSet::new();
    while let Some(row) = rows.next()? {
        if row.get(1)? {
            goes_on.insert(row.get(0)?);
        }
        if row.get::<_, Option<i64>>(2)?.is_some() {
            settlement.add(batch_row(row)?).map_err(corrupt_row)?;
        }
    }
    Ok(stream_ends(ranges, &goes_on))
}

/// Reads the batch of a row of [`LOOK_UP`].
pub(super) fn batch_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<BatchRow> {
    Ok(BatchRow {
        first_seq: row.get(2)?,
        messages: row.get(3)?,
        queues: queues(row.get_ref(4)?.as_str()?).map_err(corrupt_row)?,
        stream: row.get(5)?,
        position: row.get(6)?,
        sender: row.get(7)?,
        receiver: row.get(8)?,
        sent_time: row.get(9)?,
        route: row.get::<_, Option<_>>(13)?.zip(row.get(14)?),
        has_suite: row.get(10)?,
        digests: row.get(11)?,
        bytes: row.get(15)?,
        dispositions: disposition_ranges(row.get_ref(12)?.as_str()?).map_err(corrupt_row)?,
    })
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
        row.bytes,
    ])?;
    connection
        .prepare_cached(INSERT_ENVELOPES)?
        .execute(params![
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

/// Reads an envelope as a text.
fn envelope(connection: &Connection, batch: i64, index: i64) -> rusqlite::Result<Option<Bytes>> {
    let mut select = connection.prepare_cached(ENVELOPE)?;
    let envelope = |row: &rusqlite::Row<'_>| -> rusqlite::Result<EnvelopeBytes> {
        let own: Vec<u8> = row.get(0)?;
        let shared: Option<Vec<u8>> = row.get(1)?;
        Ok(match shared {
            Some(shared) => EnvelopeBytes::packed(own.into(), shared.into()),
            None => Bytes::from(own).into(),
        })
    };
    let envelope = select.query_row([batch, index], envelope).optional()?;
    Ok(envelope.map(|envelope| envelope.to_bytes()))
}

/// Writes and removes dispositions, and adds what senders hold more or less then.
pub(super) fn record(
    connection: &Connection,
    entries: &SettlementRows<'_>,
    held: &mut HeldBySender,
) -> rusqlite::Result<()> {
    entries.add_held(held);
    for rejected in entries.rejected {
        let Some(envelope) = envelope(connection, rejected.batch, rejected.index)? else {
            continue;
        };
        let mut set_aside = connection.prepare_cached(SET_ASIDE)?;
        let mut written = set_aside.query(params![
            rejected.message_id.as_str(),
            rejected.reason,
            rejected.time,
            rejected.batch,
            &*envelope,
        ])?;
        while let Some(row) = written.next()? {
            let more = Amount {
                messages: 1,
                bytes: row.get(2)?,
            };
            held.add_rejected(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, more);
        }
    }
    let mut remove = connection.prepare_cached(REMOVE_DISPOSITION)?;
    for (batch, from) in &entries.removed {
        remove.execute([batch, from])?;
    }
    let mut write = connection.prepare_cached(WRITE_DISPOSITION)?;
    for (batch, run) in &entries.written {
        write.execute(params![
            batch,
            run.from,
            run.messages,
            run.disposition.delivered,
            run.disposition.acknowledged,
            run.disposition.rejected,
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
