//! The options of a benchmark.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::exit::Failure;

/// The most sending connections, and the most receiving ones.
const MAX_CLIENTS: u32 = 10_000;

/// The most pairs of a sender and a receiver: each takes some kilobytes of this process.
const MAX_PAIRS: u64 = 1_000_000;

/// The largest payload, in bytes: the longest line that a server can be configured to take.
const MAX_SIZE: i64 = 256 << 20;

/// The options of the load.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanArgs {
    /// The number of messages
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) messages: u64,
    /// The size of each payload in bytes; 24 of them identify the message and its time
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(24..=MAX_SIZE))]
    pub(super) size: u32,
    /// The maximum number of sent and not yet acknowledged messages of each sender, to all its
    /// receivers together
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(super) window: NonZeroU32,
    /// The maximum number of messages in one batch
    #[arg(long, value_name = "N", default_value = "250")]
    pub(super) batch: NonZeroU32,
    /// The number of sending connections
    #[arg(long, value_name = "N", default_value = "1", value_parser = clients)]
    pub(super) senders: NonZeroU32,
    /// The number of receiving connections, each with its own queue
    #[arg(long, value_name = "N", default_value = "1", value_parser = clients)]
    pub(super) receivers: NonZeroU32,
    /// The part of the delivery to measure
    #[arg(long, value_enum, default_value_t = Mode::EndToEnd)]
    pub(super) mode: Mode,
    /// Messages per second, of all senders together [default: as many as possible]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(super) rate: Option<f64>,
}

/// The part of the delivery that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// From the first message sent until the last one is opened and its acknowledgement confirmed
    EndToEnd,
    /// Until the server has acknowledged the last one; nobody receives. Latencies are those of the
    /// acknowledgements
    Publish,
    /// All messages wait in their queues; from the first receiver's connection until the last one's
    /// confirmation
    Drain,
}

/// The options of a temporary server.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Temporary server")]
pub(super) struct SpawnArgs {
    /// Start a server in a temporary folder, with this database: `sqlite`, or the postgres:// URL
    /// of a scratch database
    #[arg(
        long = "spawn",
        id = "spawn",
        value_name = "DATABASE",
        conflicts_with_all = ["server", "server_name", "ca", "cert", "key", "private_key"],
        value_parser = database,
    )]
    database: Option<String>,
    /// Receivers have post-quantum keys, too: messages are sealed with XWING-AES256GCM
    #[arg(long, requires = "spawn")]
    pub(super) post_quantum: bool,
    /// Let the server log no lines for single messages; by default it logs two for each
    #[arg(long, requires = "spawn")]
    pub(super) no_log_messages: bool,
    /// The number of additional messages that wait in the first queue, for an absent receiver
    #[arg(long, value_name = "N", requires = "spawn", default_value_t = 0)]
    pub(super) backlog: u64,
    /// The number of additional queues, bound and not used
    #[arg(long, value_name = "N", requires = "spawn", default_value_t = 0)]
    pub(super) idle_queues: u32,
    /// The number of additional idle connections
    #[arg(
        long,
        value_name = "N",
        requires = "spawn",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_CLIENTS)),
    )]
    pub(super) idle_connections: u32,
}

impl SpawnArgs {
    /// The database's URL, if a server is to be started.
    pub(super) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The database's kind: `sqlite` or `postgres`.
    pub(super) fn kind(&self) -> Option<&'static str> {
        let is_sqlite = self.database()?.starts_with("sqlite:");
        Some(if is_sqlite { "sqlite" } else { "postgres" })
    }
}

