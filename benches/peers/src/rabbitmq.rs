//! RabbitMQ: a durable queue for each receiver, persistent messages, publisher confirms, and acks
//! of several messages at once.

use std::collections::VecDeque;

use anyhow::Context as _;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    PublisherConfirm,
};

use crate::broker::{Address, Broker, Receiver, Sender};
use crate::inbox::Inbox;
use crate::plan::Plan;

/// Number of messages acked at once. Fewer are acked if no more have arrived.
const ACK_TOGETHER: u64 = 100;

/// RabbitMQ with a queue of one kind for each receiver.
pub struct RabbitMq {
    address: Address,
    arguments: FieldTable,
    admin: Connection,
    receivers: usize,
}

impl RabbitMq {
    pub async fn new(address: &Address, plan: &Plan, kind: &str) -> anyhow::Result<Self> {
        let admin = connect(address).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let receivers = plan.receivers as usize;
        let channel = admin.create_channel().await?;
        for number in 0..receivers {
            channel
                .queue_delete(queue(number), QueueDeleteOptions::default())
                .await?;
            channel
                .queue_declare(queue(number), durable(), arguments.clone())
                .await?;
        }
        channel.close(200, "done".into()).await?;
        Ok(Self {
            address: address.clone(),
            arguments,
            admin,
            receivers,
        })
    }
}

async fn connect(address: &Address) -> anyhow::Result<Connection> {
    let tls = OwnedTLSConfig {
        identity: Some(OwnedIdentity::PKCS8 {
            pem: address.read("client.crt")?,
            key: address.read("client.key")?,
        }),
        cert_chain: Some(String::from_utf8(address.read("ca.crt")?)?),
    };
    let uri = format!(
        "amqps://guest:guest@localhost:{}/%2f?frame_max=131072",
        address.port
    );
    let (properties, runtime) = (
        ConnectionProperties::default(),
        lapin::runtime::default_runtime()?,
    );
    Ok(Connection::connect_with_config(&uri, properties, tls, runtime).await?)
}

fn queue(number: usize) -> ShortString {
    format!("peers-{}", number + 1).into()
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    }
}

impl Broker for RabbitMq {
    type Sender = RabbitMqSender;
    type Receiver = RabbitMqReceiver;

    async fn sender(&self, plan: &Plan) -> anyhow::Result<RabbitMqSender> {
        let connection = connect(&self.address).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(RabbitMqSender {
            _connection: connection,
            channel,
            queues: (0..self.receivers).map(queue).collect(),
            window: plan.window as usize,
            confirms: VecDeque::new(),
        })
    }

    async fn receiver(&self, plan: &Plan, number: usize) -> anyhow::Result<RabbitMqReceiver> {
        let connection = connect(&self.address).await?;
        let channel = connection.create_channel().await?;
        let prefetch = u16::try_from(plan.prefetch()).unwrap_or(u16::MAX);
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        let deliveries = channel
            .basic_consume(
                queue(number),
                "receiver".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(RabbitMqReceiver {
            _connection: connection,
            channel,
            deliveries,
        })
    }

    async fn check_empty(&self) -> anyhow::Result<()> {
        // Closing the receivers' channels has requeued messages that were not acknowledged.
        let channel = self.admin.create_channel().await?;
        for number in 0..self.receivers {
            let left = channel
                .queue_declare(queue(number), durable(), self.arguments.clone())
                .await?
                .message_count();
            anyhow::ensure!(
                left == 0,
                "{left} acknowledged messages are still in the queue"
            );
        }
        Ok(())
    }
}

pub struct RabbitMqSender {
    /// Dropping it would close the channel.
    _connection: Connection,
    channel: Channel,
    queues: Vec<ShortString>,
    window: usize,
    confirms: VecDeque<PublisherConfirm>,
}

impl Sender for RabbitMqSender {
    async fn ready(&mut self) -> anyhow::Result<()> {
        if self.confirms.len() >= self.window
            && let Some(oldest) = self.confirms.pop_front()
        {
            confirmed(oldest).await?;
        }
        Ok(())
    }

    async fn publish(&mut self, receiver: usize, message: Vec<u8>) -> anyhow::Result<()> {
        let queue = self.queues.get(receiver).context("no such receiver")?;
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let confirm = self
            .channel
            .basic_publish(
                "".into(),
                queue.clone(),
                BasicPublishOptions::default(),
                &message,
                persistent,
            )
            .await?;
        self.confirms.push_back(confirm);
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        for confirm in self.confirms.drain(..) {
            confirmed(confirm).await?;
        }
        Ok(())
    }
}

async fn confirmed(confirm: PublisherConfirm) -> anyhow::Result<()> {
    match confirm.await? {
        Confirmation::Ack(_) => Ok(()),
        other => anyhow::bail!("not confirmed: {other:?}"),
    }
}

pub struct RabbitMqReceiver {
    /// Dropping it would close the channel.
    _connection: Connection,
    channel: Channel,
    deliveries: Consumer,
}

impl Receiver for RabbitMqReceiver {
    async fn receive(&mut self, inbox: &mut Inbox) -> anyhow::Result<()> {
        let all = BasicAckOptions { multiple: true };
        let mut unacked = 0;
        let mut arrived: Option<Delivery> = None;
        while !inbox.is_complete() {
            let delivery = match arrived.take() {
                Some(delivery) => delivery,
                None => self
                    .deliveries
                    .next()
                    .await
                    .context("the consumer ended")??,
            };
            inbox.open(&delivery.data)?;
            unacked += 1;
            if !inbox.is_complete()
                && let Some(next) = self.deliveries.next().now_or_never()
            {
                arrived = Some(next.context("the consumer ended")??);
            }
            if unacked >= ACK_TOGETHER || arrived.is_none() {
                delivery.ack(all).await?;
                unacked = 0;
            }
        }
        Ok(())
    }

    async fn settle(self) -> anyhow::Result<()> {
        // Acks are not confirmed, but a reply to a later method on the channel shows that the
        // broker has processed them.
        self.channel.close(200, "done".into()).await?;
        Ok(())
    }
}
