//! A server on one of the databases, with traffic of both kinds through a proxy, and a sequence of
//! faults. At the end everything runs again, all waiting messages are received, and every guarantee
//! is checked.

mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

pub use self::report::Report;
use super::checker::{Violation, check};
use super::evidence;
use super::plan::{Fault, Plan, Victim};
use super::proxy::{NetworkConditions, Proxy};
use super::receiver::{self, Receiver};
use super::record::Record;
use super::sender::{self, Sender};
use super::transfer::{self, CliReceiver, CliSender};
use crate::postgres::Stop;
use crate::raw::Tls;
use crate::{Backend, Database, RawClient, Server, files};

/// Time limit for the senders to get all replies, and for the receivers to drain the queues, after
/// the last fault. It is longer than the longest pause between two attempts of any participant.
const SETTLING: Duration = Duration::from_secs(90);

/// Interval at which programs that have ended are restarted.
const TICK: Duration = Duration::from_millis(20);

/// Client ids on the two routes.
const RAW_RECEIVER: &str = "raw_receiver";
const RAW_SENDERS: [&str; 2] = ["raw_one", "raw_two"];
const CLI_SENDER: &str = "cli_sender";
const CLI_RECEIVER: &str = "cli_receiver";

/// Settings of a campaign.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seed of the faults, and of the choices of all participants. It does not determine the
    /// timing.
    pub seed: u64,
    /// Number of faults.
    pub cycles: u32,
    /// Approximate number of messages per second of each raw sender; 0 for no limit.
    pub rate: u32,
    /// Number of lines in each file that the command line sends.
    pub lines: usize,
    /// The server's `limits.storage_wait`.
    pub storage_wait: &'static str,
    /// Misbehaviour of the raw senders.
    pub senders: sender::Misbehaviour,
    /// Misbehaviour of the raw receiver.
    pub receiver: receiver::Misbehaviour,
    /// Whether to print each fault as it happens.
    pub is_verbose: bool,
}

impl Settings {
    /// Creates settings with `cycles` faults, and without misbehaviour.
    pub fn new(seed: u64, cycles: u32) -> Self {
        Self {
            seed,
            cycles,
            rate: 300,
            lines: 500,
            storage_wait: "8s",
            senders: sender::Misbehaviour::None,
            receiver: receiver::Misbehaviour::None,
            is_verbose: false,
        }
    }
}

/// A running campaign: a server with its traffic, into which faults are injected.
pub struct Campaign {
    /// Database of the server.
    pub backend: Backend,
    /// The server under test.
    pub server: Server,
    settings: Settings,
    plan: Plan,
    proxy: Proxy,
    senders: Vec<Sender>,
    receiver: Receiver,
    cli_sender: CliSender,
    cli_receiver: CliReceiver,
    /// Victims that must not be restarted at the moment.
    down: Vec<Victim>,
    faults: BTreeMap<String, u32>,
    started: Instant,
    violations: Vec<Violation>,
    /// Declared last, so that it is removed last.
    _folder: TempDir,
}

