//! SIGINT and SIGTERM: the first asks the program to finish what it has begun, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure, Signal};

/// Tells of the first signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    first: watch::Receiver<Option<Signal>>,
}

impl Signals {
    /// Begins to listen. From now on no signal ends the program by itself.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the system does not let us.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::plain(format!("Signals cannot be listened for: {error}."));
        let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, first) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let came = tokio::select! {
                    Some(()) = interrupts.recv() => Signal::Interrupt,
                    Some(()) = terminations.recv() => Signal::Terminate,
                    else => return,
                };
                if sender.borrow().is_some() {
                    std::process::exit(i32::from(Exit::Signalled(came).code()));
                }
                sender.send_replace(Some(came));
            }
        });
        Ok(Self { first })
    }

    /// Waits for the first signal; returns at once if it has come. Safe to cancel.
    pub(crate) async fn received(&mut self) -> Signal {
        loop {
            if let Some(signal) = *self.first.borrow_and_update() {
                return signal;
            }
            if self.first.changed().await.is_err() {
                // The listener has gone, so nothing will come.
                std::future::pending::<()>().await;
            }
        }
    }
}
