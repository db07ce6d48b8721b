//! Reads that bypass the committer.

use std::collections::HashMap;

use async_trait::async_trait;
use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage};
use ciphermq_protocol::topology::BindingCursor;
use ciphermq_protocol::{
    CertificateChain, ClientId, ExchangeName, Fingerprint, MessageId, QueueName, RoutingKey,
};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, FromRow as _, PgConnection, Row as _};

use super::connect::SessionFactory;
use super::error::error;
use super::pool::{ReadPool, give_back, rows};
use super::session::answer;
use super::sql::{
    BATCHES, HELD_REJECTED, HELD_WAITING, LANE_BATCHES, LANE_START, LANES, REJECTED, SLICES,
};
use super::write::look_up;
use super::{blocks, list};
use crate::model::{
    Binding, Block, Envelopes, HeldBySender, LaneKey, Lanes, ListScope, Listed, ListedBinding,
    ListedExchange, ListedQueue, MessageState, Page, PageLimit, QueueId, SealedKeys, SealedRow,
    Seq, StoredTopology,
};
use crate::store::batch::count;
use crate::store::batch::disposition::disposition_ranges;
use crate::store::batch::id::ranges;
use crate::store::batch::select::{EnvelopeSlice, Selection, WaitingBatch, parse_ends, read_sizes};
use crate::store::batch::settlement::Settlement;
use crate::store::{Error, Reader, corrupt, made_by};

/// Queues that are being purged, and up to which message.
const PURGED: &str = "SELECT r.queue_id, MAX(r.up_to_seq) FROM removals r \
                      JOIN queues q ON q.queue_id = r.queue_id GROUP BY r.queue_id";

/// The connections that read: deliveries never wait for clients' queries.
pub(super) struct PostgresReader {
    deliveries: ReadPool,
    queries: ReadPool,
}

impl PostgresReader {
    /// Creates the reader, which connects at the first read.
    pub(super) fn open(connector: &SessionFactory) -> Self {
        Self {
            deliveries: ReadPool::open(connector),
            queries: ReadPool::open(connector),
        }
    }
}

/// Reads what waits in a lane, as far as it is selected.
async fn read_lane(
    pool: &ReadPool,
    lane: &LaneKey,
    after: Seq,
    selection: Selection,
) -> Result<(Selection, HashMap<i64, EnvelopeSlice>), Error> {
    let mut connection = pool.lend().await?;
    let selection = select(&mut connection, lane, after, selection).await?;
    let pieces = slices(&mut connection, &selection).await?;
    give_back(connection);
    Ok((selection, pieces))
}

