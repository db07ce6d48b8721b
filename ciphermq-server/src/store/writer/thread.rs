//! The thread that the writer runs on.

use std::io;
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread with a runtime of its own, until this is dropped.
///
/// A commit takes large pieces of memory and gives them back at once. Where connections keep
/// theirs, that scatters what comes after; here it stays by itself. And whoever waits for a commit
/// does not wait for a worker that is busy with a connection. What the committer connects to
/// belongs to this runtime, so open it here.
pub struct WriterThread {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl WriterThread {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// The system's, if it gives no thread or no file descriptors.
    pub fn start() -> io::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        // The runtime is made where it is dropped: inside of another runtime that would be a panic.
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(
                move || match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = tell.send(Ok(runtime.handle().clone()));
                        // Resolved by the other end's being dropped.
                        let _ = runtime.block_on(ended);
                        runtime.shutdown_background();
                    }
                    Err(error) => {
                        let _ = tell.send(Err(error));
                    }
                },
            )?;
        let runtime = told
            .recv()
            .map_err(|_| io::Error::other("the thread ended at once"))??;
        Ok(Self { runtime, _end: end })
    }

    /// Where to spawn what is to run here.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
