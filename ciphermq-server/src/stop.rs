//! How every part of the server learns that it is to stop.

use tokio::sync::watch;

/// Asks all holders of the [`Stop`] to come to an end.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Learns of it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A pair that belongs together.
#[must_use]
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns once it was asked for, or when nobody is left who could ask. May be dropped and
    /// called again.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
