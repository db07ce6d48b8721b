//! From committed messages to the connections that want them: the inboxes and their outlets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ciphermq_protocol::{ClientId, Delivery, MessageId};
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use super::Topology;
use super::observer::CommitDispatcher;
use crate::config::Limits;
use crate::inbox::{Budget, ConnectionId, Expired, Fetched, Inbox, LoadRequest, LoadScope, Policy};
use crate::logging::MessageLog;
use crate::model::{LaneKey, Page, PageLimit, Time};
use crate::store::writer::CommitObserver;
use crate::store::{self, Reader};

/// Between two tries to read from a store that does not answer.
const READ_RETRY: Duration = Duration::from_millis(200);

/// Where a connection's deliveries go, and what is known of it.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) client_id: ClientId,
    pub(super) mailbox: mpsc::UnboundedSender<Vec<Delivery>>,
    /// Ends the connection.
    pub(super) close: Arc<Notify>,
    pub(super) activity: Arc<Activity>,
}

/// When something was last received on a connection.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    millis: AtomicU64,
    silent: AtomicBool,
    /// It has left messages unanswered.
    lapsed: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            millis: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            lapsed: AtomicBool::new(false),
        }
    }

    /// Something was received. Returns whether the connection had been taken for silent.
    pub fn beat(&self) -> bool {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
        self.silent.load(Ordering::Relaxed) && self.silent.swap(false, Ordering::Relaxed)
    }

    /// The client asks to keep what it was handed. Returns whether it has lost some of it before.
    pub fn keep_leases(&self) -> bool {
        self.lapsed.load(Ordering::Relaxed) && self.lapsed.swap(false, Ordering::Relaxed)
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// How much one lane holds ready: enough that reading the next page costs little a message.
const READY_PAGE: PageLimit = PageLimit {
    messages: 2048,
    bytes: 2 << 20,
};
/// The most messages of a lane that are deferred before the redelivery timeout: some 20 MB. A receiver
/// that can open nothing at all would bring all that waits for it into memory.
const MAX_DEFERRED: usize = 65_536;
/// How many bytes of deliveries may be on their way to one socket.
const UNSENT_BYTES: usize = 1 << 20;
/// All inboxes, by receiver, and all outlets, by connection.
pub struct Dispatcher {
    /// No lock is poisoned by a panic: an inbox's invariants hold between any two of its operations.
    pub(super) inboxes: DashMap<ClientId, Arc<Mutex<Inbox>>>,
    pub(super) outlets: DashMap<ConnectionId, Outlet>,
    next_connection: AtomicU64,
    pub(super) topology: Arc<Topology>,
    reader: Arc<dyn Reader>,
    policy: Policy,
    budget: Budget,
    /// Where pages are read from the store: the writer, which asks for them, too, has a runtime of
    /// its own.
    runtime: Handle,
    /// Woken whenever a page has come from the store.
    loaded: Notify,
}

impl Dispatcher {
    /// Nothing in memory yet: everything is found in the store when it is wanted, and read on the
    /// runtime that this is called on.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[must_use]
    pub fn new(limits: &Limits, topology: Arc<Topology>, reader: Arc<dyn Reader>) -> Arc<Self> {
        let policy = Policy {
            redelivery_timeout: limits.redelivery_timeout,
            max_redeliveries: limits.max_redeliveries,
            max_deferred: MAX_DEFERRED,
            unsent_bytes: UNSENT_BYTES,
            ready: READY_PAGE,
        };
        let budget = Budget::new(limits.max_ready_bytes);
        Arc::new(Self {
            inboxes: DashMap::new(),
            outlets: DashMap::new(),
            next_connection: AtomicU64::new(1),
            topology,
            reader,
            policy,
            budget,
            runtime: Handle::current(),
            loaded: Notify::new(),
        })
    }

    /// Returns what the store's writer must tell of its commits, so that they are delivered.
    #[must_use]
    pub fn observer(self: &Arc<Self>, messages: MessageLog) -> Arc<dyn CommitObserver> {
        Arc::new(CommitDispatcher {
            dispatcher: Arc::clone(self),
            messages,
        })
    }

    /// Opens an outlet. The receiver gets the deliveries of the connection's consumers.
    pub(super) fn connect(&self, client_id: ClientId) -> (ConnectionId, Connected) {
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (mailbox, deliveries) = mpsc::unbounded_channel();
        let (close, activity) = (Arc::new(Notify::new()), Arc::new(Activity::new()));
        let outlet = Outlet {
            client_id,
            mailbox,
            close: Arc::clone(&close),
            activity: Arc::clone(&activity),
        };
        self.outlets.insert(connection, outlet);
        (
            connection,
            Connected {
                deliveries,
                close,
                activity,
            },
        )
    }

    /// Ends the connection, whatever it has yet to say, and closes its outlet.
    pub(super) fn end(self: &Arc<Self>, connection: ConnectionId) {
        if let Some(outlet) = self.outlets.get(&connection) {
            outlet.close.notify_one();
        }
        self.disconnect(connection);
    }

    /// Closes the outlet; what was leased to it returns to its lanes. The connection itself goes
    /// on, to answer what it has read.
    pub(super) fn disconnect(self: &Arc<Self>, connection: ConnectionId) {
        if let Some((_, outlet)) = self.outlets.remove(&connection)
            && self.inboxes.contains_key(&outlet.client_id)
        {
            self.with_inbox(&outlet.client_id, |inbox, now| {
                inbox.disconnect(connection, now)
            });
        }
    }

    /// Whether the connection has not ended. Asked while its inbox is locked, it stays so until the
    /// lock is given back, or the end still has to come to the inbox.
    pub(super) fn is_connected(&self, connection: ConnectionId) -> bool {
        self.outlets.contains_key(&connection)
    }

    /// Does something to an inbox, and then whatever that makes possible.
    pub(super) fn with_inbox<T>(
        self: &Arc<Self>,
        receiver: &ClientId,
        act: impl FnOnce(&mut Inbox, Instant) -> T,
    ) -> T {
        let inbox = self.inbox(receiver);
        let clock = (Instant::now(), Time::now());
        let mut inbox = inbox.lock();
        let result = act(&mut inbox, clock.0);
        let actions = inbox.poll(clock);
        // Sent while the inbox is locked, so that no later delivery of a lane can overtake. An
        // outlet that is gone has its leases returned by `disconnect`.
        for dispatch in actions.dispatches {
            if let Some(outlet) = self.outlets.get(&dispatch.connection) {
                let _ = outlet.mailbox.send(dispatch.deliveries);
            }
        }
        drop(inbox);
        for load in actions.loads {
            self.spawn_load(receiver.clone(), load);
        }
        if let Some(time) = actions.look_at {
            self.spawn_look(receiver.clone(), time);
        }
        result
    }

    /// Takes one message of the lane for a connection that does not consume.
    ///
    /// # Errors
    ///
    /// None; it waits for the store as long as it takes. Give it a time limit.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        lane: &LaneKey,
        connection: ConnectionId,
    ) -> Option<Delivery> {
        loop {
            let loaded = self.loaded.notified();
            let fetched = {
                let inbox = self.inbox(&lane.receiver);
                let mut inbox = inbox.lock();
                // A message leased to a connection that has ended would be nobody's.
                if !self.is_connected(connection) {
                    return None;
                }
                inbox.fetch(lane.queue, connection, (Instant::now(), Time::now()))
            };
            match fetched {
                Fetched::Message(delivery) => return Some(delivery),
                Fetched::Nothing => return None,
                Fetched::Load(load) => self.spawn_load(lane.receiver.clone(), load),
                Fetched::Loading => {}
            }
            loaded.await;
        }
    }

    /// Ends leases of silent connections, lets parked messages return, and forgets what is idle.
    /// Returns the deliveries whose time is to be recorded: those that were made before
    /// `recorded_before` and are not acked.
    pub(super) fn sweep(self: &Arc<Self>, recorded_before: Instant) -> Vec<(MessageId, Time)> {
        let mut unrecorded = Vec::new();
        let receivers: Vec<ClientId> = self
            .inboxes
            .iter()
            .map(|entry| entry.key().clone())
            .collect();
        for receiver in receivers {
            let expired = self.with_inbox(&receiver, |inbox, now| {
                inbox.wake(now);
                unrecorded.extend(inbox.unrecorded(recorded_before));
                self.expire(inbox, now)
            });
            self.tell(&receiver, &expired);
            self.inboxes.remove_if(&receiver, |_, inbox| {
                Arc::strong_count(inbox) == 1 && inbox.lock().tidy()
            });
        }
        unrecorded
    }

    fn expire(&self, inbox: &mut Inbox, now: Instant) -> Expired {
        let expired = inbox.expire(now, |connection| {
            self.outlets
                .get(&connection)
                .map(|outlet| outlet.activity.last())
        });
        for connection in &expired.silent {
            if let Some(outlet) = self.outlets.get(connection) {
                outlet.activity.silent.store(true, Ordering::Relaxed);
                outlet.activity.lapsed.store(true, Ordering::Relaxed);
            }
        }
        expired
    }

    /// Tells people of messages that nobody answers: the first time, and then more and more rarely.
    fn tell(&self, receiver: &ClientId, expired: &Expired) {
        let told = expired
            .deferred
            .iter()
            .filter(|(_, lapses)| lapses.is_power_of_two());
        let Some((example, times)) = told.clone().max_by_key(|(_, lapses)| *lapses) else {
            return;
        };
        let count = told.count();
        tracing::warn!(
            client_id = %receiver,
            messages = count,
            message_id = %example,
            times,
            "Delivered messages are neither acknowledged nor rejected in time; others go first, \
             and they are delivered \
             again later"
        );
    }

    /// Looks again, once, for messages that are left unanswered.
    fn spawn_look(self: &Arc<Self>, receiver: ClientId, time: Instant) {
        let dispatcher = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(time.into()).await;
            let expired = dispatcher.with_inbox(&receiver, |inbox, now| {
                inbox.look();
                dispatcher.expire(inbox, now)
            });
            dispatcher.tell(&receiver, &expired);
        });
    }

    /// How many bytes of messages are held ready.
    #[must_use]
    pub fn ready_bytes(&self) -> usize {
        self.budget.used()
    }

    fn inbox(&self, receiver: &ClientId) -> Arc<Mutex<Inbox>> {
        if let Some(inbox) = self.inboxes.get(receiver) {
            return Arc::clone(&inbox);
        }
        let new = || {
            Arc::new(Mutex::new(Inbox::new(
                self.policy.clone(),
                self.budget.clone(),
            )))
        };
        Arc::clone(&self.inboxes.entry(receiver.clone()).or_insert_with(new))
    }

    /// Reads in a task of its own: a lane whose read is under way waits for it, so it must come to
    /// an end even when the connection that began it does not.
    fn spawn_load(self: &Arc<Self>, receiver: ClientId, load: LoadRequest) {
        let dispatcher = Arc::clone(self);
        self.runtime.spawn(async move {
            let lane = LaneKey {
                queue: load.queue,
                receiver,
            };
            let page = loop {
                match dispatcher.read(&lane, &load.what).await {
                    Ok(page) => break page,
                    Err(error) => {
                        tracing::error!(error = %error, "Cannot read waiting messages, trying \
                            again");
                        tokio::time::sleep(READ_RETRY).await;
                    }
                }
            };
            dispatcher.with_inbox(&lane.receiver, |inbox, _| inbox.loaded(load, page));
            dispatcher.loaded.notify_waiters();
        });
    }

    async fn read(&self, lane: &LaneKey, what: &LoadScope) -> Result<Page, store::Error> {
        match what {
            LoadScope::After(seq, limit) => self.reader.lane(lane, *seq, *limit).await,
            LoadScope::Again(seqs, bytes) => self.reader.messages(seqs, *bytes).await,
        }
    }
}

/// What a new connection gets.
pub(super) struct Connected {
    pub(super) deliveries: mpsc::UnboundedReceiver<Vec<Delivery>>,
    pub(super) close: Arc<Notify>,
    pub(super) activity: Arc<Activity>,
}
