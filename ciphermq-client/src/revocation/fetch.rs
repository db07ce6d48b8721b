//! Fetching the server's revocation lists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::RevocationListError;
use ciphermq_protocol::{Command, Reply};
use tokio::time::{Instant, sleep_until};

use super::RevocationError;
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
    credentials: Arc<CurrentCredentials>,
    interval: Duration,
}

impl Fetcher {
    /// Creates a fetcher that asks again after `interval`.
    pub(crate) fn new(credentials: Arc<CurrentCredentials>, interval: Duration) -> Self {
        Self {
            credentials,
            interval: interval.clamp(SHORTEST, LONGEST),
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
        let fetcher = self.clone();
        let taken = blocking(move || Ok(fetcher.take(lists)));
        Ok(taken.await.unwrap_or_else(|reason| vec![refused(reason)]))
    }

    /// Takes the server's lists in DER; `None` stands for lists that are not base64. Waits for the
    /// disk.
    fn take(&self, lists: Option<Vec<Vec<u8>>>) -> Vec<Event> {
        let authority = self.credentials.authority();
        let mut events = Vec::new();
        let Some(lists) = lists else {
            let what = RevocationListError::Unreadable("it is not base64".to_owned());
            return vec![refused(what.into())];
        };
        for der in lists {
            let known = authority.lists().iter();
            if known.clone().any(|known| known.der() == der) {
                continue;
            }
            match authority.read_list(&der) {
                Ok(list) => match self.credentials.kept_lists().accept(&list, &authority) {
                    Ok(false) => {}
                    Ok(true) => events.push(Event::RevocationListUsed { list }),
                    Err(reason) => events.push(refused(reason)),
                },
                // It is no concern of this client.
                Err(RevocationListError::OtherIssuer(issuer)) => {
                    tracing::debug!(issuer, "A revocation list is of another authority");
                }
                Err(error) => events.push(refused(error.into())),
            }
        }
        if let Err(reason) = self.credentials.refresh_authority() {
            events.push(refused(reason));
        }
        events
    }
}

fn refused(reason: RevocationError) -> Event {
    Event::RevocationListRefused { reason }
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
            false => vec![refused(error.into())],
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

/// Runs a function that waits for a disk or a lock on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RevocationError> + Send + 'static,
) -> Result<T, RevocationError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RevocationError::NotKept(error.to_string())))
}
