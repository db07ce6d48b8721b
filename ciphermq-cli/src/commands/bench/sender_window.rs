//! The window of a sender with several receivers.
//!
//! Each receiver has a part of the window. The parts are whole numbers, so that their sum may be
//! larger than the window: with a window of 1 and 200 receivers 200 messages would be in flight.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::plan::PlanArgs;
use crate::exit::Failure;

/// The messages that a sender may have in flight, to all its receivers together.
#[derive(Debug, Clone)]
pub(super) struct SenderWindow(Option<Arc<Semaphore>>);

impl SenderWindow {
    pub(super) fn new(plan: &PlanArgs) -> Self {
        let window = plan.window.get();
        let parts = u64::from(plan.window_of_pair()) * u64::from(plan.receivers.get());
        let is_larger = parts > u64::from(window);
        Self(is_larger.then(|| {
            let window = usize::try_from(window).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(window.min(Semaphore::MAX_PERMITS)))
        }))
    }

    /// Waits for room for one message, and takes it.
    pub(super) async fn take(&self) -> Result<(), Failure> {
        if let Some(room) = &self.0 {
            let permit = room.acquire().await;
            permit
                .map_err(|_| Failure::plain("A sender's window was closed."))?
                .forget();
        }
        Ok(())
    }

    /// Gives back the room of a message that is settled.
    pub(super) fn release(&self) {
        if let Some(room) = &self.0 {
            room.add_permits(1);
        }
    }

    /// Whether it needs to know of every message that is settled.
    pub(super) fn is_counted(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::plan::tests::plan;
    use super::*;

    fn in_flight(window: &SenderWindow) -> usize {
        (0..100)
            .take_while(|_| window.take().now_or_never().is_some())
            .count()
    }

    #[test]
    fn all_receivers_together_have_one_window() {
        let window = SenderWindow::new(&plan("--window 1 --receivers 200"));
        assert_eq!(in_flight(&window), 1);
        window.release();
        assert_eq!(in_flight(&window), 1);
        assert_eq!(
            in_flight(&SenderWindow::new(&plan("--window 10 --receivers 4"))),
            10
        );
    }

    #[test]
    fn parts_that_add_up_to_the_window_are_not_counted() {
        for line in ["", "--window 1", "--window 12 --receivers 4"] {
            assert!(!SenderWindow::new(&plan(line)).is_counted(), "{line}");
        }
    }
}
