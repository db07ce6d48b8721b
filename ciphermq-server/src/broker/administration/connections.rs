//! `list_connections` and `close_connection`.

use std::collections::HashMap;

use ciphermq_protocol::administration::{ConnectionInfo, ConnectionsPage, ConnectionsRequest};
use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, Reply};

use crate::broker::ClientSession;
use crate::inbox::{ConnectionId, ConnectionUse};

/// The most connections in one page.
const PAGE: u32 = 1000;

impl ClientSession {
    /// Executes `list_connections`.
    pub(in crate::broker) fn list_connections(&self, request: &ConnectionsRequest) -> Reply {
        let dispatcher = &self.broker.dispatcher;
        let limit = request.limit.unwrap_or(PAGE).clamp(1, PAGE) as usize;
        let mut found = dispatcher
            .connection_ids(|client| request.client.as_ref().is_none_or(|only| only == client));
        let after = request.after;
        found.retain(|(id, _)| after.is_none_or(|after| id.0 > after));
        found.sort_unstable_by_key(|(id, _)| *id);
        let is_last = found.len() <= limit;
        found.truncate(limit);
        let next = found.last().filter(|_| !is_last).map(|(id, _)| id.0);
        // Each client's inbox is locked once.
        let mut uses: HashMap<ClientId, HashMap<ConnectionId, ConnectionUse>> = HashMap::new();
        let info = |(id, client): (ConnectionId, ClientId)| {
            let facts = dispatcher
                .connections
                .get(&id)
                .map(|found| found.facts.clone())?;
            let uses = uses.entry(client.clone());
            let of_client = uses.or_insert_with(|| dispatcher.connection_uses(&client));
            let ConnectionUse { queues, in_flight } = of_client.remove(&id).unwrap_or_default();
            let topology = &self.broker.topology;
            let names = queues
                .iter()
                .filter_map(|queue| topology.queue_name(*queue));
            let mut queues: Vec<_> = names.collect();
            queues.sort_unstable();
            let hello = facts.hello();
            Some(ConnectionInfo {
                connection: id.0,
                client,
                address: facts.origin.address.to_string(),
                since: facts.since.to_string(),
                tls: facts.origin.tls.map(str::to_owned),
                program: hello.program,
                consumer: hello.consumer,
                queues,
                in_flight,
                packed: hello.packed,
            })
        };
        let connections = found.into_iter().filter_map(info).collect();
        Reply::Connections(ConnectionsPage { connections, next })
    }

    /// Executes `close_connection`.
    pub(in crate::broker) fn close_connection(&self, number: u64) -> Result<Reply, ErrorReply> {
        let connection = ConnectionId(number);
        let text = "an administrator of the server has closed this connection; connect again";
        let error = ErrorReply::new(ErrorCode::ConnectionClosed, text);
        let Some(client_id) = self.broker.dispatcher.dismiss(connection, error) else {
            let text = format!("there is no connection {number}");
            return Err(ErrorReply::new(ErrorCode::NotFound, text));
        };
        tracing::warn!(client_id = %self.client_id, "Connection {number} of client {client_id} is \
            closed by {}", self.client_id);
        Ok(Reply::ConnectionClosed)
    }
}
