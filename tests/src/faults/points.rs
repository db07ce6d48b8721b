//! Kills at exact points: at the n-th call of a system call, for every n in turn. All guarantees
//! are checked after each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::checker::{Violation, check};
use super::evidence;
use super::receiver::Receiver;
use super::record::{Outcome, Record};
use super::sender::{Route, Sender};
use super::tracing::Injection;
use super::transfer::{self, CliReceiver, CliSender};
use crate::raw::Tls;
use crate::server::Options;
use crate::{Backend, PATIENCE, Pki, RawClient, Server, files};

/// Number of messages after which a program that was not killed is taken to make too few calls to
/// reach the point.
const MESSAGES: usize = 400;

const TICK: Duration = Duration::from_millis(5);

/// System calls at which a server is killed: those that sync, and those that write.
pub const SERVER_CALLS: [&str; 3] = [
    "fsync,fdatasync",
    "pwrite64",
    "write,rename,renameat,renameat2,ftruncate,unlink",
];

/// System calls at which a receiver is killed.
pub const RECEIVER_CALLS: [&str; 2] = [
    "fsync,fdatasync",
    "write,pwrite64,rename,renameat,renameat2,ftruncate",
];

/// Points at which a program is killed: the first, and then every `stride`-th, until the program
/// makes fewer calls than that.
#[derive(Debug, Clone, Copy)]
pub struct Points {
    /// Number of the first call, counted from 1.
    pub first: u32,
    /// Difference between one point and the next.
    pub stride: u32,
    /// Time after which no further point is tried.
    pub time: Duration,
}

/// Results of kills at a series of points.
#[derive(Debug, Clone, Default)]
pub struct PointsReport {
    /// Number of points tried.
    pub points: u32,
    /// Last point at which the program was killed.
    pub last: u32,
    /// Whether all points were tried: the program ended without reaching the next one.
    pub is_complete: bool,
    /// Numbers of messages that were sent, and acknowledged.
    pub messages: [usize; 2],
    /// Violations, with the point after which they were found.
    pub violations: Vec<(u32, Violation)>,
}

impl fmt::Display for PointsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sent, acknowledged] = self.messages;
        let end = if self.is_complete {
            "all of them"
        } else {
            "out of time before the last one"
        };
        writeln!(
            f,
            "killed at {} points up to {} ({end}), {sent} messages sent, {acknowledged} \
             acknowledged, {} violations",
            self.points,
            self.last,
            self.violations.len()
        )?;
        for (point, violation) in self.violations.iter().take(30) {
            writeln!(f, "  at {point}: {violation}")?;
        }
        Ok(())
    }
}

impl PointsReport {
    fn add(&mut self, point: u32, record: &Record) {
        self.messages[0] += record.sent.len();
        self.messages[1] += record.count(Outcome::Acknowledged);
        self.violations.extend(
            check(record)
                .into_iter()
                .map(|violation| (point, violation)),
        );
    }
}

/// Kills a server on SQLite at its system calls of `calls`, each time starting with a new database.
///
/// # Panics
///
/// If the server does not restart.
pub async fn server(calls: &str, points: Points) -> PointsReport {
    let pki = Arc::new(Pki::new());
    let started = tokio::time::Instant::now();
    let mut report = PointsReport::default();
    let mut point = points.first;
    while started.elapsed() < points.time {
        report.points += 1;
        let (record, survived, store) = server_at(&Injection::kill(calls, point), &pki).await;
        report.add(point, &record);
        report
            .violations
            .extend(store.into_iter().map(|violation| (point, violation)));
        if survived {
            report.is_complete = true;
            return report;
        }
        report.last = point;
        point += points.stride;
    }
    report
}

