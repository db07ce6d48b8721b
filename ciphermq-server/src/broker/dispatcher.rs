//! Dispatches committed messages to the connections that consume them, through the receivers'
//! inboxes.

mod activity;
mod closing;
mod facts;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ciphermq_protocol::{ClientId, Delivery, ErrorReply, MessageId};
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

pub use self::activity::Activity;
pub use self::closing::Closing;
pub use self::facts::Origin;
pub(super) use self::facts::{Facts, Hello};
use super::Topology;
use super::administration::{Blocks, blocked};
use crate::config::Limits;
use crate::inbox::{
    Budget, Budgets, ConnectionId, ConnectionUse, Fetched, Inbox, LoadRequest, LoadScope, Policy,
};
use crate::model::{LaneKey, Now, Page, PageLimit, QueueId, Seq, Time};
use crate::store::{self, Reader};

/// The pause between attempts to read from a store that does not answer.
const READ_RETRY: Duration = Duration::from_millis(200);

/// The broker's end of a connection.
#[derive(Debug)]
pub(super) struct ConnectionHandle {
    pub(super) client_id: ClientId,
    pub(super) mailbox: mpsc::UnboundedSender<Vec<Delivery>>,
    pub(super) closing: Arc<Closing>,
    pub(super) activity: Arc<Activity>,
    pub(super) facts: Arc<Facts>,
}

/// The messages that one lane holds ready: enough that reading the next page costs little for each.
const READY_PAGE: PageLimit = PageLimit {
    messages: 2048,
    bytes: 2 << 20,
};
/// The most messages of a lane that are deferred before the redelivery timeout: some 20 MB.
///
/// A receiver that can open nothing at all would otherwise bring everything that waits for it into
/// memory.
const MAX_DEFERRED: usize = 65_536;
/// The most bytes of deliveries that may be on their way to one socket.
const UNSENT_BYTES: usize = 1 << 20;
/// The part of `limits.max_unread_bytes` that the deliveries of one client may take is one of this
/// many.
const UNSENT_PARTS: usize = 4;
/// All inboxes, by receiver, and all connections.
pub struct Dispatcher {
    /// The inboxes. A panic poisons no lock: an inbox's invariants hold between any two of its
    /// operations.
    pub(super) inboxes: DashMap<ClientId, Arc<Mutex<Inbox>>>,
    pub(super) connections: DashMap<ConnectionId, ConnectionHandle>,
    next_connection: AtomicU64,
    pub(super) topology: Arc<Topology>,
    /// The clients that are kept out.
    pub(super) blocks: Blocks,
    reader: Arc<dyn Reader>,
    policy: Policy,
    budgets: Budgets,
    /// The runtime on which pages are read from the store: the writer, which requests some of them,
    /// has a runtime of its own.
    runtime: Handle,
    /// Notified whenever a page has arrived from the store.
    loaded: Notify,
    /// Deleted and purged queues of which the inboxes are yet to learn.
    emptied: Mutex<HashMap<QueueId, Emptied>>,
}

/// What has happened to a queue whose messages are set aside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Emptied {
    /// It was deleted, by a connection that stays open even if it consumes from the queue.
    Deleted { by: ConnectionId },
    /// It was purged up to this message.
    Purged { up_to: Seq },
}

impl Dispatcher {
    /// Creates a dispatcher with nothing in memory: messages are read from the store when they are
    /// wanted, on the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[must_use]
    pub fn new(
        limits: &Limits,
        topology: Arc<Topology>,
        blocks: Blocks,
        reader: Arc<dyn Reader>,
    ) -> Arc<Self> {
        let policy = Policy {
            redelivery_timeout: limits.redelivery_timeout,
            max_redeliveries: limits.max_redeliveries,
            max_deferred: MAX_DEFERRED,
            unsent_bytes: UNSENT_BYTES,
            client_unsent_bytes: limits.max_unread_bytes / UNSENT_PARTS,
            ready: READY_PAGE,
        };
        let budgets = Budgets {
            ready: Budget::new(limits.max_ready_bytes),
            unsent: Budget::new(limits.max_unread_bytes),
        };
        Arc::new(Self {
            inboxes: DashMap::new(),
            connections: DashMap::new(),
            next_connection: AtomicU64::new(1),
            topology,
            blocks,
            reader,
            policy,
            budgets,
            runtime: Handle::current(),
            loaded: Notify::new(),
            emptied: Mutex::default(),
        })
    }

    /// Registers a connection, whose consumers' deliveries go to the returned mailbox.
    pub(super) fn connect(&self, client_id: ClientId, origin: Origin) -> (ConnectionId, Connected) {
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (mailbox, deliveries) = mpsc::unbounded_channel();
        let (closing, activity) = (Arc::<Closing>::default(), Arc::new(Activity::new()));
        let facts = Arc::new(Facts::new(origin));
        let handle = ConnectionHandle {
            client_id,
            mailbox,
            closing: Arc::clone(&closing),
            activity: Arc::clone(&activity),
            facts: Arc::clone(&facts),
        };
        self.connections.insert(connection, handle);
        (
            connection,
            Connected {
                deliveries,
                closing,
                activity,
                facts,
            },
        )
    }

