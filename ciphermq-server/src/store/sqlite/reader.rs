//! Reads that bypass the committer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage};
use ciphermq_protocol::topology::BindingCursor;
use ciphermq_protocol::{
    CertificateChain, ClientId, ExchangeName, Fingerprint, MessageId, QueueName, RoutingKey,
};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow};

use super::error::{decode, error};
use super::file::DatabaseFile;
use super::sql::{
    BATCHES, HELD_REJECTED, HELD_WAITING, LANE_BATCHES, LANE_START, LANES, LOOK_UP, REJECTED,
    SLICES, json, range_list,
};
use super::{blocks, list};
use crate::model::{
    Binding, Block, Envelopes, HeldBySender, LaneKey, Lanes, ListScope, Listed, ListedBinding,
    ListedExchange, ListedQueue, MessageState, Page, PageLimit, QueueId, SealedKeys, SealedRow,
    Seq, StoredTopology,
};
use crate::store::batch::disposition::disposition_ranges;
use crate::store::batch::id::ranges;
use crate::store::batch::select::{EnvelopeSlice, Selection, WaitingBatch, parse_ends, read_sizes};
use crate::store::batch::settlement::Settlement;
use crate::store::batch::{BatchRow, count, queues};
use crate::store::{Error, Reader, corrupt, made_by};

/// The connections for deliveries, and as many for clients' queries. Reads are short; each
/// connection is a thread with memory of its own, some megabytes while it reads.
const CONNECTIONS: u32 = 2;

/// The time limit of a statement that a client's query runs.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of SQLite's instructions between two looks at the time limit: less than a
/// millisecond's work.
const STEPS: i32 = 10_000;

/// The time limit for getting a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time after which an unused connection is closed: each is a thread, files and a cache.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Queues that are being purged, and up to which message.
const PURGED: &str = "SELECT r.queue_id, MAX(r.up_to_seq) FROM removals r \
                      JOIN queues q ON q.queue_id = r.queue_id GROUP BY r.queue_id";

/// The connections that read: deliveries never wait for clients' queries.
pub(super) struct SqliteReader {
    deliveries: SqlitePool,
    queries: SqlitePool,
}

impl SqliteReader {
    pub(super) async fn open(file: &DatabaseFile) -> Result<Self, Error> {
        let deliveries = pool()
            .min_connections(1)
            .connect_with(file.reading())
            .await
            .map_err(error)?;
        let queries = pool()
            .after_connect(|connection, _| Box::pin(limit(connection)))
            .before_acquire(|connection, _| {
                Box::pin(async { limit(connection).await.map(|()| true) })
            })
            .connect_lazy_with(file.reading());
        Ok(Self {
            deliveries,
            queries,
        })
    }
}

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(None)
}

/// Makes SQLite end what a connection runs once its time limit has passed: whoever asked has been
/// answered by then, and others wait for the connection.
async fn limit(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + QUERY_TIMEOUT;
    connection
        .lock_handle()
        .await?
        .set_progress_handler(STEPS, move || Instant::now() < deadline);
    Ok(())
}

/// Selects what waits in a lane, without the envelopes.
async fn select(
    pool: &SqlitePool,
    lane: &LaneKey,
    after: Seq,
    mut selection: Selection,
) -> Result<Selection, Error> {
    // The batch that holds the sequence number, or the first one after it.
    let begun: Option<i64> = sqlx::query_scalar(LANE_START)
        .bind(lane.queue.0)
        .bind(lane.receiver.as_str())
        .bind(after.0)
        .fetch_one(pool)
        .await
        .map_err(error)?;
    let mut from = begun.unwrap_or(after.0);
    for step in read_sizes() {
        let rows = sqlx::query(LANE_BATCHES)
            .bind(lane.queue.0)
            .bind(lane.receiver.as_str())
            .bind(from)
            .bind(step)
            .fetch_all(pool)
            .await
            .map_err(error)?;
        let is_last = count(rows.len()) < step;
        for row in &rows {
            let batch = waiting_batch(row)?;
            from = batch.first_seq.saturating_add(1);
            if !selection.select_after(batch, after.0) {
                return Ok(selection);
            }
        }
        if is_last {
            return Ok(selection);
        }
    }
    Ok(selection)
}

