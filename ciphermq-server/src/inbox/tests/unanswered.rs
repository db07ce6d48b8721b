//! Receivers that never answer what they cannot open, as the older generations do.

use std::collections::BTreeSet;

use super::*;

/// How an older receiver works.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Generation {
    /// Acks one message, and throws away what comes before its confirmation.
    A,
    /// Acks what it can open, whatever comes between.
    B,
}

/// What a confirmation takes to come after an ack was sent.
const COMMIT: Duration = Duration::from_millis(3);
/// What opening a message takes.
const WORK: Duration = Duration::from_millis(1);

/// A receiver of this generation on connection `A`, and what it finds in its socket.
struct Receiver {
    generation: Generation,
    /// What opening a message takes.
    work: Duration,
    /// What opening some of the messages takes.
    works: BTreeMap<i64, Duration>,
    bad: BTreeSet<i64>,
    socket: Vec<i64>,
    opened: BTreeSet<i64>,
    /// In the order in which it has opened them.
    order: Vec<i64>,
    heard: Instant,
    /// How often it was handed something.
    handed: usize,
}

impl Receiver {
    fn new(
        bench: &mut Bench,
        generation: Generation,
        bad: impl IntoIterator<Item = i64>,
        prefetch: u32,
    ) -> Self {
        bench.subscribe(A, prefetch);
        Self {
            generation,
            work: WORK,
            works: BTreeMap::new(),
            bad: bad.into_iter().collect(),
            socket: Vec::new(),
            opened: BTreeSet::new(),
            order: Vec::new(),
            heard: bench.now,
            handed: 0,
        }
    }

    /// Goes on until it has opened so many messages; returns how long that took.
    fn until(&mut self, bench: &mut Bench, good: usize) -> Duration {
        let start = bench.now;
        while self.opened.len() < good {
            self.step(bench);
            assert!(
                bench.now - start < Duration::from_secs(3600),
                "{:?}",
                bench.inbox
            );
        }
        bench.now - start
    }

    fn work_of(&self, seq: i64) -> Duration {
        match self.works.get(&seq) {
            _ if self.bad.contains(&seq) => WORK,
            Some(work) => *work,
            None => self.work,
        }
    }

    fn take(&mut self, bench: &mut Bench) {
        let seen = bench.seen_seqs();
        self.handed += seen.len();
        self.socket.extend(seen);
    }

    fn step(&mut self, bench: &mut Bench) {
        self.take(bench);
        if self.socket.is_empty() {
            return self.wait(bench);
        }
        let seq = self.socket.remove(0);
        bench.now += self.work_of(seq);
        self.look(bench);
        if self.bad.contains(&seq)
            || (self.generation == Generation::B && self.opened.contains(&seq))
        {
            return;
        }
        if self.opened.insert(seq) {
            self.order.push(seq);
        }
        bench.inbox.begin_ack(A, &id(seq), bench.now);
        self.speak(bench);
        bench.now += COMMIT;
        bench.commit_ack(seq);
        if self.generation == Generation::A {
            self.take(bench);
            self.socket.clear();
        }
        bench.inbox.settled(A, [&id(seq)], bench.now);
        bench.settle();
    }

    /// Anything is received from it.
    fn speak(&mut self, bench: &mut Bench) {
        self.heard = bench.now;
        bench.inbox.touch(A);
        bench.settle();
    }

    /// What the server does meanwhile, while this works.
    fn look(&mut self, bench: &mut Bench) {
        while let Some(look) = bench.look_at.filter(|look| *look <= bench.now) {
            bench.look_at = None;
            let now = std::mem::replace(&mut bench.now, look);
            bench.inbox.look();
            let heard = self.heard;
            bench.inbox.expire(bench.now, |_| Some(heard));
            bench.settle();
            bench.now = now;
        }
    }

