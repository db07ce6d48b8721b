//! Changes of queues, exchanges and bindings.

use ciphermq_protocol::{ClientId, ExchangeName, QueueName, RoutingKey};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::corrupt_row;
use crate::model::{Binding, ChangeOutcome, QueueId, Refusal, Requester, RouteLimits, Seq, Time};
use crate::quota::Rooms;
use crate::store::batch::removal::ALL;

type Outcome = rusqlite::Result<ChangeOutcome>;

pub(super) fn declare_queue(
    connection: &Connection,
    queue: &QueueName,
    made_by: &ClientId,
    rooms: &mut Rooms,
) -> Outcome {
    let find = "SELECT queue_id FROM queues WHERE queue_name = ?";
    let found = connection
        .query_row(find, [queue.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(ChangeOutcome::Queue(QueueId(id)));
    }
    if let Err(quota) = rooms.take_queue(made_by) {
        return Ok(ChangeOutcome::Refused(Refusal::Quota(quota)));
    }
    let id = connection.query_row(
        "INSERT INTO queues (queue_name, made_by) VALUES (?, ?) RETURNING queue_id",
        [queue.as_str(), made_by.as_str()],
        |row| row.get(0),
    )?;
    Ok(ChangeOutcome::Queue(QueueId(id)))
}

pub(super) fn declare_exchange(
    connection: &Connection,
    exchange: &ExchangeName,
    made_by: &ClientId,
    rooms: &mut Rooms,
) -> Outcome {
    let find = "SELECT 1 FROM exchanges WHERE exchange_name = ?";
    if exists(connection, find, [exchange.as_str()])? {
        return Ok(ChangeOutcome::Done);
    }
    if let Err(quota) = rooms.take_exchange(made_by) {
        return Ok(ChangeOutcome::Refused(Refusal::Quota(quota)));
    }
    connection.execute(
        "INSERT INTO exchanges (exchange_name, made_by) VALUES (?, ?)",
        [exchange.as_str(), made_by.as_str()],
    )?;
    Ok(ChangeOutcome::Done)
}

pub(super) fn bind(
    connection: &Connection,
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
    if !exists(
        connection,
        "SELECT 1 FROM queues WHERE queue_id = ?",
        [queue.0],
    )? {
        return Ok(ChangeOutcome::Refused(Refusal::NoQueue));
    }
    let find = "SELECT 1 FROM exchanges WHERE exchange_name = ?";
    if !exists(connection, find, [exchange.as_str()])? {
        return Ok(ChangeOutcome::Refused(Refusal::NoExchange));
    }
    let (is_bound, queues, of_client): (bool, u32, u32) = connection.query_row(
        "SELECT COUNT(*) FILTER (WHERE queue_id = ?3) > 0, COUNT(*), \
         COUNT(*) FILTER (WHERE made_by = ?4) \
         FROM bindings WHERE exchange_name = ?1 AND routing_key = ?2",
        params![
            exchange.as_str(),
            routing_key.as_str(),
            queue.0,
            made_by.as_str()
        ],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if is_bound {
        return Ok(ChangeOutcome::Done);
    }
    if let Some(refusal) = limits.refusal(queues, of_client) {
        return Ok(ChangeOutcome::Refused(refusal));
    }
    if let Err(quota) = rooms.take_binding(made_by) {
        return Ok(ChangeOutcome::Refused(Refusal::Quota(quota)));
    }
    connection.execute(
        "INSERT INTO bindings (exchange_name, routing_key, queue_id, made_by) VALUES (?, ?, ?, ?)",
        params![
            exchange.as_str(),
            routing_key.as_str(),
            queue.0,
            made_by.as_str()
        ],
    )?;
    Ok(ChangeOutcome::Done)
}

pub(super) fn unbind(connection: &Connection, binding: &Binding, by: &Requester) -> Outcome {
    let Binding {
        exchange,
        routing_key,
        queue,
    } = binding;
    let key = params![exchange.as_str(), routing_key.as_str(), queue.0];
    let made_by = connection
        .query_row(
            "SELECT made_by FROM bindings WHERE exchange_name = ? AND routing_key = ? AND \
             queue_id = ?",
            key,
            |row| row.get::<_, Option<String>>(0),
        )
        .optional()?;
    let refusal = match made_by {
        None => Refusal::NoBinding,
        Some(made_by) if !by.may_remove(made_by.as_deref()) => Refusal::MadeByAnother,
        Some(_) => {
            connection.execute(
                "DELETE FROM bindings WHERE exchange_name = ? AND routing_key = ? AND queue_id = ?",
                key,
            )?;
            return Ok(ChangeOutcome::Done);
        }
    };
    Ok(ChangeOutcome::Refused(refusal))
}

pub(super) fn delete_exchange(
    connection: &Connection,
    exchange: &ExchangeName,
    if_unused: bool,
    by: &Requester,
) -> Outcome {
    let name = exchange.as_str();
    let find = "SELECT made_by FROM exchanges WHERE exchange_name = ?";
    let made_by = connection
        .query_row(find, [name], |row| row.get::<_, Option<String>>(0))
        .optional()?;
    let refusal = match made_by {
        None => Refusal::NoExchange,
        Some(made_by) if !by.may_remove(made_by.as_deref()) => Refusal::MadeByAnother,
        Some(_) => {
            let bound = "SELECT 1 FROM bindings WHERE exchange_name = ? LIMIT 1";
            let by_others = "SELECT 1 FROM bindings WHERE exchange_name = ? AND made_by IS NOT ? \
                             LIMIT 1";
            if if_unused && exists(connection, bound, [name])? {
                Refusal::Bound
            } else if !by.is_administrator
                && exists(connection, by_others, [name, by.client_id.as_str()])?
            {
                Refusal::BoundByAnother
            } else {
                connection.execute("DELETE FROM bindings WHERE exchange_name = ?", [name])?;
                connection.execute("DELETE FROM exchanges WHERE exchange_name = ?", [name])?;
                return Ok(ChangeOutcome::Done);
            }
        }
    };
    Ok(ChangeOutcome::Refused(refusal))
}

pub(super) fn delete_queue(
    connection: &Connection,
    queue: QueueId,
    name: &QueueName,
    if_empty: bool,
    by: &Requester,
    time: Time,
) -> Outcome {
    if let Some(refusal) = refuse_removal(connection, queue, by)? {
        return Ok(ChangeOutcome::Refused(refusal));
    }
    if if_empty && exists(connection, WAITS, params![queue.0])? {
        return Ok(ChangeOutcome::Refused(Refusal::NotEmpty));
    }
    let by_others = "SELECT 1 FROM bindings WHERE queue_id = ? AND made_by IS NOT ? LIMIT 1";
    if !by.is_administrator
        && exists(
            connection,
            by_others,
            params![queue.0, by.client_id.as_str()],
        )?
    {
        return Ok(ChangeOutcome::Refused(Refusal::BoundByAnother));
    }
    let unbound: Vec<(String, String)> = connection
        .prepare_cached(
            "DELETE FROM bindings WHERE queue_id = ? RETURNING exchange_name, routing_key",
        )?
        .query_map([queue.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    connection.execute("DELETE FROM queues WHERE queue_id = ?", [queue.0])?;
    let reason = format!("queue '{name}' was deleted by {}", by.client_id);
    begin_removal(connection, queue, ALL, &reason, time)?;
    let binding = |(exchange, key): (String, String)| {
        let exchange = ExchangeName::new(&exchange).map_err(corrupt_row)?;
        Ok((exchange, RoutingKey::new(&key).map_err(corrupt_row)?))
    };
    let unbound = unbound
        .into_iter()
        .map(binding)
        .collect::<rusqlite::Result<_>>()?;
    Ok(ChangeOutcome::QueueDeleted(unbound))
}

pub(super) fn purge_queue(
    connection: &Connection,
    queue: QueueId,
    name: &QueueName,
    by: &Requester,
    time: Time,
) -> Outcome {
    if let Some(refusal) = refuse_removal(connection, queue, by)? {
        return Ok(ChangeOutcome::Refused(refusal));
    }
    let up_to = connection.query_row("SELECT last_seq FROM server_state", [], |row| row.get(0))?;
    let reason = format!("queue '{name}' was purged by {}", by.client_id);
    begin_removal(connection, queue, up_to, &reason, time)?;
    Ok(ChangeOutcome::Purged(Seq(up_to)))
}

/// Whether something waits in a queue that is not being set aside already.
const WAITS: &str = "SELECT 1 FROM waiting WHERE queue_id = ?1 AND first_seq > \
                     (SELECT COALESCE(MAX(up_to_seq), -1) FROM removals WHERE queue_id = ?1) \
                     LIMIT 1";

/// The same for messages for others than a receiver.
const OTHERS_WAIT: &str = "SELECT 1 FROM waiting WHERE queue_id = ?1 AND receiver_client_id <> ?2 \
                           AND first_seq > (SELECT COALESCE(MAX(up_to_seq), -1) FROM removals \
                           WHERE queue_id = ?1) LIMIT 1";

fn refuse_removal(
    connection: &Connection,
    queue: QueueId,
    by: &Requester,
) -> rusqlite::Result<Option<Refusal>> {
    let made_by = connection
        .query_row(
            "SELECT made_by FROM queues WHERE queue_id = ?",
            [queue.0],
            |row| row.get::<_, Option<String>>(0),
        )
        .optional()?;
    Ok(match made_by {
        None => Some(Refusal::NoQueue),
        Some(made_by) if !by.may_remove(made_by.as_deref()) => Some(Refusal::MadeByAnother),
        Some(_) if by.is_administrator => None,
        Some(_) => exists(
            connection,
            OTHERS_WAIT,
            params![queue.0, by.client_id.as_str()],
        )?
        .then_some(Refusal::HoldsMessagesOfOthers),
    })
}

fn begin_removal(
    connection: &Connection,
    queue: QueueId,
    up_to: i64,
    reason: &str,
    time: Time,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO removals (queue_id, up_to_seq, reason, requested_time) VALUES (?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
        params![queue.0, up_to, reason, time.to_string()],
    )?;
    Ok(())
}

fn exists(
    connection: &Connection,
    text: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<bool> {
    connection.prepare_cached(text)?.exists(parameters)
}
