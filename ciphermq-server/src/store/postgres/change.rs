//! The rare parts of a transaction: topology, keys, certificates.

use sqlx::PgConnection;

use crate::model::{AdoptedRow, Binding, Change, CommitNumber, QueueId, RowKind, SealedRow, Time};

/// Makes one change. Returns the queue's number if it declared one.
pub(super) async fn change(
    connection: &mut PgConnection,
    commit: CommitNumber,
    change: &Change,
) -> Result<Option<QueueId>, sqlx::Error> {
    match change {
        Change::DeclareQueue(name) => {
            sqlx::query(
                "INSERT INTO queues (queue_name) VALUES ($1) ON CONFLICT (queue_name) DO NOTHING",
            )
            .bind(name.as_str())
            .execute(&mut *connection)
            .await?;
            let id = sqlx::query_scalar("SELECT queue_id FROM queues WHERE queue_name = $1")
                .bind(name.as_str())
                .fetch_one(connection)
                .await?;
            return Ok(Some(QueueId(id)));
        }
        Change::DeclareExchange(name) => {
            sqlx::query("INSERT INTO exchanges (exchange_name) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(name.as_str())
                .execute(connection)
                .await?;
        }
        Change::Bind(Binding {
            exchange,
            routing_key,
            queue,
        }) => {
            sqlx::query(
                "INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES ($1, $2, $3) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(exchange.as_str())
            .bind(routing_key.as_str())
            .bind(queue.0)
            .execute(connection)
            .await?;
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
    Ok(None)
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