    /// Nothing happens until a lease lapses, or a message aside is due.
    fn wait(&mut self, bench: &mut Bench) {
        let look = bench.look_at.take();
        let sweep = bench.now + Duration::from_millis(500);
        bench.now = look.map_or(sweep, |look| look.min(sweep));
        if look == Some(bench.now) {
            bench.inbox.look();
        } else {
            bench.look_at = look;
        }
        bench.inbox.wake(bench.now);
        let heard = self.heard;
        bench.inbox.expire(bench.now, |_| Some(heard));
        bench.settle();
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// Many bad messages cost one timeout together, wherever they stand.
#[test]
fn good_messages_wait_one_timeout_behind_any_number_of_bad_ones() {
    for generation in [Generation::A, Generation::B] {
        for bad in [1, 5, 50, 400] {
            for (name, spread) in [("in a row", 1), ("every other", 2), ("every fifth", 5)] {
                for prefetch in [1, 3, 10] {
                    if generation == Generation::A && prefetch > 1 {
                        continue;
                    }
                    let mut bench = Bench::new();
                    let bads: Vec<i64> = (0..bad).map(|n| 1 + n * spread).collect();
                    let total = bad * spread + 50;
                    bench.publish(usize::try_from(total).unwrap());
                    let good = usize::try_from(total - bad).unwrap();
                    let mut receiver = Receiver::new(&mut bench, generation, bads, prefetch);
                    let took = receiver.until(&mut bench, good);
                    let work = (WORK + COMMIT) * u32::try_from(total).unwrap();
                    // The oldest clients have to be handed one at a time wherever a good one stands
                    // between.
                    let at_a_time = match generation {
                        Generation::A if spread > 1 => {
                            Duration::from_millis(80) * u32::try_from(bad).unwrap()
                        }
                        _ => Duration::ZERO,
                    };
                    let at_most = TIMEOUT + TIMEOUT / 4 + work + at_a_time;
                    assert!(
                        took < at_most,
                        "{generation:?}, {bad} bad ones {name}, prefetch {prefetch}: {took:?}"
                    );
                    // What is handed out in vain stays within bounds.
                    assert!(
                        receiver.handed < 2000 + 20 * good,
                        "{} times",
                        receiver.handed
                    );
                }
            }
        }
    }
}

/// And so does what comes later on the same connection.
#[test]
fn later_messages_wait_for_a_part_of_a_timeout() {
    for generation in [Generation::A, Generation::B] {
        let mut bench = Bench::new();
        bench.publish(4);
        let mut receiver = Receiver::new(&mut bench, generation, [1, 2, 3, 5, 6, 8, 9, 11, 12], 1);
        receiver.until(&mut bench, 1);
        for good in 2..=4 {
            bench.publish(3);
            assert!(
                receiver.until(&mut bench, good) < TIMEOUT / 4,
                "{generation:?}"
            );
        }
    }
}

/// They come again, more and more rarely, and go to whoever can open them.
#[test]
fn unanswered_messages_are_delivered_again_after_growing_delays() {
    let mut bench = Bench::new();
    bench.publish(1);
    let mut receiver = Receiver::new(&mut bench, Generation::B, [1], 1);
    let mut times = Vec::new();
    let start = bench.now;
    while bench.now - start < Duration::from_secs(4000) {
        let before = receiver.handed;
        receiver.step(&mut bench);
        if receiver.handed > before {
            times.push((bench.now - start).as_secs());
        }
    }
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((10..40).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses[1..].is_sorted_by(|a, b| *a <= *b + 2), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 302), "{pauses:?}");
    // Somebody who can open it gets it.
    bench.subscribe(B, 1).pass(300);
    bench.ack(B, 1);
    assert!(bench.stored.is_empty());
}

/// Once more after every restart of the server, and no more than once.
#[test]
fn after_a_restart_it_takes_one_timeout_again() {
    let bads = || (1..60).filter(|seq| seq % 3 != 0);
    let mut bench = Bench::new();
    bench.publish(60);
    let mut receiver = Receiver::new(&mut bench, Generation::B, bads(), 1);
    receiver.until(&mut bench, 10);
    let mut again = Bench::new();
    again.stored = std::mem::take(&mut bench.stored);
    again.next = bench.next;
    let mut receiver = Receiver::new(&mut again, Generation::B, bads(), 1);
    assert!(receiver.until(&mut again, 10) < TIMEOUT + TIMEOUT / 3);
}

/// Before anything has lapsed, nobody gets more than it asked for; a client that pings never does.
#[test]
fn a_consumer_gets_no_more_than_its_prefetch_unless_it_has_let_a_lease_lapse() {
    let mut bench = Bench::new();
    bench.publish(10).subscribe(A, 2);
    assert_eq!(bench.seen_seqs(), [1, 2]);
    let heard = bench.now;
    bench.now += TIMEOUT - Duration::from_millis(1);
    bench.inbox.expire(bench.now, |_| Some(heard));
    assert_eq!(bench.settle().seen_seqs(), [0_i64; 0]);
    bench.now += Duration::from_millis(1);
    let silent = bench.inbox.expire(bench.now, |_| Some(heard));
    assert_eq!(silent, HashSet::from([A]));
    assert_eq!(bench.settle().seen_seqs(), [3, 4]);
    assert_eq!(std::mem::take(&mut bench.deferred).len(), 2);
    // It says that it is slow: its leases last as long as anybody's again.
    bench.inbox.touch(A);
    bench.inbox.keep_leases(A);
    let heard = bench.now;
    bench.now += TIMEOUT / 2;
    bench.inbox.look();
    bench.inbox.expire(bench.now, |_| Some(heard));
    assert_eq!(bench.settle().seen_seqs(), [0_i64; 0]);
    assert_eq!(bench.deferred, []);
}

/// It was slow once, and acks late what had lapsed: it is a client like all others again.
#[test]
fn a_late_ack_ends_probation() {
    let mut bench = Bench::new();
    bench.publish(5).subscribe(A, 1);
    let heard = bench.now;
    bench.now += TIMEOUT;
    bench.inbox.expire(bench.now, |_| Some(heard));
    assert_eq!(bench.settle().seen_seqs(), [1, 2]);
    bench.inbox.touch(A);
    bench.ack(A, 1);
    let heard = bench.now;
    bench.now += TIMEOUT / 2;
    assert!(bench.inbox.expire(bench.now, |_| Some(heard)).is_empty());
    bench.ack(A, 2);
    assert_eq!(bench.seen_seqs(), [3]);
}

/// A connection that lapsed was dead, as its end shows: what it was handed goes to the next one in
/// order, first.
#[test]
fn messages_that_a_dead_connection_did_not_answer_return_to_the_head_in_order() {
    let mut bench = Bench::new();
    bench.publish(30).subscribe(A, 4);
    let heard = bench.now;
    for _ in 0..60 {
        bench.now += Duration::from_secs(1);
        bench.inbox.look();
        bench.inbox.wake(bench.now);
        bench.inbox.expire(bench.now, |_| Some(heard));
        bench.settle();
    }
    assert!(
        bench.seen_seqs().len() > 30,
        "it was handed all of them, some again"
    );
    bench.disconnect(A).subscribe(B, 100);
    assert_eq!(bench.seen_seqs(), (1..=30).collect::<Vec<_>>());
}

/// The others go on while one of them cannot open what it has.
#[test]
fn another_consumer_goes_on_and_gets_what_lapsed_last() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1).subscribe(B, 1).publish(6);
    assert_eq!(bench.seen(), [(1, "1".to_owned()), (2, "2".to_owned())]);
    let silent = bench.now;
    for seq in 2..=4 {
        bench.ack(B, seq);
    }
    bench.now += TIMEOUT;
    let now = bench.now;
    bench.inbox.expire(now, |connection| {
        Some(if connection == A { silent } else { now })
    });
    bench.settle();
    assert_eq!(bench.seen_seqs(), [3, 4, 5, 6], "A is handed another one");
    bench.ack(B, 5);
    assert_eq!(bench.seen(), [(2, "1".to_owned())]);
    bench.ack(B, 1);
    bench.inbox.touch(A);
    bench.ack(A, 6);
    assert!(bench.stored.is_empty());
}

