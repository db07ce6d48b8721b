//! Reads, past the committer.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage};
use ciphermq_protocol::{ClientId, ExchangeName, MessageId, QueueName, RoutingKey};
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};

use super::connect::Connector;
use super::error::error;
use super::session::prepare;
use crate::store::model::{
    Envelopes, LaneKey, Lanes, MessageState, Page, PageLimit, QueueId, SealedRow, Seq, StoredMessage,
    Topology,
};
use crate::store::plan::{count, fitting};
use crate::store::{Error, Reader, corrupt};

/// More would not make the reads faster.
const CONNECTIONS: u32 = 4;

/// How long to wait for one of them, connecting included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// After how long one that is not needed is closed: each is a process on the other side.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct PostgresReader {
    pool: PgPool,
}

impl PostgresReader {
    /// Connects when something is read.
    pub(super) fn open(connector: &Connector) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            // A connection that PostgreSQL has dropped is found out before it is used.
            .test_before_acquire(true)
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect_lazy_with(connector.options().clone());
        Self { pool }
    }
}

#[async_trait]
impl Reader for PostgresReader {
    async fn topology(&self) -> Result<Topology, Error> {
        // One transaction, so that every binding's queue and exchange are there.
        let mut transaction = self.pool.begin_with(SNAPSHOT).await.map_err(error)?;
        let queues: Vec<(i64, String)> =
            sqlx::query_as("SELECT queue_id, queue_name FROM queues ORDER BY queue_id")
                .fetch_all(&mut *transaction)
                .await
                .map_err(error)?;
        let exchanges: Vec<String> =
            sqlx::query_scalar("SELECT exchange_name FROM exchanges ORDER BY exchange_name")
                .fetch_all(&mut *transaction)
                .await
                .map_err(error)?;
        let bindings: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT exchange_name, routing_key, queue_id FROM bindings ORDER BY exchange_name, routing_key, queue_id",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(Topology {
            queues: queues
                .into_iter()
                .map(|(id, name)| Ok((QueueId(id), QueueName::new(&name).map_err(corrupt)?)))
                .collect::<Result<_, Error>>()?,
            exchanges: exchanges
                .iter()
                .map(|name| ExchangeName::new(name).map_err(corrupt))
                .collect::<Result<_, Error>>()?,
            bindings: bindings
                .into_iter()
                .map(|(exchange, key, queue)| {
                    let exchange = ExchangeName::new(&exchange).map_err(corrupt)?;
                    Ok((exchange, RoutingKey::new(&key).map_err(corrupt)?, QueueId(queue)))
                })
                .collect::<Result<_, Error>>()?,
        })
    }

    async fn lane(&self, lane: &LaneKey, after: Seq, limit: PageLimit) -> Result<Page, Error> {
        // First the sizes alone: no more envelopes are read than are handed out.
        let mut sizes: Vec<(i64, i64)> = sqlx::query_as(LANE_SIZES)
            .bind(lane.queue.0)
            .bind(lane.receiver.as_str())
            .bind(after.0)
            .bind(count(limit.messages).saturating_add(1))
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        let found = sizes.len();
        sizes.truncate(limit.messages);
        sizes.truncate(fitting(&sizes, limit.bytes));
        let Some(&(last, _)) = sizes.last() else {
            return Ok(Page {
                messages: Vec::new(),
                more: found > 0,
            });
        };
        let rows = sqlx::query(LANE)
            .bind(lane.queue.0)
            .bind(lane.receiver.as_str())
            .bind(after.0)
            .bind(last)
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        page(&rows, found > sizes.len())
    }

    async fn messages(&self, seqs: &[Seq], bytes: usize) -> Result<Page, Error> {
        let mut sizes: Vec<(i64, i64)> =
            sqlx::query_as("SELECT seq, envelope_bytes FROM messages WHERE seq = ANY($1) ORDER BY seq")
                .bind(seqs.iter().map(|seq| seq.0).collect::<Vec<_>>())
                .fetch_all(&self.pool)
                .await
                .map_err(error)?;
        let found = sizes.len();
        sizes.truncate(fitting(&sizes, bytes));
        let rows = sqlx::query(
            "SELECT m.seq, m.message_id, \
             COALESCE(m.envelope, (SELECT f.envelope FROM messages f WHERE f.seq = m.first_seq)) \
             FROM messages m WHERE m.seq = ANY($1) ORDER BY m.seq",
        )
        .bind(sizes.iter().map(|&(seq, _)| seq).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        page(&rows, found > sizes.len())
    }

    async fn lanes(&self, receiver: &ClientId, from: QueueId, limit: u32) -> Result<Lanes, Error> {
        let mut looked: Vec<(i64, bool)> = sqlx::query_as(LANES)
            .bind(receiver.as_str())
            .bind(from.0)
            .bind(i64::from(limit).saturating_add(1))
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        let next = (count(looked.len()) > i64::from(limit))
            .then(|| looked.pop())
            .flatten();
        Ok(Lanes {
            queues: looked
                .into_iter()
                .filter_map(|(queue, waits)| waits.then_some(QueueId(queue)))
                .collect(),
            next: next.map(|(queue, _)| QueueId(queue)),
        })
    }

    async fn envelopes(&self, lane: &LaneKey, after: Seq, limit: PageLimit) -> Result<Envelopes, Error> {
        let mut sizes: Vec<(i64, i64)> = sqlx::query_as(ENVELOPE_SIZES)
            .bind(lane.queue.0)
            .bind(lane.receiver.as_str())
            .bind(after.0)
            .bind(count(limit.messages).saturating_add(1))
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        let found = sizes.len();
        sizes.truncate(limit.messages);
        sizes.truncate(fitting(&sizes, limit.bytes));
        let mut envelopes = Vec::new();
        if let Some(&(last, _)) = sizes.last() {
            let rows = sqlx::query(ENVELOPES)
                .bind(lane.queue.0)
                .bind(lane.receiver.as_str())
                .bind(after.0)
                .bind(last)
                .fetch_all(&self.pool)
                .await
                .map_err(error)?;
            let envelope = |row: &PgRow| -> Result<_, Error> {
                let bytes: Vec<u8> = row.try_get(1).map_err(error)?;
                Ok((row.try_get(0).map_err(error)?, Bytes::from(bytes)))
            };
            envelopes = rows.iter().map(envelope).collect::<Result<_, _>>()?;
        }
        Ok(Envelopes {
            envelopes,
            seen: sizes.len(),
            last: sizes.last().map(|&(seq, _)| Seq(seq)),
            more: found > sizes.len(),
        })
    }

    async fn message_state(&self, message_id: &MessageId) -> Result<Option<MessageState>, Error> {
        // One transaction, so that what waits belongs to what was found.
        let mut transaction = self.pool.begin_with(SNAPSHOT).await.map_err(error)?;
        let found: Option<(Option<String>, Option<String>, Option<i64>, i64)> = sqlx::query_as(
            "SELECT client_id, receiver_client_id, first_seq, copies FROM message_metadata WHERE message_id = $1",
        )
        .bind(message_id.as_str())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error)?;
        // Rows of older servers have neither receiver nor sequence number, and theirs need not have a sender.
        let Some((Some(sender), receiver, first, copies)) = found else {
            return Ok(None);
        };
        let first = first.unwrap_or_default();
        let waiting: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT queue_id, seq FROM messages WHERE seq >= $1 AND seq < $2 AND message_id = $3 ORDER BY seq",
        )
        .bind(first)
        .bind(first.saturating_add(copies))
        .bind(message_id.as_str())
        .fetch_all(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(Some(MessageState {
            sender: ClientId::new(&sender).map_err(corrupt)?,
            receiver: receiver
                .map(|receiver| ClientId::new(&receiver).map_err(corrupt))
                .transpose()?,
            waiting: waiting
                .into_iter()
                .map(|(queue, seq)| (QueueId(queue), Seq(seq)))
                .collect(),
        }))
    }

    async fn public_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error> {
        let row = sqlx::query(
            "SELECT public_key_ciphertext, nonce, tag, algorithm FROM public_keys WHERE client_id = $1",
        )
        .bind(client_id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(error)?;
        row.as_ref().map(sealed_row).transpose()
    }

    async fn signed_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error> {
        let row = sqlx::query(
            "SELECT signed_key_ciphertext, nonce, tag, algorithm FROM signed_keys WHERE client_id = $1",
        )
        .bind(client_id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(error)?;
        row.as_ref().map(sealed_row).transpose()
    }

    async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let query = match fingerprint {
            Some(fingerprint) => {
                sqlx::query_scalar("SELECT chain FROM certificates WHERE client_id = $1 AND fingerprint = $2")
                    .bind(client_id.as_str())
                    .bind(fingerprint.to_owned())
            }
            None => sqlx::query_scalar(
                "SELECT chain FROM certificates WHERE client_id = $1 \
                 ORDER BY commit_number DESC, seen_time DESC LIMIT 1",
            )
            .bind(client_id.as_str()),
        };
        query.fetch_optional(&self.pool).await.map_err(error)
    }

    async fn rejected(
        &self,
        client_id: &ClientId,
        after: Option<&RejectedCursor>,
        limit: u32,
    ) -> Result<Vec<RejectedMessage>, Error> {
        // Every time comes after the empty text.
        let (time, id) = after.map_or(("", ""), |after| {
            (after.rejected_time.as_str(), after.message_id.as_str())
        });
        let rows = sqlx::query(
            "SELECT message_id, client_id, receiver_client_id, exchange_name, routing_key, reason, rejected_time \
             FROM rejected_messages WHERE (receiver_client_id = $1 OR client_id = $1) \
             AND (rejected_time, message_id) > ($2, $3) ORDER BY rejected_time, message_id LIMIT $4",
        )
        .bind(client_id.as_str())
        .bind(time)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        rows.iter().map(rejected_message).collect()
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const LANE_SIZES: &str = "SELECT seq, envelope_bytes FROM messages \
                                     WHERE queue_id = $1 AND receiver_client_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";

const LANE: &str = "SELECT m.seq, m.message_id, \
                               COALESCE(m.envelope, (SELECT f.envelope FROM messages f WHERE f.seq = m.first_seq)) \
                               FROM messages m WHERE m.queue_id = $1 AND m.receiver_client_id = $2 \
                               AND m.seq > $3 AND m.seq <= $4 ORDER BY m.seq";

// `LIMIT 1` keeps it a look into the index for each queue, whatever the planner thinks of the numbers.
const LANES: &str = "SELECT q.queue_id, w.one IS NOT NULL \
                     FROM (SELECT queue_id FROM queues WHERE queue_id >= $2 ORDER BY queue_id LIMIT $3) q \
                     LEFT JOIN LATERAL (SELECT 1 AS one FROM messages m \
                     WHERE m.queue_id = q.queue_id AND m.receiver_client_id = $1 LIMIT 1) w ON TRUE \
                     ORDER BY q.queue_id";

const ENVELOPE_SIZES: &str = "SELECT seq, CASE WHEN seq = first_seq THEN envelope_bytes ELSE 0 END FROM messages \
                              WHERE queue_id = $1 AND receiver_client_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";

const ENVELOPES: &str = "SELECT d.sent_time, m.envelope \
                         FROM messages m LEFT JOIN message_metadata d ON d.message_id = m.message_id \
                         WHERE m.queue_id = $1 AND m.receiver_client_id = $2 AND m.seq > $3 AND m.seq <= $4 \
                         AND m.seq = m.first_seq ORDER BY m.seq";

fn page(rows: &[PgRow], more: bool) -> Result<Page, Error> {
    let messages = rows
        .iter()
        .map(|row| {
            let (seq, id): (i64, &str) = (row.try_get(0).map_err(error)?, row.try_get(1).map_err(error)?);
            let envelope: Vec<u8> = row.try_get(2).map_err(error)?;
            Ok(StoredMessage {
                seq: Seq(seq),
                message_id: MessageId::new(id).map_err(corrupt)?,
                envelope: Bytes::from(envelope),
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(Page { messages, more })
}

fn sealed_row(row: &PgRow) -> Result<SealedRow, Error> {
    Ok(SealedRow {
        ciphertext: row.try_get(0).map_err(error)?,
        nonce: row.try_get(1).map_err(error)?,
        tag: row.try_get(2).map_err(error)?,
        algorithm: row.try_get(3).map_err(error)?,
    })
}

fn rejected_message(row: &PgRow) -> Result<RejectedMessage, Error> {
    let text = |index: usize| row.try_get::<&str, _>(index).map_err(error);
    Ok(RejectedMessage {
        message_id: text(0)?.parse().map_err(corrupt)?,
        sender: text(1)?.parse().map_err(corrupt)?,
        receiver: text(2)?.parse().map_err(corrupt)?,
        exchange: text(3)?.parse().map_err(corrupt)?,
        routing_key: text(4)?.parse().map_err(corrupt)?,
        reason: text(5)?.to_owned(),
        rejected_time: text(6)?.to_owned(),
    })
}
