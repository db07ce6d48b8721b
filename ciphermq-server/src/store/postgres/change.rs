//! The rare parts of a transaction: topology, blocks, keys, certificates.

use sqlx::PgConnection;

use super::{blocks, topology};
use crate::model::{AdoptedRow, Change, ChangeOutcome, CommitNumber, RowKind, SealedRow, Time};
use crate::quota::Rooms;

/// Makes one change, if the client has room for what it makes.
pub(super) async fn change(
    connection: &mut PgConnection,
    commit: CommitNumber,
    change: &Change,
    rooms: &mut Rooms,
) -> Result<ChangeOutcome, sqlx::Error> {
    match change {
        Change::DeclareQueue { queue, made_by } => {
            return topology::declare_queue(connection, queue, made_by, rooms).await;
        }
        Change::DeclareExchange { exchange, made_by } => {
            return topology::declare_exchange(connection, exchange, made_by, rooms).await;
        }
        Change::Bind {
            binding,
            made_by,
            limits,
        } => return topology::bind(connection, binding, made_by, *limits, rooms).await,
        Change::Unbind { binding, by } => return topology::unbind(connection, binding, by).await,
        Change::DeleteQueue {
            queue,
            name,
            if_empty,
            by,
            time,
            connection: _,
        } => {
            return topology::delete_queue(connection, *queue, name, *if_empty, by, *time).await;
        }
        Change::DeleteExchange {
            exchange,
            if_unused,
            by,
        } => return topology::delete_exchange(connection, exchange, *if_unused, by).await,
        Change::PurgeQueue {
            queue,
            name,
            by,
            time,
        } => return topology::purge_queue(connection, *queue, name, by, *time).await,
        Change::BlockClient(block) => return blocks::block(connection, block).await,
        Change::UnblockClient(client_id) => {
            return blocks::unblock(connection, client_id.as_str()).await;
        }
        Change::PublicKey(client_id, row) => {
            sealed(connection, PUBLIC_KEY, client_id.as_str(), row).await?;
        }
        Change::SignedKey {
            client_id,
            signed,
            bare,
        } => {
            sealed(connection, SIGNED_KEY, client_id.as_str(), signed).await?;
            match bare {
                Some(bare) => sealed(connection, PUBLIC_KEY, client_id.as_str(), bare).await?,
                None => {
                    sqlx::query("DELETE FROM public_keys WHERE client_id = $1")
                        .bind(client_id.as_str())
                        .execute(connection)
                        .await?;
                }
            }
        }
        Change::Adopt(rows) => {
            for AdoptedRow {
                kind,
                client_id,
                row,
            } in rows
            {
                let text = match kind {
                    RowKind::PublicKey => PUBLIC_KEY,
                    RowKind::SignedKey => SIGNED_KEY,
                };
                sealed(&mut *connection, text, client_id, row).await?;
            }
            sqlx::query(
                "INSERT INTO at_rest_adoption (only_row, adopted_time) VALUES (1, $1) ON CONFLICT \
                 DO NOTHING",
            )
            .bind(Time::now().to_string())
            .execute(connection)
            .await?;
        }
        Change::Certificate {
            client_id,
            fingerprint,
            chain,
            seen,
        } => {
            sqlx::query(
                "INSERT INTO certificates (client_id, fingerprint, chain, seen_time, \
                 commit_number) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (client_id, fingerprint) DO UPDATE SET \
                 chain = excluded.chain, seen_time = excluded.seen_time, commit_number = \
                 excluded.commit_number",
            )
            .bind(client_id.as_str())
            .bind(fingerprint.to_string())
            .bind(chain.to_string())
            .bind(seen.to_string())
            .bind(commit.0)
            .execute(connection)
            .await?;
        }
    }
    Ok(ChangeOutcome::Done)
}

const PUBLIC_KEY: &str = "INSERT INTO public_keys (client_id, public_key_ciphertext, nonce, tag, \
                          algorithm) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (client_id) DO UPDATE SET \
     public_key_ciphertext = excluded.public_key_ciphertext, nonce = excluded.nonce, \
     tag = excluded.tag, algorithm = excluded.algorithm";

const SIGNED_KEY: &str = "INSERT INTO signed_keys (client_id, signed_key_ciphertext, nonce, tag, \
                          algorithm) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (client_id) DO UPDATE SET \
     signed_key_ciphertext = excluded.signed_key_ciphertext, nonce = excluded.nonce, \
     tag = excluded.tag, algorithm = excluded.algorithm";

async fn sealed(
    connection: &mut PgConnection,
    text: &'static str,
    client: &str,
    row: &SealedRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(text)
        .bind(client)
        .bind(&row.ciphertext)
        .bind(&row.nonce)
        .bind(&row.tag)
        .bind(&row.algorithm)
        .execute(connection)
        .await?;
    Ok(())
}
