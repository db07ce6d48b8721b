//! Queues, exchanges and bindings: the commands that make them.

mod lists;
mod removal;
mod routes;

use ciphermq_protocol::{ErrorCode, ErrorReply, ExchangeName, QueueName, Reply, RoutingKey};

pub use self::routes::{NoRoute, Topology};
use super::{ClientSession, check_new, write_error_reply};
use crate::model::{Binding, Change, ChangeOutcome, QueueId, Refusal, RouteLimits};
use crate::store::writer::WriteError;

impl ClientSession {
    /// Executes `declare_queue`.
    pub(super) async fn declare_queue(&self, queue: &QueueName) -> Result<Reply, ErrorReply> {
        self.queue_id(queue).await?;
        Ok(Reply::QueueDeclared)
    }

    /// Executes `declare_exchange`.
    pub(super) async fn declare_exchange(
        &self,
        exchange: ExchangeName,
    ) -> Result<Reply, ErrorReply> {
        if !self.broker.topology.has_exchange(&exchange) {
            check_new("exchange", exchange.as_str())?;
            let declare = Change::DeclareExchange {
                exchange,
                made_by: self.client_id.clone(),
            };
            if let ChangeOutcome::Refused(Refusal::Quota(quota)) = self.change(declare).await? {
                return Err(self.exceeded(quota));
            }
        }
        Ok(Reply::ExchangeDeclared)
    }

    /// Executes `bind`.
    pub(super) async fn bind(
        &self,
        queue: &QueueName,
        exchange: ExchangeName,
        routing_key: RoutingKey,
    ) -> Result<Reply, ErrorReply> {
        let topology = &self.broker.topology;
        let id = self.existing_queue(queue)?;
        if !topology.has_exchange(&exchange) {
            return Err(no_exchange(&exchange));
        }
        let is_bound = topology
            .route(&exchange, &routing_key)
            .is_ok_and(|queues| queues.contains(&id));
        if is_bound {
            return Ok(Reply::QueueBound);
        }
        check_new("routing key", routing_key.as_str())?;
        let limits = self.route_limits();
        let bind = Change::Bind {
            binding: Binding {
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
                queue: id,
            },
            made_by: self.client_id.clone(),
            limits,
        };
        let refusal = match self.change(bind).await? {
            ChangeOutcome::Refused(refusal) => refusal,
            _ => return Ok(Reply::QueueBound),
        };
        let full = |whose: String| {
            let text = format!(
                "{whose} bound to exchange '{exchange}' by '{routing_key}', which is the most; \
                 unbind one first, or bind by another routing key"
            );
            ErrorReply::new(ErrorCode::LimitReached, text)
        };
        Err(match refusal {
            Refusal::RouteIsFull => full(format!("{} queues are", limits.queues)),
            Refusal::RouteIsFullOfClient => {
                full(format!("{} queues of this client are", limits.of_client))
            }
            Refusal::NoExchange => no_exchange(&exchange),
            Refusal::Quota(quota) => self.exceeded(quota),
            _ => no_queue(queue),
        })
    }

    fn route_limits(&self) -> RouteLimits {
        let limits = &self.broker.limits;
        RouteLimits {
            queues: limits.max_queues_per_route,
            of_client: match self.is_administrator() {
                true => 0,
                false => limits.max_queues_per_route_and_client,
            },
        }
    }

    fn existing_queue(&self, queue: &QueueName) -> Result<QueueId, ErrorReply> {
        self.broker
            .topology
            .queue(queue)
            .ok_or_else(|| no_queue(queue))
    }

    /// Returns a queue's number; the client makes it if it does not exist.
    pub(super) async fn queue_id(&self, queue: &QueueName) -> Result<QueueId, ErrorReply> {
        if let Some(id) = self.broker.topology.queue(queue) {
            return Ok(id);
        }
        check_new("queue", queue.as_str())?;
        let declare = Change::DeclareQueue {
            queue: queue.clone(),
            made_by: self.client_id.clone(),
        };
        match self.change(declare).await? {
            ChangeOutcome::Queue(id) => Ok(id),
            ChangeOutcome::Refused(Refusal::Quota(quota)) => Err(self.exceeded(quota)),
            _ => Err(write_error_reply(&WriteError::Unavailable)),
        }
    }

    pub(super) async fn change(&self, change: Change) -> Result<ChangeOutcome, ErrorReply> {
        self.broker.change(&self.writer, change).await
    }
}

fn no_queue(queue: &QueueName) -> ErrorReply {
    missing(&format!("queue '{queue}'"))
}

fn no_exchange(exchange: &ExchangeName) -> ErrorReply {
    missing(&format!("exchange '{exchange}'"))
}

fn missing(what: &str) -> ErrorReply {
    let text = format!("{what} does not exist; declare it first");
    ErrorReply::new(ErrorCode::NotFound, text)
}
