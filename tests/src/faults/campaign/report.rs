//! The results of a campaign.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Campaign;
use crate::faults::checker::Violation;
use crate::faults::record::{Outcome, Record};
use crate::faults::sender::Sender;

/// Results of a campaign.
#[derive(Debug, Clone)]
pub struct Report {
    /// Seed of the campaign.
    pub seed: u64,
    /// Name of the database.
    pub database: &'static str,
    /// Number of faults of each kind.
    pub faults: BTreeMap<String, u32>,
    /// Number of messages sent.
    pub sent: usize,
    /// Numbers of messages that were acknowledged, refused, and neither as far as the sender knows.
    pub outcomes: [usize; 3],
    /// Number of messages in the outputs.
    pub received: usize,
    /// Number of deliveries over raw sockets that repeated an earlier one.
    pub redelivered: usize,
    /// Number of replies that asked a raw sender to retry: `storage_unavailable`, `storage_full`,
    /// `shutting_down`.
    pub deferred: u64,
    /// Number of connections through the proxy.
    pub connections: usize,
    /// Duration, including settling and checking.
    pub elapsed: Duration,
    /// All violations found.
    pub violations: Vec<Violation>,
}

impl Report {
    pub(super) fn new(campaign: &Campaign, records: &[Record]) -> Self {
        let sum = |count: &dyn Fn(&Record) -> usize| records.iter().map(count).sum();
        let outcome = |outcome| sum(&|record: &Record| record.count(outcome));
        Self {
            seed: campaign.settings.seed,
            database: if campaign.backend.is_postgres() {
                "PostgreSQL"
            } else {
                "SQLite"
            },
            faults: campaign.faults.clone(),
            sent: sum(&|record| record.sent.len()),
            outcomes: [Outcome::Acknowledged, Outcome::Refused, Outcome::Unknown].map(outcome),
            received: sum(&|record| record.output.len()),
            redelivered: sum(&Record::redeliveries),
            deferred: campaign.senders.iter().map(Sender::deferred).sum(),
            connections: campaign.proxy.accepted(),
            elapsed: campaign.started.elapsed(),
            violations: campaign.violations.clone(),
        }
    }

    /// Number of violations for which `is_kind` returns true.
    pub fn count(&self, is_kind: impl Fn(&Violation) -> bool) -> usize {
        self.violations
            .iter()
            .filter(|violation| is_kind(violation))
            .count()
    }

    /// Checks that there are no violations, and returns the report.
    ///
    /// # Panics
    ///
    /// If there are any. The message is the report.
    #[track_caller]
    pub fn expect_sound(self) -> Self {
        assert!(self.violations.is_empty(), "{self}");
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cycles: u32 = self.faults.values().sum();
        let [acknowledged, refused, unknown] = self.outcomes;
        let lost = self.count(|violation| matches!(violation, Violation::Lost(_)));
        let duplicated = self.count(|violation| matches!(violation, Violation::Duplicated(_)));
        let phantom = self.count(|violation| matches!(violation, Violation::Phantom(_)));
        let other = self.violations.len() - lost - duplicated - phantom;
        writeln!(
            f,
            "{}, seed {}: {cycles} faults in {:.0} s, {} connections; {} messages sent \
             ({acknowledged} acknowledged, \
             {refused} refused, {unknown} unknown), {} received, {} delivered again; {lost} lost, \
             {duplicated} duplicated, \
             {phantom} phantom, {other} other violations",
            self.database,
            self.seed,
            self.elapsed.as_secs_f64(),
            self.connections,
            self.sent,
            self.received,
            self.redelivered,
        )?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {count:>5} × {kind}")?;
        }
        for violation in self.violations.iter().take(50) {
            writeln!(f, "  {violation}")?;
        }
        if self.violations.len() > 50 {
            writeln!(f, "  ... and {} more", self.violations.len() - 50)?;
        }
        Ok(())
    }
}
