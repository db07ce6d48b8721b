//! The writer against a committer that fails on demand, as real databases do too rarely for tests.

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

use super::{CommitObserver, Pending, Settled, WriteError, WriterHandle, WriterSettings, spawn};
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
struct World {
    steps: VecDeque<Step>,
    /// The number of times that reopening fails before it succeeds.
    away: usize,
    /// Whether reopening fails because another server uses the database.
    taken_over: bool,
    /// Ids that the database refuses.
    refused: BTreeSet<String>,
    no_room: bool,
    /// The number of commits that are lost when it is reopened.
    lost: i64,
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
    world: Arc<Mutex<World>>,
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

    fn with<T>(&self, what: impl FnOnce(&mut World) -> T) -> T {
        what(&mut self.world.lock())
    }

    fn events(&self) -> Vec<String> {
        self.with(|world| world.events.clone())
    }
}

impl World {
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
        self.with(|world| {
            world
                .events
                .push(format!("commit{}", Self::describe(transaction)));
            let outcomes = world.outcomes(transaction);
            let holds = |id: &MessageId| world.refused.contains(id.as_str());
            if transaction
                .publishes
                .iter()
                .any(|publish| holds(&publish.envelope.message_id))
                || transaction.acks.iter().any(|ack| holds(&ack.message_id))
            {
                return Err(Error::Refused("no such character".into()).into());
            }
            match world.steps.pop_front() {
                None => {
                    world.apply(transaction);
                    Ok(outcomes)
                }
                Some(Step::Unavailable) => Err(Error::Unavailable("gone".into()).into()),
                Some(Step::Full) => Err(Error::Full("full".into()).into()),
                Some(Step::Unknown(happened)) => {
                    if happened {
                        world.apply(transaction);
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
        self.with(|world| {
            world.reopened += 1;
            if world.away > 0 {
                world.away -= 1;
                return Err(Error::Unavailable("still gone".into()));
            }
            if world.taken_over {
                return Err(Error::Unusable(String::from("another server uses it")));
            }
            Ok(CommitNumber(world.commit - world.lost))
        })
    }

    fn space(&self) -> Space {
        self.with(|world| match world.no_room {
            true => Space::None,
            false => Space::Enough,
        })
    }

    async fn maintain(&mut self, retention: &Retention) -> Result<Maintained, Error> {
        Ok(self.with(|world| {
            world.maintained.push(retention.metadata_before);
            Maintained {
                more: world.maintained.len() < 3,
                ..Maintained::default()
            }
        }))
    }

    async fn close(self: Box<Self>) {
        self.with(|world| world.events.push(String::from("close")));
    }
}

impl CommitObserver for Scripted {
    fn committed(
        &self,
        publishes: &[(Arc<Publish>, Seq)],
        acks: &[Settled<'_>],
        rejections: &[Settled<'_>],
    ) {
        let check = self.with(|world| world.on_commit.take());
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
        self.with(|world| {
            world.events.push(format!(
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
        world: Arc::default(),
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
    let deadline = Instant::now() + Duration::from_secs(8);
    handle
        .client(&client("s"))
        .publish(ids.iter().map(|id| message(id)).collect(), deadline)
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

#[tokio::test(start_paused = true)]
async fn submissions_during_a_commit_are_committed_together_in_order() {
    let (scripted, handle, task) = start(WriterSettings::default());
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    let b = publish(&handle, &["b", "again"]).await;
    let x = ack_all(&handle, &["x", "never"]).await;
    let c = publish(&handle, &["c"]).await;
    let rejection = || Rejection {
        ack: ack("y"),
        reason: String::from("why"),
    };
    let y = handle.client(&client("r")).reject(rejection).await;
    let q = handle.client(&client("s")).change(Change::DeclareQueue {
        queue: QueueName::new("q").unwrap(),
        made_by: client("c"),
    });
    handle.delivered(vec![(MessageId::new("z").unwrap(), Time::now())]);
    scripted.gate.add_permits(2);
    assert_eq!(soon(a).await.unwrap(), [stored(1)]);
    assert_eq!(
        soon(b).await.unwrap(),
        [stored(2), Ok(PublishOutcome::Duplicate)]
    );
    assert_eq!(
        soon(x).await.unwrap(),
        [Ok(done()), Ok(AckOutcome::NotFound)]
    );
    assert_eq!(soon(c).await.unwrap(), [stored(3)]);
    assert_eq!(soon(y).await.unwrap(), done());
    assert_eq!(soon(q).await.unwrap(), ChangeOutcome::Queue(QueueId(7)));
    drop(handle);
    soon(task).await.unwrap().unwrap();
    assert_eq!(
        scripted.events(),
        [
            "commit p:a",
            "see [a=1] []",
            "commit p:b,again,c a:x,never r:y d:z c:1",
            "see [b=2,c=3] [x,never=NotFound,y]",
            "close"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_the_commit_and_the_observer() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    let mut a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    settle().await;
    assert!((&mut a).now_or_never().is_none());
    let a = Arc::new(Mutex::new(a));
    let seen = Arc::clone(&a);
    scripted.with(|world| {
        world.on_commit = Some(Box::new(move || {
            let mut answer = seen.lock();
            assert!(
                (&mut *answer).now_or_never().is_none(),
                "answered before the observer has seen it"
            );
        }));
    });
    scripted.gate.add_permits(1);
    settle().await;
    assert_eq!(scripted.events(), ["commit p:a", "see [a=1] []"]);
    let answer = (&mut *a.lock()).now_or_never();
    assert_eq!(answer.unwrap().unwrap(), [stored(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_bounded() {
    let settings = WriterSettings {
        // Each of them is a row of its own.
        max_batch_work: 3 * 22,
        ..WriterSettings::default()
    };
    let (scripted, handle, _task) = start(settings);
    let _first = publish(&handle, &["first"]).await;
    begun(&scripted).await;
    for id in ["a", "b", "c", "d"] {
        drop(publish(&handle, &[id]).await);
    }
    let last = publish(&handle, &["e", "f", "g", "h"]).await;
    scripted.gate.add_permits(10);
    assert_eq!(soon(last).await.unwrap().len(), 4);
    let commits: Vec<String> = scripted
        .events()
        .into_iter()
        .filter(|event| event.starts_with("commit"))
        .collect();
    // A submission is never split.
    assert_eq!(
        commits,
        ["commit p:first", "commit p:a,b,c", "commit p:d,e,f,g,h"]
    );

    let bytes = message("a").envelope.raw().len();
    let (scripted, handle, _task) = start(WriterSettings {
        max_batch_bytes: 2 * bytes,
        ..WriterSettings::default()
    });
    drop(publish(&handle, &["a"]).await);
    begun(&scripted).await;
    for id in ["b", "c", "d"] {
        drop(publish(&handle, &[id]).await);
    }
    scripted.gate.add_permits(10);
    soon(ack_all(&handle, &["x"]).await).await.unwrap();
    let commits: Vec<String> = scripted
        .events()
        .into_iter()
        .filter(|event| event.starts_with("commit"))
        .collect();
    assert_eq!(commits, ["commit p:a", "commit p:b,c", "commit p:d a:x"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_faulty_item_is_refused() {
    let (scripted, handle, _task) = start_open();
    scripted.with(|world| {
        world
            .refused
            .extend(["bad".to_owned(), "worse".to_owned(), "b".to_owned()]);
    });
    let ids = ["1", "2", "bad", "3", "4", "5", "6", "worse"];
    let answers = publish(&handle, &ids).await;
    let acks = ack_all(&handle, &["a", "b", "c"]).await;
    let answers = soon(answers).await.unwrap();
    let refused = Err(WriteError::Refused("no such character".into()));
    for (id, answer) in ids.iter().zip(&answers) {
        assert_eq!(
            answer.is_err(),
            ["bad", "worse"].contains(id),
            "{id}: {answer:?}"
        );
    }
    assert_eq!((&answers[2], &answers[7]), (&refused, &refused));
    assert_eq!(
        [0, 1, 3, 4, 5, 6].map(|at| answers[at].clone()),
        [
            stored(1),
            stored(2),
            stored(3),
            stored(4),
            stored(5),
            stored(6)
        ]
    );
    let acks = soon(acks).await.unwrap();
    assert_eq!(
        acks,
        [
            Ok(done()),
            Err(WriteError::Refused("no such character".into())),
            Ok(done())
        ]
    );
    // The observer saw every commit, in order, and the outcome of the ack.
    let seen: String = scripted
        .events()
        .into_iter()
        .filter(|event| event.starts_with("see"))
        .collect();
    let order: Vec<usize> = ["1=1", "2=2", "3=3", "4=4", "5=5", "6=6"]
        .iter()
        .map(|id| seen.find(id).unwrap())
        .collect();
    assert!(order.is_sorted(), "{seen}");
    assert!(seen.contains("b=NotFound"), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_publishes_and_takes_acks() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    scripted.with(|world| world.steps = [Step::Full].into());
    let first = publish(&handle, &["a", "b"]).await;
    let acked = ack_all(&handle, &["x"]).await;
    scripted.gate.add_permits(100);
    assert_eq!(
        soon(first).await.unwrap(),
        [Err(WriteError::Full), Err(WriteError::Full)]
    );
    assert_eq!(soon(acked).await.unwrap(), [Ok(done())]);
    assert_eq!(
        scripted.events(),
        ["commit p:a,b a:x", "commit a:x", "see [] [x]"]
    );

    // Even acks find no room: they are retried.
    scripted.with(|world| world.steps = [Step::Full, Step::Full, Step::Full].into());
    assert_eq!(
        soon(ack_all(&handle, &["y"]).await).await.unwrap(),
        [Ok(done())]
    );

    // Meanwhile senders are refused at once, not at their deadline.
    scripted.with(|world| world.steps = std::iter::repeat_with(|| Step::Full).take(8).collect());
    let trying = ack_all(&handle, &["y"]).await;
    let with_it = publish(&handle, &["b"]).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let after_it = publish(&handle, &["c"]).await;
    assert_eq!(soon(with_it).await, Err(WriteError::Full));
    assert_eq!(soon(after_it).await, Err(WriteError::Full));
    assert_eq!(soon(trying).await.unwrap(), [Ok(done())]);

    // Below the reserve nothing is tried.
    scripted.with(|world| {
        world.no_room = true;
        world.events.clear();
    });
    let refused = publish(&handle, &["c"]).await;
    assert_eq!(soon(refused).await, Err(WriteError::Full));
    assert_eq!(
        soon(ack_all(&handle, &["z"]).await).await.unwrap(),
        [Ok(done())]
    );
    assert_eq!(scripted.events(), ["commit a:z", "see [] [z]"]);
    scripted.with(|world| world.no_room = false);
    assert!(soon(publish(&handle, &["d"]).await).await.unwrap()[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn acks_beyond_their_room_wait_outside() {
    let (scripted, handle, _task) = start(WriterSettings {
        max_pending_acks: 2,
        client_part: 1,
        ..WriterSettings::default()
    });
    let first = ack_all(&handle, &["a", "b"]).await;
    let mut second = std::pin::pin!(ack_all(&handle, &["c"]));
    assert!(second.as_mut().now_or_never().is_none());
    scripted.gate.add_permits(10);
    assert_eq!(soon(first).await.unwrap(), [Ok(done()), Ok(done())]);
    assert_eq!(soon(second.await).await.unwrap(), [Ok(done())]);
    // More than all the room together: submitted alone.
    let many = ack_all(&handle, &["d", "e", "f"]).await;
    assert_eq!(soon(many).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_loses_the_database_repeatedly_is_split() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    scripted.with(|world| world.steps = [Step::Unavailable, Step::Unknown(false)].into());
    let acks = ack_all(&handle, &["a", "b", "c"]).await;
    scripted.gate.add_permits(10);
    assert_eq!(
        soon(acks).await.unwrap(),
        [Ok(done()), Ok(done()), Ok(done())]
    );
    let commits: Vec<String> = scripted.events();
    let commits: Vec<&str> = commits
        .iter()
        .filter_map(|event| event.strip_prefix("commit "))
        .collect();
    assert_eq!(commits, ["a:a,b,c", "a:a,b,c", "a:a", "a:b,c"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_resolved_before_anything_else() {
    for happened in [true, false] {
        let (scripted, handle, _task) = start(WriterSettings::default());
        scripted.with(|world| {
            world.steps = [Step::Unknown(happened)].into();
            world.away = 3;
        });
        let a = publish(&handle, &["a"]).await;
        let x = ack_all(&handle, &["x"]).await;
        begun(&scripted).await;
        let b = publish(&handle, &["b"]).await;
        scripted.gate.add_permits(10);
        assert_eq!(soon(a).await.unwrap(), [stored(1)]);
        assert_eq!(soon(x).await.unwrap(), [Ok(done())]);
        assert_eq!(soon(b).await.unwrap(), [stored(2)]);
        let again: &[&str] = if happened { &[] } else { &["commit p:a a:x"] };
        let expected = [
            &["commit p:a a:x"],
            again,
            &["see [a=1] [x]", "commit p:b", "see [b=2] []"],
        ]
        .concat();
        assert_eq!(scripted.events(), expected);
        assert_eq!(
            scripted.with(|world| (world.commit, world.reopened)),
            (2, 4)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn publishes_wait_until_their_deadline_and_acks_indefinitely() {
    let (scripted, handle, _task) = start_open();
    scripted.with(|world| {
        world.steps = [Step::Unavailable].into();
        world.away = 500;
    });
    let started = Instant::now();
    let a = publish(&handle, &["a"]).await;
    let x = ack_all(&handle, &["x"]).await;
    // The first commit takes the publish with it; what waits behind it has a later deadline.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let b = publish(&handle, &["b"]).await;
    assert_eq!(soon(a).await, Err(WriteError::Unavailable));
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(8) && waited < Duration::from_millis(8200),
        "{waited:?}"
    );
    assert_eq!(soon(b).await, Err(WriteError::Unavailable));
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(10) && waited < Duration::from_millis(10_200),
        "{waited:?}"
    );
    assert_eq!(soon(x).await.unwrap(), [Ok(done())]);
    // The batch in the commit is committed when the database is back, and observed; what waited is
    // dropped.
    assert_eq!(
        scripted.events(),
        ["commit p:a a:x", "commit p:a a:x", "see [a=1] [x]"]
    );
    let c = publish(&handle, &["c"]).await;
    assert_eq!(soon(c).await.unwrap(), [stored(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_holds_up_nobody_beyond_their_deadline() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    let b = publish(&handle, &["b"]).await;
    assert_eq!(soon(a).await, Err(WriteError::Unavailable));
    assert_eq!(soon(b).await, Err(WriteError::Unavailable));
    scripted.gate.add_permits(1);
    settle().await;
    assert_eq!(scripted.events(), ["commit p:a", "see [a=1] []"]);
}

#[tokio::test(start_paused = true)]
async fn submitting_waits_for_room() {
    let size = message("a").envelope.raw().len();
    let settings = WriterSettings {
        max_pending_bytes: size + 513,
        client_part: 1,
        ..WriterSettings::default()
    };
    let (scripted, handle, _task) = start(settings);
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    // No room: it is not even submitted, up to its deadline.
    let started = Instant::now();
    let b = publish(&handle, &["b"]).await;
    assert_eq!(started.elapsed().as_secs(), 8);
    assert_eq!(soon(b).await, Err(WriteError::Unavailable));
    assert_eq!(soon(a).await, Err(WriteError::Unavailable));
    // Answered, but still in its commit: it keeps its room until it is resolved.
    assert!(publish(&handle, &["c"]).now_or_never().is_none());
    scripted.gate.add_permits(10);
    // Larger than all the room: submitted alone.
    let large = soon(publish(&handle, &["d", "e", "f"])).await;
    assert_eq!(
        soon(large).await.unwrap(),
        [stored(2), stored(3), stored(4)]
    );
    assert_eq!(
        soon(soon(publish(&handle, &["g"])).await).await.unwrap(),
        [stored(5)]
    );
    // Acks need no room.
    assert_eq!(
        soon(ack_all(&handle, &["x"]).await).await.unwrap(),
        [Ok(done())]
    );
}

#[tokio::test(start_paused = true)]
async fn ends_when_another_server_has_taken_over() {
    let (scripted, handle, task) = start_open();
    scripted.with(|world| {
        world.steps = [Step::Unavailable].into();
        world.taken_over = true;
    });
    let a = publish(&handle, &["a"]).await;
    assert_eq!(soon(a).await, Err(WriteError::Closed));
    assert!(matches!(soon(task).await.unwrap(), Err(Error::Unusable(_))));
    assert_eq!(
        soon(ack_all(&handle, &["x"]).await).await,
        Err(WriteError::Closed)
    );
    assert_eq!(scripted.events(), ["commit p:a", "close"]);
}

#[tokio::test(start_paused = true)]
async fn ends_when_the_database_has_lost_commits() {
    for step in [Step::Unavailable, Step::Unknown(false)] {
        let (scripted, handle, task) = start_open();
        soon(publish(&handle, &["a"]).await).await.unwrap();
        soon(publish(&handle, &["b"]).await).await.unwrap();
        scripted.with(|world| {
            world.steps = [step].into();
            world.lost = 1;
        });
        let lost = publish(&handle, &["c"]).await;
        assert_eq!(soon(lost).await, Err(WriteError::Closed));
        assert!(
            matches!(soon(task).await.unwrap(), Err(Error::Corrupt(text)) if text.contains("backup"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn commits_what_waits_before_it_ends() {
    let (scripted, handle, task) = start(WriterSettings::default());
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    let b = publish(&handle, &["b"]).await;
    let x = ack_all(&handle, &["x"]).await;
    handle.shutdown(Instant::now() + Duration::from_secs(5));
    assert_eq!(
        soon(publish(&handle, &["late"]).await).await,
        Err(WriteError::Closed)
    );
    scripted.gate.add_permits(10);
    soon(task).await.unwrap().unwrap();
    assert_eq!(soon(a).await.unwrap(), [stored(1)]);
    assert_eq!(soon(b).await.unwrap(), [stored(2)]);
    assert_eq!(soon(x).await.unwrap(), [Ok(done())]);
    assert_eq!(
        soon(ack_all(&handle, &["y"]).await).await,
        Err(WriteError::Closed)
    );
    assert_eq!(scripted.events().last().map(String::as_str), Some("close"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_indefinitely() {
    // The database is away.
    let (scripted, handle, task) = start_open();
    scripted.with(|world| {
        world.steps = [Step::Unavailable].into();
        world.away = usize::MAX;
    });
    let x = ack_all(&handle, &["x"]).await;
    settle().await;
    let started = Instant::now();
    handle.shutdown(started + Duration::from_secs(5));
    soon(task).await.unwrap().unwrap();
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(soon(x).await, Err(WriteError::Closed));

    // A commit hangs, and all handles are dropped.
    let (scripted, handle, task) = start(WriterSettings {
        close_timeout: Duration::from_secs(3),
        ..WriterSettings::default()
    });
    let x = ack_all(&handle, &["x"]).await;
    begun(&scripted).await;
    drop(handle);
    let started = Instant::now();
    soon(task).await.unwrap().unwrap();
    assert_eq!(
        (started.elapsed().as_secs(), scripted.events()),
        (3, vec![String::from("close")])
    );
    assert_eq!(soon(x).await, Err(WriteError::Closed));
}

#[tokio::test(start_paused = true)]
async fn maintains_the_database_when_idle() {
    let day = Duration::from_secs(24 * 3600);
    let (scripted, handle, _task) = start(WriterSettings {
        metadata_retention: Some(day),
        ..WriterSettings::default()
    });
    scripted.gate.add_permits(10);
    soon(publish(&handle, &["a"]).await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // As long as there is more to do.
    let maintained = scripted.with(|world| world.maintained.clone());
    assert_eq!(maintained.len(), 3);
    let before = maintained[0].unwrap().timestamp();
    let age = Time::now().timestamp().duration_since(before);
    assert!(
        age.as_secs() >= 24 * 3600 && age.as_secs() < 24 * 3600 + 60,
        "{age:?}"
    );
    // Commits go on.
    soon(publish(&handle, &["b"]).await).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_take_turns() {
    let (scripted, handle, _task) = start(WriterSettings {
        max_batch_work: 3600,
        ..WriterSettings::default()
    });
    let busy = handle.client(&client("busy"));
    let deadline = Instant::now() + Duration::from_secs(8);
    let mut first = message("first");
    drop(busy.publish(vec![first.clone()], deadline).await);
    begun(&scripted).await;
    // Each of these is nearly a turn.
    for id in ["a", "b", "c", "d"] {
        first = message(id);
        let message = Arc::make_mut(&mut first);
        message.queues = (0..301).map(QueueId).collect();
        drop(busy.publish(vec![first], deadline).await);
    }
    let last = publish(&handle, &["small"]).await;
    scripted.gate.add_permits(10);
    soon(last).await.unwrap();
    let commits: Vec<String> = scripted.events();
    let commits: Vec<&str> = commits
        .iter()
        .filter_map(|event| event.strip_prefix("commit "))
        .collect();
    assert_eq!(commits[..2], ["p:first", "p:a,small,b"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_used_its_room_holds_up_nobody_else() {
    let size = message("a").envelope.raw().len() + 512;
    let (scripted, handle, _task) = start(WriterSettings {
        max_pending_bytes: 4 * size,
        client_part: 2,
        ..WriterSettings::default()
    });
    let [first, second] = [
        publish(&handle, &["a"]).await,
        publish(&handle, &["b"]).await,
    ];
    begun(&scripted).await;
    let mut third = std::pin::pin!(publish(&handle, &["c"]));
    assert!(third.as_mut().now_or_never().is_none());
    let other = handle.client(&client("other"));
    let deadline = Instant::now() + Duration::from_secs(8);
    let others = other
        .publish(vec![message("o")], deadline)
        .now_or_never()
        .unwrap();
    scripted.gate.add_permits(10);
    for answer in [first, second, others, soon(third).await] {
        assert!(soon(answer).await.unwrap()[0].is_ok());
    }
}

#[test]
fn long_batches_are_submitted_in_parts() {
    let stream = StreamId::new(1, 2);
    let consecutive = (0..1100).map(|number| stream.message_id(number).unwrap().to_string());
    let unrelated = (0..100).map(|number| format!("m{number}"));
    let publishes: Vec<Arc<Publish>> = consecutive
        .chain(unrelated)
        .map(|id| message(&id))
        .collect();
    let parts = super::client::parts(publishes.clone());
    assert_eq!(
        parts.iter().map(Vec::len).collect::<Vec<_>>(),
        [1014, 171, 15]
    );
    let joined = parts
        .concat()
        .into_iter()
        .map(|publish| publish.envelope.message_id.clone());
    assert!(
        joined.eq(publishes
            .iter()
            .map(|publish| publish.envelope.message_id.clone()))
    );
    assert!(super::client::parts(Vec::new()).is_empty());
}