    /// Ends a connection at once, whatever replies it still has to send.
    pub(super) fn close(self: &Arc<Self>, connection: ConnectionId) {
        if let Some(handle) = self.connections.get(&connection) {
            handle.closing.at_once();
        }
        self.disconnect(connection);
    }

    /// Ends a connection with a last line, and returns its leases at once. Returns its client.
    pub(super) fn dismiss(
        self: &Arc<Self>,
        connection: ConnectionId,
        error: ErrorReply,
    ) -> Option<ClientId> {
        let client_id = self.connections.get(&connection).map(|handle| {
            handle.closing.with_error(error);
            handle.client_id.clone()
        });
        self.disconnect(connection);
        client_id
    }

    /// Ends the connections of clients that are blocked now. Nothing that they send is carried out
    /// any more; a task of its own returns their leases.
    pub(super) fn end_blocked(self: &Arc<Self>, clients: &[ClientId]) {
        if clients.is_empty() {
            return;
        }
        let mut ended = Vec::new();
        for connection in &self.connections {
            let client_id = &connection.client_id;
            if clients.contains(client_id) {
                connection.closing.with_error(blocked(client_id));
                ended.push(*connection.key());
            }
        }
        let dispatcher = Arc::clone(self);
        self.runtime.spawn(async move {
            for connection in ended {
                dispatcher.disconnect(connection);
            }
        });
    }

    /// Unregisters a connection, and returns its leases to their lanes. The connection itself goes
    /// on, to answer the commands that it has read.
    pub(super) fn disconnect(self: &Arc<Self>, connection: ConnectionId) {
        if let Some((_, handle)) = self.connections.remove(&connection)
            && self.inboxes.contains_key(&handle.client_id)
        {
            self.with_inbox(&handle.client_id, |inbox, now| {
                inbox.disconnect(connection, now);
            });
        }
    }