/// A receiver that can open nothing at all does not bring everything into memory.
#[test]
fn only_so_many_step_aside_fast() {
    let mut bench = Bench::with_ready(PageLimit {
        messages: 2048,
        bytes: 1 << 20,
    });
    bench.publish(20_000);
    let mut receiver = Receiver::new(&mut bench, Generation::B, 1..=20_000, 1);
    let start = bench.now;
    while bench.now - start < TIMEOUT * 10 {
        receiver.step(&mut bench);
    }
    assert!(
        bench.inbox.deferred().count() < 4500,
        "{}",
        bench.inbox.deferred().count()
    );
}

/// A receiver that needs long for each message is not taken for one that cannot open them.
#[test]
fn a_slow_receiver_gets_good_messages_in_order_and_hardly_ever_twice() {
    for generation in [Generation::A, Generation::B] {
        for (millis, bad, spread) in [
            (80, 1, 1),
            (500, 5, 3),
            (1200, 0, 1),
            (1200, 1, 1),
            (1200, 3, 1),
            (1200, 3, 5),
            (1200, 20, 1),
            (5000, 2, 2),
        ] {
            let mut bench = Bench::new();
            let total = bad * spread + 20;
            bench.publish(usize::try_from(total).unwrap());
            let bads = (0..bad).map(|n| 1 + n * spread);
            let mut receiver = Receiver::new(&mut bench, generation, bads, 1);
            receiver.work = Duration::from_millis(millis);
            let good = usize::try_from(total - bad).unwrap();
            let took = receiver.until(&mut bench, good);
            let name = format!("{generation:?}, {millis} ms, {bad} bad ones, every {spread}");
            let work = (receiver.work + COMMIT) * u32::try_from(good).unwrap();
            // Each bad one that stands alone costs the time of an answer, and a part of a timeout.
            let alone = (receiver.work + TIMEOUT / 16) * u32::try_from(bad).unwrap();
            let timeout = if bad > 0 {
                TIMEOUT + TIMEOUT / 4
            } else {
                Duration::ZERO
            };
            assert!(
                took <= timeout + work + alone.min(TIMEOUT * 2),
                "{name}: {took:?}"
            );
            assert!(receiver.order.is_sorted(), "{name}: {:?}", receiver.order);
            let most = good * 3 + 10 * usize::try_from(bad).unwrap();
            assert!(receiver.handed < most, "{name}: {} times", receiver.handed);
        }
    }
}

