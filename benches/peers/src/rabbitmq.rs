//! RabbitMQ: a durable queue, persistent messages, publisher confirms, acks of many at once.

use std::collections::VecDeque;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};

use crate::work::{Measured, Plan, Work, histogram};

const QUEUE: &str = "peers";
/// So many messages are acked at once, or all that have come if no more are there.
const ACK_TOGETHER: u64 = 100;

async fn connect(plan: &Plan) -> anyhow::Result<Connection> {
    let tls = OwnedTLSConfig {
        identity: Some(OwnedIdentity::PKCS8 {
            pem: plan.read("client.crt")?,
            key: plan.read("client.key")?,
        }),
        cert_chain: Some(String::from_utf8(plan.read("ca.crt")?)?),
    };
    let uri = format!("amqps://guest:guest@localhost:{}/%2f?frame_max=131072", plan.port);
    let runtime = lapin::runtime::default_runtime()?;
    Ok(Connection::connect_with_config(&uri, ConnectionProperties::default(), tls, runtime).await?)
}

pub async fn run(plan: &Plan, work: &Work, kind: &str) -> anyhow::Result<Measured> {
    let (sending, receiving) = (connect(plan).await?, connect(plan).await?);
    let (sender, receiver) = (sending.create_channel().await?, receiving.create_channel().await?);
    let _ = sending
        .create_channel()
        .await?
        .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
        .await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    receiver.queue_declare(QUEUE.into(), durable, arguments).await?;
    sender.confirm_select(ConfirmSelectOptions::default()).await?;
    let prefetch = u16::try_from(plan.window.max(100)).unwrap_or(u16::MAX);
    receiver.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let mut deliveries = receiver
        .basic_consume(
            QUEUE.into(),
            "receiver".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;

    let began = work.elapsed();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let publish = async {
        let mut confirms = VecDeque::with_capacity(plan.window);
        for _ in 0..plan.messages {
            if confirms.len() >= plan.window
                && let Some(oldest) = confirms.pop_front()
            {
                confirmed(oldest).await?;
            }
            let message = work.seal()?;
            let options = BasicPublishOptions::default();
            let confirm = sender
                .basic_publish("".into(), QUEUE.into(), options, &message, persistent.clone())
                .await?;
            confirms.push_back(confirm);
        }
        for confirm in confirms {
            confirmed(confirm).await?;
        }
        anyhow::Ok(())
    };
    let receive = async {
        let mut latencies = histogram()?;
        let all = BasicAckOptions { multiple: true };
        let mut unacked = 0;
        let mut next = deliveries.next().await;
        while let Some(delivery) = next {
            let delivery = delivery?;
            latencies.record(work.open(&delivery.data)?)?;
            unacked += 1;
            let is_last = latencies.len() == plan.messages;
            let following = if is_last {
                None
            } else {
                deliveries.next().now_or_never()
            };
            if unacked >= ACK_TOGETHER || following.is_none() {
                delivery.ack(all).await?;
                unacked = 0;
            }
            next = match following {
                _ if is_last => None,
                Some(following) => following,
                None => deliveries.next().await,
            };
        }
        anyhow::ensure!(latencies.len() == plan.messages, "the consumer ended");
        // Acks are not confirmed; the answer to whatever comes after them on the channel is.
        let passive = QueueDeclareOptions {
            passive: true,
            ..durable
        };
        receiver
            .queue_declare(QUEUE.into(), passive, FieldTable::default())
            .await?;
        anyhow::Ok(latencies)
    };
    let ((), latencies) = tokio::try_join!(publish, receive)?;
    let seconds = (work.elapsed() - began).as_secs_f64();
    Ok(Measured { seconds, latencies })
}

async fn confirmed(confirm: impl Future<Output = lapin::Result<Confirmation>>) -> anyhow::Result<()> {
    match confirm.await? {
        Confirmation::Ack(_) => Ok(()),
        other => anyhow::bail!("not confirmed: {other:?}"),
    }
}
