//! Exchanges, queues and bindings in memory: a cache of those in the store.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::{ClientId, ExchangeName, QueueName, RoutingKey};
use dashmap::DashMap;

use crate::model::{Binding, Change, ChangeOutcome, Made, MadeBy, QueueId, Seq, StoredTopology};

/// The routes from exchanges to queues. The store's commits change it, in their order.
#[derive(Debug, Default)]
pub struct Topology {
    queues: DashMap<QueueName, QueueId>,
    names: DashMap<QueueId, NamedQueue>,
    exchanges: DashMap<ExchangeName, Exchange>,
    /// What each client has made that still exists.
    made: DashMap<ClientId, Made>,
}

#[derive(Debug)]
struct NamedQueue {
    name: QueueName,
    made_by: MadeBy,
    /// The last message of its last purge.
    purged_to: Seq,
}

#[derive(Debug, Default)]
struct Exchange {
    made_by: MadeBy,
    routes: HashMap<RoutingKey, Route>,
}

/// The queues that are bound by a routing key, and who has bound each.
#[derive(Debug)]
struct Route {
    queues: Arc<[QueueId]>,
    made_by: Vec<MadeBy>,
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
        for (id, name, made_by) in stored.queues {
            topology.add_queue(name, id, made_by);
        }
        for (exchange, made_by) in stored.exchanges {
            topology.add_exchange(exchange, made_by);
        }
        for (binding, made_by) in stored.bindings {
            topology.add_binding(&binding, made_by);
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
        let exchange = self.exchanges.get(exchange).ok_or(NoRoute::NoExchange)?;
        let route = exchange.routes.get(routing_key).ok_or(NoRoute::NoBinding)?;
        Ok(Arc::clone(&route.queues))
    }

    /// Returns the number of queues.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Returns what a client has made that still exists.
    #[must_use]
    pub fn made(&self, client_id: &ClientId) -> Made {
        self.made
            .get(client_id)
            .map(|made| *made)
            .unwrap_or_default()
    }

