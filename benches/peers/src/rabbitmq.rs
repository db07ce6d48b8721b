//! RabbitMQ: a durable queue, persistent messages, publisher confirms, and acks of several messages
//! at once.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};

use crate::workload::{Measurement, MessageCipher, Settings, histogram, measure};

const QUEUE: &str = "peers";
/// Number of messages acked at once. Fewer are acked if no more have arrived.
const ACK_TOGETHER: u64 = 100;

async fn connect(settings: &Settings) -> anyhow::Result<Connection> {
    let tls = OwnedTLSConfig {
        identity: Some(OwnedIdentity::PKCS8 {
            pem: settings.read("client.crt")?,
            key: settings.read("client.key")?,
        }),
        cert_chain: Some(String::from_utf8(settings.read("ca.crt")?)?),
    };
    let uri = format!(
        "amqps://guest:guest@localhost:{}/%2f?frame_max=131072",
        settings.port
    );
    let runtime = lapin::runtime::default_runtime()?;
    Ok(
        Connection::connect_with_config(&uri, ConnectionProperties::default(), tls, runtime)
            .await?,
    )
}

pub async fn run(
    settings: &Settings,
    cipher: &Arc<MessageCipher>,
    kind: &str,
) -> anyhow::Result<Measurement> {
    let (sending, receiving) = (connect(settings).await?, connect(settings).await?);
    let (sender, receiver) = (
        sending.create_channel().await?,
        receiving.create_channel().await?,
    );
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
    receiver
        .queue_declare(QUEUE.into(), durable, arguments.clone())
        .await?;
    sender
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let prefetch = u16::try_from(settings.window.max(100)).unwrap_or(u16::MAX);
    receiver
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let mut deliveries = receiver
        .basic_consume(
            QUEUE.into(),
            "receiver".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;

    let (messages, window, sealing) = (settings.messages, settings.window, Arc::clone(cipher));
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let send = async move {
        let mut confirms = VecDeque::with_capacity(window);
        for _ in 0..messages {
            if confirms.len() >= window
                && let Some(oldest) = confirms.pop_front()
            {
                confirmed(oldest).await?;
            }
            let message = sealing.seal()?;
            let options = BasicPublishOptions::default();
            let confirm = sender
                .basic_publish(
                    "".into(),
                    QUEUE.into(),
                    options,
                    &message,
                    persistent.clone(),
                )
                .await?;
            confirms.push_back(confirm);
        }
        for confirm in confirms {
            confirmed(confirm).await?;
        }
        anyhow::Ok(())
    };
    let (expected, opening) = (settings.messages, Arc::clone(cipher));
    let receive = async move {
        let mut latencies = histogram()?;
        let all = BasicAckOptions { multiple: true };
        let mut unacked = 0;
        let mut next = deliveries.next().await;
        while let Some(delivery) = next {
            let delivery = delivery?;
            latencies.record(opening.open(&delivery.data)?)?;
            unacked += 1;
            let is_last = latencies.len() == expected;
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
        anyhow::ensure!(latencies.len() == expected, "the consumer ended");
        // Acks are not confirmed, but a reply to a later method on the channel shows that the
        // broker has processed them.
        receiver.close(200, "done".into()).await?;
        anyhow::Ok(latencies)
    };
    let measured = measure(settings, send, receive).await?;
    // Closing the channel has requeued messages that were not acknowledged.
    let checking = receiving.create_channel().await?;
    let left = checking
        .queue_declare(QUEUE.into(), durable, arguments)
        .await?
        .message_count();
    anyhow::ensure!(
        left == 0,
        "{left} acknowledged messages are still in the queue"
    );
    drop(sending);
    Ok(measured)
}

async fn confirmed(
    confirm: impl Future<Output = lapin::Result<Confirmation>>,
) -> anyhow::Result<()> {
    match confirm.await? {
        Confirmation::Ack(_) => Ok(()),
        other => anyhow::bail!("not confirmed: {other:?}"),
    }
}
