//! The rare parts of a transaction: topology, blocks, keys, certificates.

use rusqlite::{Connection, params};

use super::{blocks, topology};
use crate::model::{AdoptedRow, Change, ChangeOutcome, CommitNumber, RowKind, SealedRow, Time};
use crate::quota::Rooms;

/// Makes one change, if the client has room for what it makes.
pub(super) fn change(
    connection: &Connection,
    commit: CommitNumber,
    change: &Change,
    rooms: &mut Rooms,
) -> rusqlite::Result<ChangeOutcome> {
    match change {
        Change::DeclareQueue { queue, made_by } => {
            return topology::declare_queue(connection, queue, made_by, rooms);
        }
        Change::DeclareExchange { exchange, made_by } => {
            return topology::declare_exchange(connection, exchange, made_by, rooms);
        }
        Change::Bind {
            binding,
            made_by,
            limits,
        } => return topology::bind(connection, binding, made_by, *limits, rooms),
        Change::Unbind { binding, by } => return topology::unbind(connection, binding, by),
        Change::DeleteQueue {
            queue,
            name,
            if_empty,
            by,
            time,
            connection: _,
        } => return topology::delete_queue(connection, *queue, name, *if_empty, by, *time),
        Change::DeleteExchange {
            exchange,
            if_unused,
            by,
        } => return topology::delete_exchange(connection, exchange, *if_unused, by),
        Change::PurgeQueue {
            queue,
            name,
            by,
            time,
        } => return topology::purge_queue(connection, *queue, name, by, *time),
        Change::BlockClient(block) => return blocks::block(connection, block),
        Change::UnblockClient(client_id) => {
            return blocks::unblock(connection, client_id.as_str());
        }
        Change::PublicKey(client_id, row) => {
            sealed(connection, PUBLIC_KEY, client_id.as_str(), row)?;
        }
        Change::SignedKey {
            client_id,
            signed,
            bare,
        } => {
            sealed(connection, SIGNED_KEY, client_id.as_str(), signed)?;
            match bare {
                Some(bare) => sealed(connection, PUBLIC_KEY, client_id.as_str(), bare)?,
                None => {
                    let forget = "DELETE FROM public_keys WHERE client_id = ?";
                    connection.execute(forget, [client_id.as_str()])?;
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
                sealed(connection, text, client_id, row)?;
            }
            connection.execute(
                "INSERT INTO at_rest_adoption (only_row, adopted_time) VALUES (1, ?) ON CONFLICT \
                 DO NOTHING",
                [Time::now().to_string()],
            )?;
        }
        Change::Certificate {
            client_id,
            fingerprint,
            chain,
            seen,
        } => {
            connection.execute(
                "INSERT INTO certificates (client_id, fingerprint, chain, seen_time, \
                 commit_number) \
                 VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id, fingerprint) DO UPDATE SET \
                 chain = excluded.chain, seen_time = excluded.seen_time, commit_number = \
                 excluded.commit_number",
                params![
                    client_id.as_str(),
                    fingerprint.to_string(),
                    chain.to_string(),
                    seen.to_string(),
                    commit.0
                ],
            )?;
        }
    }
    Ok(ChangeOutcome::Done)
}

const PUBLIC_KEY: &str = "INSERT INTO public_keys (client_id, public_key_ciphertext, nonce, tag, \
                          algorithm) \
     VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id) DO UPDATE SET \
     public_key_ciphertext = excluded.public_key_ciphertext, nonce = excluded.nonce, \
     tag = excluded.tag, algorithm = excluded.algorithm";

const SIGNED_KEY: &str = "INSERT INTO signed_keys (client_id, signed_key_ciphertext, nonce, tag, \
                          algorithm) \
     VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id) DO UPDATE SET \
     signed_key_ciphertext = excluded.signed_key_ciphertext, nonce = excluded.nonce, \
     tag = excluded.tag, algorithm = excluded.algorithm";

fn sealed(
    connection: &Connection,
    text: &str,
    client: &str,
    row: &SealedRow,
) -> rusqlite::Result<()> {
    connection.execute(
        text,
        params![client, row.ciphertext, row.nonce, row.tag, row.algorithm],
    )?;
    Ok(())
}
