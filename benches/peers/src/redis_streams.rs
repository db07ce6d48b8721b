//! Redis Streams: a stream and a consumer group for each receiver, XADD in pipelines. A receiver
//! sends XACK and XDEL of several messages together with its next read: a read that waits occupies
//! its connection.

use std::collections::VecDeque;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, ClientTlsConfig, Pipeline, TlsCertificates, Value};
use tokio::task::JoinHandle;

use crate::broker::{Address, Broker, Receiver, Sender};
use crate::inbox::Inbox;
use crate::plan::Plan;

const GROUP: &str = "receivers";
/// Number of pipelines that share the window.
const PIPELINES: usize = 4;
/// How long a read waits for messages, in milliseconds.
const BLOCK: usize = 1000;

/// Redis with a stream for each receiver.
pub struct Redis {
    address: Address,
    admin: MultiplexedConnection,
    receivers: usize,
}

impl Redis {
    pub async fn new(address: &Address, plan: &Plan) -> anyhow::Result<Self> {
        let mut admin = connect(address).await?;
        let receivers = plan.receivers as usize;
        for number in 0..receivers {
            let () = admin.del(stream(number)).await?;
            let () = admin
                .xgroup_create_mkstream(stream(number), GROUP, "$")
                .await?;
        }
        Ok(Self {
            address: address.clone(),
            admin,
            receivers,
        })
    }
}

async fn connect(address: &Address) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::build_with_tls(
        format!("rediss://localhost:{}", address.port),
        TlsCertificates {
            client_tls: Some(ClientTlsConfig {
                client_cert: address.read("client.crt")?,
                client_key: address.read("client.key")?,
            }),
            root_cert: Some(address.read("ca.crt")?),
        },
    )?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

fn stream(number: usize) -> String {
    format!("peers-{}", number + 1)
}

impl Broker for Redis {
    type Sender = RedisSender;
    type Receiver = RedisReceiver;

    async fn sender(&self, plan: &Plan) -> anyhow::Result<RedisSender> {
        let window = plan.window as usize;
        Ok(RedisSender {
            connection: connect(&self.address).await?,
            streams: (0..self.receivers).map(stream).collect(),
            window,
            together: window.div_ceil(PIPELINES),
            next: redis::pipe(),
            under_way: VecDeque::new(),
        })
    }

    async fn receiver(&self, plan: &Plan, number: usize) -> anyhow::Result<RedisReceiver> {
        Ok(RedisReceiver {
            connection: connect(&self.address).await?,
            stream: stream(number),
            options: StreamReadOptions::default()
                .group(GROUP, "receiver")
                .count(plan.prefetch() as usize)
                .block(BLOCK),
        })
    }

    async fn check_empty(&self) -> anyhow::Result<()> {
        for number in 0..self.receivers {
            let left: u64 = self.admin.clone().xlen(stream(number)).await?;
            anyhow::ensure!(
                left == 0,
                "{left} acknowledged messages are still in the stream"
            );
        }
        Ok(())
    }
}

pub struct RedisSender {
    connection: MultiplexedConnection,
    streams: Vec<String>,
    window: usize,
    /// Number of messages in a pipeline.
    together: usize,
    next: Pipeline,
    under_way: VecDeque<JoinHandle<redis::RedisResult<()>>>,
}

impl RedisSender {
    /// Runs the next pipeline in a task, because it is only sent while it is polled.
    fn send(&mut self) {
        let (pipe, mut connection) = (std::mem::take(&mut self.next), self.connection.clone());
        self.under_way.push_back(tokio::spawn(async move {
            pipe.exec_async(&mut connection).await
        }));
    }
}

impl Sender for RedisSender {
    async fn ready(&mut self) -> anyhow::Result<()> {
        if self.next.is_empty()
            && (self.under_way.len() + 1) * self.together > self.window
            && let Some(oldest) = self.under_way.pop_front()
        {
            oldest.await??;
        }
        Ok(())
    }

    async fn publish(&mut self, receiver: usize, message: Vec<u8>) -> anyhow::Result<()> {
        let stream = self.streams.get(receiver).map_or("", String::as_str);
        self.next.xadd(stream, "*", &[("m", message)]).ignore();
        if self.next.len() >= self.together {
            self.send();
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if !self.next.is_empty() {
            self.send();
        }
        for pipe in self.under_way.drain(..) {
            pipe.await??;
        }
        Ok(())
    }
}

pub struct RedisReceiver {
    connection: MultiplexedConnection,
    stream: String,
    options: StreamReadOptions,
}

impl RedisReceiver {
    /// The commands that acknowledge and remove messages.
    fn acks(&self, ids: &[String]) -> Pipeline {
        let mut pipe = redis::pipe();
        if !ids.is_empty() {
            pipe.xack(&self.stream, GROUP, ids).ignore();
            pipe.xdel(&self.stream, ids).ignore();
        }
        pipe
    }
}

impl Receiver for RedisReceiver {
    async fn receive(&mut self, inbox: &mut Inbox) -> anyhow::Result<()> {
        let mut ids = Vec::new();
        while !inbox.is_complete() {
            let mut pipe = self.acks(&ids);
            pipe.xread_options(&[&self.stream], &[">"], &self.options);
            let (reply,): (Option<StreamReadReply>,) =
                pipe.query_async(&mut self.connection).await?;
            ids.clear();
            let keys = reply.into_iter().flat_map(|reply| reply.keys);
            for mut entry in keys.flat_map(|key| key.ids) {
                let Some(Value::BulkString(message)) = entry.map.remove("m") else {
                    anyhow::bail!("no message in an entry");
                };
                inbox.open(&message)?;
                ids.push(entry.id);
            }
        }
        let () = self.acks(&ids).query_async(&mut self.connection).await?;
        Ok(())
    }

    async fn settle(self) -> anyhow::Result<()> {
        Ok(())
    }
}
