//! Puts other rules in force, also for connections that are open.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, QueueName};

use crate::authorization::{Action, ClientPolicy, Policy, Request};
use crate::broker::Broker;
use crate::inbox::ConnectionId;
use crate::model::QueueId;

impl Broker {
    /// Replaces the rules and the administrators. Every command that is read from now on is
    /// decided by the new ones.
    ///
    /// Connections that consume from a queue from which their client may no longer consume are
    /// ended, and so are those of blocked clients that are administrators no more.
    pub fn replace_rules(self: &Arc<Self>, policy: Policy) {
        self.authorization.replace(policy);
        let (policy, _) = self.authorization.get();
        let mut policies: HashMap<ClientId, ClientPolicy> = HashMap::new();
        for (connection, client) in self.dispatcher.connection_ids(|_| true) {
            if let Some(error) = self.refusal(&client) {
                self.dispatcher.dismiss(connection, error);
            }
        }
        for (connection, client, queue) in self.dispatcher.subscriptions() {
            let rules = policies.entry(client.clone());
            let rules = rules.or_insert_with(|| policy.for_client(&client));
            self.end_if_denied(connection, &client, queue, rules);
        }
    }

    /// Ends a connection whose subscription the rules do not allow, if they were replaced since
    /// the number `generation`.
    pub(in crate::broker) fn revise_subscription(
        &self,
        connection: ConnectionId,
        client: &ClientId,
        queue: QueueId,
        generation: u64,
    ) {
        if self.authorization.generation() != generation {
            let rules = self.authorization.get().0.for_client(client);
            self.end_if_denied(connection, client, queue, &rules);
        }
    }

    fn end_if_denied(
        &self,
        connection: ConnectionId,
        client: &ClientId,
        queue: QueueId,
        rules: &ClientPolicy,
    ) {
        let Some(name) = self.topology.queue_name(queue) else {
            return;
        };
        let request = Request::of_queue(Action::Consume, &name);
        if !rules.decide(&request).is_allowed() {
            tracing::warn!(client_id = %client, "Connection {} is ended: the rules have changed, \
                and {client} may no longer consume from queue '{name}'", connection.0);
            self.dispatcher
                .dismiss(connection, no_longer_allowed(client, &name));
        }
    }
}

/// Returns the last line to a connection whose subscription is not allowed any more.
///
/// It is not `not_authorized`: it may be read as the reply to a command that is allowed.
fn no_longer_allowed(client: &ClientId, queue: &QueueName) -> ErrorReply {
    let text = format!(
        "the server's rules have changed, and {client} may no longer consume from queue '{queue}'; \
         connect again"
    );
    ErrorReply::new(ErrorCode::ConnectionClosed, text)
}
