//! The writer's loop: waits for submissions, commits a batch of them, and answers it.
//!
//! | a commit ends with | then |
//! |---|---|
//! | success | the observer sees the batch, and its submitters are answered |
//! | an unknown outcome | the database is reopened, and its commit number tells the outcome |
//! | a lost connection | the database is reopened, and the batch is tried again, halved after the second loss |
//! | a full disk | publishes are refused; acks, which make room, are tried without them |
//! | a refusal | the batch is split until the faulty item is alone |
//! | an unusable or corrupt database | the loop ends with the error |
//!
//! Between commits, and while there is no work, the database is maintained in short steps.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::outcome::{Results, len, split};
use super::queue::{Batch, Queue, Submission, earlier};
use super::{CommitObserver, Submitter, WriteError, WriterSettings};
use crate::memory;
use crate::model::{Change, CommitNumber, Outcomes, Time, Transaction};
use crate::store::{CommitError, Committer, Error, Retention, Space};

/// The time without work after which maintenance starts.
const IDLE: Duration = Duration::from_millis(500);

/// How long after a commit of messages acks wait for the next ones.
///
/// A sender that waits for each answer publishes its next message a moment after the last one was
/// committed, and the receiver acks that one at the same time. An ack that came first and was
/// committed alone would hold up the message for a sync.
const COMPANY: Duration = Duration::from_millis(1);

/// The interval of maintenance steps of a writer that is never idle, and of an idle one's search
/// for metadata that has become old enough to be forgotten.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// The interval of maintenance steps while there is more to do. A step takes a few milliseconds.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);

/// The interval of maintenance steps while there is no room: space is given back between publishes
/// that are refused and acks that make room.
const FULL_INTERVAL: Duration = Duration::from_millis(200);

/// The interval at which submissions are taken in during a commit, to notice their deadlines.
/// Taking in each as it comes would wake this task for each.
const GATHER_INTERVAL: Duration = Duration::from_millis(100);

/// The bounds of the pause between attempts to reach the database.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The reason why the loop ends early.
enum Exit {
    /// The deadline of a shutdown has passed.
    Deadline,
    /// The database cannot be used any more.
    Fatal(Error),
}

struct Writer {
    /// The database.
    committer: Box<dyn Committer>,
    /// Sees every commit before its submitters are answered.
    observer: Arc<dyn CommitObserver>,
    settings: WriterSettings,
    /// The submissions that are in no commit yet.
    queue: Queue,
    closing: Closing,
    /// The number of the last successful commit; `None` before the first.
    last_commit: Option<CommitNumber>,
    /// The end of the last commit, if it had messages.
    published: Option<Instant>,
    /// The space on the database's disk before the last commit.
    space: Space,
    /// The time of the last step of maintenance.
    maintained: Instant,
    /// Whether the last step of maintenance left something to do.
    has_maintenance: bool,
    /// Whether something was committed since memory was last released.
    has_worked: bool,
}

/// Commits what arrives on `incoming` until all submitters are gone or `closing` asks for the end,
/// then closes the database.
///
/// # Errors
///
/// [`Error`] if the database cannot be used any longer.
pub(super) async fn run(
    committer: Box<dyn Committer>,
    observer: Arc<dyn CommitObserver>,
    settings: WriterSettings,
    incoming: mpsc::UnboundedReceiver<(Submitter, Submission)>,
    closing: watch::Receiver<Option<Instant>>,
) -> Result<(), Error> {
    let mut writer = Writer {
        committer,
        observer,
        queue: Queue::new(incoming),
        closing: Closing {
            request: closing,
            deadline: None,
            timeout: settings.close_timeout,
        },
        settings,
        last_commit: None,
        published: None,
        space: Space::Enough,
        maintained: Instant::now(),
        // A deletion that another process has begun goes on.
        has_maintenance: true,
        has_worked: false,
    };
    let end = writer.run().await;
    // Submitters learn that the writer has ended before the database is closed, which may take
    // long.
    writer.queue.close();
    writer.queue.refuse_publishes(&WriteError::Closed);
    drop(writer.queue);
    if timeout(writer.settings.close_timeout, writer.committer.close())
        .await
        .is_err()
    {
        tracing::warn!("The database was not closed cleanly in time");
    }
    match end {
        Ok(()) => Ok(()),
        Err(Exit::Deadline) => {
            tracing::warn!(
                "The database did not take everything in time; the rest was not acknowledged"
            );
            Ok(())
        }
        Err(Exit::Fatal(error)) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "The database cannot be used any more"
            );
            Err(error)
        }
    }
}

