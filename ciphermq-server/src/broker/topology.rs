//! Queues, exchanges and bindings: `declare_queue`, `declare_exchange` and `bind`.

mod routes;

use ciphermq_protocol::{ErrorCode, ErrorReply, ExchangeName, QueueName, Reply, RoutingKey};

pub use self::routes::{NoRoute, Topology};
use super::{ClientSession, check_new, write_error_reply};
use crate::model::{Binding, Change, QueueId};
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
            self.change(Change::DeclareExchange(exchange.clone()))
                .await?;
            self.broker.topology.add_exchange(exchange);
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
        let missing = |what: &str| {
            ErrorReply::new(
                ErrorCode::NotFound,
                format!("{what} does not exist; declare it first"),
            )
        };
        let id = topology
            .queue(queue)
            .ok_or_else(|| missing(&format!("queue '{queue}'")))?;
        if !topology.has_exchange(&exchange) {
            return Err(missing(&format!("exchange '{exchange}'")));
        }
        let is_bound = topology
            .route(&exchange, &routing_key)
            .is_ok_and(|queues| queues.contains(&id));
        let binding = Binding {
            exchange,
            routing_key,
            queue: id,
        };
        if !is_bound {
            check_new("routing key", binding.routing_key.as_str())?;
            self.change(Change::Bind(binding.clone())).await?;
        }
        topology.add_binding(binding);
        Ok(Reply::QueueBound)
    }

    /// Returns the number of a queue, which is declared if it does not exist.
    pub(super) async fn queue_id(&self, queue: &QueueName) -> Result<QueueId, ErrorReply> {
        if let Some(id) = self.broker.topology.queue(queue) {
            return Ok(id);
        }
        check_new("queue", queue.as_str())?;
        let id = self.change(Change::DeclareQueue(queue.clone())).await?;
        let id = id.ok_or_else(|| write_error_reply(&WriteError::Unavailable))?;
        self.broker.topology.add_queue(queue.clone(), id);
        Ok(id)
    }

    async fn change(&self, change: Change) -> Result<Option<QueueId>, ErrorReply> {
        self.broker.change(&self.writer, change).await
    }
}
