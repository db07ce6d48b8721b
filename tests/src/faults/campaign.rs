//! A server on one of the databases, traffic of both kinds through a proxy, and fault after fault.
//! At the end everything is up again, all that waits is received, and every promise is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::checker::{Violation, check};
use super::evidence;
use super::plan::{Fault, Plan, Victim};
use super::proxy::{NetworkConditions, Proxy};
use super::receiver::{self, Receiver};
use super::record::{Outcome, Record};
use super::sender::{self, Sender};
use super::transfer::{self, CliReceiver, CliSender};
use crate::postgres::Stop;
use crate::raw::Tls;
use crate::{Backend, Database, RawClient, Server, files};

/// How long the senders may take to get an answer to all they have sent, and the receivers to drain
/// the queues, once everything works again: more than the longest pause between any two tries.
const SETTLING: Duration = Duration::from_secs(90);

/// How often programs are looked after.
const TICK: Duration = Duration::from_millis(20);

/// The names on the two routes.
const RAW_RECEIVER: &str = "raw_receiver";
const RAW_SENDERS: [&str; 2] = ["raw_one", "raw_two"];
const CLI_SENDER: &str = "cli_sender";
const CLI_RECEIVER: &str = "cli_receiver";

/// How a campaign is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The faults, and the choices of all participants, follow from it. (The timing does not.)
    pub seed: u64,
    /// How many faults there are.
    pub cycles: u32,
    /// How many messages each raw sender makes a second, about.
    pub rate: u32,
    /// How many lines a file has that the command line sends.
    pub lines: usize,
    /// How long the server lets a publish wait for its store.
    pub storage_wait: &'static str,
    /// How the raw senders behave.
    pub senders: sender::Misbehaviour,
    /// How the raw receiver behaves.
    pub receiver: receiver::Misbehaviour,
    /// Says what happens as it happens.
    pub is_verbose: bool,
}

impl Settings {
    /// So many faults, and everybody behaves.
    pub fn new(seed: u64, cycles: u32) -> Self {
        Self {
            seed,
            cycles,
            rate: 300,
            lines: 500,
            storage_wait: "8s",
            senders: sender::Misbehaviour::Good,
            receiver: receiver::Misbehaviour::Good,
            is_verbose: false,
        }
    }
}

/// A running campaign.
pub struct Campaign {
    /// What it stores in.
    pub backend: Backend,
    /// The server.
    pub server: Server,
    settings: Settings,
    plan: Plan,
    proxy: Proxy,
    senders: Vec<Sender>,
    receiver: Receiver,
    cli_sender: CliSender,
    cli_receiver: CliReceiver,
    /// Victims that are not to be started again just now.
    down: Vec<Victim>,
    faults: BTreeMap<String, u32>,
    started: Instant,
    violations: Vec<Violation>,
    /// Removed last.
    _folder: TempDir,
}

impl Campaign {
    /// Starts everything.
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
            // Messages that were handed out often are offered late, out of order: that is for
            // another test.
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
        let route = transfer::Route {
            sender: CLI_SENDER.to_owned(),
            receiver: CLI_RECEIVER.to_owned(),
        };
        let cli_sender =
            CliSender::new(&pki, proxy.address(), &route, folder.path(), settings.lines);
        let mut cli_receiver = CliReceiver::new(&pki, proxy.address(), &route, folder.path()).await;
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

    /// Lets all faults of the plan happen, settles, and checks.
    ///
    /// # Panics
    ///
    /// If something does not start again.
    pub async fn run(mut self) -> Report {
        for cycle in 0..self.settings.cycles {
            let pause = self.plan.pause();
            self.pass(pause).await;
            let Some(fault) = self.plan.next() else { break };
            if self.settings.is_verbose {
                eprintln!("{:>8.1?} {cycle:>5} {fault:?}", self.started.elapsed());
            }
            *self.faults.entry(fault.kind()).or_default() += 1;
            self.befall(fault).await;
        }
        self.settle().await
    }

    /// Lets so much time pass, and starts programs again that have ended.
    pub async fn pass(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        loop {
            self.tend(true);
            let next = tokio::time::Instant::now() + TICK;
            tokio::time::sleep_until(next.min(end)).await;
            if next >= end {
                return;
            }
        }
    }

    fn tend(&mut self, makes_new: bool) {
        if !self.down.contains(&Victim::CliSender) {
            self.cli_sender.tend(makes_new);
        }
        if !self.down.contains(&Victim::CliReceiver) {
            self.cli_receiver.tend();
        }
    }

