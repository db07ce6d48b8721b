//! A bound on what is in flight, in messages and in bytes.

use tokio::sync::{Semaphore, SemaphorePermit};

/// A bound on messages that were sent and are not settled. The publisher acquires space, the driver
/// releases it.
#[derive(Debug)]
pub(crate) struct Window {
    messages: Semaphore,
    bytes: Semaphore,
    max_bytes: u32,
}

/// Acquired space of a window. Released when dropped; [`WindowPermit::keep`] leaves that to the
/// driver.
pub(crate) struct WindowPermit<'a> {
    message: SemaphorePermit<'a>,
    bytes: SemaphorePermit<'a>,
    weight: u32,
}

impl WindowPermit<'_> {
    pub(crate) fn keep(self) -> u32 {
        self.message.forget();
        self.bytes.forget();
        self.weight
    }
}

impl Window {
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        let messages = messages.clamp(1, Semaphore::MAX_PERMITS);
        let max_bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let bytes = usize::try_from(max_bytes)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            messages: Semaphore::new(messages),
            bytes: Semaphore::new(bytes),
            max_bytes,
        }
    }

    /// Waits for space for one message of about `bytes`; `None` if the window was closed. A message
    /// that is larger than the whole window takes all of it.
    pub(crate) async fn acquire(&self, bytes: usize) -> Option<WindowPermit<'_>> {
        let weight = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.max_bytes);
        let message = self.messages.acquire().await.ok()?;
        let bytes = self.bytes.acquire_many(weight).await.ok()?;
        Some(WindowPermit {
            message,
            bytes,
            weight,
        })
    }

    /// Releases the space of `messages` that weigh `bytes` together.
    pub(crate) fn release(&self, messages: usize, bytes: u64) {
        self.messages.add_permits(messages);
        self.bytes
            .add_permits(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Closes the window: every waiting and later call to `acquire` returns `None`.
    pub(crate) fn close(&self) {
        self.messages.close();
        self.bytes.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_full_window_waits_for_released_space() {
        let window = Window::new(2, 100);
        let first = window.acquire(60).now_or_never().flatten().unwrap();
        assert!(
            window.acquire(60).now_or_never().is_none(),
            "60 + 60 bytes in a window of 100"
        );
        let second = window.acquire(40).now_or_never().flatten().unwrap();
        assert!(
            window.acquire(0).now_or_never().is_none(),
            "a third message in a window of 2"
        );
        drop(second);
        assert_eq!(
            window.acquire(10).now_or_never().flatten().unwrap().keep(),
            10
        );
        let weight = first.keep();
        assert!(window.acquire(50).now_or_never().is_none());
        window.release(1, u64::from(weight));
        assert!(window.acquire(50).now_or_never().flatten().is_some());
    }

    #[test]
    fn a_message_larger_than_the_window_is_sent_alone() {
        let window = Window::new(10, 100);
        assert_eq!(
            window
                .acquire(1_000_000)
                .now_or_never()
                .flatten()
                .unwrap()
                .keep(),
            100
        );
        assert!(window.acquire(1).now_or_never().is_none());
    }

    #[test]
    fn a_closed_window_refuses_every_caller() {
        let window = Window::new(1, 1);
        let _room = window.acquire(1).now_or_never().flatten().unwrap();
        window.close();
        assert!(window.acquire(1).now_or_never().unwrap().is_none());
    }
}
