//! The dispositions of a batch's messages: delivered, acknowledged, rejected.

use std::sync::Arc;

use crate::model::Time;

/// The disposition of a message that has been delivered. Times are texts as in the databases; they
/// sort as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Disposition {
    pub(in crate::store) delivered: Arc<str>,
    pub(in crate::store) acknowledged: Option<Arc<str>>,
    pub(in crate::store) rejected: Option<Arc<str>>,
}

impl Disposition {
    /// Whether the message no longer waits.
    pub(in crate::store) fn is_settled(&self) -> bool {
        self.acknowledged.is_some() || self.rejected.is_some()
    }
}

/// Consecutive messages of a batch with the same disposition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct DispositionRange {
    /// The first message's index in the batch.
    pub(in crate::store) from: i64,
    pub(in crate::store) messages: i64,
    pub(in crate::store) disposition: Disposition,
}

impl DispositionRange {
    pub(in crate::store) fn contains(&self, index: i64) -> bool {
        (self.from..self.from.saturating_add(self.messages)).contains(&index)
    }
}

/// Parses the JSON list that the databases return: (from, messages, delivered, acknowledged,
/// rejected) each.
pub(in crate::store) fn disposition_ranges(
    json: &str,
) -> Result<Vec<DispositionRange>, serde_json::Error> {
    type Row = (i64, i64, Arc<str>, Option<Arc<str>>, Option<Arc<str>>);
    let rows: Vec<Row> = serde_json::from_str(json)?;
    let mut runs: Vec<DispositionRange> = rows
        .into_iter()
        .map(
            |(from, messages, delivered, acknowledged, rejected)| DispositionRange {
                from,
                messages,
                disposition: Disposition {
                    delivered,
                    acknowledged,
                    rejected,
                },
            },
        )
        .collect();
    runs.sort_unstable_by_key(|run| run.from);
    Ok(runs)
}

/// Returns the later of two times.
pub(super) fn later(a: &Arc<str>, b: &Arc<str>) -> Arc<str> {
    Arc::clone(if b > a { b } else { a })
}

/// A formatter of times that caches its last text: all times of one command are the same.
#[derive(Default)]
pub(in crate::store) struct TimeText {
    last: Option<(Time, Arc<str>)>,
}

impl TimeText {
    pub(in crate::store) fn text(&mut self, time: Time) -> Arc<str> {
        match &self.last {
            Some((last, text)) if *last == time => Arc::clone(text),
            _ => {
                let text: Arc<str> = time.to_string().into();
                self.last = Some((time, Arc::clone(&text)));
                text
            }
        }
    }
}
