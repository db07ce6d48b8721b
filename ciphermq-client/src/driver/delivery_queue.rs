//! Deliveries that wait for the consumer, and messages that the application holds.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use ciphermq_protocol::envelope::EnvelopeBytes;
use ciphermq_protocol::{ClientId, Delivery, MessageId};
use parking_lot::{Mutex, MutexGuard};

use crate::error::ConnectError;

/// A queue that the driver fills and the consumer empties. Bounded by the prefetch, which limits
/// the messages that a server has out for delivery.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    prefetch: Arc<AtomicU32>,
    state: Mutex<State>,
    /// Keyed with a secret: nobody can craft two envelopes with the same hash.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Delivery>,
    /// Deliveries that the consumer has given back, to try them again later.
    postponed: Vec<Delivery>,
    /// The messages in the queue or held by the application.
    by_id: HashMap<MessageId, IdState>,
    waker: Option<Waker>,
    is_closed: bool,
    /// Why it was closed, until the consumer has learned of it; `None` if its owner has closed it.
    ended_by: Option<ConnectError>,
}

/// The messages that are here under one id. There may be several: whoever delivers them can put a
/// forged one before the genuine one, so an id alone never makes a duplicate.
#[derive(Debug, Default)]
struct IdState {
    /// Deliveries in the queue.
    waiting: usize,
    /// Hashes of those, if there is more than one.
    waiting_hashes: HashSet<u64>,
    /// The verified senders of the opened messages that the application holds.
    held: Vec<Option<ClientId>>,
    /// Hashes of the unopenable envelopes that the application holds.
    refused: Vec<u64>,
    /// At least one of these messages could be opened.
    is_opened: bool,
}

impl IdState {
    fn is_empty(&self) -> bool {
        self.waiting == 0 && self.held.is_empty() && self.refused.is_empty()
    }
}

