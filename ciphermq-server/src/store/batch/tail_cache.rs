//! A cache of the batches at the ends of streams, kept by the only one who writes them.
//!
//! Nobody else writes while a server holds the database's lock, so what it has read or written
//! stays true until it writes again. Most messages are acked a moment after they were published,
//! and most publishes continue where the last one ended: neither has to be looked up.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ciphermq_protocol::MessageId;

use super::BatchRow;
use super::id::{Range, Stream, ranges};
use super::settlement::Settlement;

/// The most memory of the cached batches, in bytes: what hundreds of senders and receivers have in
/// flight, in batches of a few messages each.
const MOST_BYTES: usize = 8 << 20;

/// The same for an idle server: some 256 batches. What comes next often follows one of them, and
/// more would keep the allocator from giving back what is around it.
const IDLE_BYTES: usize = 256 << 10;

/// The batches at the ends of streams.
pub(in crate::store) struct TailCache {
    tails: HashMap<Stream, Tail>,
    /// The cached batches, oldest first.
    order: VecDeque<(Stream, i64)>,
    /// The memory of the cached batches, in bytes.
    bytes: usize,
    most_bytes: usize,
}

/// All of a stream's batches that hold a position of `from` or above.
struct Tail {
    from: i64,
    /// Boxed: a map has room for eleven entries, and most streams have one batch.
    batches: BTreeMap<i64, Box<BatchRow>>,
}

impl Tail {
    /// Returns the batches that hold one of the positions.
    fn within(&self, range: &Range) -> impl Iterator<Item = &BatchRow> {
        self.batches
            .range(range.begins_after()..=range.last)
            .map(|(_, batch)| &**batch)
            .filter(|batch| end(batch) > range.first)
    }
}

/// Returns the memory that a cached batch takes, in bytes: roughly, with its place in the cache.
fn memory(batch: &BatchRow) -> usize {
    /// The allocations of the batch, and its entries in the maps and in the order.
    const OVERHEAD: usize = 400;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let route = batch.route.as_ref();
    size_of::<BatchRow>()
        + OVERHEAD
        + 2 * batch.stream.len()
        + text(&batch.sender)
        + text(&batch.receiver)
        + text(&batch.sent_time)
        + route.map_or(0, |(exchange, key)| exchange.len() + key.len())
        + size_of_val(batch.queues.as_slice())
        + batch.digests.as_ref().map_or(0, Vec::len)
        + size_of_val(batch.dispositions.as_slice())
}

/// Returns the position after a batch's last one.
fn end(batch: &BatchRow) -> i64 {
    batch.position.saturating_add(batch.messages)
}

impl Default for TailCache {
    fn default() -> Self {
        Self::new(MOST_BYTES)
    }
}

/// Returns those of the looked-up ranges that are the ends of their streams. `goes_on` holds the
/// indices of the others.
pub(in crate::store) fn stream_ends(ranges: Vec<Range>, goes_on: &HashSet<i64>) -> Vec<Range> {
    let ends = (0..)
        .zip(ranges)
        .filter_map(|(at, range)| (!goes_on.contains(&at)).then_some(range));
    ends.collect()
}

impl TailCache {
    /// Creates a cache whose batches take at most `most_bytes`.
    fn new(most_bytes: usize) -> Self {
        Self {
            tails: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            most_bytes,
        }
    }

