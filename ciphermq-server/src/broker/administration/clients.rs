//! `list_clients`, with what each client holds.

use std::ops::Bound;

use ciphermq_protocol::administration::{
    BlockInfo, ClientInfo, ClientsPage, ClientsRequest, QuotaInfo,
};
use ciphermq_protocol::{ClientId, Reply};

use crate::broker::{Broker, ClientSession};
use crate::quota::QuotaUsage;

/// The most clients in one page.
const PAGE: u32 = 100;

impl Broker {
    /// Returns the number of a client's connections.
    pub(in crate::broker) fn connections_of(&self, client_id: &ClientId) -> u64 {
        let connections = self.dispatcher.connections.iter();
        let own = connections.filter(|connection| connection.client_id == *client_id);
        own.count() as u64
    }
}

impl ClientSession {
    /// Executes `list_clients`.
    pub(in crate::broker) fn list_clients(&self, request: &ClientsRequest) -> Reply {
        let broker = &self.broker;
        let limit = request.limit.unwrap_or(PAGE).clamp(1, PAGE) as usize;
        let mut all = broker.clients_with_usage();
        all.extend(broker.dispatcher.blocks.clients());
        if let Some(only) = &request.client {
            all.retain(|client| client == only);
        }
        let from = request
            .after
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut clients = all.range::<ClientId, _>((from, Bound::Unbounded));
        let page: Vec<ClientId> = clients.by_ref().take(limit).cloned().collect();
        let next = clients.next().and(page.last()).cloned();
        let info = |client: ClientId| {
            let block = broker.dispatcher.blocks.get(&client);
            let quota = |usage: QuotaUsage| QuotaInfo {
                quota: usage.quota.to_owned(),
                held: usage.held,
                limit: usage.limit,
            };
            ClientInfo {
                connections: broker.connections_of(&client),
                administrator: broker.authorization.is_administrator(&client),
                blocked: block.map(|block| BlockInfo {
                    by: block.by,
                    since: block.since,
                }),
                quotas: broker.usage(&client).into_iter().map(quota).collect(),
                client,
            }
        };
        let clients = page.into_iter().map(info).collect();
        Reply::Clients(ClientsPage { clients, next })
    }
}
