//! Fetching the server's revocation lists.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::{Command, Reply};
use tokio::time::{Instant, sleep_until};

use super::{KeptLists, RevocationError};
use crate::credentials::CurrentCredentials;
use crate::driver::{Handle, WeakHandle};
use crate::error::{RequestError, RequestErrorKind};
use crate::event::{Event, Events};

/// Fetches lists, and puts in force what the client's authorities have signed.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    credentials: Arc<CurrentCredentials>,
    kept: Arc<KeptLists>,
    interval: Duration,
}

impl Fetcher {
    /// Creates a fetcher that asks again after `interval`.
    pub(crate) fn new(
        credentials: Arc<CurrentCredentials>,
        kept: Arc<KeptLists>,
        interval: Duration,
    ) -> Self {
        Self {
            credentials,
            kept,
            interval,
        }
    }

    /// Puts the lists in force that were kept before.
    pub(crate) async fn read_kept(&self) -> Result<(), RevocationError> {
        let fetcher = self.clone();
        blocking(move || {
            let read = fetcher.kept.read(&fetcher.credentials.authority());
            fetcher.credentials.set_lists(fetcher.kept.all());
            read
        })
        .await
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
                Reply::RevocationLists(lists) => lists.to_der(),
                _ => None,
            })
            .await;
        let lists = match fetched {
            Ok(lists) => lists,
            Err(error) if error.kind() == RequestErrorKind::Unsupported => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let fetcher = self.clone();
        let taken = blocking(move || {
            let authority = fetcher.credentials.authority();
            let mut events = Vec::new();
            for der in lists {
                let read = authority.read_list(&der).map_err(RevocationError::from);
                let taken = read.and_then(|list| {
                    let is_new = fetcher.kept.accept(list.clone(), &authority)?;
                    Ok(is_new.then_some(list))
                });
                match taken {
                    Ok(None) => {}
                    Ok(Some(list)) => events.push(Event::RevocationListUsed { list }),
                    Err(reason) => events.push(Event::RevocationListRefused { reason }),
                }
            }
            fetcher.credentials.set_lists(fetcher.kept.all());
            Ok(events)
        });
        Ok(taken
            .await
            .unwrap_or_else(|reason| vec![Event::RevocationListRefused { reason }]))
    }
}

/// Fetches lists on every new connection and from time to time, until the connection is closed for
/// good.
pub(crate) fn keep_fetching(handle: WeakHandle, events: Events, fetcher: Fetcher) {
    tokio::spawn(run(handle, events, fetcher));
}

async fn run(weak: WeakHandle, mut events: Events, fetcher: Fetcher) {
    // A refusal is reported once, and not each time that the same list comes.
    let mut refused = None;
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
        for event in fetcher.fetch(&handle).await.unwrap_or_default() {
            if let Event::RevocationListRefused { reason } = &event {
                let reason = Some(reason.to_string());
                if reason == refused {
                    continue;
                }
                refused = reason;
            }
            handle.emit(event);
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