    /// Whether the connection is registered. While its inbox is locked, a connection found
    /// registered stays so, or its inbox is yet to learn of its end.
    pub(super) fn is_connected(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    /// Runs an operation on an inbox, and then executes the actions that it makes possible.
    pub(super) fn with_inbox<T>(
        self: &Arc<Self>,
        receiver: &ClientId,
        act: impl FnOnce(&mut Inbox, Instant) -> T,
    ) -> T {
        let inbox = self.inbox(receiver);
        let now = Now::read();
        let mut inbox = inbox.lock();
        let result = act(&mut inbox, now.instant);
        let actions = inbox.poll(now);
        // Sent while the inbox is locked, so that no later delivery of a lane can overtake. If the
        // connection is gone, `disconnect` returns the leases.
        for dispatch in actions.dispatches {
            if let Some(handle) = self.connections.get(&dispatch.connection) {
                let _ = handle.mailbox.send(dispatch.deliveries);
            }
        }
        drop(inbox);
        Self::log_unanswered(receiver, &actions.deferred);
        for load in actions.loads {
            self.spawn_load(receiver.clone(), load);
        }
        if let Some(time) = actions.look_at {
            self.schedule_check(receiver.clone(), time);
        }
        result
    }

    /// Notes that a queue was deleted or purged. The inboxes learn of it in a task of its own,
    /// because there may be many of them.
    pub(super) fn emptied(self: &Arc<Self>, queue: QueueId, how: Emptied) {
        let mut emptied = self.emptied.lock();
        let is_first = emptied.is_empty();
        emptied.insert(queue, how);
        if is_first {
            let dispatcher = Arc::clone(self);
            self.runtime.spawn(async move { dispatcher.empty_lanes() });
        }
    }

    /// Removes what inboxes hold of deleted and purged queues, and ends the connections that
    /// consume from deleted ones. A client that connects again consumes from what is then there.
    fn empty_lanes(self: &Arc<Self>) {
        let emptied = std::mem::take(&mut *self.emptied.lock());
        let receivers: Vec<ClientId> = self
            .inboxes
            .iter()
            .map(|entry| entry.key().clone())
            .collect();
        for receiver in receivers {
            let ended = self.with_inbox(&receiver, |inbox, _| {
                let mut ended = Vec::new();
                for (queue, how) in &emptied {
                    match *how {
                        Emptied::Deleted { by } => {
                            let consumers = inbox.remove_queue(*queue).into_iter();
                            ended.extend(consumers.filter(|consumer| *consumer != by));
                        }
                        Emptied::Purged { up_to } => inbox.purge_queue(*queue, up_to),
                    }
                }
                ended
            });
            for connection in ended {
                self.close(connection);
            }
        }
    }

    /// Returns the connections of those clients for which `is_wanted` is true.
    pub(super) fn connection_ids(
        &self,
        is_wanted: impl Fn(&ClientId) -> bool,
    ) -> Vec<(ConnectionId, ClientId)> {
        let wanted = self
            .connections
            .iter()
            .filter(|entry| is_wanted(&entry.client_id));
        wanted
            .map(|entry| (*entry.key(), entry.client_id.clone()))
            .collect()
    }

    /// Returns what each connection of a client uses of its inbox.
    pub(super) fn connection_uses(
        &self,
        client: &ClientId,
    ) -> HashMap<ConnectionId, ConnectionUse> {
        let inbox = self.inboxes.get(client).map(|inbox| Arc::clone(&inbox));
        inbox
            .map(|inbox| inbox.lock().connection_uses())
            .unwrap_or_default()
    }

    /// Returns the queues that connections consume from, with their clients.
    pub(super) fn subscriptions(&self) -> Vec<(ConnectionId, ClientId, QueueId)> {
        let mut subscriptions = Vec::new();
        for entry in &self.inboxes {
            let uses = entry.value().lock().connection_uses();
            for (connection, ConnectionUse { queues, .. }) in uses {
                let of_queue = |queue| (connection, entry.key().clone(), queue);
                subscriptions.extend(queues.into_iter().map(of_queue));
            }
        }
        subscriptions
    }

    /// Counts the connections that consume from each queue, with their clients.
    pub(super) fn consumers(&self) -> Vec<(QueueId, ClientId, usize)> {
        let mut consumers = Vec::new();
        for entry in &self.inboxes {
            let inbox = entry.value().lock();
            let of_client = inbox.consumers();
            consumers.extend(of_client.map(|(queue, count)| (queue, entry.key().clone(), count)));
        }
        consumers
    }

    /// Takes one message of the lane for a connection that does not consume.
    ///
    /// It waits for the store without a limit: give it a timeout.
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
                // A message leased to a connection that has ended would belong to nobody.
                if !self.is_connected(connection) {
                    return None;
                }
                inbox.fetch(lane.queue, connection, Now::read())
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

    /// Ends leases of silent connections, returns deferred messages, and removes idle inboxes.
    ///
    /// Returns the deliveries whose time is to be recorded: those made before `recorded_before` and
    /// not acked.
    pub(super) fn sweep(self: &Arc<Self>, recorded_before: Instant) -> Vec<(MessageId, Time)> {
        let mut unrecorded = Vec::new();
        let receivers: Vec<ClientId> = self
            .inboxes
            .iter()
            .map(|entry| entry.key().clone())
            .collect();
        for receiver in receivers {
            self.with_inbox(&receiver, |inbox, now| {
                inbox.wake(now);
                unrecorded.extend(inbox.unrecorded(recorded_before));
                self.expire(inbox, now);
            });
            self.inboxes.remove_if(&receiver, |_, inbox| {
                Arc::strong_count(inbox) == 1 && inbox.lock().tidy()
            });
        }
        unrecorded
    }

    fn expire(&self, inbox: &mut Inbox, now: Instant) {
        let silent = inbox.expire(now, |connection| {
            self.connections
                .get(&connection)
                .map(|handle| handle.activity.last_received())
        });
        for connection in silent {
            if let Some(handle) = self.connections.get(&connection) {
                handle.activity.mark_silent();
            }
        }
    }

    /// Logs messages that nobody answers: the first time, and then more and more rarely.
    fn log_unanswered(receiver: &ClientId, deferred: &[(MessageId, u32)]) {
        let to_log = deferred
            .iter()
            .filter(|(_, lapses)| lapses.is_power_of_two());
        let Some((example, times)) = to_log.clone().max_by_key(|(_, lapses)| *lapses) else {
            return;
        };
        let count = to_log.count();
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

    /// Schedules one check for messages that are left unanswered.
    fn schedule_check(self: &Arc<Self>, receiver: ClientId, time: Instant) {
        let dispatcher = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(time.into()).await;
            dispatcher.with_inbox(&receiver, |inbox, now| {
                inbox.look();
                dispatcher.expire(inbox, now);
            });
        });
    }

    /// Returns the number of bytes of messages that are held ready.
    #[must_use]
    pub fn ready_bytes(&self) -> usize {
        self.budgets.ready.used()
    }

    fn inbox(&self, receiver: &ClientId) -> Arc<Mutex<Inbox>> {
        if let Some(inbox) = self.inboxes.get(receiver) {
            return Arc::clone(&inbox);
        }
        let new = || {
            Arc::new(Mutex::new(Inbox::new(
                self.policy.clone(),
                self.budgets.clone(),
            )))
        };
        Arc::clone(&self.inboxes.entry(receiver.clone()).or_insert_with(new))
    }

    /// Reads a page in a task of its own: the lane waits for it, so the read must complete even if
    /// the connection that caused it ends.
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
        let Some(purged_to) = self.topology.purged_to(lane.queue) else {
            return Ok(Page::default());
        };
        match what {
            LoadScope::After(seq, limit) => {
                self.reader.lane(lane, purged_to.max(*seq), *limit).await
            }
            LoadScope::Again(seqs, bytes) => self.reader.messages(seqs, *bytes).await,
        }
    }
}

/// A new connection's end of the registration.
pub(super) struct Connected {
    pub(super) deliveries: mpsc::UnboundedReceiver<Vec<Delivery>>,
    pub(super) closing: Arc<Closing>,
    pub(super) activity: Arc<Activity>,
    pub(super) facts: Arc<Facts>,
}
