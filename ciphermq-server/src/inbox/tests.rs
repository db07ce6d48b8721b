//! The inbox with a store beside it, and a clock that the tests move.

mod acknowledging;
mod properties;
mod unanswered;
mod unsent;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciphermq_protocol::envelope::EnvelopeBytes;

use super::*;
use crate::model::{AckOutcome, Now, Page, PageLimit, Seq, StoredMessage, Time};

const QUEUE: QueueId = QueueId(1);
const OTHER: QueueId = QueueId(2);
const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

/// An inbox with a store beside it, and a clock that the test moves.
struct Bench {
    inbox: Inbox,
    stored: BTreeMap<Seq, (QueueId, MessageId)>,
    next: i64,
    now: Instant,
    budget: Budget,
    /// What was delivered, in order.
    delivered: Vec<(ConnectionId, MessageId)>,
    /// The time of the next call of `look`, as the inbox has requested it.
    look_at: Option<Instant>,
    /// Messages that were deferred, for the log.
    deferred: Vec<(MessageId, u32)>,
}

fn id(seq: i64) -> MessageId {
    MessageId::new(&format!("m-{seq}")).unwrap()
}

fn envelope(seq: Seq) -> EnvelopeBytes {
    Bytes::from(format!("envelope {}", seq.0)).into()
}

impl Bench {
    fn new() -> Self {
        Self::with_ready(PageLimit {
            messages: 4,
            bytes: 1 << 10,
        })
    }

    fn with_ready(ready: PageLimit) -> Self {
        let budget = Budget::new(1 << 20);
        let policy = Policy {
            redelivery_timeout: Duration::from_secs(30),
            max_redeliveries: 3,
            max_deferred: 4096,
            unsent_bytes: 1 << 20,
            client_unsent_bytes: 4 << 20,
            ready,
        };
        let (stored, delivered) = (BTreeMap::new(), Vec::new());
        let budgets = Budgets {
            ready: budget.clone(),
            unsent: Budget::new(16 << 20),
        };
        Self {
            inbox: Inbox::new(policy, budgets),
            stored,
            next: 1,
            now: Instant::now(),
            budget,
            delivered,
            look_at: None,
            deferred: Vec::new(),
        }
    }

    fn clock(&self) -> Now {
        Now {
            instant: self.now,
            time: Time::now(),
        }
    }

