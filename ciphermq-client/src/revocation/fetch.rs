//! Fetching the server's revocation lists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::{Intermediate, RevocationListError};
use ciphermq_protocol::{Command, Reply};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::RevocationError;
use crate::blocking::blocking;
use crate::credentials::{CurrentCredentials, Taken};
use crate::driver::{Handle, WeakHandle};
use crate::error::{RequestError, RequestErrorKind};
use crate::event::{Event, Events};

/// The bounds of the time between two requests.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The most refusals that are remembered, so that each is reported once.
const MAX_REPORTED: usize = 64;

/// Fetches lists, and puts in force what the client's authorities have signed.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    pub(super) credentials: Arc<CurrentCredentials>,
    interval: Duration,
    /// When the server has answered last.
    answered: Arc<Mutex<Option<Instant>>>,
    /// Held by who asks for newer lists, so that others wait for the same answer.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The refusals that were reported on a connection.
    reported: Arc<Mutex<BTreeSet<String>>>,
}

/// Returns what came of lists that could not be taken.
pub(super) fn not_taken(reason: RevocationError, unknown: Vec<Intermediate>) -> Taken {
    Taken {
        events: vec![reason.into_event()],
        unknown,
    }
}

impl Fetcher {
    /// Creates a fetcher that asks again after `interval`.
    pub(crate) fn new(credentials: Arc<CurrentCredentials>, interval: Duration) -> Self {
        Self {
            credentials,
            interval: interval.clamp(SHORTEST, LONGEST),
            answered: Arc::default(),
            turn: Arc::default(),
            reported: Arc::default(),
        }
    }

    /// Returns the fetcher for another connection, which has reported nothing yet.
    pub(crate) fn of_connection(&self) -> Self {
        Self {
            reported: Arc::default(),
            ..self.clone()
        }
    }

    /// Fetches the lists, and puts newer ones in force. Returns an event for each list that is new
    /// or refused.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer. One that does not know the command has no
    /// lists.
    pub(crate) async fn fetch(&self, handle: &Handle) -> Result<Vec<Event>, RequestError> {
        Ok(self.fetch_for(handle, Vec::new()).await?.events)
    }

    /// Fetches the lists, and learns these authorities as signers of lists by the answer.
    pub(super) async fn fetch_for(
        &self,
        handle: &Handle,
        issuers: Vec<Intermediate>,
    ) -> Result<Taken, RequestError> {
        let fetched = handle
            .expect(Command::GetCrl, |reply| match reply {
                Reply::RevocationLists(lists) => Some(lists),
                _ => None,
            })
            .await;
        let lists = match fetched {
            Ok(lists) => lists.to_der(),
            Err(error) if error.kind() == RequestErrorKind::Unsupported => Some(Vec::new()),
            Err(error) => return Err(error),
        };
        let Some(lists) = lists else {
            let what = RevocationListError::Unreadable("it is not base64".to_owned());
            return Ok(not_taken(what.into(), issuers));
        };
        let (credentials, asked) = (Arc::clone(&self.credentials), issuers.clone());
        let taken = blocking(move || Ok(credentials.take_lists(lists, &asked))).await;
        *self.answered.lock() = Some(Instant::now());
        Ok(taken.unwrap_or_else(|reason| not_taken(reason, issuers)))
    }

    /// Fetches the lists as [`renew`](Self::renew) does, unless the server has answered within the
    /// last second, or is being asked: then it waits for that answer. So many messages that wait
    /// for a list cause few requests.
    pub(super) async fn renew_unless_just_asked(&self, handle: &Handle) {
        let Ok(_turn) = self.turn.try_lock() else {
            drop(self.turn.lock().await);
            return;
        };
        let answered = *self.answered.lock();
        if answered.is_none_or(|answered| answered.elapsed() >= SHORTEST) {
            self.renew(handle).await;
        }
    }

    /// Fetches the lists, and reports what is new or refused.
    pub(crate) async fn renew(&self, handle: &Handle) {
        match self.fetch(handle).await {
            Ok(events) => self.report(handle, events),
            Err(error) => tracing::warn!(%error, "The revocation lists cannot be fetched"),
        }
    }

    /// Emits events, each refusal once.
    pub(super) fn report(&self, handle: &Handle, events: Vec<Event>) {
        for event in events {
            let is_new = match &event {
                Event::RevocationListRefused { reason } => {
                    let mut reported = self.reported.lock();
                    reported.len() < MAX_REPORTED && reported.insert(reason.to_string())
                }
                _ => true,
            };
            if is_new {
                handle.emit(event);
            }
        }
    }
}

/// Fetches lists on every new connection and from time to time, until the connection is closed for
/// good.
pub(crate) fn keep_fetching(handle: WeakHandle, events: Events, fetcher: Fetcher) {
    tokio::spawn(run(handle, events, fetcher));
}

async fn run(weak: WeakHandle, mut events: Events, fetcher: Fetcher) {
    let mut next = Instant::now() + fetcher.interval;
    loop {
        tokio::select! {
            event = events.next() => match event {
                None | Some(Event::Closed) => return,
                Some(Event::Connected) => {}
                Some(_) => continue,
            },
            () = sleep_until(next) => {}
        }
        next = Instant::now() + fetcher.interval;
        let Some(handle) = weak.upgrade() else { return };
        // Without an answer the next connection, or the next time, brings it.
        let fetched = fetcher.fetch(&handle).await;
        let fetched = fetched.unwrap_or_else(|error| match error.is_retryable() {
            true => Vec::new(),
            false => vec![RevocationError::from(error).into_event()],
        });
        fetcher.report(&handle, fetched);
    }
}
