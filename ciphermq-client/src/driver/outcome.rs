//! The outcomes of messages and acks: one by one, as receipts or callbacks, and in total.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ciphermq_protocol::MessageId;
use tokio::sync::oneshot;

use crate::error::{AckError, PublishError, PublishErrorKind};

/// The most failures that a [`Summary`] or an [`AckSummary`] lists.
pub const MAX_FAILURES: usize = 10_000;

/// A future of one message's outcome. It resolves to the message's id once the server has the
/// message.
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

    /// Returns the message's id.
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
                Err(_) => Err(PublishError::new(PublishErrorKind::Closed, CLOSED)),
            })
    }
}

/// The outcome of one message, for a callback.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Outcome<'a> {
    /// The message.
    pub message_id: &'a MessageId,
    /// `Ok` once the server has the message.
    pub result: Result<(), &'a PublishError>,
}

type ObserverFn = dyn Fn(Outcome<'_>) + Send + Sync;

/// The callback for settled messages.
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

/// The outcomes of everything that a publisher has sent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Messages that the server has acknowledged.
    pub acknowledged: u64,
    /// Messages that it has not.
    pub unacknowledged: u64,
    /// The failures, in order; at most [`MAX_FAILURES`].
    pub failures: Vec<(MessageId, PublishError)>,
}

/// A running count of outcomes.
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

/// The outcomes of acks that no caller awaited.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AckSummary {
    /// Acks that the server has confirmed.
    pub confirmed: u64,
    /// Acks that it has not confirmed.
    pub unconfirmed: u64,
    /// The unconfirmed ones; at most 10,000.
    pub failures: Vec<(MessageId, AckError)>,
}

/// A running count of confirmations.
#[derive(Debug, Default)]
pub(crate) struct AckTally(pub(crate) AckSummary);

impl AckTally {
    pub(crate) fn count(&mut self, message_id: MessageId, result: Result<(), AckError>) {
        match result {
            Ok(()) => self.0.confirmed += 1,
            Err(error) => {
                self.0.unconfirmed += 1;
                if self.0.failures.len() < MAX_FAILURES {
                    self.0.failures.push((message_id, error));
                }
            }
        }
    }
}

/// The error of an operation on a closed client.
pub(crate) const CLOSED: &str = "The client was closed.";