    /// Publishes `count` messages: the store first, then the inbox, as the observer does.
    fn publish(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            let seq = Seq(self.next);
            self.next += 1;
            self.stored.insert(seq, (QUEUE, id(seq.0)));
            self.inbox.committed(QUEUE, seq, &id(seq.0), &envelope(seq));
        }
        self.settle()
    }

    fn page(&self, load: &LoadRequest) -> Page {
        let wanted = |seq: &Seq| match &load.what {
            LoadScope::After(after, _) => seq > after,
            LoadScope::Again(seqs, _) => seqs.contains(seq),
        };
        let limit = match &load.what {
            LoadScope::After(_, limit) => *limit,
            LoadScope::Again(seqs, bytes) => PageLimit {
                messages: seqs.len(),
                bytes: *bytes,
            },
        };
        let mut page = Page::default();
        let mut bytes = 0;
        for (seq, (_, message_id)) in self
            .stored
            .iter()
            .filter(|(seq, (queue, _))| *queue == load.queue && wanted(seq))
        {
            if page.messages.len() == limit.messages || (bytes >= limit.bytes && bytes > 0) {
                page.more = true;
                break;
            }
            bytes += envelope(*seq).len();
            page.messages.push(StoredMessage {
                seq: *seq,
                message_id: message_id.clone(),
                envelope: envelope(*seq),
            });
        }
        page
    }

    /// Pumps and reads until nothing more happens.
    fn settle(&mut self) -> &mut Self {
        loop {
            let actions = self.inbox.poll(self.clock());
            self.look_at = actions.look_at.or(self.look_at);
            self.deferred.extend(actions.deferred);
            // What one pump hands to several connections has no order between them: here, that of
            // the messages.
            let mut handed = Vec::new();
            for dispatch in actions.dispatches {
                let deliveries = dispatch.deliveries.into_iter();
                handed
                    .extend(deliveries.map(|delivery| (dispatch.connection, delivery.message_id)));
            }
            handed.sort_by_key(|(_, id)| id.as_str()[2..].parse::<i64>().unwrap());
            self.delivered.extend(handed);
            if actions.loads.is_empty() {
                return self;
            }
            for load in actions.loads {
                let page = self.page(&load);
                self.inbox.loaded(load, page);
            }
        }
    }

    fn subscribe(&mut self, connection: ConnectionId, prefetch: u32) -> &mut Self {
        self.subscribe_as(connection, Prefetch::until_confirmed(prefetch))
    }

    fn subscribe_as(&mut self, connection: ConnectionId, prefetch: Prefetch) -> &mut Self {
        self.inbox.subscribe(QUEUE, connection, prefetch);
        self.settle()
    }

    fn disconnect(&mut self, connection: ConnectionId) -> &mut Self {
        self.inbox.disconnect(connection, self.now);
        self.settle()
    }

    /// The store removes the message and the inbox learns of it.
    fn commit_ack(&mut self, seq: i64) -> &mut Self {
        let outcome = match self.stored.remove(&Seq(seq)) {
            Some((queue, _)) => AckOutcome::Done(vec![(queue, Seq(seq))]),
            None => AckOutcome::AlreadyDone,
        };
        self.inbox.ack_committed(&id(seq), &outcome, self.now);
        self.settle()
    }

    /// An ack from being read to its confirmation being in the output.
    fn ack(&mut self, connection: ConnectionId, seq: i64) -> &mut Self {
        self.inbox.begin_ack(connection, &id(seq), self.now);
        self.commit_ack(seq);
        self.inbox.settled(connection, [&id(seq)], self.now);
        self.settle()
    }

    /// The queue is purged. Returns what was in it.
    fn purge(&mut self) -> Vec<i64> {
        let gone = std::mem::take(&mut self.stored);
        self.inbox.purge_queue(QUEUE, Seq(self.next - 1));
        self.settle();
        gone.into_keys().map(|seq| seq.0).collect()
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self.inbox.wake(self.now);
        self.settle()
    }

    /// What was delivered since the last look, as numbers.
    fn seen(&mut self) -> Vec<(u64, String)> {
        self.delivered
            .drain(..)
            .map(|(connection, id)| (connection.0, id.as_str()[2..].to_owned()))
            .collect()
    }

    fn seen_seqs(&mut self) -> Vec<i64> {
        self.seen()
            .into_iter()
            .map(|(_, seq)| seq.parse().unwrap())
            .collect()
    }
}

#[test]
fn a_message_that_is_read_before_its_commit_is_reported_is_delivered_once() {
    let mut bench = Bench::new();
    bench.publish(2);
    // Committed, and not told of yet: its outcome was not known, or the read came in between.
    let seq = Seq(bench.next);
    bench.next += 1;
    bench.stored.insert(seq, (QUEUE, id(seq.0)));
    bench.subscribe(A, 10);
    bench
        .inbox
        .committed(QUEUE, seq, &id(seq.0), &envelope(seq));
    bench.settle().publish(1);
    let delivered: Vec<&str> = bench.delivered.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(delivered, ["m-1", "m-2", "m-3", "m-4"]);
    // Otherwise the second one would be delivered after the first one's ack.
    for seq in 1..=4 {
        bench.ack(A, seq);
    }
    bench.disconnect(A).subscribe(B, 10);
    assert_eq!(bench.delivered.len(), 4);
}

#[test]
fn a_late_consumer_gets_the_backlog_in_order_through_a_small_window() {
    let mut bench = Bench::new();
    bench.publish(20).subscribe(A, 100).publish(3);
    assert_eq!(bench.seen_seqs(), (1..=23).collect::<Vec<_>>());
}

#[test]
fn competing_consumers_take_turns() {
    let mut bench = Bench::new();
    bench.subscribe(A, 10).subscribe(B, 10).publish(6);
    let seen = bench.seen();
    assert_eq!(
        seen.iter()
            .map(|(connection, _)| *connection)
            .collect::<Vec<_>>(),
        [1, 2, 1, 2, 1, 2]
    );
}

#[test]
fn a_lost_connection_returns_its_leases_to_the_head_in_order() {
    let mut bench = Bench::new();
    bench.subscribe(A, 3).publish(6).ack(A, 2);
    assert_eq!(bench.seen_seqs(), [1, 2, 3, 4]);
    bench.disconnect(A).subscribe(B, 10);
    assert_eq!(bench.seen_seqs(), [1, 3, 4, 5, 6]);
}

