//! Bounds the memory of the lines of all connections: unfinished ones, and long ones that are not
//! answered yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes that every connection may hold without a reservation.
pub(super) const FREE_BYTES: usize = 64 * 1024;
/// The number of bytes that a permit stands for: a semaphore counts to 2^32 only.
const UNIT: usize = 4096;
/// How long a connection waits for others to finish their lines.
const WAIT: Duration = Duration::from_secs(10);

/// A budget of memory that all connections share.
#[derive(Debug)]
pub struct BufferBudget {
    units: Arc<Semaphore>,
    total: usize,
}

/// The error of a reservation that found no room in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exhausted;

impl BufferBudget {
    /// Creates a budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let total = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            units: Arc::new(Semaphore::new(total)),
            total,
        })
    }

    /// Returns the number of reserved bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        (self.total - self.units.available_permits()) * UNIT
    }

    /// Reserves units, and waits for others to release them, but no longer than [`WAIT`].
    async fn reserve(&self, units: usize) -> Result<OwnedSemaphorePermit, Exhausted> {
        let take = acquire(&self.units, units);
        tokio::time::timeout(WAIT, take)
            .await
            .map_err(|_| Exhausted)?
    }

    pub(super) fn permit(self: &Arc<Self>) -> BufferPermit {
        BufferPermit {
            budget: Arc::clone(self),
            permit: None,
            free: Arc::new(Semaphore::new(FREE_BYTES / UNIT)),
        }
    }
}

/// The reservations of one connection.
#[derive(Debug)]
pub(super) struct BufferPermit {
    budget: Arc<BufferBudget>,
    permit: Option<OwnedSemaphorePermit>,
    /// The connection's own room for lines that are executed but not answered yet.
    free: Arc<Semaphore>,
}

impl BufferPermit {
    /// Adjusts the reservation to a buffer of `bytes`.
    pub(super) async fn reserve_for_buffer(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let wanted = bytes.saturating_sub(FREE_BYTES).div_ceil(UNIT);
        let held = self
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted == 0 {
            self.permit = None;
        } else if wanted > held {
            let permit = self.budget.reserve(wanted - held).await?;
            match &mut self.permit {
                Some(held) => held.merge(permit),
                None => self.permit = Some(permit),
            }
        }
        Ok(())
    }

    /// Reserves room for a long line that is executed but not answered yet; `None` for a short one,
    /// whose number is bounded by the queue of answers.
    pub(super) async fn reserve_for_answer(
        &self,
        line: usize,
    ) -> Result<Option<OwnedSemaphorePermit>, Exhausted> {
        if line <= UNIT {
            return Ok(None);
        }
        let units = line.div_ceil(UNIT).min(self.budget.total);
        if line > FREE_BYTES {
            return self.budget.reserve(units).await.map(Some);
        }
        // Others may hold the whole budget: then it waits only for its own lines to be answered.
        let permit = tokio::select! {
            biased;
            permit = acquire(&self.free, units) => permit,
            permit = acquire(&self.budget.units, units) => permit,
        };
        permit.map(Some)
    }

    pub(super) fn is_held(&self) -> bool {
        self.permit.is_some()
    }
}

async fn acquire(
    semaphore: &Arc<Semaphore>,
    units: usize,
) -> Result<OwnedSemaphorePermit, Exhausted> {
    let units = u32::try_from(units).map_err(|_| Exhausted)?;
    let permit = Arc::clone(semaphore).acquire_many_owned(units).await;
    permit.map_err(|_| Exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_waits_for_memory_and_then_gives_up() {
        let budget = BufferBudget::new(10 * UNIT);
        let (mut one, mut other) = (budget.permit(), budget.permit());
        one.reserve_for_buffer(FREE_BYTES).await.unwrap();
        assert_eq!(budget.used(), 0);
        one.reserve_for_buffer(FREE_BYTES + 8 * UNIT).await.unwrap();
        assert_eq!(budget.used(), 8 * UNIT);
        assert_eq!(
            other.reserve_for_buffer(FREE_BYTES + 3 * UNIT).await,
            Err(Exhausted)
        );
        one.reserve_for_buffer(10).await.unwrap();
        other
            .reserve_for_buffer(FREE_BYTES + 3 * UNIT)
            .await
            .unwrap();
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn medium_lines_do_not_wait_for_other_connections() {
        let budget = BufferBudget::new(100 * UNIT);
        let (mut greedy, modest) = (budget.permit(), budget.permit());
        greedy
            .reserve_for_buffer(FREE_BYTES + 100 * UNIT)
            .await
            .unwrap();
        let first = modest.reserve_for_answer(FREE_BYTES).await.unwrap();
        assert!(first.is_some());
        // The next one waits for the first one's answer, however long that takes.
        let second = modest.reserve_for_answer(FREE_BYTES);
        tokio::pin!(second);
        assert!(tokio::time::timeout(WAIT * 10, &mut second).await.is_err());
        drop(first);
        assert!(second.await.unwrap().is_some());
        assert_eq!(
            modest.reserve_for_answer(FREE_BYTES + 1).await.unwrap_err(),
            Exhausted
        );
    }
}
