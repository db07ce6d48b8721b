//! The progress of transfers that hold memory: of lines that arrive, and of output that leaves.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::shared_budget::ClientBudget;

/// The time over which the minimum rate is an average.
const GRACE: Duration = Duration::from_secs(10);
/// The time over which the rate is measured when memory is short.
const RECENT: Duration = Duration::from_secs(1);
/// A transfer at this rate, in bytes a second, or more does not have to give way.
const FAST: u64 = 64 * 1024;

/// The time in which a transfer moves what it holds, or else has to give way.
const MOST_SECONDS: u64 = 10;

/// The reason why a transfer has to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum TooSlow {
    /// It is below the minimum rate.
    BelowMinimum,
    /// It is slow, and others need its memory.
    InTheWay,
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BelowMinimum => {
                "a long line arrived too slowly (limits.min_line_rate); connect again and retry"
            }
            Self::InTheWay => {
                "a long line arrived too slowly while others needed its memory; connect again and \
                 retry"
            }
        })
    }
}

/// Transfers of one direction, of all connections.
#[derive(Debug)]
pub(super) struct Transfers {
    min_rate: u64,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    transfers: HashMap<u64, Progress>,
}

#[derive(Debug)]
struct Progress {
    client: ClientBudget,
    /// The bytes that it holds.
    held: usize,
    moved: u64,
    /// When it began.
    begun: Instant,
    recent: Recent,
    /// When measuring of the minimum rate began, and what had been moved then.
    grace: (Instant, u64),
    /// Since when the server itself pauses it: the connection waits for memory or the store.
    paused: Option<Instant>,
    is_ended: bool,
    ended: Arc<Notify>,
}

/// The bytes that were moved in the second that runs, and in the one before.
#[derive(Debug)]
struct Recent {
    since: Instant,
    bytes: u64,
    before: u64,
}

impl Recent {
    /// Returns the number of bytes of the last one or two seconds, and how long that is.
    fn roll(&mut self, now: Instant) -> (u64, Duration) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= RECENT {
            let is_next = passed < 2 * RECENT;
            self.before = if is_next { self.bytes } else { 0 };
            self.bytes = 0;
            self.since = if is_next { self.since + RECENT } else { now };
        }
        let passed = now.saturating_duration_since(self.since);
        (self.before + self.bytes, RECENT + passed)
    }
}

impl Transfers {
    /// Creates an empty set; a minimum rate of 0 bytes a second is none.
    pub(super) fn new(min_rate: u64) -> Self {
        Self {
            min_rate,
            open: Arc::default(),
        }
    }

    /// Begins a transfer that holds these bytes of this client.
    pub(super) fn begin(&self, client: ClientBudget, held: usize) -> Transfer {
        let now = Instant::now();
        let ended = Arc::new(Notify::new());
        let progress = Progress {
            client,
            held,
            moved: 0,
            begun: now,
            recent: Recent {
                since: now,
                bytes: 0,
                before: 0,
            },
            grace: (now, 0),
            paused: Some(now),
            is_ended: false,
            ended: Arc::clone(&ended),
        };
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.transfers.insert(number, progress);
        Transfer {
            open: Arc::clone(&self.open),
            number,
            ended,
            min_rate: self.min_rate,
        }
    }

    /// Ends slow transfers that hold at least `wanted` bytes together, or all: those of the client
    /// that holds most first, and the slowest of them first. Returns what they hold.
    ///
    /// If `of_client` is given, ends only this client's.
    pub(super) fn end_slowest(
        &self,
        of_client: Option<&ClientBudget>,
        wanted: usize,
        now: Instant,
    ) -> usize {
        let mut open = self.open.lock();
        let mut slow: Vec<(Reverse<usize>, u64, u64)> = open
            .transfers
            .iter_mut()
            .filter(|(_, transfer)| {
                of_client.is_none_or(|client| transfer.client.is_same_client(client))
            })
            .filter_map(|(number, transfer)| {
                let rate = transfer.slow_rate(now)?;
                Some((Reverse(transfer.client.used()), rate, *number))
            })
            .collect();
        slow.sort_unstable();
        let mut freed = 0;
        for (_, _, number) in slow {
            if freed >= wanted {
                break;
            }
            if let Some(transfer) = open.transfers.get_mut(&number) {
                freed += transfer.held;
                transfer.is_ended = true;
                transfer.ended.notify_one();
            }
        }
        freed
    }
}

impl Progress {
    /// Returns the recent rate in bytes a second if it is known and slow.
    fn slow_rate(&mut self, now: Instant) -> Option<u64> {
        let is_known = now.saturating_duration_since(self.begun) >= RECENT;
        if self.is_ended || self.paused.is_some() || !is_known {
            return None;
        }
        let (bytes, time) = self.recent.roll(now);
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rate = bytes.saturating_mul(1000) / millis.max(1);
        let fast = FAST.max(self.held as u64 / MOST_SECONDS);
        (rate < fast).then_some(rate)
    }

    /// Goes on after a pause, which does not count.
    fn resume(&mut self, now: Instant) {
        if let Some(paused) = self.paused.take() {
            let pause = now.saturating_duration_since(paused);
            for since in [&mut self.begun, &mut self.recent.since, &mut self.grace.0] {
                *since += pause;
            }
        }
    }

    fn moved(&mut self, bytes: usize, now: Instant) {
        self.moved += bytes as u64;
        self.recent.roll(now);
        self.recent.bytes += bytes as u64;
    }