/// Tries one point. Returns the record, whether the server ended without being killed, and the
/// violations in the store.
async fn server_at(injection: &Injection, pki: &Arc<Pki>) -> (Record, bool, Vec<Violation>) {
    let mut server = Server::prepare(
        Options::sqlite()
            .pki(Arc::clone(pki))
            .under(injection.command()),
    );
    let tls = |client: &str| Tls::trusting(&pki.ca()).identity(pki.client(client));
    let route = Route {
        exchange: "e".to_owned(),
        routing_key: "k".to_owned(),
        receiver: "receiver".to_owned(),
    };
    let mut sender = Sender::new("sender", route, tls("sender"), server.address());
    let mut receiver = Receiver::new("q", tls("receiver"), server.address());
    let mut is_bound = false;
    let mut survived = false;
    if server.launch().await.is_ok() {
        is_bound = bind(&server).await.is_ok();
        if is_bound {
            sender.start(1);
            receiver.start(2);
        }
        loop {
            tokio::time::sleep(TICK).await;
            if server.try_ended().is_some() {
                break;
            }
            if sender.progress().1 >= MESSAGES && receiver.written() >= MESSAGES {
                // It may still be killed while it shuts down.
                server.process().signal(Signal::TERM);
                survived = server.ended(PATIENCE).await.status.success();
                break;
            }
        }
    }
    // Restarts it without tracing, and lets it finish.
    server.run_under(Vec::new());
    server.restart().await;
    if !is_bound {
        bind(&server).await.expect("the server answers");
        sender.start(3);
        receiver.start(4);
    }
    while sender.progress().0 < 20 {
        tokio::time::sleep(TICK).await;
    }
    sender.finish(PATIENCE).await;
    let database = server.database().await;
    database
        .eventually("SELECT count(*) FROM messages", 0)
        .await;
    receiver.kill().await;
    let mut record = Record {
        may_refuse: sender.deferred() > 0,
        is_one_consumer: true,
        ..Record::default()
    };
    let anomalies;
    (record.sent, record.anomalies) = sender.record();
    (record.output, record.wire, anomalies) = receiver.record();
    record.anomalies.extend(anomalies);
    record.metadata = evidence::metadata(&database, "receiver").await;
    server.terminate().await;
    let store = evidence::integrity(&Backend::Sqlite, &database).await;
    (record, survived, store)
}

async fn bind(server: &Server) -> std::io::Result<()> {
    let tls = Tls::trusting(&server.pki().ca()).identity(server.pki().client("prepares"));
    let mut client = RawClient::handshake(server.address(), &tls).await?;
    for (command, reply) in [
        ("declare_queue q", "Queue declared"),
        ("declare_exchange e", "Exchange declared"),
        ("bind q e k", "Queue bound"),
    ] {
        client.try_send(format!("{command}\n").as_bytes()).await?;
        match client.read_line(PATIENCE).await? {
            Some(line) if line == reply => {}
            Some(line) => return Err(std::io::Error::other(line)),
            None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(())
}

/// Kills `ciphermq-cli receive` at its system calls of `calls`. All points share one output.
///
/// # Panics
///
/// If something does not restart.
pub async fn receiver(calls: &str, points: Points) -> PointsReport {
    let server = Server::start(Options::sqlite().set("limits", "redelivery_timeout", "2s")).await;
    let folder = files::folder("points");
    let clients = transfer::ClientPair {
        sender: "sender".to_owned(),
        receiver: "receiver".to_owned(),
    };
    let mut receiver =
        CliReceiver::new(server.pki(), server.address(), &clients, folder.path()).await;
    receiver.start().await;
    receiver.kill().await;
    let mut sender = CliSender::new(server.pki(), server.address(), &clients, folder.path(), 100);
    let database = server.database().await;
    let waiting = "SELECT count(*) FROM messages";
    let started = tokio::time::Instant::now();
    let mut report = PointsReport::default();
    let mut point = points.first;
    while started.elapsed() < points.time && !report.is_complete {
        report.points += 1;
        while sender.supervise(database.number(waiting).await == 0) {
            tokio::time::sleep(TICK).await;
        }
        receiver.start_under(&Injection::kill(calls, point));
        loop {
            tokio::time::sleep(TICK).await;
            if receiver.has_ended() {
                report.last = point;
                break;
            }
            if database.number(waiting).await == 0 {
                receiver.finish().await;
                report.is_complete = !receiver.was_killed();
                if receiver.was_killed() {
                    report.last = point;
                }
                break;
            }
        }
        point += points.stride;
        if !report.is_complete {
            receiver.supervise();
            database.eventually(waiting, 0).await;
            receiver.kill().await;
        }
    }
    let mut record = Record {
        is_one_consumer: false,
        ..Record::default()
    };
    (record.sent, record.anomalies) = sender.record();
    let anomalies;
    (record.output, anomalies) = receiver.record();
    record.anomalies.extend(anomalies);
    record.metadata = evidence::metadata(&database, "receiver").await;
    report.add(0, &record);
    report
}