impl Campaign {
    /// Starts the server and all participants.
    ///
    /// # Panics
    ///
    /// If something cannot be started.
    pub async fn start(backend: Backend, settings: Settings) -> Self {
        let options = backend
            .options()
            .await
            .set("limits", "redelivery_timeout", "2s")
            .set("limits", "storage_wait", settings.storage_wait)
            // Messages that were delivered often are delivered late and out of order, which another
            // test checks.
            .set("limits", "max_redeliveries", 1_000_000);
        let server = Server::start(options).await;
        let proxy = Proxy::start(server.address()).await;
        let pki = Arc::clone(server.pki());
        let tls = |client: &str| Tls::trusting(&pki.ca()).identity(pki.client(client));
        prepare(&server).await;

        let route = sender::Route {
            exchange: "raw".to_owned(),
            routing_key: "raw".to_owned(),
            receiver: RAW_RECEIVER.to_owned(),
        };
        let sender = |name: &str| {
            Sender::new(name, route.clone(), tls(name), proxy.address())
                .misbehaviour(settings.senders)
                .rate(settings.rate)
        };
        let senders = RAW_SENDERS.map(sender).into();
        let receiver = Receiver::new("raw", tls(RAW_RECEIVER), proxy.address())
            .misbehaviour(settings.receiver);

        let folder = files::folder("faults");
        let clients = transfer::ClientPair {
            sender: CLI_SENDER.to_owned(),
            receiver: CLI_RECEIVER.to_owned(),
        };
        let cli_sender = CliSender::new(
            &pki,
            proxy.address(),
            &clients,
            folder.path(),
            settings.lines,
        );
        let mut cli_receiver =
            CliReceiver::new(&pki, proxy.address(), &clients, folder.path()).await;
        cli_receiver.start().await;
        let plan = Plan::new(
            settings.seed,
            backend.is_postgres(),
            transfer::send_resumes().await,
        );
        let mut campaign = Self {
            backend,
            server,
            settings,
            plan,
            proxy,
            senders,
            receiver,
            cli_sender,
            cli_receiver,
            down: Vec::new(),
            faults: BTreeMap::new(),
            started: Instant::now(),
            violations: Vec::new(),
            _folder: folder,
        };
        for sender in &mut campaign.senders {
            sender.start(campaign.plan.seed());
        }
        campaign.receiver.start(campaign.plan.seed());
        campaign
    }

    /// Injects all faults of the plan, then settles and checks.
    ///
    /// # Panics
    ///
    /// If something cannot be restarted.
    pub async fn run(mut self) -> Report {
        for cycle in 0..self.settings.cycles {
            let pause = self.plan.pause();
            self.run_for(pause).await;
            let Some(fault) = self.plan.next() else { break };
            if self.settings.is_verbose {
                eprintln!("{:>8.1?} {cycle:>5} {fault:?}", self.started.elapsed());
            }
            *self.faults.entry(fault.kind()).or_default() += 1;
            self.inject(fault).await;
        }
        self.settle().await
    }

    /// Runs the traffic for `time`, and restarts programs that have ended.
    pub async fn run_for(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        loop {
            self.supervise(true);
            let next = tokio::time::Instant::now() + TICK;
            tokio::time::sleep_until(next.min(end)).await;
            if next >= end {
                return;
            }
        }
    }

    fn supervise(&mut self, starts_new_file: bool) {
        if !self.down.contains(&Victim::CliSender) {
            self.cli_sender.supervise(starts_new_file);
        }
        if !self.down.contains(&Victim::CliReceiver) {
            self.cli_receiver.supervise();
        }
    }

