//! Queues, exchanges and bindings: what declares, removes and lists them.

use ciphermq_protocol::topology::{
    BindingsPage, BindingsRequest, ExchangesPage, ExchangesRequest, QueuesPage, QueuesRequest,
};
use ciphermq_protocol::{Command, ExchangeName, QueueName, Reply, RoutingKey};

use super::Client;
use crate::error::RequestError;

/// The conditions of a queue's deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeleteQueue {
    /// Whether to delete it only if no message waits in it.
    pub if_empty: bool,
    /// Whether to delete it only if no client consumes from it.
    pub if_unused: bool,
}

/// Whoever made a queue, an exchange or a binding may remove it as long as no other client uses it;
/// administrators may always.
impl Client {
    /// Declares a queue. Idempotent.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn declare_queue(&self, queue: &QueueName) -> Result<(), RequestError> {
        let command = Command::DeclareQueue {
            queue: queue.clone(),
        };
        self.confirm(command, &Reply::QueueDeclared).await
    }

    /// Declares an exchange. Idempotent.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn declare_exchange(&self, exchange: &ExchangeName) -> Result<(), RequestError> {
        let command = Command::DeclareExchange {
            exchange: exchange.clone(),
        };
        self.confirm(command, &Reply::ExchangeDeclared).await
    }

    /// Routes messages of `exchange` with `routing_key` to `queue`. Idempotent.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` if the queue or the exchange does not exist.
    pub async fn bind(
        &self,
        queue: &QueueName,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
    ) -> Result<(), RequestError> {
        let command = Command::Bind {
            queue: queue.clone(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
        };
        self.confirm(command, &Reply::QueueBound).await
    }

    /// Removes a binding: messages of `exchange` with `routing_key` no longer go to `queue`. Those
    /// that wait in it stay.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` if there is no such binding, perhaps because an earlier attempt
    /// has removed it; `NotAuthorized` if another client made it.
    pub async fn unbind(
        &self,
        queue: &QueueName,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
    ) -> Result<(), RequestError> {
        let command = Command::Unbind {
            queue: queue.clone(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
        };
        self.confirm(command, &Reply::QueueUnbound).await
    }

    /// Deletes a queue and its bindings. Messages that wait in no other queue are rejected: their
    /// senders and receivers find them with [`Client::rejected`] within a short time. Connections
    /// of clients that consume from it end; they connect again by themselves.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` if it does not exist, perhaps because an earlier attempt has
    /// deleted it; `InUse` if a condition is not met or another client uses it; `NotAuthorized` if
    /// another client made it.
    pub async fn delete_queue(
        &self,
        queue: &QueueName,
        conditions: DeleteQueue,
    ) -> Result<(), RequestError> {
        let DeleteQueue {
            if_empty,
            if_unused,
        } = conditions;
        let command = Command::DeleteQueue {
            queue: queue.clone(),
            if_empty,
            if_unused,
        };
        self.confirm(command, &Reply::QueueDeleted).await
    }

    /// Deletes an exchange and all bindings to it; with `if_unused` only if there are none.
    ///
    /// # Errors
    ///
    /// [`RequestError`], as for [`Client::delete_queue`].
    pub async fn delete_exchange(
        &self,
        exchange: &ExchangeName,
        if_unused: bool,
    ) -> Result<(), RequestError> {
        let command = Command::DeleteExchange {
            exchange: exchange.clone(),
            if_unused,
        };
        self.confirm(command, &Reply::ExchangeDeleted).await
    }

    /// Removes all messages from a queue. Those that wait in no other queue are rejected, as by
    /// [`Client::delete_queue`].
    ///
    /// # Errors
    ///
    /// [`RequestError`], as for [`Client::delete_queue`].
    pub async fn purge_queue(&self, queue: &QueueName) -> Result<(), RequestError> {
        let command = Command::PurgeQueue {
            queue: queue.clone(),
        };
        self.confirm(command, &Reply::QueuePurged).await
    }

    /// Lists queues, a page at a time: those that this client has made or bound, consumes from or
    /// has messages in; for an administrator all. The `next` of a page is the `after` of the
    /// following request.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer, or is too old to list them.
    pub async fn queues(&self, request: QueuesRequest) -> Result<QueuesPage, RequestError> {
        self.expect(Command::ListQueues(request), |reply| match reply {
            Reply::Queues(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Lists exchanges, a page at a time: those that this client has made, or bound queues to; for
    /// an administrator all.
    ///
    /// # Errors
    ///
    /// [`RequestError`], as for [`Client::queues`].
    pub async fn exchanges(
        &self,
        request: ExchangesRequest,
    ) -> Result<ExchangesPage, RequestError> {
        self.expect(Command::ListExchanges(request), |reply| match reply {
            Reply::Exchanges(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Lists bindings, a page at a time: those that this client has made, and those of queues and
    /// exchanges that it has made; for an administrator all.
    ///
    /// # Errors
    ///
    /// [`RequestError`], as for [`Client::queues`].
    pub async fn bindings(&self, request: BindingsRequest) -> Result<BindingsPage, RequestError> {
        self.expect(Command::ListBindings(request), |reply| match reply {
            Reply::Bindings(page) => Some(page),
            _ => None,
        })
        .await
    }
}
