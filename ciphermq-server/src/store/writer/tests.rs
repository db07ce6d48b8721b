//! The writer against a committer that fails on demand, as real databases do too rarely for tests.

mod ending;
mod order;
mod outages;
mod waiting;

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, MessageId, QueueName, RoutingKey};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{
    CommitObserver, Deadlines, Pending, Settled, WriteError, WriterHandle, WriterSettings, spawn,
};
use crate::model::*;
use crate::store::{CommitError, Committer, Error, Maintained, Retention, Space};

/// The next commit's result. Without one it succeeds.
enum Step {
    Unavailable,
    Full,
    /// Its outcome is not known; the field says whether it happened.
    Unknown(bool),
}

#[derive(Default)]
struct Database {
    steps: VecDeque<Step>,
    /// The number of times that reopening fails before it succeeds.
    failing_reopens: usize,
    /// Whether reopening fails because another server uses the database.
    taken_over: bool,
    /// Ids that the database refuses.
    refused: BTreeSet<String>,
    no_room: bool,
    /// The number of commits that are lost when it is reopened.
    lost_commits: i64,
    commit: i64,
    seq: i64,
    /// Everything that happened, in order.
    events: Vec<String>,
    maintained: Vec<Option<Time>>,
    reopened: usize,
    /// Called by the observer before it records anything.
    on_commit: Option<Box<dyn FnMut() + Send>>,
}

/// A committer and an observer with shared state.
#[derive(Clone)]
struct Scripted {
    database: Arc<Mutex<Database>>,
    /// A commit takes a permit before it does anything.
    gate: Arc<Semaphore>,
    /// Gets a permit when a commit begins.
    begun: Arc<Semaphore>,
}

fn names<'a>(ids: impl Iterator<Item = &'a MessageId>) -> String {
    ids.map(MessageId::as_str).collect::<Vec<_>>().join(",")
}

impl Scripted {
    fn describe(transaction: &Transaction) -> String {
        let publishes = names(
            transaction
                .publishes
                .iter()
                .map(|publish| &publish.envelope.message_id),
        );
        let acks = names(transaction.acks.iter().map(|ack| &ack.message_id));
        let rejections = names(
            transaction
                .rejections
                .iter()
                .map(|rejection| &rejection.ack.message_id),
        );
        let deliveries = names(transaction.deliveries.iter().map(|(id, _)| id));
        let changes = transaction.changes.len().to_string();
        [
            ("p", publishes),
            ("a", acks),
            ("r", rejections),
            ("d", deliveries),
            ("c", changes),
        ]
        .into_iter()
        .filter(|(_, items)| !items.is_empty() && items != "0")
        .map(|(kind, items)| format!(" {kind}:{items}"))
        .collect()
    }

    fn with<T>(&self, what: impl FnOnce(&mut Database) -> T) -> T {
        what(&mut self.database.lock())
    }

    fn events(&self) -> Vec<String> {
        self.with(|database| database.events.clone())
    }

    /// Returns the content of every commit, in order.
    fn commits(&self) -> Vec<String> {
        let events = self.events();
        let commits = events
            .iter()
            .filter_map(|event| event.strip_prefix("commit "));
        commits.map(str::to_owned).collect()
    }
}

impl Database {
    fn outcomes(&self, transaction: &Transaction) -> Outcomes {
        let mut seq = self.seq;
        let mut next = || {
            seq += 1;
            Seq(seq)
        };
        let done = |ack: &Ack| match ack.message_id.as_str() {
            "never" => AckOutcome::NotFound,
            _ => AckOutcome::Done(vec![(QueueId(1), Seq(1))]),
        };
        Outcomes {
            commit: CommitNumber(self.commit + 1),
            changes: transaction
                .changes
                .iter()
                .map(|_| ChangeOutcome::Queue(QueueId(7)))
                .collect(),
            publishes: transaction
                .publishes
                .iter()
                .map(|publish| match publish.envelope.message_id.as_str() {
                    "again" => PublishOutcome::Duplicate,
                    _ => PublishOutcome::Stored { first: next() },
                })
                .collect(),
            acks: transaction.acks.iter().map(done).collect(),
            rejections: transaction
                .rejections
                .iter()
                .map(|rejection| done(&rejection.ack))
                .collect(),
            narrowed: Vec::new(),
            held: HeldBySender::default(),
        }
    }

    fn apply(&mut self, transaction: &Transaction) {
        self.commit += 1;
        self.seq += i64::try_from(transaction.publishes.len()).unwrap();
    }
}