/// Selects what waits in a lane, without the envelopes.
async fn select(
    connection: &mut PgConnection,
    lane: &LaneKey,
    after: Seq,
    mut selection: Selection,
) -> Result<Selection, Error> {
    // The batch that holds the sequence number, or the first one after it.
    let start = sqlx::query(LANE_START)
        .bind(lane.queue.0)
        .bind(lane.receiver.as_str())
        .bind(after.0);
    let start = rows(connection, start).await?;
    let begun: Option<i64> = start
        .first()
        .map_or(Ok(None), |row| row.try_get(0))
        .map_err(error)?;
    let mut from = begun.unwrap_or(after.0);
    for step in read_sizes() {
        let batches = sqlx::query(LANE_BATCHES)
            .bind(lane.queue.0)
            .bind(lane.receiver.as_str())
            .bind(from)
            .bind(step);
        let batches = rows(connection, batches).await?;
        let is_last = count(batches.len()) < step;
        for row in &batches {
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
    connection: &mut PgConnection,
    selection: &Selection,
) -> Result<HashMap<i64, EnvelopeSlice>, Error> {
    let slices = selection.slices();
    if slices.is_empty() {
        return Ok(HashMap::new());
    }
    // A batch is far below 2 GiB.
    let int = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    let read = sqlx::query(SLICES)
        .bind(slices.iter().map(|slice| slice.batch).collect::<Vec<_>>())
        .bind(
            slices
                .iter()
                .map(|slice| int(slice.start))
                .collect::<Vec<_>>(),
        )
        .bind(
            slices
                .iter()
                .map(|slice| int(slice.length))
                .collect::<Vec<_>>(),
        );
    let slice = |row: &PgRow| -> Result<(i64, EnvelopeSlice), Error> {
        let piece = EnvelopeSlice::new(
            row.try_get(1).map_err(error)?,
            row.try_get(2).map_err(error)?,
        );
        Ok((row.try_get(0).map_err(error)?, piece))
    };
    rows(connection, read).await?.iter().map(slice).collect()
}

#[async_trait]
impl Reader for PostgresReader {
    async fn topology(&self) -> Result<StoredTopology, Error> {
        let mut connection = self.queries.lend().await?;
        let read = async {
            // One transaction, so that every binding's queue and exchange are there.
            let mut transaction = connection.begin_with(SNAPSHOT).await?;
            let queues: Vec<(i64, String, Option<String>)> = sqlx::query_as(
                "SELECT queue_id, queue_name, made_by FROM queues ORDER BY queue_id",
            )
            .fetch_all(&mut *transaction)
            .await?;
            let exchanges: Vec<(String, Option<String>)> = sqlx::query_as(
                "SELECT exchange_name, made_by FROM exchanges ORDER BY exchange_name",
            )
            .fetch_all(&mut *transaction)
            .await?;
            let bindings: Vec<(String, String, i64, Option<String>)> = sqlx::query_as(
                "SELECT exchange_name, routing_key, queue_id, made_by FROM bindings ORDER BY \
                 exchange_name, routing_key, queue_id",
            )
            .fetch_all(&mut *transaction)
            .await?;
            let purged: Vec<(i64, i64)> =
                sqlx::query_as(PURGED).fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            Ok((queues, exchanges, bindings, purged))
        };
        let (queues, exchanges, bindings, purged) = answer(read).await.map_err(error)?;
        give_back(connection);
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
        let mut connection = self.deliveries.lend().await?;
        let read = async {
            // One transaction, so that nothing is counted twice.
            let mut transaction = connection.begin_with(SNAPSHOT).await?;
            // Not limited in time: nothing else is read before the server has started.
            let unlimited = "SET LOCAL statement_timeout = 0";
            sqlx::query(unlimited).execute(&mut *transaction).await?;
            let waiting: Vec<(String, i64, i64)> = sqlx::query_as(HELD_WAITING)
                .fetch_all(&mut *transaction)
                .await?;
            let rejected: Vec<(String, String, i64, i64)> = sqlx::query_as(HELD_REJECTED)
                .fetch_all(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok((waiting, rejected))
        };
        let (waiting, rejected) = read.await.map_err(error)?;
        give_back(connection);
        Ok(HeldBySender::counted(waiting, rejected))
    }

    async fn lane(&self, lane: &LaneKey, after: Seq, limit: PageLimit) -> Result<Page, Error> {
        let selection = Selection::new(limit);
        let (selection, pieces) = read_lane(&self.deliveries, lane, after, selection).await?;
        selection.page(&pieces)
    }

    async fn messages(&self, seqs: &[Seq], bytes: usize) -> Result<Page, Error> {
        let mut seqs: Vec<i64> = seqs.iter().map(|seq| seq.0).collect();
        seqs.sort_unstable();
        seqs.dedup();
        let mut connection = self.deliveries.lend().await?;
        let batches = rows(&mut connection, sqlx::query(BATCHES).bind(&seqs)).await?;
        let mut selection = Selection::new(PageLimit {
            messages: usize::MAX,
            bytes,
        });
        for row in &batches {
            if !selection.select_among(waiting_batch(row)?, &seqs) {
                break;
            }
        }
        let pieces = slices(&mut connection, &selection).await?;
        give_back(connection);
        selection.page(&pieces)
    }

    async fn lanes(&self, receiver: &ClientId, from: QueueId, limit: u32) -> Result<Lanes, Error> {
        let lanes = sqlx::query(LANES)
            .bind(receiver.as_str())
            .bind(from.0)
            .bind(i64::from(limit).saturating_add(1));
        let lane = |row: PgRow| <(i64, bool)>::from_row(&row).map_err(error);
        let looked = self.queries.rows(lanes).await?.into_iter().map(lane);
        let mut looked: Vec<(i64, bool)> = looked.collect::<Result<_, _>>()?;
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
        let (selection, read) = read_lane(&self.queries, lane, after, selection).await?;
        Ok(Envelopes {
            envelopes: selection.envelopes(&read),
            seen: selection.len(),
            last: selection.last(),
            more: selection.has_more(),
        })
    }

    async fn message_state(&self, message_id: &MessageId) -> Result<Option<MessageState>, Error> {
        let mut connection = self.queries.lend().await?;
        let mut settlement = Settlement::default();
        answer(look_up(
            &mut connection,
            ranges([message_id]),
            &mut settlement,
        ))
        .await
        .map_err(error)?;
        give_back(connection);
        settlement.state(message_id)
    }

    async fn public_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error> {
        let key = sqlx::query(
            "SELECT public_key_ciphertext, nonce, tag, algorithm FROM public_keys WHERE client_id \
             = $1",
        )
        .bind(client_id.as_str());
        self.queries
            .row(key)
            .await?
            .as_ref()
            .map(sealed_row)
            .transpose()
    }

    async fn signed_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error> {
        let key = sqlx::query(
            "SELECT signed_key_ciphertext, nonce, tag, algorithm FROM signed_keys WHERE client_id \
             = $1",
        )
        .bind(client_id.as_str());
        self.queries
            .row(key)
            .await?
            .as_ref()
            .map(sealed_row)
            .transpose()
    }

    async fn sealed_keys(&self) -> Result<SealedKeys, Error> {
        // An empty column of an older server is not a key.
        let read = async |text: &'static str| -> Result<Vec<(String, SealedRow)>, Error> {
            let rows = self.queries.rows(sqlx::query(text)).await?;
            let row = |row: &PgRow| Ok((row.try_get(4).map_err(error)?, sealed_row(row)?));
            rows.iter().map(row).collect()
        };
        let adopted = sqlx::query("SELECT EXISTS (SELECT 1 FROM at_rest_adoption)");
        let adopted = self.queries.row(adopted).await?;
        Ok(SealedKeys {
            public: read(
                "SELECT COALESCE(public_key_ciphertext, ''), COALESCE(nonce, ''), COALESCE(tag, \
                 ''), algorithm, \
                 client_id FROM public_keys",
            )
            .await?,
            signed: read(
                "SELECT signed_key_ciphertext, nonce, tag, algorithm, client_id FROM \
                          signed_keys",
            )
            .await?,
            is_adopted: adopted.is_some_and(|row| row.try_get(0).unwrap_or(true)),
        })
    }

    async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Option<CertificateChain>, Error> {
        let query = match fingerprint {
            Some(fingerprint) => sqlx::query(
                "SELECT chain FROM certificates WHERE client_id = $1 AND fingerprint = $2",
            )
            .bind(client_id.as_str())
            .bind(fingerprint.to_string()),
            None => sqlx::query(
                "SELECT chain FROM certificates WHERE client_id = $1 \
                 ORDER BY commit_number DESC, seen_time DESC LIMIT 1",
            )
            .bind(client_id.as_str()),
        };
        let row = self.queries.row(query).await?;
        let chain = row.map(|row| row.try_get(0)).transpose();
        let chain: Option<String> = chain.map_err(error)?;
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
        let rejected = sqlx::query(REJECTED)
            .bind(client_id.as_str())
            .bind(time)
            .bind(id)
            .bind(i64::from(limit));
        let rejected = self.queries.rows(rejected).await?;
        rejected.iter().map(rejected_message).collect()
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

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

fn waiting_batch(row: &PgRow) -> Result<WaitingBatch, Error> {
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
