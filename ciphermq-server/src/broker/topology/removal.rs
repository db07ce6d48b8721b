//! `unbind`, `delete_queue`, `delete_exchange` and `purge_queue`.
//!
//! The store decides, in the transaction that makes the change: who has made what is written there,
//! and what waits. Only who consumes is known here.

use ciphermq_protocol::{
    ClientId, ErrorCode, ErrorReply, ExchangeName, QueueName, Reply, RoutingKey,
};

use super::{no_exchange, no_queue};
use crate::broker::ClientSession;
use crate::model::{Binding, Change, ChangeOutcome, QueueId, Refusal, Requester, Time};

impl ClientSession {
    /// Executes `unbind`.
    pub(in crate::broker) async fn unbind(
        &self,
        queue: &QueueName,
        exchange: ExchangeName,
        routing_key: RoutingKey,
    ) -> Result<Reply, ErrorReply> {
        let not_bound = || {
            let text =
                format!("queue '{queue}' is not bound to exchange '{exchange}' by '{routing_key}'");
            ErrorReply::new(ErrorCode::NotFound, text)
        };
        let id = self.broker.topology.queue(queue).ok_or_else(not_bound)?;
        let unbind = Change::Unbind {
            binding: Binding {
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
                queue: id,
            },
            by: self.requester(),
        };
        match self.change(unbind).await? {
            ChangeOutcome::Refused(Refusal::MadeByAnother) => Err(made_by_another("this binding")),
            ChangeOutcome::Refused(_) => Err(not_bound()),
            _ => Ok(Reply::QueueUnbound),
        }
    }

    /// Executes `delete_queue`.
    pub(in crate::broker) async fn delete_queue(
        &mut self,
        queue: QueueName,
        if_empty: bool,
        if_unused: bool,
    ) -> Result<Reply, ErrorReply> {
        let id = self
            .broker
            .topology
            .queue(&queue)
            .ok_or_else(|| gone(no_queue(&queue)))?;
        let by = self.requester();
        if let Some(error) = self.consumed(&queue, id, &by, if_unused) {
            return Err(error);
        }
        let delete = Change::DeleteQueue {
            queue: id,
            name: queue.clone(),
            if_empty,
            by,
            connection: self.id,
            time: Time::now(),
        };
        if let ChangeOutcome::Refused(refusal) = self.change(delete).await? {
            return Err(queue_refused(&queue, refusal));
        }
        // This connection stays open, and consumes from it no more.
        self.consumed.remove(&id);
        tracing::info!(client_id = %self.client_id, "Queue {queue} is deleted; messages that \
            waited in it are rejected");
        Ok(Reply::QueueDeleted)
    }

    /// Executes `purge_queue`.
    pub(in crate::broker) async fn purge_queue(
        &self,
        queue: QueueName,
    ) -> Result<Reply, ErrorReply> {
        let id = self
            .broker
            .topology
            .queue(&queue)
            .ok_or_else(|| gone(no_queue(&queue)))?;
        let purge = Change::PurgeQueue {
            queue: id,
            name: queue.clone(),
            by: self.requester(),
            time: Time::now(),
        };
        if let ChangeOutcome::Refused(refusal) = self.change(purge).await? {
            return Err(queue_refused(&queue, refusal));
        }
        tracing::info!(client_id = %self.client_id, "Queue {queue} is purged; messages that waited \
            in it are rejected");
        Ok(Reply::QueuePurged)
    }

    /// Executes `delete_exchange`.
    pub(in crate::broker) async fn delete_exchange(
        &self,
        exchange: ExchangeName,
        if_unused: bool,
    ) -> Result<Reply, ErrorReply> {
        if !self.broker.topology.has_exchange(&exchange) {
            return Err(gone(no_exchange(&exchange)));
        }
        let delete = Change::DeleteExchange {
            exchange: exchange.clone(),
            if_unused,
            by: self.requester(),
        };
        let refusal = match self.change(delete).await? {
            ChangeOutcome::Refused(refusal) => refusal,
            _ => {
                tracing::info!(client_id = %self.client_id, "Exchange {exchange} is deleted");
                return Ok(Reply::ExchangeDeleted);
            }
        };
        let in_use = |what: &str| {
            let text = format!("{what} bound to exchange '{exchange}'; unbind them first");
            ErrorReply::new(ErrorCode::InUse, text)
        };
        Err(match refusal {
            Refusal::MadeByAnother => made_by_another(&format!("exchange '{exchange}'")),
            Refusal::Bound => in_use("queues are"),
            Refusal::BoundByAnother => in_use("queues of other clients are"),
            _ => gone(no_exchange(&exchange)),
        })
    }

    fn requester(&self) -> Requester {
        Requester {
            client_id: self.client_id.clone(),
            is_administrator: self.is_administrator(),
        }
    }

    /// Returns an error if clients consume from a queue that must not be deleted then.
    fn consumed(
        &self,
        queue: &QueueName,
        id: QueueId,
        by: &Requester,
        if_unused: bool,
    ) -> Option<ErrorReply> {
        if by.is_administrator && !if_unused {
            return None;
        }
        let is_other = |client: &ClientId| if_unused || *client != self.client_id;
        let consumers = self.broker.dispatcher.consumers();
        let mut others = consumers
            .iter()
            .filter(|(of, client, _)| *of == id && is_other(client));
        others.next().map(|_| {
            let text = format!("clients consume from queue '{queue}'; end them first");
            ErrorReply::new(ErrorCode::InUse, text)
        })
    }
}

/// Nothing is left to be removed: to declare it first would be no advice.
fn gone(mut error: ErrorReply) -> ErrorReply {
    if let Some(what) = error.text.strip_suffix("; declare it first") {
        error.text = what.to_owned();
    }
    error
}

fn made_by_another(what: &str) -> ErrorReply {
    let text = format!(
        "{what} was made by another client, or by an older server; only its maker and \
         administrators may remove it"
    );
    ErrorReply::new(ErrorCode::NotAuthorized, text)
}

fn queue_refused(queue: &QueueName, refusal: Refusal) -> ErrorReply {
    let in_use = |what: &str| {
        let text = format!("queue '{queue}' {what}");
        ErrorReply::new(ErrorCode::InUse, text)
    };
    match refusal {
        Refusal::MadeByAnother => made_by_another(&format!("queue '{queue}'")),
        Refusal::NotEmpty => in_use("is not empty; consume or purge its messages first"),
        Refusal::HoldsMessagesOfOthers => {
            in_use("holds messages for other clients; only administrators may reject those")
        }
        Refusal::BoundByAnother => {
            in_use("was bound by another client as well, who has to unbind it first")
        }
        _ => gone(no_queue(queue)),
    }
}
