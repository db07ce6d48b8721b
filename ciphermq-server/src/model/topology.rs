//! Exchanges, queues and bindings.

use ciphermq_protocol::{ClientId, ExchangeName, QueueName, RoutingKey};

use super::{QueueId, Seq};
use crate::quota::Quota;

/// All exchanges, queues and bindings in the database.
#[derive(Debug, Default, Clone)]
pub struct StoredTopology {
    /// All queues.
    pub queues: Vec<(QueueId, QueueName, MadeBy)>,
    /// All exchanges.
    pub exchanges: Vec<(ExchangeName, MadeBy)>,
    /// All bindings.
    pub bindings: Vec<(Binding, MadeBy)>,
    /// Queues that are being purged: up to this sequence number nothing is delivered from them.
    pub purged: Vec<(QueueId, Seq)>,
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The queue.
    pub queue: QueueId,
}

/// The most queues that a route (an exchange and a routing key) may have; 0 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLimits {
    /// Of all clients together.
    pub queues: u32,
    /// Bound by the client that asks.
    pub of_client: u32,
}

impl RouteLimits {
    /// Returns why a route of `queues` queues, `of_client` of them bound by the client, has no room
    /// for another one.
    pub(crate) fn refusal(self, queues: u32, of_client: u32) -> Option<Refusal> {
        let is_full = |limit: u32, count: u32| limit > 0 && count >= limit;
        if is_full(self.queues, queues) {
            Some(Refusal::RouteIsFull)
        } else if is_full(self.of_client, of_client) {
            Some(Refusal::RouteIsFullOfClient)
        } else {
            None
        }
    }
}

/// A client that asks for something to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requester {
    /// Its client id.
    pub client_id: ClientId,
    /// Whether it is an administrator, who may remove what others have made and use.
    pub is_administrator: bool,
}

impl Requester {
    /// Whether the client may remove what `made_by` has made, as far as nobody else uses it. Of
    /// what older servers stored, nobody knows who made it.
    pub(crate) fn may_remove(&self, made_by: Option<&str>) -> bool {
        self.is_administrator || made_by == Some(self.client_id.as_str())
    }
}

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It was made, or nothing had to be changed.
    Done,
    /// The queue exists, and has this number.
    Queue(QueueId),
    /// The queue was deleted, with these bindings.
    QueueDeleted(Vec<(ExchangeName, RoutingKey)>),
    /// Everything in the queue up to this sequence number will be set aside.
    Purged(Seq),
    /// Nothing was changed.
    Refused(Refusal),
}

impl ChangeOutcome {
    /// Returns the queue's number if the change has declared one.
    #[must_use]
    pub fn queue(&self) -> Option<QueueId> {
        match self {
            Self::Queue(queue) => Some(*queue),
            _ => None,
        }
    }
}

/// The reason why a change was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The queue does not exist.
    NoQueue,
    /// The exchange does not exist.
    NoExchange,
    /// The binding does not exist.
    NoBinding,
    /// Another client has made it, or nobody knows who has.
    MadeByAnother,
    /// Messages for other receivers wait in the queue.
    HoldsMessagesOfOthers,
    /// Another client has bound the queue, or a queue to the exchange.
    BoundByAnother,
    /// Messages wait in the queue, which was to be deleted if it is empty.
    NotEmpty,
    /// Queues are bound to the exchange, which was to be deleted if it is unused.
    Bound,
    /// The route has as many queues as it may have.
    RouteIsFull,
    /// The client has bound as many queues to the route as it may.
    RouteIsFullOfClient,
    /// The client to be admitted again is not blocked.
    NotBlocked,
    /// The client has made as much as its quota allows.
    Quota(Quota),
}

/// The client that has made something; `None` if an older server stored it.
pub type MadeBy = Option<ClientId>;

/// The part of a list of queues, exchanges or bindings that a client asks for.
#[derive(Debug, Clone)]
pub struct ListScope {
    /// The client whose own are listed; `None` for an administrator, who sees all.
    pub visible_to: Option<ClientId>,
    /// The most rows to examine.
    pub limit: u32,
}

/// Rows of a list, and where it continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T, C> {
    /// The rows that the client may see.
    pub rows: Vec<T>,
    /// The last row that was examined; `None` if there are no more.
    pub next: Option<C>,
}

/// A queue in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedQueue {
    /// Its number.
    pub id: QueueId,
    /// Its name.
    pub name: QueueName,
    /// Who made it.
    pub made_by: MadeBy,
    /// The number of its bindings.
    pub bindings: u64,
    /// The number of messages that wait: all of them, or only those for the client if another one
    /// has made the queue.
    pub messages: u64,
    /// Whether there are more messages than were counted.
    pub more_messages: bool,
    /// Whether the client may see it without consuming from it.
    pub is_visible: bool,
}

/// An exchange in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedExchange {
    /// Its name.
    pub name: ExchangeName,
    /// Who made it.
    pub made_by: MadeBy,
    /// The number of bindings to it.
    pub bindings: u64,
}

/// A binding in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBinding {
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The queue.
    pub queue: QueueName,
    /// Who made it.
    pub made_by: MadeBy,
}
