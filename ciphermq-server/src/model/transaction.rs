//! The contents of a commit, and its outcomes.

use std::sync::Arc;

use ciphermq_protocol::{
    CertificateChain, ClientId, ExchangeName, Fingerprint, MessageId, QueueName,
};

use super::{
    Ack, AckOutcome, AdoptedRow, Binding, Block, ChangeOutcome, CommitNumber, ConnectionId,
    HeldBySender, Publish, PublishOutcome, QueueId, Rejection, Requester, RouteLimits, SealedRow,
    Time,
};
use crate::quota::Rooms;

/// Everything that one commit writes.
#[derive(Debug, Default, Clone)]
pub struct Transaction {
    /// Rare writes: topology, keys, certificates.
    pub changes: Vec<Change>,
    /// Messages to accept.
    pub publishes: Vec<Arc<Publish>>,
    /// Messages to remove because their receiver has processed them.
    pub acks: Vec<Ack>,
    /// Messages to set aside because their receiver cannot use them.
    pub rejections: Vec<Rejection>,
    /// First deliveries of messages that stay unacknowledged for a while.
    pub deliveries: Vec<(MessageId, Time)>,
    /// What the clients concerned may still add.
    pub rooms: Rooms,
}

impl Transaction {
    /// Iterates over the ids of all messages in the transaction.
    pub(crate) fn message_ids(&self) -> impl Iterator<Item = &MessageId> {
        let published = self
            .publishes
            .iter()
            .map(|publish| &publish.envelope.message_id);
        let acked = self.acks.iter().map(|ack| &ack.message_id);
        let rejected = self
            .rejections
            .iter()
            .map(|rejection| &rejection.ack.message_id);
        let delivered = self.deliveries.iter().map(|(id, _)| id);
        published.chain(acked).chain(rejected).chain(delivered)
    }
}

/// A write that is not about messages.
#[derive(Debug, Clone)]
pub enum Change {
    /// Declares a queue unless it exists.
    DeclareQueue {
        /// The queue.
        queue: QueueName,
        /// The client that makes it.
        made_by: ClientId,
    },
    /// Declares an exchange unless it exists.
    DeclareExchange {
        /// The exchange.
        exchange: ExchangeName,
        /// The client that makes it.
        made_by: ClientId,
    },
    /// Binds a queue to an exchange, if both exist and the route has room.
    Bind {
        /// The binding.
        binding: Binding,
        /// The client that makes it.
        made_by: ClientId,
        /// How many queues the route may have.
        limits: RouteLimits,
    },
    /// Removes a binding.
    Unbind {
        /// The binding.
        binding: Binding,
        /// Who asks.
        by: Requester,
    },
    /// Deletes a queue with its bindings; its messages are set aside, a few at a time.
    DeleteQueue {
        /// The queue's number.
        queue: QueueId,
        /// Its name.
        name: QueueName,
        /// Whether nothing may wait in it.
        if_empty: bool,
        /// Who asks.
        by: Requester,
        /// The connection that asks: it stays, even if it consumes from the queue.
        connection: ConnectionId,
        /// When it was asked for.
        time: Time,
    },
    /// Deletes an exchange with its bindings.
    DeleteExchange {
        /// The exchange.
        exchange: ExchangeName,
        /// Whether no queue may be bound to it.
        if_unused: bool,
        /// Who asks.
        by: Requester,
    },
    /// Sets aside what waits in a queue, a few messages at a time.
    PurgeQueue {
        /// The queue's number.
        queue: QueueId,
        /// Its name.
        name: QueueName,
        /// Who asks.
        by: Requester,
        /// When it was asked for.
        time: Time,
    },
    /// Keeps a client out. The first block of a client stays.
    BlockClient(Block),
    /// Admits a blocked client again.
    UnblockClient(ClientId),
    /// Stores a client's public key and replaces an older one.
    PublicKey(ClientId, SealedRow),
    /// Stores a client's signed key and replaces an older one.
    ///
    /// The bare key in it replaces the client's bare key; if there is none in it, the client's bare
    /// key is removed.
    SignedKey {
        /// The client.
        client_id: ClientId,
        /// The signed key.
        signed: SealedRow,
        /// The bare key.
        bare: Option<SealedRow>,
    },
    /// Replaces keys that an older server has sealed, and records that this was done.
    Adopt(Vec<AdoptedRow>),
    /// Stores a chain that a client has connected with, and makes it the client's latest one.
    Certificate {
        /// The client.
        client_id: ClientId,
        /// The fingerprint of the client's certificate.
        fingerprint: Fingerprint,
        /// The chain, the client's own certificate first.
        chain: CertificateChain,
        /// When the client connected.
        seen: Time,
    },
}

impl Change {
    /// Returns the client that makes something by it.
    pub(crate) fn maker(&self) -> Option<&ClientId> {
        match self {
            Self::DeclareQueue { made_by, .. }
            | Self::DeclareExchange { made_by, .. }
            | Self::Bind { made_by, .. } => Some(made_by),
            _ => None,
        }
    }

    /// Whether the change comes last in its transaction, after the messages: then what the same
    /// commit stores in a queue is found by the change that removes it.
    pub(crate) fn comes_last(&self) -> bool {
        matches!(
            self,
            Self::DeleteQueue { .. } | Self::DeleteExchange { .. } | Self::PurgeQueue { .. }
        )
    }
}

/// The outcomes of a commit, item by item, in the order of the [`Transaction`].
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The commit's number.
    pub commit: CommitNumber,
    /// One for each change.
    pub changes: Vec<ChangeOutcome>,
    /// One for each publish.
    pub publishes: Vec<PublishOutcome>,
    /// Publishes, by index, of which some queues exist no more, as they were stored: without these.
    pub narrowed: Vec<(usize, Arc<Publish>)>,
    /// One for each ack.
    pub acks: Vec<AckOutcome>,
    /// One for each rejection.
    pub rejections: Vec<AckOutcome>,
    /// What senders hold more or less than before.
    pub held: HeldBySender,
}
