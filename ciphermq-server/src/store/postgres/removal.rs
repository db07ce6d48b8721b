//! Sets aside the messages of deleted and purged queues, a step at a time.

use sqlx::{Connection as _, PgConnection, Row as _};

use super::error::decode;
use super::sql::{BATCH, LEAVE, REMOVABLE, REMOVAL, WAITS_IN};
use super::unresolved::{Before, UnresolvedStep};
use super::write::{Advance, Position, batch_row, set_aside, write};
use crate::model::{HeldBySender, Time};
use crate::store::batch::removal::{Candidate, Removal, STEP_BATCHES};
use crate::store::batch::settlement::Settlement;

/// Makes the next step. Returns what senders hold more or less then, if there was one.
///
/// While it is committed, it is in `unresolved`.
pub(super) async fn step(
    session: &mut PgConnection,
    position: Position,
    unresolved: &mut Option<UnresolvedStep>,
) -> Result<Option<HeldBySender>, sqlx::Error> {
    let Some(row) = sqlx::query(REMOVAL).fetch_optional(&mut *session).await? else {
        return Ok(None);
    };
    let removal = Removal {
        queue: row.try_get(0)?,
        up_to: row.try_get(1)?,
        reason: row.try_get(2)?,
        after: (row.try_get(3)?, row.try_get(4)?),
    };
    // Rolled back when it is dropped.
    let mut transaction = session.begin().await?;
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(REMOVABLE)
        .bind(removal.queue)
        .bind(&removal.after.0)
        .bind(removal.after.1)
        .bind(removal.up_to)
        .bind(STEP_BATCHES)
        .fetch_all(&mut *transaction)
        .await?;
    let candidate = |(receiver, first_seq, messages, bytes)| Candidate {
        receiver,
        first_seq,
        messages,
        bytes,
    };
    let step = Removal::step(rows.into_iter().map(candidate).collect());
    let (mut settlement, now) = (Settlement::default(), Time::now());
    let taken: Vec<i64> = step.taken.iter().map(|row| row.first_seq).collect();
    let elsewhere: Vec<i64> = sqlx::query_scalar(WAITS_IN)
        .bind(&taken)
        .bind(removal.queue)
        .fetch_all(&mut *transaction)
        .await?;
    sqlx::query(LEAVE)
        .bind(removal.queue)
        .bind(
            step.taken
                .iter()
                .map(|row| row.receiver.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(&taken)
        .execute(&mut *transaction)
        .await?;
    for row in sqlx::query(BATCH)
        .bind(&taken)
        .fetch_all(&mut *transaction)
        .await?
    {
        let Some(batch) = batch_row(&row)? else {
            continue;
        };
        let first_seq = batch.first_seq;
        if !elsewhere.contains(&first_seq) {
            settlement.add(batch).map_err(decode)?;
            settlement
                .set_aside(first_seq, &removal.reason, now)
                .map_err(decode)?;
        }
    }
    let rows = settlement.rows();
    let mut changes = HeldBySender::default();
    rows.add_held(&mut changes);
    set_aside(&mut transaction, rows.rejected, &mut changes).await?;
    let stay = Advance {
        from: position,
        to: position,
    };
    write(&mut transaction, stay, &[], &rows).await?;
    match step.next {
        Some((receiver, seq)) => {
            sqlx::query(
                "UPDATE removals SET after_receiver = $3, after_seq = $4 WHERE queue_id = $1 AND \
                 up_to_seq = $2",
            )
            .bind(removal.queue)
            .bind(removal.up_to)
            .bind(receiver)
            .bind(seq)
            .execute(&mut *transaction)
            .await?;
        }
        None => {
            sqlx::query("DELETE FROM removals WHERE queue_id = $1 AND up_to_seq = $2")
                .bind(removal.queue)
                .bind(removal.up_to)
                .execute(&mut *transaction)
                .await?;
        }
    }
    let step = unresolved.insert(UnresolvedStep {
        changes,
        row: Before::Removal {
            queue: removal.queue,
            up_to: removal.up_to,
            after: removal.after,
        },
    });
    transaction.commit().await?;
    let changes = std::mem::take(&mut step.changes);
    *unresolved = None;
    Ok(Some(changes))
}