    /// Returns the clients that have made anything that still exists.
    #[must_use]
    pub fn makers(&self) -> Vec<ClientId> {
        self.made.iter().map(|made| made.key().clone()).collect()
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
            (Change::DeclareQueue { queue, made_by }, ChangeOutcome::Queue(id)) => {
                self.add_queue(queue.clone(), *id, Some(made_by.clone()));
            }
            (Change::DeclareExchange { exchange, made_by }, ChangeOutcome::Done) => {
                self.add_exchange(exchange.clone(), Some(made_by.clone()));
            }
            (
                Change::Bind {
                    binding, made_by, ..
                },
                ChangeOutcome::Done,
            ) => self.add_binding(binding, Some(made_by.clone())),
            (Change::Unbind { binding, .. }, ChangeOutcome::Done) => self.remove_binding(binding),
            (Change::DeleteQueue { queue, name, .. }, ChangeOutcome::QueueDeleted(unbound)) => {
                if let Some((_, named)) = self.names.remove(queue) {
                    self.count(&named.made_by, |made| &mut made.queues, false);
                }
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
                if let Some((_, exchange)) = self.exchanges.remove(exchange) {
                    self.count(&exchange.made_by, |made| &mut made.exchanges, false);
                    for made_by in exchange.routes.values().flat_map(|route| &route.made_by) {
                        self.count(made_by, |made| &mut made.bindings, false);
                    }
                }
            }
            (Change::PurgeQueue { queue, .. }, ChangeOutcome::Purged(up_to)) => {
                self.purge(*queue, *up_to);
            }
            _ => {}
        }
    }

    /// Counts something that its maker has more now, or less.
    fn count(&self, made_by: &MadeBy, what: impl FnOnce(&mut Made) -> &mut u64, more: bool) {
        let Some(maker) = made_by else {
            return;
        };
        if more {
            *what(self.made.entry(maker.clone()).or_default().value_mut()) += 1;
            return;
        }
        if let Some(mut made) = self.made.get_mut(maker) {
            let count = what(made.value_mut());
            *count = count.saturating_sub(1);
        }
        self.made
            .remove_if(maker, |_, made| *made == Made::default());
    }

    fn add_queue(&self, name: QueueName, id: QueueId, made_by: MadeBy) {
        if !self.names.contains_key(&id) {
            self.count(&made_by, |made| &mut made.queues, true);
            let named = NamedQueue {
                name: name.clone(),
                made_by,
                purged_to: Seq::default(),
            };
            self.names.insert(id, named);
        }
        self.queues.insert(name, id);
    }

    fn add_exchange(&self, name: ExchangeName, made_by: MadeBy) {
        if !self.exchanges.contains_key(&name) {
            self.count(&made_by, |made| &mut made.exchanges, true);
            let exchange = Exchange {
                made_by,
                routes: HashMap::new(),
            };
            self.exchanges.insert(name, exchange);
        }
    }

    fn add_binding(&self, binding: &Binding, made_by: MadeBy) {
        let mut exchange = self.exchanges.entry(binding.exchange.clone()).or_default();
        let route = exchange
            .routes
            .entry(binding.routing_key.clone())
            .or_insert_with(|| Route {
                queues: Arc::new([]),
                made_by: Vec::new(),
            });
        if !route.queues.contains(&binding.queue) {
            self.count(&made_by, |made| &mut made.bindings, true);
            let queues = route.queues.iter().copied();
            route.queues = queues.chain([binding.queue]).collect();
            route.made_by.push(made_by);
        }
    }

    fn remove_binding(&self, binding: &Binding) {
        let Some(mut exchange) = self.exchanges.get_mut(&binding.exchange) else {
            return;
        };
        let Some(route) = exchange.routes.get_mut(&binding.routing_key) else {
            return;
        };
        let mut queues = route.queues.iter();
        let Some(place) = queues.position(|queue| *queue == binding.queue) else {
            return;
        };
        let kept = route.queues.iter().copied();
        route.queues = kept.filter(|queue| *queue != binding.queue).collect();
        let made_by = route.made_by.remove(place);
        self.count(&made_by, |made| &mut made.bindings, false);
        if route.queues.is_empty() {
            exchange.routes.remove(&binding.routing_key);
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
        topology.add_exchange(exchange.clone(), None);
        assert_eq!(topology.route(&exchange, &key), Err(NoRoute::NoBinding));
        for queue in [3, 1, 3] {
            let binding = Binding {
                exchange: exchange.clone(),
                routing_key: key.clone(),
                queue: QueueId(queue),
            };
            topology.add_binding(&binding, None);
        }
        let other = Binding {
            exchange: exchange.clone(),
            routing_key: RoutingKey::new("other").unwrap(),
            queue: QueueId(9),
        };
        topology.add_binding(&other, None);
        topology.add_exchange(exchange.clone(), None);
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
        let maker = made_by.clone();
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
        let made = |queues, exchanges, bindings| Made {
            queues,
            exchanges,
            bindings,
        };
        assert_eq!(topology.made(&maker), made(1, 1, 2));
        let route = || topology.route(&exchange, &key);
        assert_eq!(&*route().unwrap(), [QueueId(1), QueueId(2)]);
        assert_eq!(topology.purged_to(QueueId(1)), Some(Seq(0)));
        // Deleted, and declared again under the same name, before the deletion is told of.
        let unbound = ChangeOutcome::QueueDeleted(vec![(exchange.clone(), key.clone())]);
        topology.changed(&[delete], &[unbound]);
        topology.changed(&[declare], &[ChangeOutcome::Queue(QueueId(4))]);
        assert_eq!(topology.queue(&queue), Some(QueueId(4)));
        assert_eq!(topology.made(&maker), made(1, 1, 1));
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
        assert_eq!(topology.made(&maker), made(1, 0, 0));
        assert_eq!(topology.makers(), [maker]);
    }
}
