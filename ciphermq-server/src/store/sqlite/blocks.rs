//! Clients that an administrator keeps out.

use rusqlite::{Connection, params};
use sqlx::sqlite::SqlitePool;

use super::error::error;
use crate::model::{Block, ChangeOutcome, Refusal};
use crate::store::{Error, corrupt};

/// Blocks a client. The first block of a client stays.
pub(super) fn block(connection: &Connection, block: &Block) -> rusqlite::Result<ChangeOutcome> {
    connection.execute(
        "INSERT INTO blocked_clients (client_id, blocked_by, blocked_time) VALUES (?, ?, ?) \
         ON CONFLICT DO NOTHING",
        params![block.client_id.as_str(), block.by.as_str(), block.since],
    )?;
    Ok(ChangeOutcome::Done)
}

/// Removes a client's block.
pub(super) fn unblock(connection: &Connection, client: &str) -> rusqlite::Result<ChangeOutcome> {
    let remove = "DELETE FROM blocked_clients WHERE client_id = ?";
    Ok(match connection.execute(remove, [client])? {
        0 => ChangeOutcome::Refused(Refusal::NotBlocked),
        _ => ChangeOutcome::Done,
    })
}

/// Returns all blocks.
pub(super) async fn all(pool: &SqlitePool) -> Result<Vec<Block>, Error> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT client_id, blocked_by, blocked_time FROM blocked_clients")
            .fetch_all(pool)
            .await
            .map_err(error)?;
    let block = |(client_id, by, since): (String, String, String)| {
        Ok(Block {
            client_id: client_id.parse().map_err(corrupt)?,
            by: by.parse().map_err(corrupt)?,
            since,
        })
    };
    rows.into_iter().map(block).collect()
}
