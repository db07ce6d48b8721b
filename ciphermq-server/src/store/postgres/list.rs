//! Lists of queues, exchanges and bindings.
//!
//! Each examines a bounded number of rows in their order, by an index, and leaves out what the
//! client may not see.

use ciphermq_protocol::topology::BindingCursor;
use ciphermq_protocol::{ExchangeName, QueueName};
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, Row as _};

use super::error::error;
use super::pool::ReadPool;
use crate::model::{
    ListScope, Listed, ListedBinding, ListedExchange, ListedQueue, MadeBy, QueueId,
};
use crate::store::batch::list::{COUNTED_BATCHES, listed};
use crate::store::{Error, corrupt};

/// `$1` is the client, or NULL for an administrator; `$2` the name before, `$3` the only name, `$4`
/// the limit.
const QUEUES: &str = "SELECT q.queue_id, q.queue_name, q.made_by, \
     (SELECT COUNT(*) FROM bindings b WHERE b.queue_id = q.queue_id), \
     $1::text IS NULL OR q.made_by IS NOT DISTINCT FROM $1 \
     OR EXISTS (SELECT 1 FROM bindings b WHERE b.queue_id = q.queue_id AND b.made_by = $1) \
     OR EXISTS (SELECT 1 FROM waiting w WHERE w.queue_id = q.queue_id \
     AND w.receiver_client_id = $1) \
     FROM queues q WHERE q.queue_name > $2 AND ($3::text IS NULL OR q.queue_name = $3) \
     ORDER BY q.queue_name LIMIT $4";

/// Counts what waits in some queues, in some batches, for one receiver or for all.
const WAITING: &str = "SELECT g.queue, counted.messages, counted.batches \
     FROM unnest($1::int8[], $2::text[]) AS g (queue, receiver) CROSS JOIN LATERAL ( \
     SELECT COALESCE(SUM(b.messages - COALESCE((SELECT SUM(f.messages) FROM fates f \
     WHERE f.first_seq = b.first_seq AND (f.acknowledged_time IS NOT NULL \
     OR f.rejected_time IS NOT NULL)), 0)), 0)::int8 AS messages, COUNT(*) AS batches \
     FROM (SELECT w.first_seq FROM waiting w WHERE w.queue_id = g.queue AND (g.receiver IS NULL \
     OR w.receiver_client_id = g.receiver) LIMIT $3) s \
     JOIN batches b ON b.first_seq = s.first_seq) counted";

const EXCHANGES: &str = "SELECT x.exchange_name, x.made_by, \
     (SELECT COUNT(*) FROM bindings b WHERE b.exchange_name = x.exchange_name), \
     $1::text IS NULL OR x.made_by IS NOT DISTINCT FROM $1 \
     OR EXISTS (SELECT 1 FROM bindings b WHERE b.made_by = $1 \
     AND b.exchange_name = x.exchange_name) \
     FROM exchanges x WHERE x.exchange_name > $2 AND ($3::text IS NULL OR x.exchange_name = $3) \
     ORDER BY x.exchange_name LIMIT $4";

const BINDINGS: &str = "SELECT b.exchange_name, b.routing_key, b.queue_id, q.queue_name, \
     b.made_by, ($1::text IS NULL OR b.made_by IS NOT DISTINCT FROM $1 OR q.made_by IS NOT DISTINCT FROM $1 \
     OR EXISTS (SELECT 1 FROM exchanges x WHERE x.exchange_name = b.exchange_name \
     AND x.made_by = $1)) \
     AND ($6::text IS NULL OR q.queue_name = $6) AND ($5::text IS NULL OR b.exchange_name = $5) \
     FROM (SELECT * FROM bindings WHERE (exchange_name, routing_key, queue_id) > ($2, $3, $4) \
     ORDER BY exchange_name, routing_key, queue_id LIMIT $7) b \
     JOIN queues q ON q.queue_id = b.queue_id \
     ORDER BY b.exchange_name, b.routing_key, b.queue_id";

pub(super) async fn queues(
    pool: &ReadPool,
    scope: &ListScope,
    after: Option<&QueueName>,
    only: Option<&QueueName>,
) -> Result<Listed<ListedQueue, QueueName>, Error> {
    let client = scope.visible_to.as_ref().map(|client| client.as_str());
    let rows = sqlx::query(QUEUES)
        .bind(client)
        .bind(after.map_or("", |after| after.as_str()))
        .bind(only.map(QueueName::as_str))
        .bind(i64::from(scope.limit));
    let rows = pool.rows(rows).await?;
    let mut queues = Vec::with_capacity(rows.len());
    for row in &rows {
        queues.push(ListedQueue {
            id: QueueId(row.try_get(0).map_err(error)?),
            name: name(row, 1)?,
            made_by: made_by(row, 2)?,
            bindings: number(row, 3)?,
            messages: 0,
            more_messages: false,
            is_visible: row.try_get(4).map_err(error)?,
        });
    }
    count(pool, scope, &mut queues).await?;
    Ok(listed(queues, scope, |queue| queue.name.clone(), |_| true))
}

