//! Batches as they stand in the database, remembered by the only one who writes them.
//!
//! Nobody else writes while a server holds the database's lock, so what it has read or written is
//! what stands there until it writes again. Most messages are acked a moment after they were
//! published, and most publishes go on where the last one ended: neither has to be looked up.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ciphermq_protocol::MessageId;

use super::BatchRow;
use super::id::{Range, Stream, ranges};
use super::settlement::Settlement;

/// Batches that are remembered: a few seconds of single messages, or what some senders have under
/// way.
const MOST_BATCHES: usize = 256;

/// The batches at the ends of streams.
pub(in crate::store) struct TailCache {
    tails: HashMap<Stream, Tail>,
    /// Which batches there are, the oldest first.
    order: VecDeque<(Stream, i64)>,
    most_batches: usize,
}

/// All of a stream's batches that hold a position of `from` or above.
struct Tail {
    from: i64,
    batches: BTreeMap<i64, BatchRow>,
}

impl Tail {
    /// The batches that hold one of the positions.
    fn within(&self, range: &Range) -> impl Iterator<Item = &BatchRow> {
        self.batches
            .range(range.begins_after()..=range.last)
            .map(|(_, batch)| batch)
            .filter(|batch| end(batch) > range.first)
    }
}

/// The position after a batch's last one.
fn end(batch: &BatchRow) -> i64 {
    batch.position.saturating_add(batch.messages)
}

impl Default for TailCache {
    fn default() -> Self {
        Self::new(MOST_BATCHES)
    }
}

/// Which ranges that were looked up are the ends of their streams: all but those where the stream
/// goes on above, by their places in the list.
pub(in crate::store) fn ends(ranges: Vec<Range>, goes_on: &HashSet<i64>) -> Vec<Range> {
    let ends = (0..)
        .zip(ranges)
        .filter_map(|(at, range)| (!goes_on.contains(&at)).then_some(range));
    ends.collect()
}

impl TailCache {
    /// Remembers so many batches at most.
    fn new(most_batches: usize) -> Self {
        Self {
            tails: HashMap::new(),
            order: VecDeque::new(),
            most_batches,
        }
    }

    /// The batches of messages, by the messages' ids, as far as they are remembered, and what has
    /// to be looked up.
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

    /// A commit happened: keeps what was looked up for it, with all that it has made of it. `ends`
    /// are ranges that were looked up and found to be the ends of their streams: no batch begins
    /// above them.
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
                if tail.batches.insert(position, batch).is_none() {
                    self.order.push_back((stream, position));
                }
            }
        }
        while self.order.len() > self.most_batches {
            self.forget_oldest();
        }
        // Of streams that are not there nothing is kept: anybody can ask for them.
        for range in ends {
            self.forget_empty(&range.stream);
        }
    }

    /// Forgets everything: somebody else may have written.
    pub(in crate::store) fn clear(&mut self) {
        self.tails.clear();
        self.order.clear();
    }

    fn forget_oldest(&mut self) {
        let Some((stream, position)) = self.order.pop_front() else {
            return;
        };
        if let Some(tail) = self.tails.get_mut(&stream)
            && let Some(batch) = tail.batches.remove(&position)
        {
            tail.from = tail.from.max(end(&batch));
        }
        self.forget_empty(&stream);
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
    use crate::store::batch::id::{ALONE, message_id};

    /// All that stands in a database, looked through from end to end.
    #[derive(Default)]
    struct Table(Vec<(Stream, BatchRow)>);

    impl Table {
        /// As the databases' statement does it.
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

        fn holds(&self, stream: &Stream, position: i64) -> bool {
            self.0
                .iter()
                .any(|(of, batch)| of == stream && (batch.position..end(batch)).contains(&position))
        }
    }

    fn streams() -> [Stream; 3] {
        [
            Stream::Ours(StreamId::new(1, 1)),
            Stream::Ours(StreamId::new(1, 2)),
            Stream::Alone(MessageId::new("alone").unwrap()),
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
    }

    /// A transaction about some positions of a stream that follow one another, and another one.
    #[derive(Debug, Clone)]
    struct Commit {
        stream: usize,
        first: i64,
        messages: i64,
        also: i64,
        /// Something becomes of the messages' batches; otherwise those that are not there yet are
        /// published.
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
        ]
    }

    proptest! {
        /// Whatever is remembered and forgotten, it is what looking everything up would have found.
        #[test]
        fn recalls_what_stands_in_the_database(
            steps in prop::collection::vec(step(), 1..60), most in 1..6usize
        ) {
            let streams = streams();
            let (mut table, mut tail_cache) = (Table::default(), TailCache::new(most));
            for (mark, step) in (0..).zip(steps) {
                let Step::Commit(Commit { stream, first, messages, also, settles, fails }) = step else {
                    tail_cache.clear();
                    continue;
                };
                let stream = &streams[stream];
                let mut wanted: Vec<i64> = match stream {
                    Stream::Ours(_) => (first..first + messages).collect(),
                    Stream::Alone(_) => vec![ALONE],
                };
                if matches!(stream, Stream::Ours(_)) && !wanted.contains(&also) {
                    wanted.push(also);
                }
                let id = |position| message_id(&stream.to_string(), position).unwrap();
                let ids: Vec<MessageId> = wanted.iter().copied().map(id).collect();
                let (mut settlement, unknown) = tail_cache.recall(ids.iter());
                let ends = table.look_up(unknown, &mut settlement);
                for (id, &position) in ids.iter().zip(&wanted) {
                    let found = settlement.find(id).map(|known| known.batch);
                    prop_assert_eq!(found.is_some(), table.holds(stream, position), "{} \
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
                    // The table first; the ledger, which has the same batch, is told in place of
                    // its commit.
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
                        wanted.iter().copied().filter(|&p| !table.holds(stream, p)).collect();
                    for joined in missing.chunk_by(|a, b| a + 1 == *b) {
                        let row = batch(stream, joined[0], i64::try_from(joined.len()).unwrap());
                        table.0.push((stream.clone(), row.clone()));
                        settlement.add(row).unwrap();
                    }
                    tail_cache.keep(settlement, ends);
                }
                prop_assert!(tail_cache.order.len() <= most);
                prop_assert!(tail_cache.tails.values().all(|tail| !tail.batches.is_empty()));
            }
        }
    }

    #[test]
    fn the_end_of_a_stream_need_not_be_looked_up() {
        let [stream, _, alone] = streams();
        let mut tail_cache = TailCache::new(2);
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
        // What was published, what comes next, but not what may have come before.
        assert!(
            !asked(&tail_cache, &stream, 5)
                && !asked(&tail_cache, &stream, 6)
                && !asked(&tail_cache, &stream, 7)
        );
        assert!(asked(&tail_cache, &stream, 4));
        publish(&mut tail_cache, &stream, 7, 1);
        publish(&mut tail_cache, &alone, ALONE, 1);
        // The oldest is forgotten.
        assert!(
            asked(&tail_cache, &stream, 6)
                && !asked(&tail_cache, &stream, 7)
                && !asked(&tail_cache, &alone, ALONE)
        );
        tail_cache.clear();
        assert!(asked(&tail_cache, &stream, 8) && asked(&tail_cache, &alone, ALONE));
    }
}