    /// Lets time pass until the raw receiver has received so many more messages.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn pass_until_received(&mut self, count: usize) {
        let goal = self.receiver.written() + count;
        let end = Instant::now() + SETTLING;
        while self.receiver.written() < goal {
            assert!(Instant::now() < end, "no {count} messages were received");
            self.pass(TICK).await;
        }
    }

    /// Lets time pass until so many messages wait in the store.
    ///
    /// # Panics
    ///
    /// If there never are so many.
    pub async fn pass_until_waiting(&mut self, count: i64) {
        let database = self.server.database().await;
        let end = Instant::now() + SETTLING;
        while database.number("SELECT count(*) FROM messages").await < count {
            assert!(Instant::now() < end, "no {count} messages wait");
            self.pass(TICK).await;
        }
    }

    /// SIGKILL to the server, and a new start at once.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn kill_server(&mut self) {
        self.kill_server_and(|| ()).await;
    }

    /// SIGKILL to the server, and something else before it starts again.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn kill_server_and(&mut self, act: impl FnOnce()) {
        self.server.kill9().await;
        act();
        self.server.restart().await;
    }

    /// Ends the receivers.
    pub async fn hold_receivers(&mut self) {
        self.kill(Victim::Receiver).await;
        self.kill(Victim::CliReceiver).await;
    }

    /// Starts them again.
    pub async fn release_receivers(&mut self) {
        self.revive(Victim::Receiver).await;
        self.revive(Victim::CliReceiver).await;
    }

    async fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(victim, time) => {
                self.kill(victim).await;
                self.pass(time).await;
                self.revive(victim).await;
            }
            Fault::KillBoth(one, other, time) => {
                self.kill(one).await;
                self.kill(other).await;
                self.pass(time).await;
                // The server needs its database.
                self.revive(other).await;
                self.revive(one).await;
            }
            Fault::Terminate(time) => {
                self.server.terminate().await;
                self.pass(time).await;
                self.server.restart().await;
            }
            Fault::Freeze(victim, time) => {
                self.freeze(victim, true);
                self.pass(time).await;
                self.freeze(victim, false);
            }
            Fault::StopPostgres(time) => {
                self.postgres().stop(Stop::Fast).await;
                self.pass(time).await;
                self.postgres().restart().await;
            }
            Fault::LockTables(time) => {
                let database = self.server.database().await;
                let lock = hold_tables(&database).await;
                self.pass(time).await;
                lock.rollback().await.expect("the lock can be let go");
            }
            Fault::Cut { reset } => self.proxy.cut(reset),
            Fault::HalfClose(direction) => self.proxy.half_close(direction),
            Fault::NetworkConditions(conditions, time) => {
                self.proxy.conditions(conditions);
                self.pass(time).await;
                self.proxy.conditions(NetworkConditions::default());
            }
        }
    }

    /// How many connections those participants have made that need one only: all but
    /// `ciphermq-cli send`.
    pub fn connections(&self) -> usize {
        let senders: usize = self.senders.iter().map(Sender::connections).sum();
        let receivers = self.receiver.connections() + self.cli_receiver.losses();
        senders + receivers + usize::try_from(self.cli_receiver.starts()).unwrap_or(usize::MAX)
    }

    /// The PostgreSQL that the server stores in.
    ///
    /// # Panics
    ///
    /// If it stores in SQLite.
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

    async fn revive(&mut self, victim: Victim) {
        self.down.retain(|down| *down != victim);
        match victim {
            Victim::Server => self.server.restart().await,
            Victim::Postgres => self.postgres().restart().await,
            Victim::Sender => {
                for sender in &mut self.senders {
                    // Some never learn what became of what they sent.
                    if self.plan.one_in(3) {
                        sender.give_up();
                    }
                    sender.start(self.plan.seed());
                }
            }
            Victim::Receiver => self.receiver.start(self.plan.seed()),
            Victim::CliSender | Victim::CliReceiver => self.tend(true),
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
            // They are part of this process, and delayed by the network often enough.
            Victim::Sender | Victim::Receiver => {}
        }
    }

    /// Lets everything come to rest: all senders get their answers, all receivers receive what
    /// waits.
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
        while self.cli_sender.tend(false) && Instant::now() < end {
            self.cli_receiver.tend();
            tokio::time::sleep(TICK).await;
        }
        let database = self.server.database().await;
        loop {
            self.cli_receiver.tend();
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
        // A delivery's time may be recorded a little later, in the next commit.
        let may_refuse = self.senders.iter().any(|sender| sender.put_off() > 0);
        let records = self.records(&database, may_refuse).await;
        for record in &records {
            self.violations.extend(check(record));
        }
        self.look_at_the_store(&database).await;
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
        // Positions of the command line's messages are those in its files.
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

    /// The database is sound, and a restart finds what was left.
    async fn look_at_the_store(&mut self, database: &Database) {
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

/// A transaction that keeps everybody else from the messages until it is dropped.
///
/// # Panics
///
/// If the tables cannot be locked, or the database is SQLite.
pub async fn hold_tables(database: &Database) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let Database::Postgres(pool) = database else {
        panic!("tables are locked in PostgreSQL")
    };
    loop {
        let mut transaction = pool.begin().await.expect("a transaction can be begun");
        // In the order in which the server writes to them. It may be chosen to give way all the
        // same.
        let lock = "LOCK TABLE batches, envelopes, waiting, fates IN ACCESS EXCLUSIVE MODE";
        match sqlx::raw_sql(lock).execute(&mut *transaction).await {
            Ok(_) => return transaction,
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01") => {}
            Err(error) => panic!("the tables cannot be locked: {error}"),
        }
    }
}

/// What came of a campaign.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// On which database.
    pub database: &'static str,
    /// How many faults of each kind there were.
    pub faults: BTreeMap<String, u32>,
    /// How many messages were sent.
    pub sent: usize,
    /// How many of them were acknowledged, refused, and neither as far as the sender knows.
    pub outcomes: [usize; 3],
    /// How many stand in the outputs.
    pub received: usize,
    /// How many deliveries repeated an earlier one, over raw sockets.
    pub redelivered: usize,
    /// How often a raw sender was told to try again: `storage_unavailable`, `storage_full`,
    /// `shutting_down`.
    pub put_off: u64,
    /// How many connections went through the proxy.
    pub connections: usize,
    /// How long it took, settling and checking included.
    pub elapsed: Duration,
    /// Every promise that was not kept.
    pub violations: Vec<Violation>,
}

