//! Kills at exact points: at the n-th call of a system call, for every n in turn, with everything
//! checked after each.

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

/// A thread that has made so few calls while so much was going on will not make many more.
const MESSAGES: usize = 400;

const TICK: Duration = Duration::from_millis(5);

/// The calls at which a server is killed: what makes things durable, and what writes them.
pub const SERVER_CALLS: [&str; 3] = [
    "fsync,fdatasync",
    "pwrite64",
    "write,rename,renameat,renameat2,ftruncate,unlink",
];

/// The calls at which a receiver is killed.
pub const RECEIVER_CALLS: [&str; 2] = [
    "fsync,fdatasync",
    "write,pwrite64,rename,renameat,renameat2,ftruncate",
];

/// Which points are tried: the first, and then each `stride`-th, until the program no longer gets
/// that far.
#[derive(Debug, Clone, Copy)]
pub struct Points {
    /// The first, from 1.
    pub first: u32,
    /// From one to the next.
    pub stride: u32,
    /// None is tried after so long.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// How many points were tried.
    pub points: u32,
    /// The last point at which the program was killed.
    pub last: u32,
    /// Whether the program got through without reaching the point after that.
    pub is_complete: bool,
    /// How many messages were sent, and how many were acknowledged.
    pub messages: [usize; 2],
    /// What was not kept, with its point.
    pub violations: Vec<(u32, Violation)>,
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sent, acknowledged] = self.messages;
        let end = if self.is_complete {
            "all there are"
        } else {
            "not to the end, for want of time"
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

impl Outcomes {
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

/// Kills a server, which stores in SQLite, at its calls of `calls`, from its first start on a new
/// database on.
///
/// # Panics
///
/// If the server does not start again after it.
pub async fn server(calls: &str, points: Points) -> Outcomes {
    let pki = Arc::new(Pki::new());
    let started = tokio::time::Instant::now();
    let mut outcomes = Outcomes::default();
    let mut point = points.first;
    while started.elapsed() < points.time {
        outcomes.points += 1;
        let (record, is_beyond, store) = server_at(&Injection::kill(calls, point), &pki).await;
        outcomes.add(point, &record);
        outcomes
            .violations
            .extend(store.into_iter().map(|violation| (point, violation)));
        if is_beyond {
            outcomes.is_complete = true;
            return outcomes;
        }
        outcomes.last = point;
        point += points.stride;
    }
    outcomes
}

/// One point: the record, whether the server got by without being killed, and what is wrong with
/// the store.
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
    let mut is_beyond = false;
    if server.launch_again().await.is_ok() {
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
                // It may be killed on its way out yet.
                server.process().signal(Signal::TERM);
                is_beyond = server.ended(PATIENCE).await.status.success();
                break;
            }
        }
    }
    // Once more, untraced, and to the end.
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
        may_refuse: sender.put_off() > 0,
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
    (record, is_beyond, store)
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

/// Kills `ciphermq-cli receive` at its calls of `calls`; its output goes on over all points.
///
/// # Panics
///
/// If something does not start again.
pub async fn receiver(calls: &str, points: Points) -> Outcomes {
    let server = Server::start(Options::sqlite().set("limits", "redelivery_timeout", "2s")).await;
    let folder = files::folder("points");
    let route = transfer::Route {
        sender: "sender".to_owned(),
        receiver: "receiver".to_owned(),
    };
    let mut receiver =
        CliReceiver::new(server.pki(), server.address(), &route, folder.path()).await;
    receiver.start().await;
    receiver.kill().await;
    let mut sender = CliSender::new(server.pki(), server.address(), &route, folder.path(), 100);
    let database = server.database().await;
    let waiting = "SELECT count(*) FROM messages";
    let started = tokio::time::Instant::now();
    let mut outcomes = Outcomes::default();
    let mut point = points.first;
    while started.elapsed() < points.time && !outcomes.is_complete {
        outcomes.points += 1;
        while sender.tend(database.number(waiting).await == 0) {
            tokio::time::sleep(TICK).await;
        }
        receiver.start_under(&Injection::kill(calls, point));
        loop {
            tokio::time::sleep(TICK).await;
            if receiver.has_ended() {
                outcomes.last = point;
                break;
            }
            if database.number(waiting).await == 0 {
                receiver.finish().await;
                outcomes.is_complete = !receiver.was_killed();
                if receiver.was_killed() {
                    outcomes.last = point;
                }
                break;
            }
        }
        point += points.stride;
        if !outcomes.is_complete {
            receiver.tend();
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
    outcomes.add(0, &record);
    outcomes
}