    /// Runs the traffic until the raw receiver has received `count` more messages.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub async fn run_until_received(&mut self, count: usize) {
        let goal = self.receiver.written() + count;
        let end = Instant::now() + SETTLING;
        while self.receiver.written() < goal {
            assert!(
                Instant::now() < end,
                "fewer than {count} messages were received"
            );
            self.run_for(TICK).await;
        }
    }

    /// Runs the traffic until `count` messages wait in the store.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub async fn run_until_waiting(&mut self, count: i64) {
        let database = self.server.database().await;
        let end = Instant::now() + SETTLING;
        while database.number("SELECT count(*) FROM messages").await < count {
            assert!(Instant::now() < end, "fewer than {count} messages wait");
            self.run_for(TICK).await;
        }
    }

    /// Kills the server with SIGKILL, and restarts it at once.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn kill_server(&mut self) {
        self.kill_server_and(|| ()).await;
    }

    /// Kills the server with SIGKILL, and calls `act` before restarting it.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn kill_server_and(&mut self, act: impl FnOnce()) {
        self.server.kill9().await;
        act();
        self.server.restart().await;
    }

    /// Stops both receivers.
    pub async fn stop_receivers(&mut self) {
        self.kill(Victim::Receiver).await;
        self.kill(Victim::CliReceiver).await;
    }

    /// Restarts both receivers.
    pub async fn restart_receivers(&mut self) {
        self.restart(Victim::Receiver).await;
        self.restart(Victim::CliReceiver).await;
    }

    async fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(victim, time) => {
                self.kill(victim).await;
                self.run_for(time).await;
                self.restart(victim).await;
            }
            Fault::KillBoth(one, other, time) => {
                self.kill(one).await;
                self.kill(other).await;
                self.run_for(time).await;
                // The server needs its database.
                self.restart(other).await;
                self.restart(one).await;
            }
            Fault::Terminate(time) => {
                self.server.terminate().await;
                self.run_for(time).await;
                self.server.restart().await;
            }
            Fault::Freeze(victim, time) => {
                self.freeze(victim, true);
                self.run_for(time).await;
                self.freeze(victim, false);
            }
            Fault::StopPostgres(time) => {
                self.postgres().stop(Stop::Fast).await;
                self.run_for(time).await;
                self.postgres().restart().await;
            }
            Fault::LockTables(time) => {
                let database = self.server.database().await;
                let lock = lock_tables(&database).await;
                self.run_for(time).await;
                lock.rollback().await.expect("the lock can be released");
            }
            Fault::Cut { reset } => self.proxy.cut(reset),
            Fault::HalfClose(direction) => self.proxy.half_close(direction),
            Fault::NetworkConditions(conditions, time) => {
                self.proxy.set_conditions(conditions);
                self.run_for(time).await;
                self.proxy.set_conditions(NetworkConditions::default());
            }
        }
    }

    /// Number of connections made by the participants that need only one, which are all but
    /// `ciphermq-cli send`.
    pub fn connections(&self) -> usize {
        let senders: usize = self.senders.iter().map(Sender::connections).sum();
        let receivers = self.receiver.connections() + self.cli_receiver.losses();
        senders + receivers + usize::try_from(self.cli_receiver.starts()).unwrap_or(usize::MAX)
    }

    /// The PostgreSQL server that the server under test uses.
    ///
    /// # Panics
    ///
    /// If it uses SQLite.
    pub fn postgres(&mut self) -> &mut crate::Postgres {
        match &mut self.backend {
            Backend::Postgres(postgres) => postgres,
            Backend::Sqlite => panic!("a plan for SQLite has no faults of PostgreSQL"),
        }
    }

    async fn kill(&mut self, victim: Victim) {
        self.down.push(victim);
        match victim {
            Victim::Server => self.server.kill9().await,
            Victim::Postgres => self.postgres().kill().await,
            Victim::Sender => {
                for sender in &mut self.senders {
                    sender.kill().await;
                }
            }
            Victim::Receiver => self.receiver.kill().await,
            Victim::CliSender => self.cli_sender.kill().await,
            Victim::CliReceiver => self.cli_receiver.kill().await,
        }
    }

    async fn restart(&mut self, victim: Victim) {
        self.down.retain(|down| *down != victim);
        match victim {
            Victim::Server => self.server.restart().await,
            Victim::Postgres => self.postgres().restart().await,
            Victim::Sender => {
                for sender in &mut self.senders {
                    // Some never learn the outcome of what they have sent.
                    if self.plan.one_in(3) {
                        sender.give_up();
                    }
                    sender.start(self.plan.seed());
                }
            }
            Victim::Receiver => self.receiver.start(self.plan.seed()),
            Victim::CliSender | Victim::CliReceiver => self.supervise(true),
        }
    }

    fn freeze(&mut self, victim: Victim, is_frozen: bool) {
        let signal = if is_frozen {
            Signal::STOP
        } else {
            Signal::CONT
        };
        match victim {
            Victim::Server => self.server.process().signal(signal),
            Victim::Postgres => self.postgres().signal_all(signal),
            Victim::CliSender => self.cli_sender.freeze(is_frozen),
            Victim::CliReceiver => self.cli_receiver.freeze(is_frozen),
            // They are part of this process. The proxy delays them often enough.
            Victim::Sender | Victim::Receiver => {}
        }
    }

    /// Waits until all senders have their replies, and all receivers have received what waits, then
    /// checks the records and the store.
    ///
    /// # Panics
    ///
    /// If something does not start or end as it should.
    pub async fn settle(mut self) -> Report {
        let end = Instant::now() + SETTLING;
        for sender in &mut self.senders {
            sender
                .finish(end.saturating_duration_since(Instant::now()))
                .await;
        }
        while self.cli_sender.supervise(false) && Instant::now() < end {
            self.cli_receiver.supervise();
            tokio::time::sleep(TICK).await;
        }
        let database = self.server.database().await;
        loop {
            self.cli_receiver.supervise();
            let waiting = database.number("SELECT count(*) FROM messages").await;
            if waiting == 0 || Instant::now() >= end {
                break;
            }
            tokio::time::sleep(TICK).await;
        }
        self.cli_receiver.finish().await;
        if self.cli_receiver.was_killed() {
            self.violations.push(Violation::Anomaly(
                "receive did not end cleanly after SIGTERM".to_owned(),
            ));
        }
        self.receiver.kill().await;
        // The time of a delivery may be recorded a little later, in the next commit.
        let may_refuse = self.senders.iter().any(|sender| sender.deferred() > 0);
        let records = self.records(&database, may_refuse).await;
        for record in &records {
            self.violations.extend(check(record));
        }
        self.check_store(&database).await;
        Report::new(&self, &records)
    }

    async fn records(&mut self, database: &Database, may_refuse: bool) -> [Record; 2] {
        let mut raw = Record {
            may_refuse,
            is_one_consumer: true,
            ..Record::default()
        };
        let mut cli = Record {
            may_refuse,
            is_one_consumer: self.cli_receiver.starts() == 1,
            ..Record::default()
        };
        for sender in &self.senders {
            let (sent, anomalies) = sender.record();
            raw.sent.extend(sent);
            raw.anomalies.extend(anomalies);
        }
        let anomalies;
        (raw.output, raw.wire, anomalies) = self.receiver.record();
        raw.anomalies.extend(anomalies);
        // The messages of the command line have the order of its files.
        (cli.sent, cli.anomalies) = self.cli_sender.record();
        let anomalies;
        (cli.output, anomalies) = self.cli_receiver.record();
        cli.anomalies.extend(anomalies);
        for (record, receiver) in [(&mut raw, RAW_RECEIVER), (&mut cli, CLI_RECEIVER)] {
            record.metadata = evidence::metadata(database, receiver).await;
            record.waiting = evidence::waiting(database, receiver).await;
        }
        [raw, cli]
    }

    /// Checks the integrity of the database, and that a restart neither loses nor adds anything.
    async fn check_store(&mut self, database: &Database) {
        let before = evidence::state(database).await;
        self.server.terminate().await;
        self.violations
            .extend(evidence::integrity(&self.backend, database).await);
        self.server.restart().await;
        let after = evidence::state(database).await;
        if before != after {
            self.violations.push(Violation::Store(format!(
                "{before:?} before a restart, {after:?} after it"
            )));
        }
        let mut client = RawClient::connect(&self.server, RAW_RECEIVER).await;
        client.send_line("fetch raw").await;
        let line = client.line().await;
        if line != "No messages" {
            self.violations
                .push(Violation::Redelivered(format!("after a restart: {line}")));
        }
        self.server.terminate().await;
    }
}

/// Declares what the raw route needs.
async fn prepare(server: &Server) {
    let mut client = RawClient::connect(server, "prepares").await;
    client.ask("declare_queue raw", "Queue declared").await;
    client
        .ask("declare_exchange raw", "Exchange declared")
        .await;
    client.ask("bind raw raw raw", "Queue bound").await;
}

/// Starts a transaction that locks the tables of messages until it is dropped.
///
/// # Panics
///
/// If the tables cannot be locked, or the database is SQLite.
pub async fn lock_tables(database: &Database) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let Database::Postgres(pool) = database else {
        panic!("tables are locked in PostgreSQL")
    };
    loop {
        let mut transaction = pool.begin().await.expect("a transaction can be begun");
        // In the order in which the server writes to them. PostgreSQL may still cancel this
        // transaction as a deadlock victim (40P01).
        let lock = "LOCK TABLE batches, envelopes, waiting, fates IN ACCESS EXCLUSIVE MODE";
        match sqlx::raw_sql(lock).execute(&mut *transaction).await {
            Ok(_) => return transaction,
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01") => {}
            Err(error) => panic!("the tables cannot be locked: {error}"),
        }
    }
}