/// Reads the selected slices.
async fn slices(
    pool: &SqlitePool,
    selection: &Selection,
) -> Result<HashMap<i64, EnvelopeSlice>, Error> {
    let slices = selection.slices();
    if slices.is_empty() {
        return Ok(HashMap::new());
    }
    let slices = slices
        .iter()
        .map(|slice| (slice.batch, slice.start, slice.length));
    let rows = sqlx::query(SLICES)
        .bind(json(slices).map_err(corrupt)?)
        .fetch_all(pool)
        .await
        .map_err(error)?;
    let slice = |row: &SqliteRow| -> Result<(i64, EnvelopeSlice), Error> {
        let piece = EnvelopeSlice::new(
            row.try_get(1).map_err(error)?,
            row.try_get(2).map_err(error)?,
        );
        Ok((row.try_get(0).map_err(error)?, piece))
    };
    rows.iter().map(slice).collect()
}

#[async_trait]
impl Reader for SqliteReader {
    async fn topology(&self) -> Result<StoredTopology, Error> {
        // One transaction, so that every binding's queue and exchange are there.
        let mut transaction = self.queries.begin().await.map_err(error)?;
        let queues: Vec<(i64, String, Option<String>)> =
            sqlx::query_as("SELECT queue_id, queue_name, made_by FROM queues ORDER BY queue_id")
                .fetch_all(&mut *transaction)
                .await
                .map_err(error)?;
        let exchanges: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT exchange_name, made_by FROM exchanges ORDER BY exchange_name")
                .fetch_all(&mut *transaction)
                .await
                .map_err(error)?;
        let bindings: Vec<(String, String, i64, Option<String>)> = sqlx::query_as(
            "SELECT exchange_name, routing_key, queue_id, made_by FROM bindings ORDER BY \
             exchange_name, routing_key, queue_id",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(error)?;
        let purged: Vec<(i64, i64)> = sqlx::query_as(PURGED)
            .fetch_all(&mut *transaction)
            .await
            .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(StoredTopology {
            purged: purged
                .into_iter()
                .map(|(queue, up_to)| (QueueId(queue), Seq(up_to)))
                .collect(),
            queues: queues
                .into_iter()
                .map(|(id, name, by)| {
                    let name = QueueName::new(&name).map_err(corrupt)?;
                    Ok((QueueId(id), name, made_by(by)?))
                })
                .collect::<Result<_, Error>>()?,
            exchanges: exchanges
                .into_iter()
                .map(|(name, by)| {
                    let name = ExchangeName::new(&name).map_err(corrupt)?;
                    Ok((name, made_by(by)?))
                })
                .collect::<Result<_, Error>>()?,
            bindings: bindings
                .into_iter()
                .map(|(exchange, key, queue, by)| {
                    let exchange = ExchangeName::new(&exchange).map_err(corrupt)?;
                    let binding = Binding {
                        exchange,
                        routing_key: RoutingKey::new(&key).map_err(corrupt)?,
                        queue: QueueId(queue),
                    };
                    Ok((binding, made_by(by)?))
                })
                .collect::<Result<_, Error>>()?,
        })
    }

    async fn held(&self) -> Result<HeldBySender, Error> {
        // One transaction, so that nothing is counted twice. Not limited in time: nothing else is
        // read before the server has started.
        let mut transaction = self.deliveries.begin().await.map_err(error)?;
        let waiting: Vec<(String, i64, i64)> = sqlx::query_as(HELD_WAITING)
            .fetch_all(&mut *transaction)
            .await
            .map_err(error)?;
        let rejected: Vec<(String, String, i64, i64)> = sqlx::query_as(HELD_REJECTED)
            .fetch_all(&mut *transaction)
            .await
            .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(HeldBySender::counted(waiting, rejected))
    }

    async fn lane(&self, lane: &LaneKey, after: Seq, limit: PageLimit) -> Result<Page, Error> {
        let selection = select(&self.deliveries, lane, after, Selection::new(limit)).await?;
        selection.page(&slices(&self.deliveries, &selection).await?)
    }

    async fn messages(&self, seqs: &[Seq], bytes: usize) -> Result<Page, Error> {
        let mut seqs: Vec<i64> = seqs.iter().map(|seq| seq.0).collect();
        seqs.sort_unstable();
        seqs.dedup();
        let rows = sqlx::query(BATCHES)
            .bind(json(seqs.iter()).map_err(corrupt)?)
            .fetch_all(&self.deliveries)
            .await
            .map_err(error)?;
        let mut selection = Selection::new(PageLimit {
            messages: usize::MAX,
            bytes,
        });
        for row in &rows {
            if !selection.select_among(waiting_batch(row)?, &seqs) {
                break;
            }
        }
        selection.page(&slices(&self.deliveries, &selection).await?)
    }

    async fn lanes(&self, receiver: &ClientId, from: QueueId, limit: u32) -> Result<Lanes, Error> {
        let mut looked: Vec<(i64, bool)> = sqlx::query_as(LANES)
            .bind(receiver.as_str())
            .bind(from.0)
            .bind(i64::from(limit).saturating_add(1))
            .fetch_all(&self.queries)
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

    async fn envelopes(
        &self,
        lane: &LaneKey,
        after: Seq,
        limit: PageLimit,
    ) -> Result<Envelopes, Error> {
        let selection = Selection::of_first_copies(limit);
        let selection = select(&self.queries, lane, after, selection).await?;
        let read = slices(&self.queries, &selection).await?;
        Ok(Envelopes {
            envelopes: selection.envelopes(&read),
            seen: selection.len(),
            last: selection.last(),
            more: selection.has_more(),
        })
    }

    async fn message_state(&self, message_id: &MessageId) -> Result<Option<MessageState>, Error> {
        let mut settlement = Settlement::default();
        let rows = sqlx::query(LOOK_UP)
            .bind(range_list(&ranges([message_id])).map_err(corrupt)?)
            .fetch_all(&self.queries)
            .await
            .map_err(error)?;
        for row in rows {
            if let Some(batch) = batch_row(&row).map_err(error)? {
                settlement.add(batch).map_err(corrupt)?;
            }
        }
        settlement.state(message_id)
    }

    async fn public_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error> {
        let row = sqlx::query(
            "SELECT public_key_ciphertext, nonce, tag, algorithm FROM public_keys WHERE client_id \
             = ?",
        )
        .bind(client_id.as_str())
        .fetch_optional(&self.queries)
        .await
        .map_err(error)?;
        row.as_ref().map(sealed_row).transpose()
    }

    async fn signed_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error> {
        let row = sqlx::query(
            "SELECT signed_key_ciphertext, nonce, tag, algorithm FROM signed_keys WHERE client_id \
             = ?",
        )
        .bind(client_id.as_str())
        .fetch_optional(&self.queries)
        .await
        .map_err(error)?;
        row.as_ref().map(sealed_row).transpose()
    }

    async fn sealed_keys(&self) -> Result<SealedKeys, Error> {
        let read = async |text: &'static str| -> Result<Vec<(String, SealedRow)>, Error> {
            let rows = sqlx::query(text)
                .fetch_all(&self.queries)
                .await
                .map_err(error)?;
            let row = |row: &SqliteRow| Ok((row.try_get(4).map_err(error)?, sealed_row(row)?));
            rows.iter().map(row).collect()
        };
        Ok(SealedKeys {
            public: read(
                "SELECT public_key_ciphertext, nonce, tag, algorithm, client_id FROM public_keys",
            )
            .await?,
            signed: read(
                "SELECT signed_key_ciphertext, nonce, tag, algorithm, client_id FROM signed_keys",
            )
            .await?,
            is_adopted: sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM at_rest_adoption)")
                .fetch_one(&self.queries)
                .await
                .map_err(error)?,
        })
    }

