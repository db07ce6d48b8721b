//! Exchanges, queues and bindings in memory: a cache of those in the store.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::{ExchangeName, QueueName, RoutingKey};
use dashmap::DashMap;

use crate::model::{Binding, QueueId, StoredTopology};

/// The routes from exchanges to queues. It only grows, and only after the store has committed.
#[derive(Debug, Default)]
pub struct Topology {
    queues: DashMap<QueueName, QueueId>,
    names: DashMap<QueueId, QueueName>,
    exchanges: DashMap<ExchangeName, HashMap<RoutingKey, Arc<[QueueId]>>>,
}

/// The reason why a message has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// The exchange does not exist.
    NoExchange,
    /// No queue is bound to it by the routing key.
    NoBinding,
}

impl Topology {
    /// Loads the topology in the store.
    #[must_use]
    pub fn new(stored: StoredTopology) -> Self {
        let topology = Self::default();
        for (id, name) in stored.queues {
            topology.add_queue(name, id);
        }
        for exchange in stored.exchanges {
            topology.add_exchange(exchange);
        }
        for binding in stored.bindings {
            topology.add_binding(binding);
        }
        topology
    }

    /// Returns the queue with this name.
    #[must_use]
    pub fn queue(&self, name: &QueueName) -> Option<QueueId> {
        self.queues.get(name).map(|id| *id)
    }

    /// Returns the name of a queue.
    #[must_use]
    pub fn queue_name(&self, queue: QueueId) -> Option<QueueName> {
        self.names.get(&queue).map(|name| name.clone())
    }

    /// Whether the exchange exists.
    #[must_use]
    pub fn has_exchange(&self, name: &ExchangeName) -> bool {
        self.exchanges.contains_key(name)
    }

    /// Returns the queues that a message goes to: at least one, all different.
    ///
    /// # Errors
    ///
    /// [`NoRoute`] if there is none.
    pub fn route(
        &self,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
    ) -> Result<Arc<[QueueId]>, NoRoute> {
        let bindings = self.exchanges.get(exchange).ok_or(NoRoute::NoExchange)?;
        bindings.get(routing_key).cloned().ok_or(NoRoute::NoBinding)
    }

    /// Returns the number of queues.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub(in crate::broker) fn add_queue(&self, name: QueueName, id: QueueId) {
        self.names.insert(id, name.clone());
        self.queues.insert(name, id);
    }

    pub(in crate::broker) fn add_exchange(&self, name: ExchangeName) {
        self.exchanges.entry(name).or_default();
    }

    pub(in crate::broker) fn add_binding(&self, binding: Binding) {
        let Binding {
            exchange,
            routing_key,
            queue,
        } = binding;
        let mut bindings = self.exchanges.entry(exchange).or_default();
        let queues = bindings.entry(routing_key).or_insert_with(|| Arc::new([]));
        if !queues.contains(&queue) {
            *queues = queues.iter().copied().chain([queue]).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_to_every_queue_bound_by_its_key_and_to_no_other() {
        let topology = Topology::default();
        let (exchange, key) = (
            ExchangeName::new("e").unwrap(),
            RoutingKey::new("k").unwrap(),
        );
        assert_eq!(topology.route(&exchange, &key), Err(NoRoute::NoExchange));
        topology.add_exchange(exchange.clone());
        assert_eq!(topology.route(&exchange, &key), Err(NoRoute::NoBinding));
        for queue in [3, 1, 3] {
            topology.add_binding(Binding {
                exchange: exchange.clone(),
                routing_key: key.clone(),
                queue: QueueId(queue),
            });
        }
        topology.add_binding(Binding {
            exchange: exchange.clone(),
            routing_key: RoutingKey::new("other").unwrap(),
            queue: QueueId(9),
        });
        topology.add_exchange(exchange.clone());
        assert_eq!(
            &*topology.route(&exchange, &key).unwrap(),
            [QueueId(3), QueueId(1)]
        );
    }
}