#[async_trait]
impl Committer for Scripted {
    #[expect(clippy::result_large_err, reason = "a test need not be fast")]
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        self.begun.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.with(|database| {
            database
                .events
                .push(format!("commit{}", Self::describe(transaction)));
            let outcomes = database.outcomes(transaction);
            let holds = |id: &MessageId| database.refused.contains(id.as_str());
            if transaction
                .publishes
                .iter()
                .any(|publish| holds(&publish.envelope.message_id))
                || transaction.acks.iter().any(|ack| holds(&ack.message_id))
            {
                return Err(Error::Refused("no such character".into()).into());
            }
            match database.steps.pop_front() {
                None => {
                    database.apply(transaction);
                    Ok(outcomes)
                }
                Some(Step::Unavailable) => Err(Error::Unavailable("gone".into()).into()),
                Some(Step::Full) => Err(Error::Full("full".into()).into()),
                Some(Step::Unknown(happened)) => {
                    if happened {
                        database.apply(transaction);
                    }
                    Err(CommitError::Unknown {
                        outcomes,
                        source: "no answer".into(),
                    })
                }
            }
        })
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        self.with(|database| {
            database.reopened += 1;
            if database.failing_reopens > 0 {
                database.failing_reopens -= 1;
                return Err(Error::Unavailable("still gone".into()));
            }
            if database.taken_over {
                return Err(Error::Unusable(String::from("another server uses it")));
            }
            Ok(CommitNumber(database.commit - database.lost_commits))
        })
    }

    fn space(&self) -> Space {
        self.with(|database| match database.no_room {
            true => Space::None,
            false => Space::Enough,
        })
    }

    async fn maintain(&mut self, retention: &Retention) -> Result<Maintained, Error> {
        Ok(self.with(|database| {
            database.maintained.push(retention.metadata_before);
            Maintained {
                more: database.maintained.len() < 3,
                ..Maintained::default()
            }
        }))
    }

    async fn close(self: Box<Self>) {
        self.with(|database| database.events.push(String::from("close")));
    }
}

impl CommitObserver for Scripted {
    fn committed(
        &self,
        publishes: &[(Arc<Publish>, Seq)],
        acks: &[Settled<'_>],
        rejections: &[Settled<'_>],
    ) {
        let check = self.with(|database| database.on_commit.take());
        if let Some(mut check) = check {
            check();
        }
        let publishes: Vec<String> = publishes
            .iter()
            .map(|(publish, seq)| format!("{}={}", publish.envelope.message_id, seq.0))
            .collect();
        let acks: Vec<String> = acks
            .iter()
            .chain(rejections)
            .map(|(ack, outcome)| match outcome {
                AckOutcome::Done(_) => ack.message_id.to_string(),
                other => format!("{}={other:?}", ack.message_id),
            })
            .collect();
        self.with(|database| {
            database.events.push(format!(
                "see [{}] [{}]",
                publishes.join(","),
                acks.join(",")
            ));
        });
    }

    fn changed(&self, changes: &[Change], outcomes: &[ChangeOutcome]) {
        assert_eq!(changes.len(), outcomes.len());
    }
}

type Task = JoinHandle<Result<(), Error>>;

fn start(settings: WriterSettings) -> (Scripted, WriterHandle, Task) {
    let scripted = Scripted {
        database: Arc::default(),
        gate: Arc::new(Semaphore::new(0)),
        begun: Arc::new(Semaphore::new(0)),
    };
    let (handle, task) = spawn(
        &Handle::current(),
        Box::new(scripted.clone()),
        Arc::new(scripted.clone()),
        settings,
    );
    (scripted, handle, task)
}

/// Starts a writer whose gate is open.
fn start_open() -> (Scripted, WriterHandle, Task) {
    let (scripted, handle, task) = start(WriterSettings::default());
    scripted.gate.add_permits(1_000_000);
    (scripted, handle, task)
}

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn message(id: &str) -> Arc<Publish> {
    let json = format!(
        r#"{{"message_id":"{id}","receiver_client_id":"r","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"Yw=="}}"#
    );
    Arc::new(Publish {
        sender: client("s"),
        exchange: ExchangeName::new("e").unwrap(),
        routing_key: RoutingKey::new("k").unwrap(),
        queues: [QueueId(1)].into(),
        digest: None,
        envelope: Envelope::parse(Bytes::from(json)).unwrap(),
        sent_time: Time::now(),
    })
}

fn ack(id: &str) -> Ack {
    Ack {
        message_id: MessageId::new(id).unwrap(),
        client_id: client("r"),
        delivered_time: None,
        time: Time::now(),
    }
}

type Acked = Pending<Vec<Result<AckOutcome, WriteError>>>;

async fn ack_all(handle: &WriterHandle, ids: &[&str]) -> Acked {
    handle
        .client(&client("r"))
        .ack(ids.len(), || ids.iter().map(|id| ack(id)).collect())
        .await
}

type Published = Pending<Vec<Result<PublishOutcome, WriteError>>>;

async fn publish(handle: &WriterHandle, ids: &[&str]) -> Published {
    let deadlines = Deadlines::within(Duration::from_secs(8));
    handle
        .client(&client("s"))
        .publish(ids.iter().map(|id| message(id)).collect(), deadlines)
        .await
}

fn stored(first: i64) -> Result<PublishOutcome, WriteError> {
    Ok(PublishOutcome::Stored { first: Seq(first) })
}

fn done() -> AckOutcome {
    AckOutcome::Done(vec![(QueueId(1), Seq(1))])
}

/// Runs everything that can run now, without advancing the clock.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

async fn begun(scripted: &Scripted) {
    scripted.begun.acquire().await.unwrap().forget();
}

/// Awaits an answer that must come within an hour of the paused time.
async fn soon<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(3600), answer)
        .await
        .expect("an answer")
}
