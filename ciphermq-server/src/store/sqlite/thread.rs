//! The thread that writes.
//!
//! It is the same one for all transactions: what it allocates and frees stays in one heap, and
//! waking it is cheap.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::store::Error;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that runs one piece of work after the other, and ends when this is dropped.
pub(super) struct DatabaseThread(mpsc::Sender<Work>);

impl DatabaseThread {
    pub(super) fn start() -> Result<Self, Error> {
        let (sender, incoming) = mpsc::channel::<Work>();
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                for work in incoming {
                    work();
                }
            })
            .map_err(|error| Error::Unavailable(error.into()))?;
        Ok(Self(sender))
    }

    /// Runs work that may wait for the disk. If this future is dropped half-way, the work still
    /// completes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move || {
            // The caller may have gone.
            let _ = answer.send(work());
        });
        let gone = || Error::Unavailable("the thread that writes the database has ended".into());
        self.0.send(work).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}