    /// Returns the cached batches of the given messages, and the ranges that have to be looked up.
    pub(in crate::store) fn recall<'a>(
        &self,
        ids: impl Iterator<Item = &'a MessageId>,
    ) -> (Settlement, Vec<Range>) {
        let mut settlement = Settlement::default();
        let mut unknown = ranges(ids);
        unknown.retain(|range| match self.tails.get(&range.stream) {
            Some(tail) if tail.from <= range.first => {
                for batch in tail.within(range) {
                    settlement.add_to(range.stream.clone(), batch.clone());
                }
                false
            }
            _ => true,
        });
        (settlement, unknown)
    }

    /// Stores the batches of a transaction that was committed, with the changes that it made.
    ///
    /// `ends` are looked-up ranges above which no batch of their stream begins.
    pub(in crate::store) fn keep(&mut self, settlement: Settlement, ends: Vec<Range>) {
        for range in &ends {
            self.tails
                .entry(range.stream.clone())
                .or_insert_with(|| Tail {
                    from: range.first,
                    batches: BTreeMap::new(),
                });
        }
        for (stream, batch) in settlement.into_batches() {
            if let Some(tail) = self.tails.get_mut(&stream)
                && end(&batch) > tail.from
            {
                let position = batch.position;
                self.bytes += memory(&batch);
                match tail.batches.insert(position, Box::new(batch)) {
                    None => self.order.push_back((stream, position)),
                    Some(older) => self.bytes -= memory(&older),
                }
            }
        }
        self.forget_beyond(self.most_bytes);
        // An empty tail is not kept: clients could fill the cache with streams that do not exist.
        for range in ends {
            self.forget_empty(&range.stream);
        }
    }

    /// Forgets everything, because somebody else may have written.
    pub(in crate::store) fn clear(&mut self) {
        *self = Self::new(self.most_bytes);
    }

    /// Forgets what an idle server need not remember, and returns its memory.
    pub(in crate::store) fn shrink(&mut self) {
        self.forget_beyond(IDLE_BYTES);
        self.tails.shrink_to_fit();
        self.order.shrink_to_fit();
    }

    /// Forgets the oldest batches until the others take at most this many bytes.
    fn forget_beyond(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some((stream, position)) = self.order.pop_front()
        {
            if let Some(tail) = self.tails.get_mut(&stream)
                && let Some(batch) = tail.batches.remove(&position)
            {
                self.bytes -= memory(&batch);
                tail.from = tail.from.max(end(&batch));
            }
            self.forget_empty(&stream);
        }
    }

    fn forget_empty(&mut self, stream: &Stream) {
        if self
            .tails
            .get(stream)
            .is_some_and(|tail| tail.batches.is_empty())
        {
            self.tails.remove(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use ciphermq_protocol::message_id::StreamId;
    use proptest::prelude::*;

    use super::*;
    use crate::store::batch::disposition::{Disposition, DispositionRange};
    use crate::store::batch::id::{NO_POSITION, message_id};

    /// A whole database, scanned from end to end.
    #[derive(Default)]
    struct Table(Vec<(Stream, BatchRow)>);

    impl Table {
        /// Looks ranges up as the databases' statement does.
        fn look_up(&self, ranges: Vec<Range>, settlement: &mut Settlement) -> Vec<Range> {
            for range in &ranges {
                for (stream, batch) in &self.0 {
                    if *stream == range.stream
                        && batch.position <= range.last
                        && end(batch) > range.first
                    {
                        settlement.add(batch.clone()).unwrap();
                    }
                }
            }
            let ends = |range: &Range| {
                !self
                    .0
                    .iter()
                    .any(|(stream, batch)| *stream == range.stream && batch.position > range.last)
            };
            ranges.into_iter().filter(ends).collect()
        }

        fn contains(&self, stream: &Stream, position: i64) -> bool {
            self.0
                .iter()
                .any(|(of, batch)| of == stream && (batch.position..end(batch)).contains(&position))
        }
    }

    fn streams() -> [Stream; 3] {
        [
            Stream::Native(StreamId::new(1, 1)),
            Stream::Native(StreamId::new(1, 2)),
            Stream::Single(MessageId::new("alone").unwrap()),
        ]
    }

    fn batch(stream: &Stream, position: i64, messages: i64) -> BatchRow {
        BatchRow {
            first_seq: 1,
            messages,
            queues: Vec::new(),
            stream: stream.to_string(),
            position,
            sender: None,
            receiver: None,
            sent_time: None,
            route: None,
            has_suite: true,
            digests: None,
            bytes: 0,
            dispositions: Vec::new(),
        }
    }

    fn run(mark: u32) -> DispositionRange {
        DispositionRange {
            from: 0,
            messages: 1,
            disposition: Disposition {
                delivered: mark.to_string().into(),
                acknowledged: None,
                rejected: None,
            },
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Commit(Commit),
        Reopen,
        Idle,
    }

    /// A transaction about consecutive positions of a stream, and one more.
    #[derive(Debug, Clone)]
    struct Commit {
        stream: usize,
        first: i64,
        messages: i64,
        also: i64,
        /// Whether it settles messages; otherwise it publishes those that do not exist yet.
        settles: bool,
        fails: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        let commit = (
            0..3usize,
            0..30i64,
            1..6i64,
            0..36i64,
            any::<bool>(),
            prop::bool::weighted(0.1),
        );
        prop_oneof![
            12 => commit.prop_map(|(stream, first, messages, also, settles, fails)| {
                Step::Commit(Commit { stream, first, messages, also, settles, fails })
            }),
            1 => Just(Step::Reopen),
            1 => Just(Step::Idle),
        ]
    }

    proptest! {
        /// The cache returns what a lookup of everything would have found, whatever was cached or
        /// forgotten.
        #[test]
        fn recalls_what_the_database_holds(
            steps in prop::collection::vec(step(), 1..60), most in 1..6usize
        ) {
            let streams = streams();
            let mut table = Table::default();
            let mut tail_cache = TailCache::new(most * memory(&batch(&streams[0], 1, 1)));
            for (mark, step) in (0..).zip(steps) {
                let Commit { stream, first, messages, also, settles, fails } = match step {
                    Step::Commit(commit) => commit,
                    Step::Reopen => {
                        tail_cache.clear();
                        continue;
                    }
                    Step::Idle => {
                        tail_cache.shrink();
                        continue;
                    }
                };
                let stream = &streams[stream];
                let mut wanted: Vec<i64> = match stream {
                    Stream::Native(_) => (first..first + messages).collect(),
                    Stream::Single(_) => vec![NO_POSITION],
                };
                if matches!(stream, Stream::Native(_)) && !wanted.contains(&also) {
                    wanted.push(also);
                }
                let id = |position| message_id(&stream.to_string(), position).unwrap();
                let ids: Vec<MessageId> = wanted.iter().copied().map(id).collect();
                let (mut settlement, unknown) = tail_cache.recall(ids.iter());
                let ends = table.look_up(unknown, &mut settlement);
                for (id, &position) in ids.iter().zip(&wanted) {
                    let found = settlement.find(id).map(|known| known.batch);
                    prop_assert_eq!(found.is_some(), table.contains(stream, position), "{} \
                        {}", stream, position);
                    if let Some(found) = found {
                        let there = table
                            .0
                            .iter()
                            .find(|(of, batch)| of == stream && batch.position == found.position);
                        prop_assert_eq!(&found.dispositions, &there.unwrap().1.dispositions);
                    }
                }
                if fails {
                    continue;
                }
                if settles {
                    // The table first; `told`, which holds the same batches, stands for the commit.
                    let mut told = Settlement::default();
                    for (of, mut batch) in settlement.into_batches() {
                        if wanted.iter().any(|p| (batch.position..end(&batch)).contains(p)) {
                            batch.dispositions = vec![run(mark)];
                            for (in_table, row) in &mut table.0 {
                                if *in_table == of && row.position == batch.position {
                                    row.dispositions.clone_from(&batch.dispositions);
                                }
                            }
                        }
                        told.add(batch).unwrap();
                    }
                    tail_cache.keep(told, ends);
                } else {
                    let missing: Vec<i64> =
                        wanted.iter().copied().filter(|&p| !table.contains(stream, p)).collect();
                    for joined in missing.chunk_by(|a, b| a + 1 == *b) {
                        let row = batch(stream, joined[0], i64::try_from(joined.len()).unwrap());
                        table.0.push((stream.clone(), row.clone()));
                        settlement.add(row).unwrap();
                    }
                    tail_cache.keep(settlement, ends);
                }
                prop_assert!(tail_cache.bytes <= tail_cache.most_bytes);
                let cached = tail_cache.tails.values().flat_map(|tail| tail.batches.values());
                prop_assert_eq!(tail_cache.bytes, cached.map(|batch| memory(batch)).sum::<usize>());
                prop_assert!(tail_cache.tails.values().all(|tail| !tail.batches.is_empty()));
            }
        }
    }

    #[test]
    fn the_end_of_a_stream_need_not_be_looked_up() {
        let [stream, _, alone] = streams();
        let mut tail_cache = TailCache::new(2 * memory(&batch(&stream, 5, 2)));
        let id = |stream: &Stream, position| message_id(&stream.to_string(), position).unwrap();
        let asked = |tail_cache: &TailCache, stream, position| {
            let (_, unknown) = tail_cache.recall([&id(stream, position)].into_iter());
            !unknown.is_empty()
        };
        let publish = |tail_cache: &mut TailCache, stream: &Stream, position, messages| {
            let (mut settlement, ends) = tail_cache.recall([&id(stream, position)].into_iter());
            settlement.add(batch(stream, position, messages)).unwrap();
            tail_cache.keep(settlement, ends);
        };
        assert!(asked(&tail_cache, &stream, 5));
        publish(&mut tail_cache, &stream, 5, 2);
        // Covered: what was published and what comes next, but not what may have come before.
        assert!(
            !asked(&tail_cache, &stream, 5)
                && !asked(&tail_cache, &stream, 6)
                && !asked(&tail_cache, &stream, 7)
        );
        assert!(asked(&tail_cache, &stream, 4));
        publish(&mut tail_cache, &stream, 7, 1);
        publish(&mut tail_cache, &alone, NO_POSITION, 1);
        // The oldest is forgotten.
        assert!(
            asked(&tail_cache, &stream, 6)
                && !asked(&tail_cache, &stream, 7)
                && !asked(&tail_cache, &alone, NO_POSITION)
        );
        tail_cache.clear();
        assert!(asked(&tail_cache, &stream, 8) && asked(&tail_cache, &alone, NO_POSITION));
    }

    #[test]
    fn an_idle_server_remembers_the_last_batches() {
        let [stream, ..] = streams();
        let mut tail_cache = TailCache::default();
        let id = |position| message_id(&stream.to_string(), position).unwrap();
        for position in 0..2000 {
            let (mut settlement, ends) = tail_cache.recall([&id(position)].into_iter());
            settlement.add(batch(&stream, position, 1)).unwrap();
            tail_cache.keep(settlement, ends);
        }
        let before = tail_cache.bytes;
        assert!(before > IDLE_BYTES);
        tail_cache.shrink();
        assert!((IDLE_BYTES / 2..=IDLE_BYTES).contains(&tail_cache.bytes));
        let (known, unknown) = tail_cache.recall([&id(1999)].into_iter());
        assert!(known.find(&id(1999)).is_some() && unknown.is_empty());
        let (_, unknown) = tail_cache.recall([&id(0)].into_iter());
        assert_eq!(unknown.len(), 1);
    }
}
