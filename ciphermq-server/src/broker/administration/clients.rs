//! `list_clients`, with what each client holds.

use std::collections::BTreeSet;
use std::ops::Bound;

use ciphermq_protocol::administration::{
    BlockInfo, ClientInfo, ClientsPage, ClientsRequest, QuotaInfo,
};
use ciphermq_protocol::{ClientId, Reply};

use crate::broker::{Broker, ClientSession};

/// The most clients in one page.
const PAGE: u32 = 100;

/// What a client holds of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUsage {
    /// The quota's name.
    pub quota: &'static str,
    /// What the client holds.
    pub held: u64,
    /// What it may hold; 0 means no limit.
    pub limit: u64,
}

impl Broker {
    /// Returns what a client holds of each quota.
    #[must_use]
    pub fn usage(&self, client_id: &ClientId) -> Vec<QuotaUsage> {
        vec![QuotaUsage {
            quota: "connections",
            held: self.connections_of(client_id),
            limit: self.limits.max_connections_per_client as u64,
        }]
    }

    /// Returns the clients that hold something of a quota.
    #[must_use]
    pub fn clients_with_usage(&self) -> BTreeSet<ClientId> {
        let connections = self.dispatcher.connections.iter();
        connections
            .map(|connection| connection.client_id.clone())
            .collect()
    }

    fn connections_of(&self, client_id: &ClientId) -> u64 {
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
