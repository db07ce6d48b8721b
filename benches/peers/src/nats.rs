//! NATS JetStream: a stream in files, a durable pull consumer with explicit acks.

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::sync::Arc;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use futures_util::StreamExt as _;

use crate::workload::{Measurement, MessageCipher, Settings, histogram, measure};

const SUBJECT: &str = "peers.work";

async fn connect(settings: &Settings) -> anyhow::Result<async_nats::jetstream::Context> {
    let client = async_nats::ConnectOptions::new()
        .add_root_certificates(settings.path("ca.crt"))
        .add_client_certificate(settings.path("client.crt"), settings.path("client.key"))
        .require_tls(true)
        .connect(("localhost", settings.port).into_address())
        .await?;
    Ok(async_nats::jetstream::context::ContextBuilder::new()
        .max_ack_inflight(settings.window.max(16))
        .build(client))
}

trait IntoAddress {
    fn into_address(self) -> String;
}

impl IntoAddress for (&str, u16) {
    fn into_address(self) -> String {
        format!("tls://{}:{}", self.0, self.1)
    }
}

pub async fn run(
    settings: &Settings,
    cipher: &Arc<MessageCipher>,
    retention: RetentionPolicy,
) -> anyhow::Result<Measurement> {
    let (sender, receiver) = (connect(settings).await?, connect(settings).await?);
    let _ = receiver.delete_stream("PEERS").await;
    let mut stream = receiver
        .create_stream(Config {
            name: "PEERS".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage: StorageType::File,
            retention,
            ..Config::default()
        })
        .await?;
    let mut consumer = stream
        .create_consumer(pull::Config {
            durable_name: Some("receiver".to_owned()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 10_000,
            ..pull::Config::default()
        })
        .await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(settings.window.max(100))
        .messages()
        .await?;

    let (messages_to_send, window, sealing) =
        (settings.messages, settings.window, Arc::clone(cipher));
    let send = async move {
        let mut confirms = VecDeque::with_capacity(window);
        for _ in 0..messages_to_send {
            if confirms.len() >= window
                && let Some(oldest) = confirms.pop_front()
            {
                oldest.await?;
            }
            let confirm = sender.publish(SUBJECT, sealing.seal()?.into()).await?;
            confirms.push_back(confirm.into_future());
        }
        for confirm in confirms {
            confirm.await?;
        }
        anyhow::Ok(())
    };
    let (expected, opening) = (settings.messages, Arc::clone(cipher));
    let receive = async move {
        let mut latencies = histogram()?;
        while latencies.len() < expected {
            let message = messages
                .next()
                .await
                .ok_or_else(|| anyhow::anyhow!("the consumer ended"))??;
            latencies.record(opening.open(&message.payload)?)?;
            let acked = message.ack().await;
            acked.map_err(|error| anyhow::anyhow!("cannot ack: {error}"))?;
        }
        // Acks are not confirmed individually, so the server is polled until it has all of them.
        while consumer.info().await?.num_ack_pending > 0 {}
        anyhow::Ok(latencies)
    };
    let measured = measure(settings, send, receive).await?;
    if retention == RetentionPolicy::WorkQueue {
        let left = stream.info().await?.state.messages;
        anyhow::ensure!(
            left == 0,
            "{left} acknowledged messages are still in the stream"
        );
    }
    Ok(measured)
}