    async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Option<CertificateChain>, Error> {
        let query = match fingerprint {
            Some(fingerprint) => sqlx::query_scalar(
                "SELECT chain FROM certificates WHERE client_id = ? AND fingerprint = ?",
            )
            .bind(client_id.as_str())
            .bind(fingerprint.to_string()),
            None => sqlx::query_scalar(
                "SELECT chain FROM certificates WHERE client_id = ? \
                 ORDER BY commit_number DESC, seen_time DESC LIMIT 1",
            )
            .bind(client_id.as_str()),
        };
        let chain: Option<String> = query.fetch_optional(&self.queries).await.map_err(error)?;
        Ok(chain.map(|chain| CertificateChain::from_text(&chain)))
    }

    async fn rejected(
        &self,
        client_id: &ClientId,
        after: Option<&RejectedCursor>,
        limit: u32,
    ) -> Result<Vec<RejectedMessage>, Error> {
        // Every time sorts after the empty text.
        let (time, id) = after.map_or(("", ""), |after| {
            (after.rejected_time.as_str(), after.message_id.as_str())
        });
        let rows = sqlx::query(REJECTED)
            .bind(client_id.as_str())
            .bind(time)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&self.queries)
            .await
            .map_err(error)?;
        rows.iter().map(rejected_message).collect()
    }

    async fn list_queues(
        &self,
        scope: &ListScope,
        after: Option<&QueueName>,
        only: Option<&QueueName>,
    ) -> Result<Listed<ListedQueue, QueueName>, Error> {
        list::queues(&self.queries, scope, after, only).await
    }

    async fn list_exchanges(
        &self,
        scope: &ListScope,
        after: Option<&ExchangeName>,
        only: Option<&ExchangeName>,
    ) -> Result<Listed<ListedExchange, ExchangeName>, Error> {
        list::exchanges(&self.queries, scope, after, only).await
    }

    async fn list_bindings(
        &self,
        scope: &ListScope,
        after: Option<&BindingCursor>,
        exchange: Option<&ExchangeName>,
        queue: Option<&QueueName>,
    ) -> Result<Listed<ListedBinding, BindingCursor>, Error> {
        list::bindings(&self.queries, scope, after, exchange, queue).await
    }

    async fn blocked_clients(&self) -> Result<Vec<Block>, Error> {
        blocks::all(&self.queries).await
    }

    async fn close(&self) {
        tokio::join!(self.deliveries.close(), self.queries.close());
    }
}

