//! Sets aside the messages of deleted and purged queues, a step at a time.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::corrupt_row;
use super::sql::{BATCH, REMOVABLE, REMOVAL, REMOVE_WAITING, WAITS_IN};
use super::write::{batch_row, record};
use crate::model::{HeldBySender, Time};
use crate::store::batch::removal::{Candidate, Removal, STEP_BATCHES};
use crate::store::batch::settlement::Settlement;

/// Makes the next step, and adds what senders hold more or less then. Returns whether there was
/// one.
pub(super) fn step(connection: &Connection, held: &mut HeldBySender) -> rusqlite::Result<bool> {
    let removal = connection
        .prepare_cached(REMOVAL)?
        .query_row([], |row| {
            Ok(Removal {
                queue: row.get(0)?,
                up_to: row.get(1)?,
                reason: row.get(2)?,
                after: (row.get(3)?, row.get(4)?),
            })
        })
        .optional()?;
    let Some(removal) = removal else {
        return Ok(false);
    };
    let transaction = connection.unchecked_transaction()?;
    let rows: Vec<Candidate> = transaction
        .prepare_cached(REMOVABLE)?
        .query_map(
            params![
                removal.queue,
                removal.after.0,
                removal.after.1,
                removal.up_to,
                STEP_BATCHES
            ],
            |row| {
                Ok(Candidate {
                    receiver: row.get(0)?,
                    first_seq: row.get(1)?,
                    messages: row.get(2)?,
                    bytes: row.get(3)?,
                })
            },
        )?
        .collect::<Result<_, _>>()?;
    let step = Removal::step(rows);
    let (mut settlement, now) = (Settlement::default(), Time::now());
    for Candidate {
        receiver,
        first_seq,
        ..
    } in &step.taken
    {
        let batch = transaction
            .prepare_cached(BATCH)?
            .query_row([first_seq], batch_row)?;
        let mut others = batch.queues.iter().filter(|queue| queue.0 != removal.queue);
        let mut waits_in = transaction.prepare_cached(WAITS_IN)?;
        let waits_elsewhere = others.try_fold(false, |waits, queue| {
            Ok::<_, rusqlite::Error>(
                waits || waits_in.exists(params![queue.0, receiver, first_seq])?,
            )
        })?;
        if waits_elsewhere {
            transaction
                .prepare_cached(REMOVE_WAITING)?
                .execute(params![removal.queue, receiver, first_seq])?;
        } else {
            settlement.add(batch).map_err(corrupt_row)?;
            settlement
                .set_aside(*first_seq, &removal.reason, now)
                .map_err(corrupt_row)?;
        }
    }
    let mut changes = HeldBySender::default();
    record(&transaction, &settlement.rows(), &mut changes)?;
    match step.next {
        Some((receiver, seq)) => transaction.execute(
            "UPDATE removals SET after_receiver = ?, after_seq = ? WHERE queue_id = ? AND \
             up_to_seq = ?",
            params![receiver, seq, removal.queue, removal.up_to],
        )?,
        None => transaction.execute(
            "DELETE FROM removals WHERE queue_id = ? AND up_to_seq = ?",
            params![removal.queue, removal.up_to],
        )?,
    };
    transaction.commit()?;
    held.extend(changes);
    Ok(true)
}
