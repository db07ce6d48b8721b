//! `list_queues`, `list_exchanges` and `list_bindings`.

use std::collections::{HashMap, HashSet};

use ciphermq_protocol::topology::{
    BindingInfo, BindingsPage, BindingsRequest, ExchangeInfo, ExchangesPage, ExchangesRequest,
    QueueInfo, QueuesPage, QueuesRequest,
};
use ciphermq_protocol::{ErrorReply, Reply};

use crate::broker::ClientSession;
use crate::model::{ListScope, QueueId};

/// The most queues that one command examines: it counts messages for each.
const QUEUES: u32 = 100;
/// The most exchanges or bindings that one command examines.
const ROWS: u32 = 1000;

impl ClientSession {
    /// Executes `list_queues`.
    pub(in crate::broker) async fn list_queues(
        &self,
        request: QueuesRequest,
    ) -> Result<Reply, ErrorReply> {
        let scope = self.scope(request.limit, QUEUES);
        let (after, only) = (request.after.as_ref(), request.queue.as_ref());
        let read = self.broker.reader.list_queues(&scope, after, only);
        let listed = self.query(read).await?;
        let (mut consumers, mut own) = (HashMap::<QueueId, usize>::new(), HashSet::new());
        for (queue, client, count) in self.broker.dispatcher.consumers() {
            *consumers.entry(queue).or_default() += count;
            if client == self.client_id {
                own.insert(queue);
            }
        }
        let may_see = listed
            .rows
            .into_iter()
            .filter(|queue| queue.is_visible || own.contains(&queue.id));
        let queues = may_see.map(|queue| QueueInfo {
            queue: queue.name,
            made_by: queue.made_by,
            bindings: queue.bindings,
            consumers: consumers.get(&queue.id).map_or(0, |count| *count as u64),
            messages: queue.messages,
            more_messages: queue.more_messages,
        });
        Ok(Reply::Queues(QueuesPage {
            queues: queues.collect(),
            next: listed.next,
        }))
    }

    /// Executes `list_exchanges`.
    pub(in crate::broker) async fn list_exchanges(
        &self,
        request: ExchangesRequest,
    ) -> Result<Reply, ErrorReply> {
        let scope = self.scope(request.limit, ROWS);
        let (after, only) = (request.after.as_ref(), request.exchange.as_ref());
        let read = self.broker.reader.list_exchanges(&scope, after, only);
        let listed = self.query(read).await?;
        let exchanges = listed.rows.into_iter().map(|exchange| ExchangeInfo {
            exchange: exchange.name,
            made_by: exchange.made_by,
            bindings: exchange.bindings,
        });
        Ok(Reply::Exchanges(ExchangesPage {
            exchanges: exchanges.collect(),
            next: listed.next,
        }))
    }

    /// Executes `list_bindings`.
    pub(in crate::broker) async fn list_bindings(
        &self,
        request: BindingsRequest,
    ) -> Result<Reply, ErrorReply> {
        let scope = self.scope(request.limit, ROWS);
        let BindingsRequest {
            after,
            exchange,
            queue,
            ..
        } = &request;
        let (after, exchange, queue) = (after.as_ref(), exchange.as_ref(), queue.as_ref());
        let read = self
            .broker
            .reader
            .list_bindings(&scope, after, exchange, queue);
        let listed = self.query(read).await?;
        let bindings = listed.rows.into_iter().map(|binding| BindingInfo {
            exchange: binding.exchange,
            routing_key: binding.routing_key,
            queue: binding.queue,
            made_by: binding.made_by,
        });
        Ok(Reply::Bindings(BindingsPage {
            bindings: bindings.collect(),
            next: listed.next,
        }))
    }

    fn scope(&self, limit: Option<u32>, most: u32) -> ListScope {
        ListScope {
            visible_to: (!self.is_administrator()).then(|| self.client_id.clone()),
            limit: limit.unwrap_or(most).clamp(1, most),
        }
    }
}
