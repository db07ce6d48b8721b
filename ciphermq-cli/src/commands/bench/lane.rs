//! Receivers, and where their messages go.

use std::time::Duration;

use ciphermq_client::consumer::ConsumeError;
use ciphermq_client::{Client, Consumer, ExchangeName, Keyring, QueueName, RoutingKey};

use super::plan::PlanArgs;
use super::target::{Role, Target};
use crate::exit::Failure;

const EXCHANGE: &str = "ciphermq_bench";
/// Left-overs of a run that was ended are looked for so long.
const LEFT_OVER: Duration = Duration::from_millis(300);
/// How many unacked messages a receiver has room for, however small the window is.
const LEAST_PREFETCH: std::num::NonZeroU32 = std::num::NonZeroU32::new(100).expect("100 is not 0");

/// A receiver, and where its messages go.
pub(super) struct Lane {
    pub(super) client: Client,
    pub(super) queue: QueueName,
    pub(super) exchange: ExchangeName,
    pub(super) routing_key: RoutingKey,
    /// How many messages come here.
    pub(super) expected: u64,
}

impl Lane {
    /// Connects a receiver, announces its keys, binds its queue, and takes out what an earlier run
    /// has left there.
    pub(super) async fn open(
        target: &Target,
        plan: &PlanArgs,
        number: u32,
        keyring: &Keyring,
    ) -> Result<Self, Failure> {
        let client = target.connect(Role::Receiver(number)).await?;
        let name = format!("{EXCHANGE}_{}", number + 1);
        let lane = Self {
            queue: QueueName::new(&name).map_err(unnamed)?,
            exchange: ExchangeName::new(EXCHANGE).map_err(unnamed)?,
            routing_key: RoutingKey::new(&name).map_err(unnamed)?,
            expected: (0..plan.senders.get())
                .map(|sender| plan.share(sender, number))
                .sum(),
            client,
        };
        announce(&lane.client, keyring).await?;
        lane.client.declare_queue(&lane.queue).await?;
        lane.client.declare_exchange(&lane.exchange).await?;
        lane.client
            .bind(&lane.queue, &lane.exchange, &lane.routing_key)
            .await?;
        if matches!(target, Target::Running { .. }) {
            lane.clear(plan, keyring).await?;
        }
        Ok(lane)
    }

    async fn clear(&self, plan: &PlanArgs, keyring: &Keyring) -> Result<(), Failure> {
        let mut consumer = self.consumer(plan, keyring).await?;
        while let Ok(Some(message)) = tokio::time::timeout(LEFT_OVER, consumer.next()).await {
            match message {
                Ok(message) => message.ack_later()?,
                Err(ConsumeError::Unopenable(left)) => {
                    left.reject(Some("left over by an earlier benchmark"))
                        .await?;
                }
                Err(error) => return Err(unopenable(&error)),
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
        // As many as all the senders together may have under way; but never so few that the
        // receiver waits for its acks, as no receiver in earnest does.
        let prefetch = plan.window.saturating_mul(plan.senders).max(LEAST_PREFETCH);
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

pub(super) fn unnamed(error: ciphermq_client::NameError) -> Failure {
    Failure::plain(format!("A name for the benchmark cannot be used: {error}."))
}

pub(super) fn unopenable(error: &ConsumeError) -> Failure {
    Failure::new(
        format!("A message of the benchmark cannot be used: {error}."),
        "See that nobody else uses the exchange and the queues named ciphermq_bench.",
    )
}
