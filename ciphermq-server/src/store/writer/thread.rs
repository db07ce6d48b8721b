//! The thread that the writer runs on.

use std::io;
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread with a runtime of its own, which ends when this is dropped.
///
/// A commit takes large blocks of memory and gives them back at once. Among the connections'
/// allocations that would fragment the heap; a thread of its own has a heap of its own. Nor does a
/// commit then wait for a runtime worker that is busy with a connection. The committer's
/// connections belong to this runtime, so open them here.
pub struct WriterThread {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl WriterThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The operating system's error if it provides no thread or no file descriptors.
    pub fn start() -> io::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (started_sender, started) = mpsc::channel();
        // The runtime is made on the thread that drops it: dropped within another runtime it would
        // panic.
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(
                move || match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = started_sender.send(Ok(runtime.handle().clone()));
                        // Resolved when the sender is dropped.
                        let _ = runtime.block_on(ended);
                        runtime.shutdown_background();
                    }
                    Err(error) => {
                        let _ = started_sender.send(Err(error));
                    }
                },
            )?;
        let runtime = started
            .recv()
            .map_err(|_| io::Error::other("the thread ended at once"))??;
        Ok(Self { runtime, _end: end })
    }

    /// Returns the runtime, to spawn tasks on this thread.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
