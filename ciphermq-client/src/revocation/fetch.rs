//! Fetching the server's revocation lists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::RevocationListError;
use ciphermq_protocol::{Command, Reply};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::RevocationError;
use crate::blocking::blocking;
use crate::credentials::CurrentCredentials;
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
    /// When the server was asked last.
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Fetcher {
    /// Creates a fetcher that asks again after `interval`.
    pub(crate) fn new(credentials: Arc<CurrentCredentials>, interval: Duration) -> Self {
        Self {
            credentials,
            interval: interval.clamp(SHORTEST, LONGEST),
            asked: Arc::default(),
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
        *self.asked.lock() = Some(Instant::now());
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
            return Ok(vec![RevocationError::from(what).into_event()]);
        };
        let credentials = Arc::clone(&self.credentials);
        let taken = blocking(move || Ok(credentials.take_lists(lists))).await;
        Ok(taken.unwrap_or_else(|reason: RevocationError| vec![reason.into_event()]))
    }

    /// Whether the server was asked within the last second, so that many messages that wait for a
    /// list cause few requests.
    pub(super) fn has_just_asked(&self) -> bool {
        let asked = *self.asked.lock();
        asked.is_some_and(|asked| asked.elapsed() < SHORTEST)
    }

    /// Fetches the lists, and reports what is new or refused.
    pub(crate) async fn renew(&self, handle: &Handle) {
        match self.fetch(handle).await {
            Ok(events) => events.into_iter().for_each(|event| handle.emit(event)),
            Err(error) => tracing::warn!(%error, "The revocation lists cannot be fetched"),
        }
    }
}

/// Fetches lists on every new connection and from time to time, until the connection is closed for
/// good.
pub(crate) fn keep_fetching(handle: WeakHandle, events: Events, fetcher: Fetcher) {
    tokio::spawn(run(handle, events, fetcher));
}

async fn run(weak: WeakHandle, mut events: Events, fetcher: Fetcher) {
    let mut reported = BTreeSet::new();
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
        for event in fetched {
            let is_new = match &event {
                Event::RevocationListRefused { reason } => {
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
