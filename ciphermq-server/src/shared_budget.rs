//! An amount of memory, or of something else, that all clients share; each has at most a part.

use std::sync::Arc;

use ciphermq_protocol::ClientId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::by_client::ByClient;

/// An amount that all clients share.
#[derive(Debug)]
pub(crate) struct SharedBudget {
    common: Amount,
    /// The amount that one client may take.
    own: usize,
    clients: ByClient<Amount>,
}

impl SharedBudget {
    /// Creates a budget, of which one client may take at most `own`.
    pub(crate) fn new(size: usize, own: usize) -> Self {
        let common = Amount::new(size);
        Self {
            own: own.clamp(1, common.size.max(1)),
            common,
            clients: ByClient::default(),
        }
    }

    /// Returns the client's part of it, the same one while it is in use.
    pub(crate) fn of(&self, client_id: &ClientId) -> ClientBudget {
        ClientBudget {
            own: self.clients.get(client_id, || Amount::new(self.own)),
            common: self.common.clone(),
        }
    }

    /// Returns the amount that is taken.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.common.used()
    }

    /// Ends all waiting, for ever.
    pub(crate) fn close(&self) {
        self.common.free.close();
        self.clients.for_each(|own| own.free.close());
    }
}

/// What one client may take of a [`SharedBudget`], on all its connections together.
#[derive(Debug, Clone)]
pub(crate) struct ClientBudget {
    own: Arc<Amount>,
    common: Amount,
}

impl ClientBudget {
    /// Waits for an amount; `None` when the budget is closed. More than a client may take is all
    /// that it may take. It is cancel safe, but a caller that has cancelled waits behind others.
    pub(crate) async fn take(&self, amount: usize) -> Option<Taken> {
        // Its own part first: so only as much as clients may take waits for the common amount.
        self.take_own(amount).await?.take_common().await
    }

    /// Waits for an amount of the client's own part, as [`take`](Self::take) does first.
    pub(crate) async fn take_own(&self, amount: usize) -> Option<TakenOfOwn<'_>> {
        let own = self.own.take(self.own.up_to(amount)).await?;
        Some(TakenOfOwn { budget: self, own })
    }

    /// Takes an amount if it is free.
    pub(crate) fn try_take(&self, amount: usize) -> Option<Taken> {
        let amount = self.own.up_to(amount);
        let own = Arc::clone(&self.own.free).try_acquire_many_owned(amount);
        let common = Arc::clone(&self.common.free).try_acquire_many_owned(amount);
        Some(self.taken(own.ok()?, common.ok()?))
    }

    /// Returns the amount that the client has taken.
    pub(crate) fn used(&self) -> usize {
        self.own.used()
    }

    /// Whether both are the part of one client.
    pub(crate) fn is_same_client(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.own, &other.own)
    }

    fn taken(&self, own: OwnedSemaphorePermit, common: OwnedSemaphorePermit) -> Taken {
        Taken {
            own,
            common,
            client: Arc::clone(&self.own),
        }
    }
}

/// An amount of a client's own part, for which the common amount is not taken yet.
#[derive(Debug)]
pub(crate) struct TakenOfOwn<'a> {
    budget: &'a ClientBudget,
    own: OwnedSemaphorePermit,
}

impl TakenOfOwn<'_> {
    /// Waits for the same of the common amount; `None` when the budget is closed.
    pub(crate) async fn take_common(self) -> Option<Taken> {
        let permits = self.budget.own.up_to(self.own.num_permits());
        let common = self.budget.common.take(permits).await?;
        Some(self.budget.taken(self.own, common))
    }
}

/// An amount that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    own: OwnedSemaphorePermit,
    common: OwnedSemaphorePermit,
    /// Keeps the client's part, so that a client that connects again has what is left of it.
    client: Arc<Amount>,
}

impl Taken {
    /// Returns the amount.
    pub(crate) fn amount(&self) -> usize {
        self.common.num_permits()
    }

    /// Whether this is all that the client may take.
    pub(crate) fn is_all(&self) -> bool {
        self.amount() == self.client.size
    }

    /// Gives back all but `amount`.
    pub(crate) fn reduce_to(&mut self, amount: usize) {
        let surplus = self.amount().saturating_sub(amount);
        drop(self.own.split(surplus));
        drop(self.common.split(surplus));
    }
}

/// A bounded amount.
#[derive(Debug, Clone)]
struct Amount {
    free: Arc<Semaphore>,
    size: usize,
}

impl Amount {
    fn new(size: usize) -> Self {
        let size = size.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(size)),
            size,
        }
    }

    fn used(&self) -> usize {
        self.size.saturating_sub(self.free.available_permits())
    }

    /// Returns an amount as permits, no more than there are.
    fn up_to(&self, amount: usize) -> u32 {
        u32::try_from(amount.min(self.size)).unwrap_or(u32::MAX)
    }

    async fn take(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free);
        free.acquire_many_owned(permits).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    #[test]
    fn a_client_takes_at_most_its_part_and_all_together_the_whole() {
        let budget = SharedBudget::new(10, 6);
        let [one, two] = ["one", "two"].map(|name| budget.of(&client(name)));
        let first = one.take(4).now_or_never().flatten().unwrap();
        assert!(one.take(3).now_or_never().is_none());
        assert!(one.try_take(3).is_none());
        // More than a client may take is all that it may take.
        let all_of_two = two.take(100).now_or_never().flatten().unwrap();
        assert_eq!((all_of_two.amount(), budget.used()), (6, 10));
        assert!(one.take(1).now_or_never().is_none());
        drop(first);
        let mut again = one.try_take(4).unwrap();
        assert_eq!((one.used(), two.used(), budget.used()), (4, 6, 10));
        again.reduce_to(1);
        assert_eq!((one.used(), budget.used()), (1, 7));
        drop((again, all_of_two));
        assert_eq!((one.used(), budget.used()), (0, 0));
    }

    #[test]
    fn what_a_client_holds_counts_when_it_connects_again() {
        let budget = SharedBudget::new(10, 5);
        let held = budget.of(&client("one")).try_take(5).unwrap();
        assert!(budget.of(&client("one")).try_take(1).is_none());
        drop(held);
        assert!(budget.of(&client("one")).try_take(1).is_some());
    }

    #[tokio::test]
    async fn a_closed_budget_ends_all_waiting() {
        let budget = SharedBudget::new(2, 1);
        let one = budget.of(&client("one"));
        let held = one.try_take(1).unwrap();
        let waiting = one.take(1);
        budget.close();
        assert!(waiting.await.is_none());
        drop(held);
        assert!(one.take(1).await.is_none());
    }
}
