//! The rare parts of a transaction: topology, keys, certificates, rejections.

use sqlx::{Row as _, SqliteConnection};

use ciphermq_protocol::MessageId;

use crate::store::model::{AckOutcome, Change, CommitNumber, QueueId, Rejection, SealedRow, Seq};
use crate::store::plan::Fate;

/// Makes one change; the queue's number if it declared one.
pub(super) async fn change(
    connection: &mut SqliteConnection,
    commit: CommitNumber,
    change: &Change,
) -> Result<Option<QueueId>, sqlx::Error> {
    match change {
        Change::DeclareQueue(name) => {
            sqlx::query("INSERT INTO queues (queue_name) VALUES (?) ON CONFLICT (queue_name) DO NOTHING")
                .bind(name.as_str())
                .execute(&mut *connection)
                .await?;
            let id = sqlx::query_scalar("SELECT queue_id FROM queues WHERE queue_name = ?")
                .bind(name.as_str())
                .fetch_one(connection)
                .await?;
            return Ok(Some(QueueId(id)));
        }
        Change::DeclareExchange(name) => {
            sqlx::query("INSERT INTO exchanges (exchange_name) VALUES (?) ON CONFLICT DO NOTHING")
                .bind(name.as_str())
                .execute(connection)
                .await?;
        }
        Change::Bind {
            exchange,
            routing_key,
            queue,
        } => {
            sqlx::query(
                "INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(exchange.as_str())
            .bind(routing_key.as_str())
            .bind(queue.0)
            .execute(connection)
            .await?;
        }
        Change::PublicKey(client_id, row) => sealed(connection, PUBLIC_KEY, client_id.as_str(), row).await?,
        Change::SignedKey {
            client_id,
            signed,
            bare,
        } => {
            sealed(connection, SIGNED_KEY, client_id.as_str(), signed).await?;
            sealed(connection, PUBLIC_KEY, client_id.as_str(), bare).await?;
        }
        Change::Certificate {
            client_id,
            fingerprint,
            chain,
            seen,
        } => {
            sqlx::query(
                "INSERT INTO certificates (client_id, fingerprint, chain, seen_time, commit_number) \
                 VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id, fingerprint) DO UPDATE SET \
                 chain = excluded.chain, seen_time = excluded.seen_time, commit_number = excluded.commit_number",
            )
            .bind(client_id.as_str())
            .bind(fingerprint)
            .bind(chain)
            .bind(seen.to_string())
            .bind(commit.0)
            .execute(connection)
            .await?;
        }
    }
    Ok(None)
}

const PUBLIC_KEY: &str = "INSERT INTO public_keys (client_id, public_key_ciphertext, nonce, tag, algorithm) \
     VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id) DO UPDATE SET \
     public_key_ciphertext = excluded.public_key_ciphertext, nonce = excluded.nonce, \
     tag = excluded.tag, algorithm = excluded.algorithm";

const SIGNED_KEY: &str = "INSERT INTO signed_keys (client_id, signed_key_ciphertext, nonce, tag, algorithm) \
     VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id) DO UPDATE SET \
     signed_key_ciphertext = excluded.signed_key_ciphertext, nonce = excluded.nonce, \
     tag = excluded.tag, algorithm = excluded.algorithm";

async fn sealed(
    connection: &mut SqliteConnection,
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

/// Moves a message out of its queues into `rejected_messages`.
pub(super) async fn reject(
    connection: &mut SqliteConnection,
    Rejection { ack, reason }: &Rejection,
) -> Result<AckOutcome, sqlx::Error> {
    let delivered = ack.delivered_time.unwrap_or(ack.time).to_string();
    let rejected = sqlx::query(
        "UPDATE message_metadata SET \
         delivered_time = COALESCE(delivered_time, MAX(sent_time, ?3)), \
         rejected_time = MAX(COALESCE(delivered_time, MAX(sent_time, ?3)), ?4) \
         WHERE message_id = ?1 AND receiver_client_id = ?2 AND acknowledged_time IS NULL AND rejected_time IS NULL \
         RETURNING first_seq, copies",
    )
    .bind(ack.message_id.as_str())
    .bind(ack.client_id.as_str())
    .bind(delivered)
    .bind(ack.time.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = rejected else {
        let fate = fate(connection, &ack.message_id).await?;
        return Ok(Fate::rejection(fate.as_ref(), ack));
    };
    let (first, copies): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    sqlx::query(
        "INSERT INTO rejected_messages (message_id, client_id, receiver_client_id, exchange_name, routing_key, \
         reason, rejected_time, envelope) \
         SELECT d.message_id, d.client_id, d.receiver_client_id, d.exchange_name, d.routing_key, ?, \
         d.rejected_time, m.envelope FROM message_metadata d JOIN messages m ON m.seq = d.first_seq \
         WHERE d.message_id = ? ON CONFLICT DO NOTHING",
    )
    .bind(reason)
    .bind(ack.message_id.as_str())
    .execute(&mut *connection)
    .await?;
    let removed = sqlx::query(
        "DELETE FROM messages WHERE seq >= ? AND seq < ? AND message_id = ? RETURNING queue_id, seq",
    )
    .bind(first)
    .bind(first.saturating_add(copies))
    .bind(ack.message_id.as_str())
    .fetch_all(connection)
    .await?;
    let mut places = removed
        .iter()
        .map(|row| Ok((QueueId(row.try_get(0)?), Seq(row.try_get(1)?))))
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    places.sort_unstable_by_key(|(_, seq)| *seq);
    Ok(AckOutcome::Done(places))
}

async fn fate(connection: &mut SqliteConnection, id: &MessageId) -> Result<Option<Fate>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT receiver_client_id, acknowledged_time IS NOT NULL FROM message_metadata WHERE message_id = ?",
    )
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(Fate {
            receiver: row.try_get(0)?,
            acknowledged: row.try_get(1)?,
        })
    })
    .transpose()
}
