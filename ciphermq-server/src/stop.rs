//! The stop signal to every part of the server.

use tokio::sync::watch;

/// The sender of the stop signal to all holders of the [`Stop`].
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// The receiver of the stop signal.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Creates a connected pair.
#[must_use]
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Sends the signal.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns once the signal was sent, or when the sender is gone. It is cancel safe.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