/// Counts the messages of those queues that the client may see.
async fn count(
    pool: &ReadPool,
    scope: &ListScope,
    queues: &mut [ListedQueue],
) -> Result<(), Error> {
    let visible = || queues.iter().filter(|queue| queue.is_visible);
    let receiver = |queue: &ListedQueue| {
        let client = scope.visible_to.as_ref();
        client
            .filter(|client| queue.made_by.as_ref() != Some(client))
            .map(ToString::to_string)
    };
    let counts = sqlx::query(WAITING)
        .bind(visible().map(|queue| queue.id.0).collect::<Vec<_>>())
        .bind(visible().map(receiver).collect::<Vec<_>>())
        .bind(COUNTED_BATCHES);
    let counts = pool.rows(counts).await?;
    let count = |row: &PgRow| <(i64, i64, i64)>::from_row(row).map_err(error);
    let counts: Vec<(i64, i64, i64)> = counts.iter().map(count).collect::<Result<_, _>>()?;
    for (id, messages, batches) in counts {
        for queue in queues.iter_mut().filter(|queue| queue.id == QueueId(id)) {
            queue.messages = messages.unsigned_abs();
            queue.more_messages = batches >= COUNTED_BATCHES;
        }
    }
    Ok(())
}

pub(super) async fn exchanges(
    pool: &ReadPool,
    scope: &ListScope,
    after: Option<&ExchangeName>,
    only: Option<&ExchangeName>,
) -> Result<Listed<ListedExchange, ExchangeName>, Error> {
    let rows = sqlx::query(EXCHANGES)
        .bind(scope.visible_to.as_ref().map(|client| client.as_str()))
        .bind(after.map_or("", |after| after.as_str()))
        .bind(only.map(ExchangeName::as_str))
        .bind(i64::from(scope.limit));
    let rows = pool.rows(rows).await?;
    let exchange = |row: &PgRow| {
        let exchange = ListedExchange {
            name: name(row, 0)?,
            made_by: made_by(row, 1)?,
            bindings: number(row, 2)?,
        };
        Ok((exchange, row.try_get(3).map_err(error)?))
    };
    let rows: Vec<(ListedExchange, bool)> =
        rows.iter().map(exchange).collect::<Result<_, Error>>()?;
    Ok(listed(
        rows,
        scope,
        |(row, _)| row.name.clone(),
        |(_, visible)| *visible,
    )
    .map(|row| row.0))
}

pub(super) async fn bindings(
    pool: &ReadPool,
    scope: &ListScope,
    after: Option<&BindingCursor>,
    exchange: Option<&ExchangeName>,
    queue: Option<&QueueName>,
) -> Result<Listed<ListedBinding, BindingCursor>, Error> {
    // The bindings of one exchange begin before its first routing key.
    let start = exchange.map_or("", |exchange| exchange.as_str());
    let (from, key, number) = after.map_or((start, "", i64::MIN), |after| {
        (
            after.exchange.as_str(),
            after.routing_key.as_str(),
            after.queue,
        )
    });
    let rows = sqlx::query(BINDINGS)
        .bind(scope.visible_to.as_ref().map(|client| client.as_str()))
        .bind(from)
        .bind(key)
        .bind(number)
        .bind(exchange.map(ExchangeName::as_str))
        .bind(queue.map(QueueName::as_str))
        .bind(i64::from(scope.limit));
    let rows = pool.rows(rows).await?;
    let binding = |row: &PgRow| {
        let binding = ListedBinding {
            exchange: name(row, 0)?,
            routing_key: name(row, 1)?,
            queue: name(row, 3)?,
            made_by: made_by(row, 4)?,
        };
        let cursor = BindingCursor {
            exchange: binding.exchange.clone(),
            routing_key: binding.routing_key.clone(),
            queue: row.try_get(2).map_err(error)?,
        };
        Ok((binding, cursor, row.try_get(5).map_err(error)?))
    };
    let rows: Vec<(ListedBinding, BindingCursor, bool)> =
        rows.iter().map(binding).collect::<Result<_, Error>>()?;
    let listed = listed(rows, scope, |row| row.1.clone(), |row| row.2).map(|row| row.0);
    Ok(listed.within(exchange))
}

fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &PgRow,
    column: usize,
) -> Result<T, Error> {
    row.try_get::<&str, _>(column)
        .map_err(error)?
        .parse()
        .map_err(corrupt)
}

fn made_by(row: &PgRow, column: usize) -> Result<MadeBy, Error> {
    let client: Option<&str> = row.try_get(column).map_err(error)?;
    client
        .map(|client| client.parse().map_err(corrupt))
        .transpose()
}

fn number(row: &PgRow, column: usize) -> Result<u64, Error> {
    Ok(row.try_get::<i64, _>(column).map_err(error)?.unsigned_abs())
}
