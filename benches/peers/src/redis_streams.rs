//! Redis Streams: XADD in pipelines, a consumer group, XACK and XDEL of many at once.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, ClientTlsConfig, TlsCertificates};

use crate::work::{Measured, Plan, Work, histogram};

const STREAM: &str = "peers";
const GROUP: &str = "receivers";
/// So many pipelines share the window.
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

pub async fn run(plan: &Plan, work: &Work) -> anyhow::Result<Measured> {
    let (sender, mut receiver) = (connect(plan).await?, connect(plan).await?);
    let _: () = receiver.del(STREAM).await?;
    let _: () = receiver.xgroup_create_mkstream(STREAM, GROUP, "$").await?;

    let began = work.elapsed();
    let publish = async {
        let together = plan.window.div_ceil(PIPELINES);
        let mut under_way = FuturesOrdered::new();
        let mut left = plan.messages;
        while left > 0 {
            if (under_way.len() + 1) * together > plan.window && !under_way.is_empty() {
                let done: Option<anyhow::Result<()>> = under_way.next().await;
                done.transpose()?;
            }
            let count = left.min(together as u64);
            left -= count;
            let mut pipe = redis::pipe();
            for _ in 0..count {
                pipe.xadd(STREAM, "*", &[("m", work.seal()?)]).ignore();
            }
            let mut sender = sender.clone();
            under_way.push_back(async move {
                let () = pipe.query_async(&mut sender).await?;
                Ok(())
            });
            // Sent now, not when its answer is awaited.
            if let Some(done) = futures_util::FutureExt::now_or_never(under_way.next()).flatten() {
                done?;
            }
        }
        while let Some(done) = under_way.next().await {
            done?;
        }
        anyhow::Ok(())
    };
    let receive = async {
        let mut latencies = histogram()?;
        let options = StreamReadOptions::default()
            .group(GROUP, "receiver")
            .count(plan.window.max(100))
            .block(1000);
        while latencies.len() < plan.messages {
            let reply: Option<StreamReadReply> = receiver.xread_options(&[STREAM], &[">"], &options).await?;
            let entries = reply
                .into_iter()
                .flat_map(|reply| reply.keys)
                .flat_map(|key| key.ids);
            let mut ids = Vec::new();
            for entry in entries {
                let message: Vec<u8> = entry
                    .get("m")
                    .ok_or_else(|| anyhow::anyhow!("no message in an entry"))?;
                latencies.record(work.open(&message)?)?;
                ids.push(entry.id);
            }
            if !ids.is_empty() {
                let mut pipe = redis::pipe();
                pipe.xack(STREAM, GROUP, &ids)
                    .ignore()
                    .xdel(STREAM, &ids)
                    .ignore();
                let () = pipe.query_async(&mut receiver).await?;
            }
        }
        anyhow::Ok(latencies)
    };
    let ((), latencies) = tokio::try_join!(publish, receive)?;
    let seconds = (work.elapsed() - began).as_secs_f64();
    Ok(Measured { seconds, latencies })
}
