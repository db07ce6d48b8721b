//! Positions that have not come, told to people.

use std::time::Duration;

use ciphermq_client::Message;
use ciphermq_client::dedup::{Deduplication as _, GapWatch, Intervals, Recorder, StreamGaps};
use tokio::time::{Instant, MissedTickBehavior};

use crate::console::{Console, Messages};

/// A gap is told when it was there at two looks in a row. All tries of a publish take half of this,
/// unless told otherwise, and what a receiver has in its hands when it dies comes again sooner.
const PAUSE: Duration = Duration::from_secs(60);

/// How many ranges of positions a warning names.
const NAMED: usize = 10;

/// Looks for gaps while messages come, and once more at the end.
#[derive(Debug)]
pub(super) struct Gaps {
    recorder: Recorder,
    watch: GapWatch,
    console: Console,
    /// The beginning of a stream may be older than what is known. In what is no file nothing is
    /// known of before.
    tells_start: bool,
    ticks: tokio::time::Interval,
}

impl Gaps {
    pub(super) fn new(recorder: Recorder, tells_start: bool, console: Console) -> Self {
        let mut ticks = tokio::time::interval_at(Instant::now() + PAUSE, PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            recorder,
            watch: GapWatch::default(),
            console,
            tells_start,
            ticks,
        }
    }

    pub(super) fn saw(&mut self, message: &Message) {
        if let Some(sender) = message.verified_sender() {
            self.watch.saw(sender, message.message_id());
        }
    }

    /// Waits until it is time to look. Safe to cancel.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Tells what has been missing for long enough, and what has come after all.
    pub(super) fn look(&mut self) {
        let changes = self.watch.check(self.now());
        for gap in &changes.missing {
            self.warn(gap);
        }
        for gap in &changes.filled {
            self.console.say(format_args!(
                "{} of {}, told to be missing, {} come: {}",
                Messages(gap.missing.count()),
                gap.sender,
                has(&gap.missing),
                positions(gap)
            ));
        }
    }

    /// Tells all that is missing in the streams that messages have come of; how many that are.
    pub(super) fn finish(&self) -> u64 {
        let gaps = self.watch.watched(self.now());
        for gap in &gaps {
            self.warn(gap);
        }
        gaps.iter()
            .fold(0, |sum: u64, gap| sum.saturating_add(gap.missing.count()))
    }

    fn now(&self) -> Vec<StreamGaps> {
        let mut gaps = self.recorder.gaps();
        if !self.tells_start {
            for gap in &mut gaps {
                gap.missing.forget_below(gap.missing_at_start());
            }
            gaps.retain(|gap| !gap.missing.is_empty());
        }
        gaps
    }

    fn warn(&self, gap: &StreamGaps) {
        let at_start = match gap.missing_at_start() {
            0 => String::new(),
            1 => ". The first one may have been sent before this output was begun".to_owned(),
            count => {
                format!(". The first {count} may have been sent before this output was begun")
            }
        };
        self.console.warn(format_args!(
            "{} of {} {} not come, though later ones have: {}{at_start}. If the sender was told \
             that all were sent, none was set aside, and no other receiver shares the queue, then \
             the server has lost them or keeps them back",
            Messages(gap.missing.count()),
            gap.sender,
            has(&gap.missing),
            positions(gap),
        ));
    }
}

fn has(positions: &Intervals) -> &'static str {
    match positions.count() {
        1 => "has",
        _ => "have",
    }
}

/// `positions 4, 7-8 of the stream 01a2...`
fn positions(gap: &StreamGaps) -> String {
    let mut ranges: Vec<String> = gap
        .missing
        .iter()
        .take(NAMED)
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    if gap.missing.iter().nth(NAMED).is_some() {
        ranges.push("...".to_owned());
    }
    let noun = match gap.missing.count() {
        1 => "position",
        _ => "positions",
    };
    format!("{noun} {} of the stream {}", ranges.join(", "), gap.stream)
}
