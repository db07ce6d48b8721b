//! `status`: the server, the limits in force, and how this client is connected.

use std::time::Duration;

use ciphermq_client::Client;

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::exit::{Exit, Failure};
use crate::output::sink;

/// Show the server, the limits in force, and how this client is connected
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How many pings are measured.
const PINGS: usize = 11;

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let settings = args
        .connection
        .resolve(Identity::Sender, PrivateKeyArgs::default())?;
    let client = settings.connect().await?;
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        times.push(client.ping().await?);
    }
    sink::print(describe(&client, &mut times))?;
    client.close().await;
    Ok(Exit::Done)
}

fn describe(client: &Client, times: &mut [Duration]) -> String {
    let connection = client.connection();
    let server = &connection.server;
    let limits = &server.limits;
    let (least, median) = least_and_median(times);
    format!(
        "server        {} {}, protocol {}\n\
         address       {}\n\
         client id     {}\n\
         tls           {}, {}, key exchange {}\n\
         longest line  {} bytes\n\
         prefetch      {} at most\n\
         redelivery    after {} s of silence\n\
         storage wait  {} s\n\
         round trip    {:.3} ms at least, {:.3} ms median of {}\n",
        server.server,
        server.version,
        server.protocol,
        connection.address,
        server.client_id,
        connection.tls_version,
        connection.cipher_suite,
        connection.key_exchange,
        limits.max_line_bytes,
        limits.max_prefetch,
        Duration::from_millis(limits.redelivery_timeout_ms).as_secs_f64(),
        Duration::from_millis(limits.storage_wait_ms).as_secs_f64(),
        least.as_secs_f64() * 1e3,
        median.as_secs_f64() * 1e3,
        times.len(),
    )
}

fn least_and_median(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let least = times.first().copied().unwrap_or_default();
    (least, times.get(times.len() / 2).copied().unwrap_or(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let mut times = [5, 1, 9].map(Duration::from_millis);
        assert_eq!(
            least_and_median(&mut times),
            (Duration::from_millis(1), Duration::from_millis(5))
        );
        assert_eq!(least_and_median(&mut []), (Duration::ZERO, Duration::ZERO));
    }
}