impl Writer {
    async fn run(&mut self) -> Result<(), Exit> {
        while self.wait().await? {
            self.wait_for_company().await;
            self.queue.expire(Instant::now());
            self.space = self.committer.space();
            let has_room = self.space != Space::None;
            if !has_room {
                self.queue.refuse_publishes(&WriteError::Full);
            }
            let (transaction, batch) = self.queue.batch(&self.settings);
            if len(&transaction) > 0 {
                self.has_worked = true;
                let publishes = !transaction.publishes.is_empty();
                self.commit(transaction, batch).await?;
                self.published = publishes.then(Instant::now);
            } else {
                batch.answer(Results::default());
            }
            // Senders that retry again and again must not keep maintenance from freeing the full
            // disk.
            let interval = match (has_room, self.has_maintenance) {
                (true, false) => MAINTENANCE_INTERVAL,
                (true, true) => BUSY_INTERVAL,
                (false, _) => FULL_INTERVAL,
            };
            if self.maintained.elapsed() >= interval {
                self.maintain().await?;
            }
        }
        Ok(())
    }

    /// Waits for work and maintains the database meanwhile. Returns `false` when there will be no
    /// more work.
    async fn wait(&mut self) -> Result<bool, Exit> {
        let mut pause = IDLE;
        loop {
            tokio::select! {
                biased;
                filled = self.queue.filled() => return Ok(filled),
                () = self.closing.requested() => {
                    self.queue.close();
                    return Ok(self.queue.filled().await);
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.maintain().await?;
            pause = if self.has_maintenance {
                Duration::ZERO
            } else {
                if std::mem::take(&mut self.has_worked) {
                    memory::release();
                }
                MAINTENANCE_INTERVAL
            };
        }
    }

    /// Waits for messages a moment if only acks wait, and messages were committed just now.
    async fn wait_for_company(&mut self) {
        let Some(until) = self.published.map(|published| published + COMPANY) else {
            return;
        };
        if Instant::now() < until && self.queue.can_wait() {
            // Without messages the acks are committed alone.
            let _ = tokio::time::timeout_at(until, self.queue.urgent()).await;
        }
    }

    /// Runs one step of maintenance.
    async fn maintain(&mut self) -> Result<(), Exit> {
        let now = Time::now();
        let metadata = self.settings.metadata_retention;
        let retention = Retention {
            metadata_before: metadata.and_then(|retention| now.before(retention)),
            rejected_before: self.observer.rejected_before(now),
        };
        let step = self.committer.maintain(&retention);
        let step = drive(step, &mut self.queue, None, &mut self.closing).await?;
        self.maintained = Instant::now();
        self.has_maintenance = match step {
            Ok(maintained) => {
                self.observer.held(&maintained.held);
                for (sender, messages) in maintained.removed {
                    tracing::warn!(
                        client_id = %sender,
                        messages,
                        "Rejected messages of a client are removed: they are older than its \
                         limit rejected_age"
                    );
                }
                maintained.more
            }
            Err(error) => {
                // It costs no data; if the database is gone, the next commit deals with that.
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "Maintenance of the database failed"
                );
                false
            }
        };
        Ok(())
    }

    /// Commits a batch, in parts if need be, and answers it.
    async fn commit(&mut self, transaction: Transaction, mut batch: Batch) -> Result<(), Exit> {
        let mut results = Results::default();
        let mut parts = VecDeque::from([transaction]);
        let mut losses = 0;
        let mut backoff = Backoff::default();
        while let Some(mut part) = parts.pop_front() {
            part.rooms = self.observer.rooms(&part, self.space);
            let attempt = self.committer.commit(&part);
            let attempt = drive(
                attempt,
                &mut self.queue,
                Some(&mut batch),
                &mut self.closing,
            )
            .await?;
            match attempt {
                Ok(outcomes) => {
                    losses = 0;
                    self.last_commit = Some(outcomes.commit);
                    // What a deletion leaves to be done is done by maintenance.
                    self.has_maintenance |= part.changes.iter().any(Change::comes_last);
                    results.committed(&part, outcomes, &*self.observer);
                }
                Err(CommitError::Unknown { outcomes, source }) => {
                    tracing::warn!(
                        error = &*source as &dyn std::error::Error,
                        "The outcome of a commit is not known"
                    );
                    if self.resolve(&outcomes, &mut batch).await? {
                        self.has_maintenance |= part.changes.iter().any(Change::comes_last);
                        results.committed(&part, outcomes, &*self.observer);
                    } else {
                        losses += 1;
                        requeue(&mut parts, part, losses);
                    }
                }
                Err(CommitError::Failed(Error::Unavailable(source))) => {
                    tracing::warn!(
                        error = &*source as &dyn std::error::Error,
                        "The database is not available"
                    );
                    let last = self.last_commit;
                    let found = self.reopen(&mut batch).await?;
                    self.check_last_commit(found, &[last])?;
                    losses += 1;
                    requeue(&mut parts, part, losses);
                }
                Err(CommitError::Failed(Error::Full(source))) => {
                    tracing::warn!(
                        error = &*source as &dyn std::error::Error,
                        "The database's disk is full"
                    );
                    results.publishes_failed(&part, &WriteError::Full);
                    // Acks make room, so they are tried without the publishes, again and again.
                    if std::mem::take(&mut part.publishes).is_empty() {
                        self.queue.refuse_publishes(&WriteError::Full);
                        if results.has_stored_none()
                            && parts.iter().all(|part| part.publishes.is_empty())
                        {
                            batch.refuse_publishes(&WriteError::Full);
                        }
                        let pause = tokio::time::sleep(backoff.next());
                        drive(pause, &mut self.queue, Some(&mut batch), &mut self.closing).await?;
                    }
                    if len(&part) > 0 {
                        parts.push_front(part);
                    }
                }
                Err(CommitError::Failed(Error::Refused(source))) => {
                    if len(&part) > 1 {
                        push_halves(&mut parts, part);
                    } else {
                        tracing::warn!(
                            error = &*source as &dyn std::error::Error,
                            "The database refuses an item"
                        );
                        results.refused(&part, &source.to_string(), &*self.observer);
                    }
                }
                Err(CommitError::Failed(error @ (Error::Unusable(_) | Error::Corrupt(_)))) => {
                    return Err(Exit::Fatal(error));
                }
            }
        }
        batch.answer(results);
        Ok(())
    }

    /// Finds out whether a commit happened.
    async fn resolve(&mut self, outcomes: &Outcomes, batch: &mut Batch) -> Result<bool, Exit> {
        let before = CommitNumber(outcomes.commit.0 - 1);
        let found = self.reopen(batch).await?;
        self.check_last_commit(found, &[Some(before), Some(outcomes.commit)])?;
        let committed = found == outcomes.commit;
        tracing::info!(committed, "The outcome of the commit is known now");
        self.last_commit = Some(found);
        Ok(committed)
    }

    /// Tries to reach the database until it succeeds.
    async fn reopen(&mut self, batch: &mut Batch) -> Result<CommitNumber, Exit> {
        let mut backoff = Backoff::default();
        let mut logged = false;
        loop {
            let attempt = self.committer.reopen();
            match drive(attempt, &mut self.queue, Some(batch), &mut self.closing).await? {
                Ok(found) => {
                    tracing::info!("The database is available again");
                    return Ok(found);
                }
                Err(error @ (Error::Unusable(_) | Error::Corrupt(_))) => {
                    return Err(Exit::Fatal(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut logged, true) {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "The database is not available; trying again until it is"
                        );
                    }
                    let pause = tokio::time::sleep(backoff.next());
                    drive(pause, &mut self.queue, Some(batch), &mut self.closing).await?;
                }
            }
        }
    }

    /// Checks that the database's last commit is one that this server made. Otherwise commits were
    /// lost, by a restored backup or a standby that lagged behind, and the caches in memory are
    /// wrong.
    fn check_last_commit(
        &self,
        found: CommitNumber,
        allowed: &[Option<CommitNumber>],
    ) -> Result<(), Exit> {
        let known: Vec<CommitNumber> = allowed.iter().flatten().copied().collect();
        if known.is_empty() || known.contains(&found) {
            return Ok(());
        }
        Err(Exit::Fatal(Error::Corrupt(format!(
            "its last commit is {}, and it was left at {}; was a backup restored, or a standby \
             promoted that was \
             behind? Start the server again to continue with the database as it is",
            found.0,
            known
                .iter()
                .map(|commit| commit.0.to_string())
                .collect::<Vec<_>>()
                .join(" or ")
        ))))
    }
}

/// Puts a part that was not committed back in front. If the connection was lost during it more than
/// once, it may take longer than an answer may take: then it is halved.
fn requeue(parts: &mut VecDeque<Transaction>, part: Transaction, losses: u32) {
    if losses > 1 && len(&part) > 1 {
        push_halves(parts, part);
    } else {
        parts.push_front(part);
    }
}

fn push_halves(parts: &mut VecDeque<Transaction>, part: Transaction) {
    let (first, second) = split(part);
    parts.push_front(second);
    parts.push_front(first);
}

/// Awaits `work`, and meanwhile takes in submissions and answers those whose deadline passes.
async fn drive<T>(
    work: impl Future<Output = T>,
    queue: &mut Queue,
    mut batch: Option<&mut Batch>,
    closing: &mut Closing,
) -> Result<T, Exit> {
    let mut work = pin!(work);
    loop {
        let now = Instant::now();
        let mut wake = earlier(Some(now + GATHER_INTERVAL), queue.next_deadline());
        if let Some(batch) = &batch {
            wake = earlier(wake, batch.next_deadline());
        }
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = closing.deadline() => return Err(Exit::Deadline),
            () = sleep_until(wake.unwrap_or(now)) => {}
        }
        let now = Instant::now();
        queue.gather();
        queue.expire(now);
        if let Some(batch) = &mut batch {
            batch.expire(now);
        }
    }
}

/// The shutdown of the writer, once it is requested, and its deadline.
struct Closing {
    request: watch::Receiver<Option<Instant>>,
    deadline: Option<Instant>,
    timeout: Duration,
}

impl Closing {
    /// Returns when a shutdown is requested: by a call, or by dropping all handles.
    async fn requested(&mut self) {
        if self.deadline.is_none() {
            let request = self.request.wait_for(Option::is_some).await;
            let deadline = request.ok().and_then(|request| *request);
            self.deadline = Some(deadline.unwrap_or_else(|| Instant::now() + self.timeout));
        }
    }

    /// Returns when the deadline has passed.
    async fn deadline(&mut self) {
        self.requested().await;
        if let Some(deadline) = self.deadline {
            sleep_until(deadline).await;
        }
    }
}

/// Pauses between retries that grow exponentially, with jitter.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }
}