/// Reads the batch of a row of [`LOOK_UP`], if there is one.
fn batch_row(row: &SqliteRow) -> Result<Option<BatchRow>, sqlx::Error> {
    let Some(first_seq) = row.try_get(2)? else {
        return Ok(None);
    };
    Ok(Some(BatchRow {
        first_seq,
        messages: row.try_get(3)?,
        queues: queues(row.try_get(4)?).map_err(decode)?,
        stream: row.try_get(5)?,
        position: row.try_get(6)?,
        sender: row.try_get(7)?,
        receiver: row.try_get(8)?,
        sent_time: row.try_get(9)?,
        route: row.try_get::<Option<_>, _>(13)?.zip(row.try_get(14)?),
        has_suite: row.try_get(10)?,
        digests: row.try_get(11)?,
        bytes: row.try_get(15)?,
        dispositions: disposition_ranges(row.try_get(12)?).map_err(decode)?,
    }))
}

fn waiting_batch(row: &SqliteRow) -> Result<WaitingBatch, Error> {
    let json = |index: usize| row.try_get::<&str, _>(index).map_err(error);
    Ok(WaitingBatch {
        first_seq: row.try_get(0).map_err(error)?,
        copy: row.try_get(1).map_err(error)?,
        copies: row.try_get(2).map_err(error)?,
        stream: row.try_get(3).map_err(error)?,
        position: row.try_get(4).map_err(error)?,
        sent_time: row.try_get(5).map_err(error)?,
        ends: parse_ends(json(6)?).map_err(corrupt)?,
        dispositions: disposition_ranges(json(7)?).map_err(corrupt)?,
        shared_bytes: row.try_get(8).map_err(error)?,
        is_first: row.try_get(9).map_err(error)?,
    })
}

fn sealed_row(row: &SqliteRow) -> Result<SealedRow, Error> {
    Ok(SealedRow {
        ciphertext: row.try_get(0).map_err(error)?,
        nonce: row.try_get(1).map_err(error)?,
        tag: row.try_get(2).map_err(error)?,
        algorithm: row.try_get(3).map_err(error)?,
    })
}

fn rejected_message(row: &SqliteRow) -> Result<RejectedMessage, Error> {
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
