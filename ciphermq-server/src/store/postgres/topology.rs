//! Changes of queues, exchanges and bindings.

use ciphermq_protocol::{ClientId, ExchangeName, QueueName, RoutingKey};
use sqlx::postgres::PgArguments;
use sqlx::query::QueryScalar;
use sqlx::{PgConnection, Postgres};

use super::error::decode;
use crate::model::{Binding, ChangeOutcome, QueueId, Refusal, Requester, RouteLimits, Seq, Time};
use crate::quota::Rooms;
use crate::store::batch::removal::ALL;

type Outcome = Result<ChangeOutcome, sqlx::Error>;
type Exists<'a> = QueryScalar<'a, Postgres, i32, PgArguments>;

pub(super) async fn declare_queue(
    connection: &mut PgConnection,
    queue: &QueueName,
    made_by: &ClientId,
    rooms: &mut Rooms,
) -> Outcome {
    let found = sqlx::query_scalar("SELECT queue_id FROM queues WHERE queue_name = $1")
        .bind(queue.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(id) = found {
        return Ok(ChangeOutcome::Queue(QueueId(id)));
    }
    if let Err(quota) = rooms.take_queue(made_by) {
        return Ok(ChangeOutcome::Refused(Refusal::Quota(quota)));
    }
    let id = sqlx::query_scalar(
        "INSERT INTO queues (queue_name, made_by) VALUES ($1, $2) RETURNING queue_id",
    )
    .bind(queue.as_str())
    .bind(made_by.as_str())
    .fetch_one(connection)
    .await?;
    Ok(ChangeOutcome::Queue(QueueId(id)))
}

pub(super) async fn declare_exchange(
    connection: &mut PgConnection,
    exchange: &ExchangeName,
    made_by: &ClientId,
    rooms: &mut Rooms,
) -> Outcome {
    let find = sqlx::query_scalar("SELECT 1 FROM exchanges WHERE exchange_name = $1");
    if exists(connection, find.bind(exchange.as_str())).await? {
        return Ok(ChangeOutcome::Done);
    }
    if let Err(quota) = rooms.take_exchange(made_by) {
        return Ok(ChangeOutcome::Refused(Refusal::Quota(quota)));
    }
    sqlx::query("INSERT INTO exchanges (exchange_name, made_by) VALUES ($1, $2)")
        .bind(exchange.as_str())
        .bind(made_by.as_str())
        .execute(connection)
        .await?;
    Ok(ChangeOutcome::Done)
}

pub(super) async fn bind(
    connection: &mut PgConnection,
    binding: &Binding,
    made_by: &ClientId,
    limits: RouteLimits,
    rooms: &mut Rooms,
) -> Outcome {
    let Binding {
        exchange,
        routing_key,
        queue,
    } = binding;
    let find = sqlx::query_scalar("SELECT 1 FROM queues WHERE queue_id = $1").bind(queue.0);
    if !exists(connection, find).await? {
        return Ok(ChangeOutcome::Refused(Refusal::NoQueue));
    }
    let find = sqlx::query_scalar("SELECT 1 FROM exchanges WHERE exchange_name = $1");
    if !exists(connection, find.bind(exchange.as_str())).await? {
        return Ok(ChangeOutcome::Refused(Refusal::NoExchange));
    }
    let (is_bound, queues, of_client): (bool, i64, i64) = sqlx::query_as(
        "SELECT COUNT(*) FILTER (WHERE queue_id = $3) > 0, COUNT(*), \
         COUNT(*) FILTER (WHERE made_by = $4) \
         FROM bindings WHERE exchange_name = $1 AND routing_key = $2",
    )
    .bind(exchange.as_str())
    .bind(routing_key.as_str())
    .bind(queue.0)
    .bind(made_by.as_str())
    .fetch_one(&mut *connection)
    .await?;
    if is_bound {
        return Ok(ChangeOutcome::Done);
    }
    let number = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
    if let Some(refusal) = limits.refusal(number(queues), number(of_client)) {
        return Ok(ChangeOutcome::Refused(refusal));
    }
    if let Err(quota) = rooms.take_binding(made_by) {
        return Ok(ChangeOutcome::Refused(Refusal::Quota(quota)));
    }
    sqlx::query(
        "INSERT INTO bindings (exchange_name, routing_key, queue_id, made_by) VALUES ($1, $2, $3, \
         $4)",
    )
    .bind(exchange.as_str())
    .bind(routing_key.as_str())
    .bind(queue.0)
    .bind(made_by.as_str())
    .execute(connection)
    .await?;
    Ok(ChangeOutcome::Done)
}

pub(super) async fn unbind(
    connection: &mut PgConnection,
    binding: &Binding,
    by: &Requester,
) -> Outcome {
    let Binding {
        exchange,
        routing_key,
        queue,
    } = binding;
    let made_by: Option<Option<String>> = sqlx::query_scalar(
        "SELECT made_by FROM bindings WHERE exchange_name = $1 AND routing_key = $2 AND queue_id \
         = $3",
    )
    .bind(exchange.as_str())
    .bind(routing_key.as_str())
    .bind(queue.0)
    .fetch_optional(&mut *connection)
    .await?;
    let refusal = match made_by {
        None => Refusal::NoBinding,
        Some(made_by) if !by.may_remove(made_by.as_deref()) => Refusal::MadeByAnother,
        Some(_) => {
            sqlx::query(
                "DELETE FROM bindings WHERE exchange_name = $1 AND routing_key = $2 AND queue_id \
                 = $3",
            )
            .bind(exchange.as_str())
            .bind(routing_key.as_str())
            .bind(queue.0)
            .execute(connection)
            .await?;
            return Ok(ChangeOutcome::Done);
        }
    };
    Ok(ChangeOutcome::Refused(refusal))
}

pub(super) async fn delete_exchange(
    connection: &mut PgConnection,
    exchange: &ExchangeName,
    if_unused: bool,
    by: &Requester,
) -> Outcome {
    let name = exchange.as_str();
    let made_by: Option<Option<String>> =
        sqlx::query_scalar("SELECT made_by FROM exchanges WHERE exchange_name = $1")
            .bind(name)
            .fetch_optional(&mut *connection)
            .await?;
    let bound = sqlx::query_scalar("SELECT 1 FROM bindings WHERE exchange_name = $1 LIMIT 1");
    let by_others = sqlx::query_scalar(
        "SELECT 1 FROM bindings WHERE exchange_name = $1 AND made_by IS DISTINCT FROM $2 LIMIT 1",
    );
    let refusal = match made_by {
        None => Refusal::NoExchange,
        Some(made_by) if !by.may_remove(made_by.as_deref()) => Refusal::MadeByAnother,
        Some(_) if if_unused && exists(connection, bound.bind(name)).await? => Refusal::Bound,
        Some(_)
            if !by.is_administrator
                && exists(connection, by_others.bind(name).bind(by.client_id.as_str())).await? =>
        {
            Refusal::BoundByAnother
        }
        Some(_) => {
            for text in [
                "DELETE FROM bindings WHERE exchange_name = $1",
                "DELETE FROM exchanges WHERE exchange_name = $1",
            ] {
                sqlx::query(text)
                    .bind(name)
                    .execute(&mut *connection)
                    .await?;
            }
            return Ok(ChangeOutcome::Done);
        }
    };
    Ok(ChangeOutcome::Refused(refusal))
}

pub(super) async fn delete_queue(
    connection: &mut PgConnection,
    queue: QueueId,
    name: &QueueName,
    if_empty: bool,
    by: &Requester,
    time: Time,
) -> Outcome {
    if let Some(refusal) = refuse_removal(connection, queue, by).await? {
        return Ok(ChangeOutcome::Refused(refusal));
    }
    if if_empty && exists(connection, sqlx::query_scalar(WAITS).bind(queue.0)).await? {
        return Ok(ChangeOutcome::Refused(Refusal::NotEmpty));
    }
    let by_others = sqlx::query_scalar(
        "SELECT 1 FROM bindings WHERE queue_id = $1 AND made_by IS DISTINCT FROM $2 LIMIT 1",
    )
    .bind(queue.0)
    .bind(by.client_id.as_str());
    if !by.is_administrator && exists(connection, by_others).await? {
        return Ok(ChangeOutcome::Refused(Refusal::BoundByAnother));
    }
    let unbound: Vec<(String, String)> = sqlx::query_as(
        "DELETE FROM bindings WHERE queue_id = $1 RETURNING exchange_name, routing_key",
    )
    .bind(queue.0)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM queues WHERE queue_id = $1")
        .bind(queue.0)
        .execute(&mut *connection)
        .await?;
    let reason = format!("queue '{name}' was deleted by {}", by.client_id);
    begin_removal(connection, queue, ALL, &reason, time).await?;
    let binding = |(exchange, key): (String, String)| {
        let exchange = ExchangeName::new(&exchange).map_err(decode)?;
        Ok((exchange, RoutingKey::new(&key).map_err(decode)?))
    };
    let unbound: Result<_, sqlx::Error> = unbound.into_iter().map(binding).collect();
    Ok(ChangeOutcome::QueueDeleted(unbound?))
}

pub(super) async fn purge_queue(
    connection: &mut PgConnection,
    queue: QueueId,
    name: &QueueName,
    by: &Requester,
    time: Time,
) -> Outcome {
    if let Some(refusal) = refuse_removal(connection, queue, by).await? {
        return Ok(ChangeOutcome::Refused(refusal));
    }
    let up_to = sqlx::query_scalar("SELECT last_seq FROM server_state")
        .fetch_one(&mut *connection)
        .await?;
    let reason = format!("queue '{name}' was purged by {}", by.client_id);
    begin_removal(connection, queue, up_to, &reason, time).await?;
    Ok(ChangeOutcome::Purged(Seq(up_to)))
}

/// Whether something waits in a queue that is not being set aside already.
const WAITS: &str = "SELECT 1 FROM waiting WHERE queue_id = $1 AND first_seq > \
                     (SELECT COALESCE(MAX(up_to_seq), -1) FROM removals WHERE queue_id = $1) \
                     LIMIT 1";

/// The same for messages for others than a receiver.
const OTHERS_WAIT: &str = "SELECT 1 FROM waiting WHERE queue_id = $1 AND receiver_client_id <> $2 \
                           AND first_seq > (SELECT COALESCE(MAX(up_to_seq), -1) FROM removals \
                           WHERE queue_id = $1) LIMIT 1";

async fn refuse_removal(
    connection: &mut PgConnection,
    queue: QueueId,
    by: &Requester,
) -> Result<Option<Refusal>, sqlx::Error> {
    let made_by: Option<Option<String>> =
        sqlx::query_scalar("SELECT made_by FROM queues WHERE queue_id = $1")
            .bind(queue.0)
            .fetch_optional(&mut *connection)
            .await?;
    Ok(match made_by {
        None => Some(Refusal::NoQueue),
        Some(made_by) if !by.may_remove(made_by.as_deref()) => Some(Refusal::MadeByAnother),
        Some(_) if by.is_administrator => None,
        Some(_) => {
            let others = sqlx::query_scalar(OTHERS_WAIT).bind(queue.0);
            exists(connection, others.bind(by.client_id.as_str()))
                .await?
                .then_some(Refusal::HoldsMessagesOfOthers)
        }
    })
}

async fn begin_removal(
    connection: &mut PgConnection,
    queue: QueueId,
    up_to: i64,
    reason: &str,
    time: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO removals (queue_id, up_to_seq, reason, requested_time) VALUES ($1, $2, $3, \
         $4) ON CONFLICT DO NOTHING",
    )
    .bind(queue.0)
    .bind(up_to)
    .bind(reason)
    .bind(time.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

async fn exists(connection: &mut PgConnection, find: Exists<'_>) -> Result<bool, sqlx::Error> {
    Ok(find.fetch_optional(connection).await?.is_some())
}