/// The server delivers far more than the prefetch allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl DeliveryQueue {
    pub(crate) fn new(prefetch: u32) -> Self {
        Self {
            prefetch: Arc::new(AtomicU32::new(prefetch)),
            state: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Returns the shared prefetch, which also applies to future connections.
    pub(crate) fn prefetch(&self) -> &Arc<AtomicU32> {
        &self.prefetch
    }

    /// Returns the most messages that may be here. A message whose sender requested a resend frees
    /// its place at the server while it is still here, so slightly more than the prefetch is
    /// legitimate.
    fn limit(&self) -> usize {
        usize::try_from(self.prefetch.load(Ordering::Relaxed))
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .saturating_add(16)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn hash(&self, envelope: &EnvelopeBytes) -> u64 {
        self.hasher.hash_one(envelope.to_bytes())
    }

    /// Queues deliveries. Skips those with the same bytes as a waiting delivery, or as an
    /// unopenable one that the application still holds.
    pub(crate) fn deliver(&self, deliveries: Vec<Delivery>) -> Result<(), Overflow> {
        let mut state = self.lock();
        for delivery in deliveries {
            self.deliver_one(&mut state, delivery, self.limit())?;
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn deliver_one(
        &self,
        state: &mut State,
        delivery: Delivery,
        limit: usize,
    ) -> Result<(), Overflow> {
        let State {
            queue,
            postponed,
            by_id,
            ..
        } = state;
        let is_full = queue.len() + postponed.len() >= limit;
        match by_id.entry(delivery.message_id.clone()) {
            Entry::Vacant(_) if is_full => return Err(Overflow),
            Entry::Vacant(place) => place.insert(IdState::default()).waiting = 1,
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                let hash = self.hash(&delivery.envelope);
                if entry.waiting == 1 && entry.waiting_hashes.is_empty() {
                    let first = queue
                        .iter()
                        .find(|first| first.message_id == delivery.message_id);
                    let first = first.map(|first| self.hash(&first.envelope));
                    entry.waiting_hashes.extend(first);
                }
                if entry.refused.contains(&hash) || entry.waiting_hashes.contains(&hash) {
                    return Ok(());
                }
                if is_full {
                    return Err(Overflow);
                }
                if entry.waiting > 0 {
                    entry.waiting_hashes.insert(hash);
                }
                entry.waiting += 1;
            }
        }
        queue.push_back(delivery);
        Ok(())
    }

    /// Drops the queued deliveries: the connection is lost, so the server will redeliver them.
    pub(crate) fn purge(&self) {
        let mut state = self.lock();
        let State {
            queue,
            postponed,
            by_id,
            ..
        } = &mut *state;
        queue.clear();
        postponed.clear();
        by_id.retain(|_, entry| {
            entry.waiting = 0;
            entry.waiting_hashes.clear();
            !entry.is_empty()
        });
    }

    /// Keeps a delivery until [`retry_postponed`](Self::retry_postponed). Gives it back if half of
    /// the prefetch is kept already: each takes a place, and the others are for what can be opened.
    pub(crate) fn postpone(&self, delivery: Delivery) -> Result<(), Delivery> {
        let max = self.prefetch.load(Ordering::Relaxed) / 2;
        let mut state = self.lock();
        let postponed = &mut state.postponed;
        if postponed.contains(&delivery) {
            return Ok(());
        }
        if postponed.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(delivery);
        }
        postponed.push(delivery);
        Ok(())
    }

    /// Queues what was postponed, and then `next`, before everything else. Gives `next` back if
    /// nothing was postponed: it is the first one anyhow.
    pub(crate) fn retry_postponed(&self, next: Option<Delivery>) -> Option<Delivery> {
        let mut state = self.lock();
        if state.postponed.is_empty() {
            return next;
        }
        let before = state.queue.len();
        for delivery in std::mem::take(&mut state.postponed).into_iter().chain(next) {
            // It had room before, and the prefetch may be less now.
            let queued = self.deliver_one(&mut state, delivery, usize::MAX);
            debug_assert!(queued.is_ok(), "there is no limit");
        }
        state.queue.rotate_left(before);
        None
    }

    /// Takes the next delivery.
    pub(crate) fn pop(&self) -> Option<Delivery> {
        self.take(&mut self.lock(), 0)
    }

    /// Takes the next delivery with this id, if there is one.
    pub(crate) fn pop_copy(&self, message_id: &MessageId) -> Option<Delivery> {
        let mut state = self.lock();
        if state
            .by_id
            .get(message_id)
            .is_none_or(|entry| entry.waiting == 0)
        {
            return None;
        }
        let place = state
            .queue
            .iter()
            .position(|delivery| delivery.message_id == *message_id)?;
        self.take(&mut state, place)
    }

    /// Takes the next delivery, or `None` once the queue is closed and empty.
    pub(crate) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.lock();
        if let Some(delivery) = self.take(&mut state, 0) {
            return Poll::Ready(Some(delivery));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take(&self, state: &mut State, place: usize) -> Option<Delivery> {
        let delivery = state.queue.remove(place)?;
        change(state, &delivery.message_id, |entry| {
            entry.waiting = entry.waiting.saturating_sub(1);
            if !entry.waiting_hashes.is_empty() {
                entry.waiting_hashes.remove(&self.hash(&delivery.envelope));
            }
        });
        Some(delivery)
    }

    /// Marks an opened message as held by the application; returns `false` if it already is. The
    /// verified sender and the id identify it.
    pub(crate) fn hold(&self, message_id: &MessageId, sender: Option<&ClientId>) -> bool {
        let mut state = self.lock();
        let entry = state.by_id.entry(message_id.clone()).or_default();
        entry.is_opened = true;
        if entry.held.iter().any(|held| held.as_ref() == sender) {
            return false;
        }
        entry.held.push(sender.cloned());
        true
    }

    /// Ends the hold on a message: it may be delivered again.
    pub(crate) fn release(&self, message_id: &MessageId, sender: Option<&ClientId>) {
        change(&mut self.lock(), message_id, |entry| {
            remove(&mut entry.held, |held| held.as_ref() == sender);
        });
    }

    /// Marks an unopenable envelope as held by the application. Returns the key that releases it;
    /// `None` if the application already holds the same bytes.
    pub(crate) fn refuse(&self, message_id: &MessageId, envelope: &Bytes) -> Option<u64> {
        let hash = self.hasher.hash_one(envelope);
        let mut state = self.lock();
        let entry = state.by_id.entry(message_id.clone()).or_default();
        if entry.refused.contains(&hash) {
            return None;
        }
        entry.refused.push(hash);
        Some(hash)
    }

    /// Ends the hold on an unopenable envelope.
    pub(crate) fn release_refused(&self, message_id: &MessageId, hash: u64) {
        change(&mut self.lock(), message_id, |entry| {
            remove(&mut entry.refused, |refused| *refused == hash);
        });
    }

    /// Whether a message with this id could be opened, for as long as a message with this id is
    /// here.
    pub(crate) fn is_opened(&self, message_id: &MessageId) -> bool {
        self.lock()
            .by_id
            .get(message_id)
            .is_some_and(|entry| entry.is_opened)
    }

    /// Returns once why the connection has ended for good, unless its owner has closed it.
    pub(crate) fn take_end(&self) -> Option<ConnectError> {
        self.lock().ended_by.take()
    }

    /// Closes the queue: no more deliveries are accepted.
    pub(crate) fn close(&self, ended_by: Option<ConnectError>) {
        let mut state = self.lock();
        state.is_closed = true;
        state.ended_by = ended_by;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// Changes the state of an id, and forgets the id once nothing is left of it.
fn change(state: &mut State, message_id: &MessageId, how: impl FnOnce(&mut IdState)) {
    if let Some(entry) = state.by_id.get_mut(message_id) {
        how(entry);
        if entry.is_empty() {
            state.by_id.remove(message_id);
        }
    }
}

fn remove<T>(items: &mut Vec<T>, predicate: impl Fn(&T) -> bool) {
    if let Some(place) = items.iter().position(predicate) {
        items.swap_remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn id(text: &str) -> MessageId {
        MessageId::new(text).unwrap()
    }

    fn copy(text: &str, envelope: &'static str) -> Delivery {
        Delivery {
            message_id: id(text),
            envelope: Bytes::from_static(envelope.as_bytes()).into(),
        }
    }

    fn deliver(queued: &DeliveryQueue, id: &str) -> Result<(), Overflow> {
        queued.deliver(vec![copy(id, "{}")])
    }

    fn is_forgotten(queued: &DeliveryQueue) -> bool {
        queued.lock().by_id.is_empty()
    }

    fn ids(queued: &DeliveryQueue) -> Vec<String> {
        std::iter::from_fn(|| queued.pop())
            .map(|delivery| delivery.message_id.to_string())
            .collect()
    }

    #[test]
    fn what_is_postponed_comes_first_when_it_is_tried_again() {
        let queued = DeliveryQueue::new(6);
        for (postponed, envelope) in [("a", "{}"), ("b", "{}"), ("a", "{}"), ("a", "{1}")] {
            queued.postpone(copy(postponed, envelope)).unwrap();
        }
        deliver(&queued, "c").unwrap();
        queued.retry_postponed(None);
        queued.retry_postponed(None);
        let order = std::iter::from_fn(|| queued.pop());
        let order: Vec<_> = order.map(|next| next.message_id.to_string()).collect();
        assert_eq!(order, ["a", "b", "a", "c"]);
        // They come again on the next connection.
        queued.postpone(copy("a", "{}")).unwrap();
        queued.purge();
        queued.retry_postponed(None);
        assert!(queued.pop().is_none());
    }

    #[test]
    fn what_was_postponed_comes_before_what_is_opened_next() {
        let queued = DeliveryQueue::new(4);
        let next = copy("next", "{}");
        assert_eq!(
            queued.retry_postponed(Some(next.clone())),
            Some(next.clone())
        );
        for postponed in ["a", "b"] {
            queued.postpone(copy(postponed, "{}")).unwrap();
        }
        deliver(&queued, "c").unwrap();
        assert_eq!(queued.retry_postponed(Some(next)), None);
        assert_eq!(ids(&queued), ["a", "b", "next", "c"]);
        assert!(is_forgotten(&queued));
    }

    #[test]
    fn what_is_postponed_needs_room_and_is_never_dropped() {
        let queued = DeliveryQueue::new(2);
        queued.postpone(copy("postponed", "{}")).unwrap();
        for index in 0..19 {
            deliver(&queued, &index.to_string()).unwrap();
        }
        assert_eq!(deliver(&queued, "one-too-many"), Err(Overflow));
        queued.prefetch().store(1, Ordering::Relaxed);
        queued.retry_postponed(None);
        assert_eq!(ids(&queued).len(), 20);
    }

    #[test]
    fn at_most_half_of_the_prefetch_is_postponed() {
        for (prefetch, most) in [(1, 0), (2, 1), (3, 1), (100, 50)] {
            let queued = DeliveryQueue::new(prefetch);
            for number in 0..100 {
                let delivery = copy(&format!("m{number}"), "{}");
                let postponed = queued.postpone(delivery.clone());
                let expected = (number < most).then_some(()).ok_or(delivery);
                assert_eq!(postponed, expected, "{number} of {prefetch}");
            }
            // What is kept already takes no other place.
            if most > 0 {
                assert_eq!(queued.postpone(copy("m0", "{}")), Ok(()));
            }
            queued.retry_postponed(None);
            assert_eq!(ids(&queued).len(), most, "{prefetch}");
        }
    }

    #[test]
    fn identical_deliveries_are_queued_once_and_different_ones_each() {
        let queued = DeliveryQueue::new(10);
        for envelope in ["1", "2", "1", "2", "3", "1"] {
            queued.deliver(vec![copy("a", envelope)]).unwrap();
        }
        deliver(&queued, "b").unwrap();
        let copies: Vec<_> = std::iter::from_fn(|| queued.pop_copy(&id("a")))
            .map(|copy| copy.envelope.to_bytes())
            .collect();
        assert_eq!(copies, ["1", "2", "3"]);
        assert_eq!(ids(&queued), ["b"]);
        assert!(is_forgotten(&queued));
        queued.deliver(vec![copy("a", "1")]).unwrap();
        assert_eq!(ids(&queued), ["a"], "what was taken may come again");
    }

    #[test]
    fn a_message_is_held_once_per_sender() {
        let queued = DeliveryQueue::new(10);
        let [one, other] = ["one", "other"].map(|name| ClientId::new(name).unwrap());
        for sender in [Some(&one), Some(&other), None] {
            assert!(queued.hold(&id("a"), sender));
            assert!(!queued.hold(&id("a"), sender));
        }
        queued.release(&id("a"), Some(&one));
        assert!(queued.hold(&id("a"), Some(&one)) && !queued.hold(&id("a"), None));
        for sender in [Some(&one), Some(&other), None] {
            queued.release(&id("a"), sender);
        }
        assert!(is_forgotten(&queued));
    }

    #[test]
    fn an_unopenable_envelope_is_not_queued_again() {
        let queued = DeliveryQueue::new(10);
        let forged = Bytes::from_static(b"forged");
        let hash = queued.refuse(&id("a"), &forged).unwrap();
        assert_eq!(queued.refuse(&id("a"), &forged), None);
        queued.deliver(vec![copy("a", "forged")]).unwrap();
        assert_eq!(ids(&queued), [""; 0]);
        assert!(!queued.is_opened(&id("a")));
        assert!(queued.hold(&id("a"), None));
        queued.release(&id("a"), None);
        assert!(
            queued.is_opened(&id("a")),
            "as long as the forged one is here"
        );
        queued.release_refused(&id("a"), hash);
        assert!(!queued.is_opened(&id("a")) && is_forgotten(&queued));
        queued.deliver(vec![copy("a", "forged")]).unwrap();
        assert_eq!(ids(&queued), ["a"]);
    }

    #[test]
    fn purging_drops_queued_deliveries_only() {
        let queued = DeliveryQueue::new(10);
        for id in ["a", "b", "c"] {
            deliver(&queued, id).unwrap();
        }
        assert_eq!(queued.pop().unwrap().message_id.as_str(), "a");
        queued.hold(&id("a"), None);
        queued.purge();
        assert_eq!(ids(&queued), [""; 0]);
        for id in ["a", "b", "c"] {
            deliver(&queued, id).unwrap();
        }
        assert_eq!(ids(&queued), ["a", "b", "c"], "they come again");
        assert!(
            !queued.hold(&id("a"), None),
            "`a` is in the application's hands"
        );
    }

    #[test]
    fn an_excess_of_deliveries_is_an_overflow() {
        let queued = DeliveryQueue::new(1);
        for index in 0..18 {
            deliver(&queued, &index.to_string()).unwrap();
        }
        assert_eq!(deliver(&queued, "one-too-many"), Err(Overflow));
        assert_eq!(
            queued.deliver(vec![copy("0", "another")]),
            Err(Overflow),
            "copies need room, too"
        );
        assert_eq!(
            deliver(&queued, "0"),
            Ok(()),
            "a message that is here already needs no room"
        );
    }

    #[test]
    fn a_waiting_task_is_woken_by_a_delivery_and_by_closing() {
        let queued = std::sync::Arc::new(DeliveryQueue::new(1));
        let waiting = |queued: std::sync::Arc<DeliveryQueue>| {
            task(async move { std::future::poll_fn(|cx| queued.poll_pop(cx)).await })
        };
        let mut first = waiting(queued.clone());
        assert!(first.poll().is_pending() && !first.is_woken());
        deliver(&queued, "a").unwrap();
        assert!(first.is_woken());
        assert!(matches!(first.poll(), Poll::Ready(Some(_))));
        let mut second = waiting(queued.clone());
        assert!(second.poll().is_pending());
        queued.close(None);
        assert!(second.is_woken());
        assert!(matches!(second.poll(), Poll::Ready(None)));
    }

    /// A future with a waker that records whether it was woken.
    struct Task<F>(std::pin::Pin<Box<F>>, std::sync::Arc<Flag>);

    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn task<F: Future>(future: F) -> Task<F> {
        Task(Box::pin(future), std::sync::Arc::new(Flag(false.into())))
    }

    impl<F: Future> Task<F> {
        fn poll(&mut self) -> Poll<F::Output> {
            let waker = Waker::from(self.1.clone());
            self.0.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn is_woken(&self) -> bool {
            self.1.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }
}