impl PlanArgs {
    /// Refuses a load in which a pair of a sender and a receiver has nothing to do, or that has too
    /// many pairs.
    ///
    /// # Errors
    ///
    /// [`Failure`] if there are fewer messages than pairs, or more than a million pairs.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let pairs = self.pairs();
        if pairs > MAX_PAIRS {
            return Err(Failure::usage(
                format!("{pairs} pairs of a sender and a receiver are more than {MAX_PAIRS}."),
                "Use fewer --senders or fewer --receivers.",
            ));
        }
        if self.messages >= pairs {
            return Ok(());
        }
        Err(Failure::usage(
            format!(
                "{} messages do not reach each of the {pairs} pairs of a sender and a receiver.",
                self.messages
            ),
            "Send more --messages, or fewer --senders to fewer --receivers.",
        ))
    }

    /// The number of pairs of a sender and a receiver.
    fn pairs(&self) -> u64 {
        u64::from(self.senders.get()) * u64::from(self.receivers.get())
    }

    /// The part of a sender's window that each of its receivers has, rounded up.
    pub(super) fn window_of_pair(&self) -> u32 {
        self.window.get().div_ceil(self.receivers.get())
    }

    /// The number of messages that a sender sends to a receiver, both by their numbers.
    pub(super) fn share(&self, sender: u32, receiver: u32) -> u64 {
        let pairs = self.pairs();
        let pair = u64::from(sender) * u64::from(self.receivers.get()) + u64::from(receiver);
        self.messages / pairs + u64::from(pair < self.messages % pairs)
    }

    /// The time between two messages of one sender.
    pub(super) fn interval(&self) -> Option<Duration> {
        let per_second = self.rate? / f64::from(self.senders.get());
        Some(Duration::from_secs_f64(1.0 / per_second))
    }
}

fn database(text: &str) -> Result<String, String> {
    match text {
        "sqlite" => Ok(crate::local::SQLITE.to_owned()),
        url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Ok(url.to_owned())
        }
        _ => Err("it is neither `sqlite` nor a postgres:// URL".to_owned()),
    }
}

fn clients(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().and_then(NonZeroU32::new);
    number
        .filter(|number| number.get() <= MAX_CLIENTS)
        .ok_or_else(|| format!("it is not a number from 1 to {MAX_CLIENTS}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number"))?;
    if (0.001..=1e9).contains(&rate) {
        return Ok(rate);
    }
    Err("it is not between 0.001 and 1000000000 messages per second".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        plan: PlanArgs,
    }

    pub(in super::super) fn plan(line: &str) -> PlanArgs {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(words).unwrap().plan
    }

    #[test]
    fn the_shares_add_up_to_all_messages() {
        for (messages, senders, receivers) in [(1, 3, 2), (100, 1, 1), (101, 3, 4), (7, 7, 7)] {
            let plan = plan(&format!(
                "--messages {messages} --senders {senders} --receivers {receivers}"
            ));
            let shares: Vec<u64> = (0..senders)
                .flat_map(|sender| (0..receivers).map(move |receiver| (sender, receiver)))
                .map(|(sender, receiver)| plan.share(sender, receiver))
                .collect();
            assert_eq!(shares.iter().sum::<u64>(), messages);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{shares:?}");
        }
    }

    #[test]
    fn each_pair_has_something_to_do() {
        assert!(
            plan("--senders 8 --receivers 8 --messages 64")
                .check()
                .is_ok()
        );
        assert!(
            plan("--senders 8 --receivers 8 --messages 63")
                .check()
                .is_err()
        );
    }

    #[test]
    fn loads_that_would_take_all_memory_are_refused() {
        let parsed = |line: &str| {
            <Line as clap::Parser>::try_parse_from(std::iter::once("bench").chain(line.split(' ')))
        };
        assert!(parsed("--senders 10000 --size 268435456").is_ok());
        for line in [
            "--senders 10001",
            "--receivers 4294967295",
            "--receivers 0",
            "--size 268435457",
            "--size 23",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        let most = plan("--senders 1000 --receivers 1000 --messages 9000000");
        assert!(most.check().is_ok());
        let more = plan("--senders 1000 --receivers 1001 --messages 9000000");
        assert!(more.check().is_err());
    }

    #[test]
    fn the_rate_is_that_of_all_senders_together() {
        assert_eq!(
            plan("--rate 1000 --senders 4").interval(),
            Some(Duration::from_millis(4))
        );
        assert_eq!(plan("").interval(), None);
    }

    #[test]
    fn a_database_is_sqlite_or_a_postgres_url() {
        assert_eq!(database("sqlite").unwrap(), "sqlite://data/ciphermq.db");
        assert_eq!(database("postgres://u@h/d").unwrap(), "postgres://u@h/d");
        assert!(database("mysql://u@h/d").is_err());
        assert!(rate("0").is_err() && rate("x").is_err() && rate("NaN").is_err());
    }
}
