//! Receivers of a benchmark, with their queues and bindings.

use std::time::Duration;

use ciphermq_client::consumer::ConsumeError;
use ciphermq_client::{Client, Consumer, ExchangeName, Keyring, QueueName, RoutingKey};

use super::plan::PlanArgs;
use super::server::{BenchServer, Role};
use crate::exit::Failure;

const EXCHANGE: &str = "ciphermq_bench";
/// The time after which a queue without deliveries counts as empty.
const EMPTY_AFTER: Duration = Duration::from_millis(300);
/// The minimum prefetch of a receiver, for small windows.
const MIN_PREFETCH: std::num::NonZeroU32 = std::num::NonZeroU32::new(100).expect("100 is not 0");

/// A connected receiver, with its queue and binding.
pub(super) struct ReceiverRoute {
    pub(super) client: Client,
    pub(super) queue: QueueName,
    pub(super) exchange: ExchangeName,
    pub(super) routing_key: RoutingKey,
    /// The number of messages that it is to receive.
    pub(super) expected: u64,
}

impl ReceiverRoute {
    /// Connects a receiver, announces its keys, binds its queue, and removes messages that an
    /// earlier run has left in it.
    pub(super) async fn open(
        server: &BenchServer,
        plan: &PlanArgs,
        number: u32,
        keyring: &Keyring,
    ) -> Result<Self, Failure> {
        let client = server.connect(Role::Receiver(number)).await?;
        let name = format!("{EXCHANGE}_{}", number + 1);
        let route = Self {
            queue: QueueName::new(&name).map_err(name_failure)?,
            exchange: ExchangeName::new(EXCHANGE).map_err(name_failure)?,
            routing_key: RoutingKey::new(&name).map_err(name_failure)?,
            expected: (0..plan.senders.get())
                .map(|sender| plan.share(sender, number))
                .sum(),
            client,
        };
        announce(&route.client, keyring).await?;
        route.client.declare_queue(&route.queue).await?;
        route.client.declare_exchange(&route.exchange).await?;
        route
            .client
            .bind(&route.queue, &route.exchange, &route.routing_key)
            .await?;
        if matches!(server, BenchServer::Running { .. }) {
            route.clear(plan, keyring).await?;
        }
        Ok(route)
    }

    async fn clear(&self, plan: &PlanArgs, keyring: &Keyring) -> Result<(), Failure> {
        let mut consumer = self.consumer(plan, keyring).await?;
        while let Ok(Some(message)) = tokio::time::timeout(EMPTY_AFTER, consumer.next()).await {
            match message {
                Ok(message) => message.ack_later()?,
                Err(ConsumeError::Unopenable(left)) => {
                    left.reject(Some("left over by an earlier benchmark"))
                        .await?;
                }
                Err(error) => return Err(unopenable_failure(&error)),
            }
        }
        consumer.close().await;
        Ok(())
    }

    pub(super) async fn consumer(
        &self,
        plan: &PlanArgs,
        keyring: &Keyring,
    ) -> Result<Consumer, Failure> {
        let consumer = self.client.consumer(&self.queue).keyring(keyring.clone());
        // As many as all senders together may have in flight, but never so few that the receiver
        // waits for its own acks, as no real receiver does.
        let prefetch = plan.window.saturating_mul(plan.senders).max(MIN_PREFETCH);
        let most = self.client.server().limits.max_prefetch;
        let prefetch = std::num::NonZeroU32::new(prefetch.get().min(most)).unwrap_or(plan.window);
        Ok(consumer.prefetch(prefetch).start().await?)
    }
}

/// Signs and registers a receiver's keys.
pub(super) async fn announce(client: &Client, keyring: &Keyring) -> Result<(), Failure> {
    client.register_keys(keyring).await.map(drop).map_err(|error| {
        Failure::new(
            format!("The receiver's keys cannot be announced: {error}."),
            "The certificate must be valid, and its key of a kind that can sign: ECDSA or Ed25519.",
        )
    })
}

pub(super) fn name_failure(error: ciphermq_client::NameError) -> Failure {
    Failure::plain(format!("A name for the benchmark cannot be used: {error}."))
}

pub(super) fn unopenable_failure(error: &ConsumeError) -> Failure {
    Failure::new(
        format!("A message of the benchmark cannot be used: {error}."),
        "Check that nobody else uses the exchange and the queues named ciphermq_bench.",
    )
}
