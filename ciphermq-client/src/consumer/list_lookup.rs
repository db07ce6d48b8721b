//! Fetches revocation lists because those in force are too old.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ciphermq_protocol::Delivery;

use crate::driver::Handle;
use crate::revocation::Fetcher;

/// A delivery that waits until the server's revocation lists have been asked for.
pub(super) struct ListLookup(Pin<Box<dyn Future<Output = Delivery> + Send + Sync>>);

impl ListLookup {
    pub(super) fn start(lists: Fetcher, handle: Handle, delivery: Delivery) -> Self {
        Self(Box::pin(async move {
            if let Err(error) = lists.fetch(&handle).await {
                tracing::warn!(%error, "The revocation lists cannot be fetched");
            }
            delivery
        }))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Delivery> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ListLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListLookup")
    }
}