/// What was handed out while a receiver was busy for long comes neither twice nor late.
#[test]
fn a_long_pause_on_probation_delays_nothing_but_itself() {
    for generation in [Generation::A, Generation::B] {
        let mut bench = Bench::new();
        bench.publish(60);
        let mut receiver = Receiver::new(&mut bench, generation, [1], 1);
        receiver.until(&mut bench, 10);
        receiver.work = Duration::from_secs(10);
        receiver.until(&mut bench, 11);
        receiver.work = WORK;
        let took = receiver.until(&mut bench, 59);
        assert!(took < TIMEOUT / 2, "{generation:?}: {took:?}");
        assert!(
            receiver.order.is_sorted(),
            "{generation:?}: {:?}",
            receiver.order
        );
        let most = if generation == Generation::A {
            59 * 6
        } else {
            70
        };
        assert!(
            receiver.handed < most,
            "{generation:?}: {}",
            receiver.handed
        );
    }
}

/// Bad messages between good ones cost a receiver little beside its work, however slow it is.
#[test]
fn bad_messages_between_good_ones_cost_a_slow_receiver_little() {
    let millis = Duration::from_millis;
    let mixed = |seq: i64| millis([1, 9000, 40, 300, 2500, 5][usize::try_from(seq % 6).unwrap()]);
    let paused = |seq: i64| {
        if seq == 14 || seq == 46 {
            millis(15_000)
        } else {
            millis(5)
        }
    };
    let works: [(&str, &dyn Fn(i64) -> Duration); 5] = [
        ("0.2 s", &|_| millis(200)),
        ("1 s", &|_| millis(1000)),
        ("27 s", &|_| millis(27_000)),
        ("from 1 ms to 9 s", &mixed),
        ("two pauses", &paused),
    ];
    for generation in [Generation::A, Generation::B] {
        for pattern in ["bg", "bbg", "bbbbbbbbbbg", "gbgggb", "bgbbbggbbbbbbg"] {
            for (name, work) in works {
                let bads = (1..=100_i64).filter(|seq| {
                    let at = usize::try_from(seq - 1).unwrap() % pattern.len();
                    pattern.as_bytes()[at] == b'b'
                });
                let mut bench = Bench::new();
                bench.publish(100);
                let mut receiver = Receiver::new(&mut bench, generation, bads, 1);
                receiver.works = (1..=100).map(|seq| (seq, work(seq))).collect();
                let good: Vec<i64> = (1..=100)
                    .filter(|seq| !receiver.bad.contains(seq))
                    .collect();
                let took = receiver.until(&mut bench, good.len());
                let works = good.iter().map(|seq| receiver.work_of(*seq) + COMMIT);
                let (total, slowest) = (works.clone().sum::<Duration>(), works.max().unwrap());
                let name = format!("{generation:?}, {pattern}, {name}");
                let spent = TIMEOUT + TIMEOUT / 4 + 4 * slowest.min(TIMEOUT) + total;
                assert!(took < spent, "{name}: {took:?} for {total:?}");
                assert!(receiver.handed < 2000, "{name}: {} times", receiver.handed);
            }
        }
    }
}

