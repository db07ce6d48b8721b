//! What was delivered and not yet taken, and what the application holds.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ciphermq_protocol::{Delivery, MessageId};

/// Filled by the driver, emptied by the consumer. Bounded: a server never has more messages out for delivery
/// than the consumer's prefetch.
#[derive(Debug)]
pub(crate) struct Inbox {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Delivery>,
    /// The ids of what is in the queue or in the application's hands.
    present: HashSet<MessageId>,
    waker: Option<Waker>,
    is_closed: bool,
}

/// The server delivers far more than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Inbox {
    pub(crate) fn new(prefetch: u32) -> Self {
        // A message that its sender asked to be delivered again frees its place at the server while it is
        // still here: so there may be some more than the prefetch, but not without end.
        let limit = usize::try_from(prefetch)
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .saturating_add(16);
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts deliveries in, unless they are here already.
    pub(crate) fn deliver(&self, deliveries: Vec<Delivery>) -> Result<(), Overflow> {
        let mut state = self.lock();
        let State { queue, present, .. } = &mut *state;
        for delivery in deliveries {
            if present.contains(&delivery.message_id) {
                continue;
            }
            if queue.len() >= self.limit {
                return Err(Overflow);
            }
            present.insert(delivery.message_id.clone());
            queue.push_back(delivery);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The connection is lost: what nobody has taken yet will be delivered again.
    pub(crate) fn purge(&self) {
        let mut state = self.lock();
        let State { queue, present, .. } = &mut *state;
        for delivery in queue.drain(..) {
            present.remove(&delivery.message_id);
        }
    }

    /// Takes the next delivery. It counts as held until it is released.
    pub(crate) fn pop(&self) -> Option<Delivery> {
        self.lock().queue.pop_front()
    }

    /// Takes the next delivery, or `None` once the inbox is closed and empty.
    pub(crate) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.lock();
        if let Some(delivery) = state.queue.pop_front() {
            return Poll::Ready(Some(delivery));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The message is no longer in the application's hands: it may come again.
    pub(crate) fn release(&self, message_id: &MessageId) {
        self.lock().present.remove(message_id);
    }

    /// Nothing comes any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn delivery(id: &str) -> Delivery {
        Delivery {
            message_id: MessageId::new(id).unwrap(),
            envelope: Bytes::from_static(b"{}").into(),
        }
    }

    fn deliver(inbox: &Inbox, id: &str) -> Result<(), Overflow> {
        inbox.deliver(vec![delivery(id)])
    }

    fn ids(inbox: &Inbox) -> Vec<String> {
        std::iter::from_fn(|| inbox.pop())
            .map(|delivery| delivery.message_id.to_string())
            .collect()
    }

    #[test]
    fn what_is_held_is_not_handed_out_again_until_it_is_let_go() {
        let inbox = Inbox::new(10);
        for id in ["a", "b", "a"] {
            deliver(&inbox, id).unwrap();
        }
        assert_eq!(ids(&inbox), ["a", "b"]);
        deliver(&inbox, "a").unwrap();
        assert_eq!(ids(&inbox), [""; 0]);
        inbox.release(&MessageId::new("a").unwrap());
        deliver(&inbox, "a").unwrap();
        assert_eq!(ids(&inbox), ["a"]);
    }

    #[test]
    fn a_lost_connection_takes_what_nobody_has_taken() {
        let inbox = Inbox::new(10);
        for id in ["a", "b", "c"] {
            deliver(&inbox, id).unwrap();
        }
        assert_eq!(inbox.pop().unwrap().message_id.as_str(), "a");
        inbox.purge();
        for id in ["a", "b", "c"] {
            deliver(&inbox, id).unwrap();
        }
        assert_eq!(ids(&inbox), ["b", "c"], "`a` is in the application's hands");
    }

    #[test]
    fn a_server_that_ignores_the_prefetch_is_noticed() {
        let inbox = Inbox::new(1);
        for index in 0..18 {
            deliver(&inbox, &index.to_string()).unwrap();
        }
        assert_eq!(deliver(&inbox, "one-too-many"), Err(Overflow));
        assert_eq!(
            deliver(&inbox, "0"),
            Ok(()),
            "what is there already needs no room"
        );
    }

    #[test]
    fn whoever_waits_is_woken_by_a_delivery_and_by_the_end() {
        let inbox = std::sync::Arc::new(Inbox::new(1));
        let waiting = |inbox: std::sync::Arc<Inbox>| {
            task(async move { std::future::poll_fn(|cx| inbox.poll_pop(cx)).await })
        };
        let mut first = waiting(inbox.clone());
        assert!(first.poll().is_pending() && !first.is_woken());
        deliver(&inbox, "a").unwrap();
        assert!(first.is_woken());
        assert!(matches!(first.poll(), Poll::Ready(Some(_))));
        let mut second = waiting(inbox.clone());
        assert!(second.poll().is_pending());
        inbox.close();
        assert!(second.is_woken());
        assert!(matches!(second.poll(), Poll::Ready(None)));
    }

    /// A future with a waker that remembers being woken.
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