#[test]
fn a_page_read_before_an_ack_does_not_bring_the_message_back() {
    let mut bench = Bench::new();
    bench.publish(2);
    bench
        .inbox
        .subscribe(QUEUE, A, Prefetch::until_confirmed(10));
    let load = bench.inbox.poll(bench.clock()).loads.pop().unwrap();
    let page = bench.page(&load);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    bench.commit_ack(1);
    bench.inbox.loaded(load, page);
    assert_eq!(bench.settle().seen_seqs(), [2]);
}

#[test]
fn messages_committed_while_a_page_is_read_follow_it_once() {
    let mut bench = Bench::new();
    bench.publish(2);
    bench
        .inbox
        .subscribe(QUEUE, A, Prefetch::until_confirmed(10));
    let load = bench.inbox.poll(bench.clock()).loads.pop().unwrap();
    let page = bench.page(&load);
    bench.publish(2);
    bench.inbox.loaded(load, page);
    assert_eq!(bench.settle().seen_seqs(), [1, 2, 3, 4]);
}

#[test]
fn silence_ends_leases_and_others_come_first() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1).publish(3);
    assert_eq!(bench.seen(), [(1, "1".to_owned())]);
    bench.now += Duration::from_secs(29);
    let start = bench.now;
    assert!(bench.inbox.expire(bench.now, |_| Some(start)).is_empty());
    bench.now += Duration::from_secs(30);
    bench.subscribe(B, 2);
    assert_eq!(
        bench.inbox.expire(bench.now, |c| (c == A).then_some(start)),
        HashSet::from([A])
    );
    bench.settle();
    assert_eq!(bench.seen_seqs()[..2], [2, 3], "B took what waited");
    bench.ack(B, 2);
    bench.ack(B, 3);
    // The silent one gets it again if nobody else can, or B has room: B has.
    assert!(bench.stored.contains_key(&Seq(1)));
}

#[test]
fn a_quiet_consumer_is_not_silent_before_it_has_held_a_lease_for_long() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1);
    let connected = bench.now;
    bench.pass(3600).publish(1);
    assert!(
        bench
            .inbox
            .expire(bench.now, |_| Some(connected))
            .is_empty()
    );
    bench.pass(30);
    assert_eq!(
        bench.inbox.expire(bench.now, |_| Some(connected)),
        HashSet::from([A])
    );
    bench.settle();
    assert_eq!(
        bench.seen(),
        [(1, "1".to_owned()), (1, "1".to_owned())],
        "nobody else is there"
    );
}

#[test]
fn a_message_that_nobody_acks_is_deferred_and_delivered_again_later() {
    let mut bench = Bench::new();
    bench.publish(2);
    for round in 0..3 {
        bench.subscribe(A, 1);
        assert_eq!(bench.seen_seqs(), [1], "round {round}");
        bench.disconnect(A);
    }
    bench.subscribe(A, 1);
    assert_eq!(bench.seen_seqs(), [2], "parked after three");
    assert_eq!(bench.inbox.deferred().count(), 1);
    bench.ack(A, 2);
    assert_eq!(bench.seen_seqs(), [] as [i64; 0]);
    bench.pass(1);
    assert_eq!(bench.seen_seqs(), [1]);
    bench.disconnect(A).subscribe(A, 1).pass(1);
    assert_eq!(
        bench.seen_seqs(),
        [] as [i64; 0],
        "twice as long the second time"
    );
    bench.pass(1);
    assert_eq!(bench.seen_seqs(), [1]);
    bench.ack(A, 1);
    assert!(bench.stored.is_empty());
}

#[test]
fn resend_delivers_a_leased_message_again() {
    let mut bench = Bench::new();
    bench.subscribe(A, 5).publish(2);
    bench.inbox.resend(&id(1), bench.now);
    assert_eq!(bench.settle().seen_seqs(), [1, 2, 1]);
    bench.inbox.begin_ack(A, &id(2), bench.now);
    bench.inbox.resend(&id(2), bench.now);
    assert_eq!(
        bench.settle().seen_seqs(),
        [] as [i64; 0],
        "not what is being acked"
    );
}