impl Report {
    fn new(campaign: &Campaign, records: &[Record]) -> Self {
        let sum = |count: &dyn Fn(&Record) -> usize| records.iter().map(count).sum();
        let outcome = |outcome| sum(&|record: &Record| record.count(outcome));
        Self {
            seed: campaign.settings.seed,
            database: if campaign.backend.is_postgres() {
                "PostgreSQL"
            } else {
                "SQLite"
            },
            faults: campaign.faults.clone(),
            sent: sum(&|record| record.sent.len()),
            outcomes: [Outcome::Acknowledged, Outcome::Refused, Outcome::Unknown].map(outcome),
            received: sum(&|record| record.output.len()),
            redelivered: sum(&Record::redeliveries),
            put_off: campaign.senders.iter().map(Sender::put_off).sum(),
            connections: campaign.proxy.accepted(),
            elapsed: campaign.started.elapsed(),
            violations: campaign.violations.clone(),
        }
    }

    /// How many violations are of this kind.
    pub fn count(&self, is_kind: impl Fn(&Violation) -> bool) -> usize {
        self.violations
            .iter()
            .filter(|violation| is_kind(violation))
            .count()
    }

    /// Itself, if every promise was kept.
    ///
    /// # Panics
    ///
    /// If not, with what was not.
    #[track_caller]
    pub fn sound(self) -> Self {
        assert!(self.violations.is_empty(), "{self}");
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cycles: u32 = self.faults.values().sum();
        let [acknowledged, refused, unknown] = self.outcomes;
        let lost = self.count(|violation| matches!(violation, Violation::Lost(_)));
        let doubled = self.count(|violation| matches!(violation, Violation::Doubled(_)));
        let phantom = self.count(|violation| matches!(violation, Violation::Phantom(_)));
        let other = self.violations.len() - lost - doubled - phantom;
        writeln!(
            f,
            "{}, seed {}: {cycles} faults in {:.0} s, {} connections; {} messages sent \
             ({acknowledged} acknowledged, \
             {refused} refused, {unknown} unknown), {} received, {} delivered again; {lost} lost, \
             {doubled} doubled, \
             {phantom} phantom, {other} other violations",
            self.database,
            self.seed,
            self.elapsed.as_secs_f64(),
            self.connections,
            self.sent,
            self.received,
            self.redelivered,
        )?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {count:>5} × {kind}")?;
        }
        for violation in self.violations.iter().take(50) {
            writeln!(f, "  {violation}")?;
        }
        if self.violations.len() > 50 {
            writeln!(f, "  ... and {} more", self.violations.len() - 50)?;
        }
        Ok(())
    }
}
