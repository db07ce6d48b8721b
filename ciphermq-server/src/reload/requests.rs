//! Requests to read the configuration again, which are carried out one after the other.

use ciphermq_protocol::administration::Reloaded;
use tokio::sync::{mpsc, oneshot};

use super::Error;

/// The most requests that wait. Administrators' further commands wait for their turn.
const WAITING: usize = 16;

/// The result of a reload.
pub type Outcome = Result<Reloaded, Error>;

/// A request, with the sender of its outcome if somebody wants to know.
pub(super) type Request = Option<oneshot::Sender<Outcome>>;

/// Requests that are to be carried out.
pub struct Requests(pub(super) mpsc::Receiver<Request>);

/// A handle for requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<Request>);

/// Creates the two ends of the requests.
#[must_use]
pub fn channel() -> (Reloads, Requests) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Reloads(sender), Requests(receiver))
}

impl Reloads {
    /// Has everything read again, without waiting for it.
    pub fn request(&self) {
        // Those that wait already will read what is there now.
        let _ = self.0.try_send(None);
    }

    /// Has everything read again, and returns the outcome; `None` if the server stops.
    pub async fn reload(&self) -> Option<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        self.0.send(Some(outcome)).await.ok()?;
        receiver.await.ok()
    }
}
