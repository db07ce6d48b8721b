//! Short operations of other honest clients: connecting, a look-up, a long line, a delivery.

use std::time::{Duration, Instant};

use crate::raw::Tls;
use crate::{EnvelopeText, RawClient, Server};

/// The time limit of each operation. It is long, because a machine may be slow: it only shows that
/// the service works.
const LIMIT: Duration = Duration::from_secs(10);

/// The number of connections that are made, one after the other.
const CONNECTIONS: usize = 20;

/// The results of a probe.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    /// The operations that failed or exceeded the limit.
    pub errors: Vec<String>,
    /// The longest time of an operation, in milliseconds.
    pub slowest: f64,
}

impl Probed {
    /// Waits for an operation.
    async fn time<T>(
        &mut self,
        what: &str,
        operation: impl Future<Output = Result<T, String>>,
    ) -> Option<T> {
        let started = Instant::now();
        let result = tokio::time::timeout(LIMIT, operation).await;
        let elapsed = started.elapsed().as_secs_f64() * 1e3;
        self.slowest = self.slowest.max(elapsed);
        match result {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => self.errors.push(format!("{what}: {error}")),
            Err(_) => self.errors.push(format!("{what}: none after {LIMIT:?}")),
        }
        None
    }
}

/// Probes the server.
pub async fn probe(server: &Server) -> Probed {
    let mut probed = Probed::default();
    let tls = Tls::trusting(&server.pki().ca()).identity(server.pki().client("bystander"));
    let connect = || async {
        let mut client = RawClient::handshake(server.address(), &tls)
            .await
            .map_err(|error| error.to_string())?;
        ask(&mut client, "ping", "PONG").await?;
        Ok(client)
    };
    let mut client = None;
    for _ in 0..CONNECTIONS {
        client = probed.time("a connection", connect()).await.or(client);
    }
    let Some(mut client) = client else {
        return probed;
    };
    let look_up = ask(&mut client, "get_public_key victim", "Public key: ");
    probed.time("a key", look_up).await;
    for (command, reply) in [
        ("declare_queue probe", "Queue declared"),
        ("declare_exchange probe", "Exchange declared"),
        ("bind probe probe probe", "Queue bound"),
    ] {
        probed.time(command, ask(&mut client, command, reply)).await;
    }
    let id = uuid();
    let envelope = EnvelopeText::older(&id, "bystander").set("ciphertext", "A".repeat(100_000));
    let publish = format!("publish probe probe {envelope}");
    let ack = format!("ACK {id}");
    probed
        .time("a long line", ask(&mut client, &publish, &ack))
        .await;
    let delivered = format!("Message: {id} ");
    probed
        .time("a delivery", ask(&mut client, "fetch probe", &delivered))
        .await;
    let (ack, confirmed) = (format!("ack {id}"), format!("ACK_CONFIRMED {id}"));
    probed
        .time("an ack", ask(&mut client, &ack, &confirmed))
        .await;
    probed
}

fn uuid() -> String {
    format!("probe-{:032x}", rand::random::<u128>())
}

/// Sends a command, whose reply must begin with `expected`.
async fn ask(client: &mut RawClient, command: &str, expected: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    client
        .try_send(format!("{command}\n").as_bytes())
        .await
        .map_err(failed)?;
    match client.read_line(LIMIT).await.map_err(failed)? {
        Some(line) if line.starts_with(expected) => Ok(()),
        Some(line) => Err(line.chars().take(200).collect()),
        None => Err("the server has closed the connection".to_owned()),
    }
}
