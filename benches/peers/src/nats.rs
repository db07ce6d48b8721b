//! NATS JetStream: a stream in files for each receiver, a durable pull consumer with explicit acks.

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishAckFuture};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use futures_util::StreamExt as _;

use crate::broker::{Address, Broker, Receiver, Sender};
use crate::inbox::Inbox;
use crate::plan::Plan;

/// The time to wait for replies and confirms. The client's default, 5 seconds, is too short for a
/// window of large messages that are synced one by one.
const TIMEOUT: Duration = Duration::from_secs(60);

/// JetStream with a stream for each receiver.
pub struct Nats {
    address: Address,
    retention: RetentionPolicy,
    admin: Context,
    receivers: usize,
}

impl Nats {
    pub async fn new(
        address: &Address,
        plan: &Plan,
        retention: RetentionPolicy,
    ) -> anyhow::Result<Self> {
        let admin = connect(address, plan).await?;
        let receivers = plan.receivers as usize;
        for number in 0..receivers {
            let _ = admin.delete_stream(stream(number)).await;
            let config = Config {
                name: stream(number),
                subjects: vec![subject(number)],
                storage: StorageType::File,
                retention,
                ..Config::default()
            };
            admin.create_stream(config).await?;
        }
        Ok(Self {
            address: address.clone(),
            retention,
            admin,
            receivers,
        })
    }
}

async fn connect(address: &Address, plan: &Plan) -> anyhow::Result<Context> {
    let client = async_nats::ConnectOptions::new()
        .add_root_certificates(address.path("ca.crt"))
        .add_client_certificate(address.path("client.crt"), address.path("client.key"))
        .require_tls(true)
        .connect(format!("tls://localhost:{}", address.port))
        .await?;
    Ok(ContextBuilder::new()
        .timeout(TIMEOUT)
        .ack_timeout(TIMEOUT)
        .max_ack_inflight((plan.window as usize).max(16))
        .build(client))
}

fn stream(number: usize) -> String {
    format!("PEERS-{}", number + 1)
}

fn subject(number: usize) -> String {
    format!("peers.{}", number + 1)
}

impl Broker for Nats {
    type Sender = NatsSender;
    type Receiver = NatsReceiver;

    async fn sender(&self, plan: &Plan) -> anyhow::Result<NatsSender> {
        Ok(NatsSender {
            context: connect(&self.address, plan).await?,
            subjects: (0..self.receivers)
                .map(|number| subject(number).into())
                .collect(),
            window: plan.window as usize,
            confirms: VecDeque::new(),
        })
    }

    async fn receiver(&self, plan: &Plan, number: usize) -> anyhow::Result<NatsReceiver> {
        let context = connect(&self.address, plan).await?;
        let stream = context.get_stream(stream(number)).await?;
        let consumer: PullConsumer = stream
            .create_consumer(pull::Config {
                durable_name: Some("receiver".to_owned()),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: 10_000,
                ..pull::Config::default()
            })
            .await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(plan.prefetch() as usize)
            .messages()
            .await?;
        Ok(NatsReceiver { messages })
    }

    async fn check_empty(&self) -> anyhow::Result<()> {
        for number in 0..self.receivers {
            let mut stream = self.admin.get_stream(stream(number)).await?;
            let mut consumer: PullConsumer = stream
                .get_consumer("receiver")
                .await
                .map_err(|error| anyhow::anyhow!("no consumer: {error}"))?;
            let info = consumer.info().await?;
            let (pending, unacknowledged) = (info.num_pending, info.num_ack_pending);
            anyhow::ensure!(
                pending == 0 && unacknowledged == 0,
                "{pending} messages were not delivered, {unacknowledged} not acknowledged"
            );
            let left = stream.info().await?.state.messages;
            anyhow::ensure!(
                left == 0 || self.retention != RetentionPolicy::WorkQueue,
                "{left} acknowledged messages are still in the stream"
            );
        }
        Ok(())
    }
}

pub struct NatsSender {
    context: Context,
    subjects: Vec<async_nats::Subject>,
    window: usize,
    confirms: VecDeque<<PublishAckFuture as IntoFuture>::IntoFuture>,
}

impl Sender for NatsSender {
    async fn ready(&mut self) -> anyhow::Result<()> {
        if self.confirms.len() >= self.window
            && let Some(oldest) = self.confirms.pop_front()
        {
            oldest.await?;
        }
        Ok(())
    }

    async fn publish(&mut self, receiver: usize, message: Vec<u8>) -> anyhow::Result<()> {
        let subject = self.subjects.get(receiver).context("no such receiver")?;
        let confirm = self
            .context
            .publish(subject.clone(), message.into())
            .await?;
        self.confirms.push_back(confirm.into_future());
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        for confirm in self.confirms.drain(..) {
            confirm.await?;
        }
        Ok(())
    }
}

pub struct NatsReceiver {
    messages: pull::Stream,
}

impl Receiver for NatsReceiver {
    async fn receive(&mut self, inbox: &mut Inbox) -> anyhow::Result<()> {
        while !inbox.is_complete() {
            let message = self.messages.next().await;
            let message = message.context("the consumer ended")??;
            inbox.open(&message.payload)?;
            // Acks are not confirmed. The server processes them in order, so that a confirm of the
            // last one is one of all.
            let acked = match inbox.is_complete() {
                true => message.double_ack().await,
                false => message.ack().await,
            };
            acked.map_err(|error| anyhow::anyhow!("cannot ack: {error}"))?;
        }
        Ok(())
    }

    async fn settle(self) -> anyhow::Result<()> {
        Ok(())
    }
}
