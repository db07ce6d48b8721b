//! Redis Streams: XADD in pipelines, a consumer group, XACK and XDEL of many at once, not waited
//! for before the next read.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, ClientTlsConfig, Pipeline, TlsCertificates, Value};
use tokio::task::JoinHandle;

use crate::work::{Measured, Plan, Work, histogram, measure};

const STREAM: &str = "peers";
const GROUP: &str = "receivers";
/// So many pipelines share the window; and so many of acks are under way.
const PIPELINES: usize = 4;

async fn connect(plan: &Plan) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::build_with_tls(
        format!("rediss://localhost:{}", plan.port),
        TlsCertificates {
            client_tls: Some(ClientTlsConfig {
                client_cert: plan.read("client.crt")?,
                client_key: plan.read("client.key")?,
            }),
            root_cert: Some(plan.read("ca.crt")?),
        },
    )?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

pub async fn run(plan: &Plan, work: &Arc<Work>) -> anyhow::Result<Measured> {
    // Reading blocks its connection, so acks have one of their own.
    let (sender, mut receiver, acks) = (
        connect(plan).await?,
        connect(plan).await?,
        connect(plan).await?,
    );
    let () = receiver.del(STREAM).await?;
    let () = receiver.xgroup_create_mkstream(STREAM, GROUP, "$").await?;

    let (messages, window, sealing) = (plan.messages, plan.window, Arc::clone(work));
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
    let (expected, opening) = (plan.messages, Arc::clone(work));
    let options = StreamReadOptions::default()
        .group(GROUP, "receiver")
        .count(plan.window.max(100))
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
    let measured = measure(plan, send, receive).await?;
    let left: u64 = acks.clone().xlen(STREAM).await?;
    anyhow::ensure!(
        left == 0,
        "{left} acknowledged messages are still in the stream"
    );
    Ok(measured)
}

/// A pipeline is only sent while it is polled: the task does that.
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
