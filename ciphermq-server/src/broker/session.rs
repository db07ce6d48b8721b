//! The session of a connection, and the commands about the connection itself: `hello` and `ping`.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::hello::{HelloLimits, HelloReply, HelloRequest};
use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, Reply};

use super::authorization::SessionAuthorization;
use super::dispatcher::{Connected, Facts, Hello};
use super::queries::QueryTurn;
use super::quotas::{ConsumerCount, ConsumerSlot, SharedRate};
use super::{Activity, Answer, Broker, Closing, Mailbox, OutputObserver};
use crate::inbox::ConnectionId;
use crate::model::QueueId;
use crate::repeated::Event;
use crate::store::writer::ClientWriter;

/// A client's session on one connection, registered with the broker until it is dropped.
pub struct ClientSession {
    pub(super) broker: Arc<Broker>,
    pub(super) id: ConnectionId,
    pub(super) client_id: ClientId,
    /// Submits what this client writes.
    pub(super) writer: ClientWriter,
    /// Shared by all connections of the client.
    pub(super) query_turn: Arc<QueryTurn>,
    pub(super) authorization: SessionAuthorization,
    consumer: Option<(ClientId, String)>,
    pub(super) consuming: bool,
    /// The queues that this connection consumes from, each counted for its client.
    pub(super) consumed: HashMap<QueueId, ConsumerSlot>,
    /// Shared by all connections of the client.
    pub(super) consumer_count: Arc<ConsumerCount>,
    /// How fast the client publishes. Shared by all connections of the client.
    pub(super) rate: SharedRate,
    /// Records that the client is alive.
    pub activity: Arc<Activity>,
    /// Whether the broker ends the connection: another one of the same consumer takes over, its
    /// queue is deleted, or an administrator wants it.
    pub closing: Arc<Closing>,
    facts: Arc<Facts>,
}

impl ClientSession {
    pub(super) fn new(
        broker: Arc<Broker>,
        id: ConnectionId,
        client_id: ClientId,
        connected: Connected,
    ) -> (Self, Mailbox) {
        let consumer_count = broker
            .consumer_counts
            .get(&client_id, ConsumerCount::default);
        let rate = broker.rates.of(&client_id, &broker.ledger);
        let session = Self {
            writer: broker.writer.client(&client_id),
            query_turn: broker.query_turns.get(&client_id, QueryTurn::default),
            authorization: SessionAuthorization::new(&broker.authorization, client_id.clone()),
            broker,
            id,
            client_id,
            consumer: None,
            consuming: false,
            consumed: HashMap::new(),
            consumer_count,
            rate,
            activity: connected.activity,
            closing: connected.closing,
            facts: connected.facts,
        };
        (session, connected.deliveries)
    }

    /// Returns the client id in the certificate.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Returns whether the client may administer.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.broker.authorization.is_administrator(&self.client_id)
    }

    /// Returns the broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Returns the interface for the connection's writing half.
    #[must_use]
    pub fn output_observer(&self) -> OutputObserver {
        OutputObserver {
            broker: Arc::clone(&self.broker),
            id: self.id,
            client_id: self.client_id.clone(),
        }
    }

    /// Records that the client is alive; call it for whatever is received.
    pub fn touch(&self) {
        if self.activity.received() {
            let id = self.id;
            self.broker
                .dispatcher
                .with_inbox(&self.client_id, |inbox, _| inbox.touch(id));
        }
    }

    /// Executes `hello`.
    pub(super) fn hello(&mut self, request: HelloRequest) -> Result<Answer, ErrorReply> {
        let packing = request.packing();
        if let Some(consumer) = request.consumer {
            ciphermq_protocol::name::check(&consumer).map_err(|error| {
                ErrorReply::new(ErrorCode::BadName, format!("consumer: {error}"))
            })?;
            self.take_over((self.client_id.clone(), consumer));
        }
        self.facts.said_hello(Hello {
            program: request.client,
            consumer: self.consumer.as_ref().map(|(_, consumer)| consumer.clone()),
            packed: request.packed,
        });
        let limits = &self.broker.limits;
        let reply = HelloReply {
            server: "ciphermq-server".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: 1,
            client_id: self.client_id.clone(),
            limits: HelloLimits {
                max_line_bytes: limits.max_line_bytes,
                max_prefetch: limits.max_prefetch,
                redelivery_timeout_ms: u64::try_from(limits.redelivery_timeout.as_millis())
                    .unwrap_or(u64::MAX),
                storage_wait_ms: u64::try_from(limits.storage_wait.as_millis()).unwrap_or(u64::MAX),
            },
            packed: true,
            binary: true,
        };
        Ok(Answer::Hello {
            reply: Reply::Hello(Box::new(reply)),
            packing,
        })
    }

    /// Ends an older connection of the same consumer; its leases return before this returns.
    fn take_over(&mut self, consumer: (ClientId, String)) {
        if let Some(before) = self.consumer.take() {
            self.broker
                .consumers
                .remove_if(&before, |_, connection| *connection == self.id);
        }
        let older = self
            .broker
            .consumers
            .insert(consumer.clone(), self.id)
            .filter(|older| *older != self.id);
        if let Some(older) = older {
            let (repeated, client_id) = (&self.broker.repeated, self.client_id.as_str());
            if repeated.is_first(Event::TookOver, client_id, "") {
                tracing::info!(
                    client_id,
                    "Consumer has reconnected, its older connection is ended"
                );
            }
            self.broker.dispatcher.close(older);
        }
        self.consumer = Some(consumer);
    }

    /// Executes `ping`, by which clients keep the leases of messages that they have not finished.
    #[must_use]
    pub(super) fn ping(&self) -> Reply {
        if self.activity.keep_leases() {
            let id = self.id;
            self.broker
                .dispatcher
                .with_inbox(&self.client_id, |inbox, _| inbox.keep_leases(id));
        }
        Reply::Pong
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.broker
                .consumers
                .remove_if(&consumer, |_, connection| *connection == self.id);
        }
        self.broker.dispatcher.disconnect(self.id);
    }
}
