//! Clients that an administrator keeps out.

use sqlx::{FromRow as _, PgConnection};

use super::error::error;
use super::pool::ReadPool;
use crate::model::{Block, ChangeOutcome, Refusal};
use crate::store::{Error, corrupt};

/// Blocks a client. The first block of a client stays.
pub(super) async fn block(
    connection: &mut PgConnection,
    block: &Block,
) -> Result<ChangeOutcome, sqlx::Error> {
    sqlx::query(
        "INSERT INTO blocked_clients (client_id, blocked_by, blocked_time) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(block.client_id.as_str())
    .bind(block.by.as_str())
    .bind(&block.since)
    .execute(connection)
    .await?;
    Ok(ChangeOutcome::Done)
}

/// Removes a client's block.
pub(super) async fn unblock(
    connection: &mut PgConnection,
    client: &str,
) -> Result<ChangeOutcome, sqlx::Error> {
    let removed = sqlx::query("DELETE FROM blocked_clients WHERE client_id = $1")
        .bind(client)
        .execute(connection)
        .await?;
    Ok(match removed.rows_affected() {
        0 => ChangeOutcome::Refused(Refusal::NotBlocked),
        _ => ChangeOutcome::Done,
    })
}

/// Returns all blocks.
pub(super) async fn all(pool: &ReadPool) -> Result<Vec<Block>, Error> {
    let read = sqlx::query("SELECT client_id, blocked_by, blocked_time FROM blocked_clients");
    let rows = pool.rows(read).await?;
    let block = |row| {
        let (client_id, by, since) = <(String, String, String)>::from_row(row).map_err(error)?;
        Ok(Block {
            client_id: client_id.parse().map_err(corrupt)?,
            by: by.parse().map_err(corrupt)?,
            since,
        })
    };
    rows.iter().map(block).collect()
}
