//! What became of a batch's messages.

use std::sync::Arc;

use crate::model::Time;

/// What became of a message that has been delivered. Times as the databases keep them, which sort
/// as texts.
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

/// Messages of a batch that follow one another and had the same fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct DispositionRange {
    /// The first one's index in the batch.
    pub(in crate::store) from: i64,
    pub(in crate::store) messages: i64,
    pub(in crate::store) disposition: Disposition,
}

impl DispositionRange {
    /// Whether the message at this index is one of them.
    pub(in crate::store) fn holds(&self, index: i64) -> bool {
        (self.from..self.from.saturating_add(self.messages)).contains(&index)
    }
}

/// Runs as the databases read them out: a JSON list of (from, messages, delivered, acknowledged,
/// rejected).
pub(in crate::store) fn runs(json: &str) -> Result<Vec<DispositionRange>, serde_json::Error> {
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

/// The later of two times.
pub(super) fn later(a: &Arc<str>, b: &Arc<str>) -> Arc<str> {
    Arc::clone(if b > a { b } else { a })
}

/// Times as texts. Those of one command are the same, so the last one is kept.
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
