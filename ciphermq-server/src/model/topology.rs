//! Exchanges, queues and bindings.

use ciphermq_protocol::{ExchangeName, QueueName, RoutingKey};

use super::QueueId;

/// All exchanges, queues and bindings in the database.
#[derive(Debug, Default, Clone)]
pub struct StoredTopology {
    /// All queues.
    pub queues: Vec<(QueueId, QueueName)>,
    /// All exchanges.
    pub exchanges: Vec<ExchangeName>,
    /// All bindings.
    pub bindings: Vec<Binding>,
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The queue.
    pub queue: QueueId,
}
