//! The contents of a commit, and its outcomes.

use std::sync::Arc;

use ciphermq_protocol::{
    CertificateChain, ClientId, ExchangeName, Fingerprint, MessageId, QueueName,
};

use super::{
    Ack, AckOutcome, AdoptedRow, Binding, CommitNumber, Publish, PublishOutcome, QueueId,
    Rejection, SealedRow, Time,
};

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
    DeclareQueue(QueueName),
    /// Declares an exchange unless it exists.
    DeclareExchange(ExchangeName),
    /// Binds a queue to an exchange, both known to exist.
    Bind(Binding),
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

/// The outcomes of a commit, item by item, in the order of the [`Transaction`].
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The commit's number.
    pub commit: CommitNumber,
    /// For each change, the queue's number if it declared one.
    pub changes: Vec<Option<QueueId>>,
    /// One for each publish.
    pub publishes: Vec<PublishOutcome>,
    /// One for each ack.
    pub acks: Vec<AckOutcome>,
    /// One for each rejection.
    pub rejections: Vec<AckOutcome>,
}
