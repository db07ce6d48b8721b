//! The rare parts of a transaction: topology, keys, certificates.

use rusqlite::{Connection, params};

use crate::model::{AdoptedRow, Binding, Change, CommitNumber, QueueId, RowKind, SealedRow, Time};

/// Makes one change. Returns the queue's number if it declared one.
pub(super) fn change(
    connection: &Connection,
    commit: CommitNumber,
    change: &Change,
) -> rusqlite::Result<Option<QueueId>> {
    match change {
        Change::DeclareQueue(name) => {
            connection.execute(
                "INSERT INTO queues (queue_name) VALUES (?) ON CONFLICT (queue_name) DO NOTHING",
                [name.as_str()],
            )?;
            let id = connection.query_row(
                "SELECT queue_id FROM queues WHERE queue_name = ?",
                [name.as_str()],
                |row| row.get(0),
            )?;
            return Ok(Some(QueueId(id)));
        }
        Change::DeclareExchange(name) => {
            connection.execute(
                "INSERT INTO exchanges (exchange_name) VALUES (?) ON CONFLICT DO NOTHING",
                [name.as_str()],
            )?;
        }
        Change::Bind(Binding {
            exchange,
            routing_key,
            queue,
        }) => {
            connection.execute(
                "INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES (?, ?, ?) ON \
                 CONFLICT DO NOTHING",
                params![exchange.as_str(), routing_key.as_str(), queue.0],
            )?;
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
    Ok(None)
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