/// A receiver that needs longer than a timeout for each message gets all of them in order.
#[test]
fn a_receiver_slower_than_the_timeout_keeps_the_order() {
    for generation in [Generation::A, Generation::B] {
        for (work, bads) in [
            (45, vec![]),
            (45, vec![2, 3, 7]),
            (100, vec![]),
            (100, vec![1, 5]),
        ] {
            let mut bench = Bench::new();
            let total = 8 + bads.len();
            bench.publish(total);
            let bad = u32::try_from(bads.len()).unwrap();
            let mut receiver = Receiver::new(&mut bench, generation, bads, 1);
            receiver.work = Duration::from_secs(work);
            let took = receiver.until(&mut bench, 8);
            let name = format!("{generation:?}, {work} s, {bad} bad ones");
            assert!(receiver.order.is_sorted(), "{name}: {:?}", receiver.order);
            let spent = (receiver.work + COMMIT) * 8 + TIMEOUT * (3 + bad);
            assert!(took < spent, "{name}: {took:?}");
        }
    }
}

/// What is remembered of a receiver that never answers is bounded.
#[test]
fn a_receiver_that_never_answers_takes_bounded_memory() {
    let mut bench = Bench::with_ready(PageLimit {
        messages: 2048,
        bytes: 1 << 20,
    });
    bench.publish(2000);
    let mut receiver = Receiver::new(&mut bench, Generation::B, 1..=2000, 1);
    while bench.deferred.len() < 6000 {
        receiver.step(&mut bench);
    }
    let lane = &bench.inbox.lanes[&QUEUE];
    assert!(
        lane.remembered_lapses() <= 256,
        "{}",
        lane.remembered_lapses()
    );
}
