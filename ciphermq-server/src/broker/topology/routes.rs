//! Exchanges, queues and bindings in memory: a cache of those in the store.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::{ExchangeName, QueueName, RoutingKey};
use dashmap::DashMap;

use crate::model::{Binding, Change, ChangeOutcome, QueueId, Seq, StoredTopology};

/// The routes from exchanges to queues. The store's commits change it, in their order.
#[derive(Debug, Default)]
pub struct Topology {
    queues: DashMap<QueueName, QueueId>,
    names: DashMap<QueueId, NamedQueue>,
    exchanges: DashMap<ExchangeName, HashMap<RoutingKey, Arc<[QueueId]>>>,
}

#[derive(Debug)]
struct NamedQueue {
    name: QueueName,
    /// The last message of its last purge.
    purged_to: Seq,
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
            topology.add_binding(&binding);
        }
        for (queue, up_to) in stored.purged {
            topology.purge(queue, up_to);
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
        self.names.get(&queue).map(|queue| queue.name.clone())
    }

    /// Returns the message after which a queue's messages begin; `None` if the queue does not exist
    /// any more.
    #[must_use]
    pub fn purged_to(&self, queue: QueueId) -> Option<Seq> {
        self.names.get(&queue).map(|queue| queue.purged_to)
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

    /// Applies the changes of a commit.
    pub(in crate::broker) fn changed(&self, changes: &[Change], outcomes: &[ChangeOutcome]) {
        // In the order in which the store has made them.
        for last in [false, true] {
            let made = changes.iter().zip(outcomes);
            for (change, outcome) in made.filter(|(change, _)| change.comes_last() == last) {
                self.apply(change, outcome);
            }
        }
    }

    fn apply(&self, change: &Change, outcome: &ChangeOutcome) {
        match (change, outcome) {
            (Change::DeclareQueue { queue, .. }, ChangeOutcome::Queue(id)) => {
                self.add_queue(queue.clone(), *id);
            }
            (Change::DeclareExchange { exchange, .. }, ChangeOutcome::Done) => {
                self.add_exchange(exchange.clone());
            }
            (Change::Bind { binding, .. }, ChangeOutcome::Done) => self.add_binding(binding),
            (Change::Unbind { binding, .. }, ChangeOutcome::Done) => self.remove_binding(binding),
            (Change::DeleteQueue { queue, name, .. }, ChangeOutcome::QueueDeleted(unbound)) => {
                self.names.remove(queue);
                self.queues.remove_if(name, |_, id| id == queue);
                for (exchange, routing_key) in unbound {
                    self.remove_binding(&Binding {
                        exchange: exchange.clone(),
                        routing_key: routing_key.clone(),
                        queue: *queue,
                    });
                }
            }
            (Change::DeleteExchange { exchange, .. }, ChangeOutcome::Done) => {
                self.exchanges.remove(exchange);
            }
            (Change::PurgeQueue { queue, .. }, ChangeOutcome::Purged(up_to)) => {
                self.purge(*queue, *up_to);
            }
            _ => {}
        }
    }

    fn add_queue(&self, name: QueueName, id: QueueId) {
        self.names.entry(id).or_insert_with(|| NamedQueue {
            name: name.clone(),
            purged_to: Seq::default(),
        });
        self.queues.insert(name, id);
    }

    fn add_exchange(&self, name: ExchangeName) {
        self.exchanges.entry(name).or_default();
    }

    fn add_binding(&self, binding: &Binding) {
        let Binding {
            exchange,
            routing_key,
            queue,
        } = binding;
        let mut bindings = self.exchanges.entry(exchange.clone()).or_default();
        let queues = bindings
            .entry(routing_key.clone())
            .or_insert_with(|| Arc::new([]));
        if !queues.contains(queue) {
            *queues = queues.iter().copied().chain([*queue]).collect();
        }
    }

    fn remove_binding(&self, binding: &Binding) {
        let Some(mut bindings) = self.exchanges.get_mut(&binding.exchange) else {
            return;
        };
        if let Some(queues) = bindings.get_mut(&binding.routing_key) {
            *queues = queues
                .iter()
                .copied()
                .filter(|queue| *queue != binding.queue)
                .collect();
            if queues.is_empty() {
                bindings.remove(&binding.routing_key);
            }
        }
    }

    fn purge(&self, queue: QueueId, up_to: Seq) {
        if let Some(mut queue) = self.names.get_mut(&queue) {
            queue.purged_to = queue.purged_to.max(up_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use ciphermq_protocol::ClientId;

    use super::*;
    use crate::model::{ConnectionId, Refusal, Requester, RouteLimits, Time};

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
            topology.add_binding(&Binding {
                exchange: exchange.clone(),
                routing_key: key.clone(),
                queue: QueueId(queue),
            });
        }
        topology.add_binding(&Binding {
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

    /// The memory follows the store's commits, in their order, also where an exchange is deleted
    /// and declared in the same commit.
    #[test]
    fn what_is_removed_leads_nowhere() {
        let (exchange, key) = (
            ExchangeName::new("e").unwrap(),
            RoutingKey::new("k").unwrap(),
        );
        let (queue, made_by) = (QueueName::new("q").unwrap(), ClientId::new("c").unwrap());
        let by = Requester {
            client_id: made_by.clone(),
            is_administrator: false,
        };
        let binding = |queue| Binding {
            exchange: exchange.clone(),
            routing_key: key.clone(),
            queue: QueueId(queue),
        };
        let declare = Change::DeclareQueue {
            queue: queue.clone(),
            made_by: made_by.clone(),
        };
        let declare_exchange = Change::DeclareExchange {
            exchange: exchange.clone(),
            made_by: made_by.clone(),
        };
        let bind = |queue| Change::Bind {
            binding: binding(queue),
            made_by: made_by.clone(),
            limits: RouteLimits {
                queues: 0,
                of_client: 0,
            },
        };
        let delete = Change::DeleteQueue {
            queue: QueueId(1),
            name: queue.clone(),
            if_empty: false,
            by: by.clone(),
            connection: ConnectionId(1),
            time: Time::now(),
        };
        let topology = Topology::default();
        let made = [
            declare.clone(),
            declare_exchange.clone(),
            bind(1),
            bind(2),
            bind(3),
        ];
        let refused = ChangeOutcome::Refused(Refusal::RouteIsFull);
        let done = ChangeOutcome::Done;
        let first = ChangeOutcome::Queue(QueueId(1));
        let outcomes = [first, done.clone(), done.clone(), done.clone(), refused];
        topology.changed(&made, &outcomes);
        let route = || topology.route(&exchange, &key);
        assert_eq!(&*route().unwrap(), [QueueId(1), QueueId(2)]);
        assert_eq!(topology.purged_to(QueueId(1)), Some(Seq(0)));
        // Deleted, and declared again under the same name, before the deletion is told of.
        let unbound = ChangeOutcome::QueueDeleted(vec![(exchange.clone(), key.clone())]);
        topology.changed(&[delete], &[unbound]);
        topology.changed(&[declare], &[ChangeOutcome::Queue(QueueId(4))]);
        assert_eq!(topology.queue(&queue), Some(QueueId(4)));
        assert_eq!(topology.purged_to(QueueId(1)), None);
        assert_eq!(&*route().unwrap(), [QueueId(2)]);
        let unbind = Change::Unbind {
            binding: binding(2),
            by: by.clone(),
        };
        topology.changed(&[unbind], std::slice::from_ref(&done));
        assert_eq!(route(), Err(NoRoute::NoBinding));
        let delete_exchange = Change::DeleteExchange {
            exchange: exchange.clone(),
            if_unused: false,
            by,
        };
        topology.changed(&[delete_exchange, declare_exchange], &[done.clone(), done]);
        assert_eq!(route(), Err(NoRoute::NoExchange), "removals come last");
    }
}
