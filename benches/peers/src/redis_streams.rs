//! Redis Streams: XADD in pipelines, a consumer group, and XACK and XDEL of several messages at
//! once, without waiting for them before the next read.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, ClientTlsConfig, Pipeline, TlsCertificates, Value};
use tokio::task::JoinHandle;

use crate::workload::{Measurement, MessageCipher, Settings, histogram, measure};

const STREAM: &str = "peers";
const GROUP: &str = "receivers";
/// Number of pipelines that share the window, and maximum number of ack pipelines in flight.
const PIPELINES: usize = 4;

async fn connect(settings: &Settings) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::build_with_tls(
        format!("rediss://localhost:{}", settings.port),
        TlsCertificates {
            client_tls: Some(ClientTlsConfig {
                client_cert: settings.read("client.crt")?,
                client_key: settings.read("client.key")?,
            }),
            root_cert: Some(settings.read("ca.crt")?),
        },
    )?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

pub async fn run(settings: &Settings, cipher: &Arc<MessageCipher>) -> anyhow::Result<Measurement> {
    // A blocking read occupies its connection, so acks use another one.
    let (sender, mut receiver, acks) = (
        connect(settings).await?,
        connect(settings).await?,
        connect(settings).await?,
    );
    let () = receiver.del(STREAM).await?;
    let () = receiver.xgroup_create_mkstream(STREAM, GROUP, "$").await?;

    let (messages, window, sealing) = (settings.messages, settings.window, Arc::clone(cipher));
    let send = async move {
        let together = window.div_ceil(PIPELINES);
        let mut under_way = VecDeque::new();
        let mut left = messages;
        while left > 0 {
            if (under_way.len() + 1) * together > window
                && let Some(oldest) = under_way.pop_front()
            {
                sent(oldest).await?;
            }
            let count = left.min(together as u64);
            left -= count;
            let mut pipe = redis::pipe();
            for _ in 0..count {
                pipe.xadd(STREAM, "*", &[("m", sealing.seal()?)]).ignore();
            }
            under_way.push_back(in_background(pipe, &sender));
        }
        for pipe in under_way {
            sent(pipe).await?;
        }
        anyhow::Ok(())
    };
    let (expected, opening) = (settings.messages, Arc::clone(cipher));
    let options = StreamReadOptions::default()
        .group(GROUP, "receiver")
        .count(settings.window.max(100))
        .block(1000);
    let acknowledging = acks.clone();
    let receive = async move {
        let mut latencies = histogram()?;
        let mut under_way = VecDeque::new();
        while latencies.len() < expected {
            let reply: Option<StreamReadReply> =
                receiver.xread_options(&[STREAM], &[">"], &options).await?;
            let entries = reply
                .into_iter()
                .flat_map(|reply| reply.keys)
                .flat_map(|key| key.ids);
            let mut ids = Vec::new();
            for mut entry in entries {
                let Some(Value::BulkString(message)) = entry.map.remove("m") else {
                    anyhow::bail!("no message in an entry");
                };
                latencies.record(opening.open(&message)?)?;
                ids.push(entry.id);
            }
            if ids.is_empty() {
                continue;
            }
            let mut pipe = redis::pipe();
            pipe.xack(STREAM, GROUP, &ids).ignore();
            pipe.xdel(STREAM, &ids).ignore();
            under_way.push_back(in_background(pipe, &acknowledging));
            if under_way.len() > PIPELINES
                && let Some(oldest) = under_way.pop_front()
            {
                sent(oldest).await?;
            }
        }
        for pipe in under_way {
            sent(pipe).await?;
        }
        anyhow::Ok(latencies)
    };
    let measured = measure(settings, send, receive).await?;
    let left: u64 = acks.clone().xlen(STREAM).await?;
    anyhow::ensure!(
        left == 0,
        "{left} acknowledged messages are still in the stream"
    );
    Ok(measured)
}

/// Runs a pipeline in a task, because it is only sent while it is polled.
fn in_background(
    pipe: Pipeline,
    connection: &MultiplexedConnection,
) -> JoinHandle<redis::RedisResult<()>> {
    let mut connection = connection.clone();
    tokio::spawn(async move { pipe.exec_async(&mut connection).await })
}

async fn sent(pipe: JoinHandle<redis::RedisResult<()>>) -> anyhow::Result<()> {
    Ok(pipe.await??)
}