    /// Returns when the minimum rate is to be looked at next; `None` if it is not reached.
    fn keeps_up(&mut self, min_rate: u64, now: Instant) -> Option<Instant> {
        let (begun, before) = self.grace;
        let due = begun + GRACE;
        if now < due {
            return Some(due);
        }
        if self.moved - before < min_rate.saturating_mul(GRACE.as_secs()) {
            return None;
        }
        self.grace = (now, self.moved);
        Some(now + GRACE)
    }
}

/// A transfer that holds memory, until this is dropped.
#[derive(Debug)]
pub(in crate::connection) struct Transfer {
    open: Arc<Mutex<Open>>,
    number: u64,
    ended: Arc<Notify>,
    min_rate: u64,
}

impl Transfer {
    /// Records that a line has grown to `bytes`.
    pub(super) fn holds(&self, bytes: usize) {
        self.change(|transfer| {
            transfer.moved(bytes.saturating_sub(transfer.held), Instant::now());
            transfer.held = bytes;
        });
    }

    /// Records that output was read by its client.
    pub(in crate::connection) fn written(&self, bytes: usize) {
        self.change(|transfer| {
            transfer.moved(bytes, Instant::now());
            transfer.held = transfer.held.saturating_sub(bytes);
        });
    }

    /// Returns once the transfer has to be given up. Only while this is awaited the transfer is the
    /// client's matter, and its time counts. It is cancel safe.
    pub(in crate::connection) async fn is_too_slow(&self) -> TooSlow {
        self.change(|transfer| transfer.resume(Instant::now()));
        let _running = Running(self);
        tokio::select! {
            () = self.ended.notified() => TooSlow::InTheWay,
            () = self.falls_behind() => TooSlow::BelowMinimum,
        }
    }

    async fn falls_behind(&self) {
        if self.min_rate == 0 {
            return std::future::pending().await;
        }
        let next = || self.change(|transfer| transfer.keeps_up(self.min_rate, Instant::now()));
        while let Some(Some(due)) = next() {
            tokio::time::sleep_until(due).await;
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        let mut open = self.open.lock();
        open.transfers.get_mut(&self.number).map(change)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.open.lock().transfers.remove(&self.number);
    }
}

/// A transfer that the server does not pause, until this is dropped.
struct Running<'a>(&'a Transfer);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0
            .change(|transfer| transfer.paused = Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use ciphermq_protocol::ClientId;

    use super::*;
    use crate::shared_budget::SharedBudget;

    fn client(budget: &SharedBudget, name: &str) -> ClientBudget {
        budget.of(&ClientId::new(name).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_below_the_minimum_rate_is_ended_after_ten_seconds() {
        let budget = SharedBudget::new(1, 1);
        let line = Transfers::new(1000).begin(client(&budget, "a"), 0);
        let begun = Instant::now();
        assert_eq!(line.is_too_slow().await, TooSlow::BelowMinimum);
        assert_eq!(begun.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_server_does_not_read_does_not_count() {
        let budget = SharedBudget::new(1, 1);
        let line = Transfers::new(1000).begin(client(&budget, "a"), 0);
        for second in 1..60 {
            let read = tokio::time::timeout(Duration::from_secs(1), line.is_too_slow());
            assert!(read.await.is_err(), "second {second}");
            line.holds(second * 1200);
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_came_fast_and_then_stops_is_slow_two_seconds_later() {
        let budget = SharedBudget::new(1, 1);
        let lines = Transfers::new(0);
        let line = lines.begin(client(&budget, "a"), 0);
        let end = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            line.holds(16 << 20);
            tokio::time::sleep(RECENT).await;
            assert_eq!(lines.end_slowest(None, 1, Instant::now()), 0);
            tokio::time::sleep(RECENT).await;
            assert_eq!(lines.end_slowest(None, 1, Instant::now()), 16 << 20);
        };
        let (reason, ()) = tokio::join!(line.is_too_slow(), end);
        assert_eq!(reason, TooSlow::InTheWay);
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_of_the_client_that_holds_most_is_ended() {
        let budget = SharedBudget::new(1000, 1000);
        let lines = Transfers::new(0);
        let [attacker, big, honest] =
            ["attacker", "big", "honest"].map(|name| client(&budget, name));
        let _held = [
            attacker.try_take(200),
            big.try_take(500),
            honest.try_take(10),
        ];
        let slow = lines.begin(attacker.clone(), 0);
        let slower = lines.begin(attacker.clone(), 0);
        let fast = lines.begin(big, 0);
        let others = lines.begin(honest.clone(), 0);
        let advance = async {
            for tenth in 1..=30 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                slow.holds(200 * tenth);
                slower.holds(tenth);
                fast.holds(10_000 * tenth);
                others.holds(tenth);
            }
        };
        let now = Instant::now;
        tokio::select! {
            biased;
            _ = async {
                tokio::join!(slow.is_too_slow(), slower.is_too_slow(), fast.is_too_slow(),
                    others.is_too_slow())
            } => unreachable!(),
            () = async {
                advance.await;
                assert_eq!(lines.end_slowest(Some(&honest), 1, now()), 30);
                assert_eq!(lines.end_slowest(None, 1, now()), 30);
                assert_eq!(lines.end_slowest(None, 1, now()), 6000);
                // Nobody is slow any more.
                assert_eq!(lines.end_slowest(None, 1, now()), 0);
            } => {}
        }
        for ended in [slow, slower, others] {
            assert_eq!(ended.is_too_slow().await, TooSlow::InTheWay);
        }
    }
}
