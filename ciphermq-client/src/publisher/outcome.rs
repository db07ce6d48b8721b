//! What became of messages: one by one as receipts or observed, and in sum.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ciphermq_protocol::MessageId;
use tokio::sync::oneshot;

use crate::error::PublishError;

/// How many failed messages a [`Summary`] names.
pub const MAX_FAILURES: usize = 10_000;

/// Promises to tell what becomes of one message: await it for the message's id once the server has
/// it.
#[derive(Debug)]
pub struct Receipt {
    message_id: MessageId,
    settled: oneshot::Receiver<Result<(), PublishError>>,
}

impl Receipt {
    pub(crate) fn new(
        message_id: MessageId,
        settled: oneshot::Receiver<Result<(), PublishError>>,
    ) -> Self {
        Self {
            message_id,
            settled,
        }
    }

    /// The message's id.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.message_id
    }
}

impl Future for Receipt {
    type Output = Result<MessageId, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.settled)
            .poll(cx)
            .map(|settled| match settled {
                Ok(result) => result.map(|()| self.message_id.clone()),
                Err(_) => Err(super::closed()),
            })
    }
}

/// What became of one message, for an observer.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Outcome<'a> {
    /// The message.
    pub message_id: &'a MessageId,
    /// Whether the server has it, and if not, why.
    pub result: Result<(), &'a PublishError>,
}

type ObserverFn = dyn Fn(Outcome<'_>) + Send + Sync;

/// Called for every message that is settled.
#[derive(Clone, Default)]
pub(crate) struct OutcomeObserver(pub(crate) Option<Arc<ObserverFn>>);

impl fmt::Debug for OutcomeObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "OutcomeObserver(..)"
        } else {
            "OutcomeObserver(none)"
        })
    }
}

/// What became of everything that a publisher has sent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many messages the server has acknowledged.
    pub acknowledged: u64,
    /// How many messages it has not.
    pub unacknowledged: u64,
    /// Which ones, in the order in which they failed; at most [`MAX_FAILURES`] of them.
    pub failures: Vec<(MessageId, PublishError)>,
}

/// Counts outcomes as they come.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) summary: Summary,
    /// The first failure since the last flush.
    pub(crate) first_failure: Option<PublishError>,
}

impl Tally {
    pub(crate) fn count(&mut self, message_id: &MessageId, result: Result<(), &PublishError>) {
        match result {
            Ok(()) => self.summary.acknowledged += 1,
            Err(error) => {
                self.summary.unacknowledged += 1;
                self.first_failure.get_or_insert_with(|| error.clone());
                if self.summary.failures.len() < MAX_FAILURES {
                    self.summary
                        .failures
                        .push((message_id.clone(), error.clone()));
                }
            }
        }
    }
}