#[test]
fn fetch_takes_one_at_a_time_and_its_lease_needs_an_ack() {
    let mut bench = Bench::new();
    bench.publish(2);
    let fetch = |bench: &mut Bench| loop {
        match bench.inbox.fetch(QUEUE, A, bench.clock()) {
            Fetched::Load(load) => {
                let page = bench.page(&load);
                bench.inbox.loaded(load, page);
            }
            Fetched::Message(delivery) => return Some(delivery.message_id),
            Fetched::Nothing => return None,
            Fetched::Loading => panic!("nobody else reads"),
        }
    };
    assert_eq!(
        (fetch(&mut bench), fetch(&mut bench), fetch(&mut bench)),
        (Some(id(1)), Some(id(2)), None)
    );
    bench.ack(A, 2).disconnect(A);
    assert_eq!((fetch(&mut bench), fetch(&mut bench)), (Some(id(1)), None));
}

#[test]
fn a_connection_whose_socket_is_full_gets_no_more_until_it_is_written() {
    let mut bench = Bench::new();
    bench.inbox.policy.unsent_bytes = envelope(Seq(1)).len() * 2;
    bench.subscribe(A, 100).publish(5);
    assert_eq!(bench.seen_seqs(), [1, 2]);
    bench.inbox.sent(A, envelope(Seq(1)).len());
    assert_eq!(bench.settle().seen_seqs(), [3]);
}

#[test]
fn a_lane_without_consumers_holds_nothing_and_is_forgotten() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1).publish(4);
    assert!(bench.budget.used() > 0);
    bench.disconnect(A);
    assert_eq!(bench.budget.used(), 0);
    bench.subscribe(A, 10);
    for seq in 1..=4 {
        bench.ack(A, seq);
    }
    bench.disconnect(A);
    assert!(bench.inbox.tidy());
    assert_eq!(bench.budget.used(), 0);
}

#[test]
fn without_memory_to_spare_messages_are_delivered_one_by_one() {
    let mut bench = Bench::new();
    bench.budget.take(1 << 20);
    bench.publish(5).subscribe(A, 100).publish(2);
    assert_eq!(bench.seen_seqs(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn delivery_times_are_reported_once() {
    let mut bench = Bench::new();
    bench.subscribe(A, 5).publish(2);
    assert_eq!(bench.inbox.unrecorded(bench.now).len(), 2);
    assert_eq!(bench.inbox.unrecorded(bench.now).len(), 0);
    bench.disconnect(A).subscribe(B, 5);
    assert_eq!(
        bench.inbox.unrecorded(bench.now).len(),
        0,
        "the first delivery counts"
    );
}

#[test]
fn a_purge_frees_credit_and_leaves_what_comes_later() {
    let mut bench = Bench::new();
    bench.subscribe(A, 2).publish(9);
    assert_eq!(bench.seen_seqs(), [1, 2]);
    bench.inbox.begin_ack(A, &id(2), bench.now);
    assert_eq!(bench.purge().len(), 9);
    bench.commit_ack(2).publish(1);
    assert_eq!(bench.seen_seqs(), [10]);
    bench.ack(A, 10).publish(2);
    assert_eq!(bench.seen_seqs(), [11, 12]);
    bench.ack(A, 11).ack(A, 12).disconnect(A);
    assert!(bench.inbox.tidy());
    assert_eq!(bench.budget.used(), 0);
}

#[test]
fn a_deleted_queue_leaves_nothing_behind_and_other_queues_alone() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1).subscribe(B, 1).publish(9);
    bench
        .inbox
        .subscribe(OTHER, A, Prefetch::until_confirmed(1));
    assert_eq!(bench.seen_seqs(), [1, 2]);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    let mut consumers = bench.inbox.remove_queue(QUEUE);
    consumers.sort();
    assert_eq!(consumers, [A, B]);
    bench.stored.clear();
    bench.commit_ack(1).disconnect(B);
    bench
        .inbox
        .committed(OTHER, Seq(20), &id(20), &envelope(Seq(20)));
    bench.stored.insert(Seq(20), (OTHER, id(20)));
    bench.settle();
    assert_eq!(bench.seen_seqs(), [20]);
    assert_eq!(bench.inbox.consumers().collect::<Vec<_>>(), [(OTHER, 1)]);
    let uses = bench.inbox.connection_uses();
    let used = ConnectionUse {
        queues: vec![OTHER],
        in_flight: 1,
    };
    assert_eq!(uses.into_iter().collect::<Vec<_>>(), [(A, used)]);
    bench.ack(A, 20).disconnect(A);
    assert!(bench.inbox.tidy(), "{:?}", bench.inbox);
    assert_eq!(bench.budget.used(), 0);
}
