//! The results of one attack, as a row of the table, and what must hold.

use std::fmt;

use ciphermq_server::config::Limits;

use super::probe::Probed;
use super::victim::Measured;

/// The part of its undisturbed rate that the victim keeps.
const MIN_RATIO: f64 = 0.4;
/// The same, once the attack has ended. Less than 1, because measurements differ.
const MIN_RECOVERY: f64 = 0.75;
/// The limit on a publish's latency under attack, for 99 of 100, in milliseconds.
const MAX_PUBLISH: f64 = 250.0;
/// The memory that a server uses in addition to its budgets, in bytes.
const MEMORY_MARGIN: u64 = 100 * 1000 * 1000;
/// The bytes of logs that an attack may cause, in addition to twice what the victim causes.
const LOG_MARGIN: u64 = 2 << 20;

/// What was measured in one part of the course.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// What the victim measured.
    pub victim: Measured,
    /// What other honest clients noticed.
    pub probe: Probed,
    /// The bytes by which logs and data have grown.
    pub logs: u64,
    /// The bytes by which the server's own database file has grown; 0 on PostgreSQL.
    pub data: u64,
}

impl Part {
    fn errors(&self) -> impl Iterator<Item = &String> {
        self.victim.errors.iter().chain(&self.probe.errors)
    }
}

/// The results of one attack.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The attack, and the database.
    pub name: String,
    /// Before the attack.
    pub before: Part,
    /// During the attack.
    pub under_attack: Part,
    /// From 5 seconds after the attack on.
    pub after: Part,
    /// The server's peak memory, in bytes.
    pub memory: u64,
    /// The bytes of rejected messages in the database.
    pub rejected: u64,
    /// The most that the attackers' quotas allow.
    pub max_rejected: u64,
    /// What is wrong with the course itself.
    pub course: Vec<String>,
}

/// The sum of the memory budgets that a server with default settings has, in bytes.
pub fn budgets() -> u64 {
    let limits = Limits::default();
    let budgets = [
        limits.max_buffered_bytes,
        limits.max_pending_bytes,
        limits.max_ready_bytes,
    ];
    budgets.iter().map(|bytes| *bytes as u64).sum()
}

impl Figures {
    /// The header of the table.
    pub fn header() -> String {
        format!(
            "{:<34} {:>10} {:>10} {:>5} {:>8} {:>8} {:>6} {:>8} {:>14} {:>7} {:>7} {:>8}",
            "attack",
            "before/s",
            "attack/s",
            "ratio",
            "p50 ms",
            "p99 ms",
            "errors",
            "slowest",
            "memory/bound",
            "logs",
            "data",
            "recovery"
        )
    }

    fn ratio(&self) -> f64 {
        self.under_attack.victim.rate / self.before.victim.rate
    }

    fn recovery(&self) -> f64 {
        self.after.victim.rate / self.before.victim.rate
    }

    /// Returns what does not hold although it must on every machine.
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.course.clone();
        let parts = [
            ("before the attack", &self.before),
            ("under attack", &self.under_attack),
            ("after the attack", &self.after),
        ];
        for (when, part) in parts {
            violations.extend(part.errors().map(|error| format!("{when}: {error}")));
        }
        let bound = budgets() + MEMORY_MARGIN;
        if self.memory > bound {
            violations.push(format!(
                "{} bytes of memory, more than {bound}",
                self.memory
            ));
        }
        if self.rejected > self.max_rejected {
            violations.push(format!(
                "{} bytes of rejected messages, more than {}",
                self.rejected, self.max_rejected
            ));
        }
        violations
    }

    /// Returns the growth of the logs if it is more than an attack may cause.
    pub fn log_growth(&self) -> Option<String> {
        let bound = 2 * self.before.logs + LOG_MARGIN;
        let logs = self.under_attack.logs;
        (logs > bound).then(|| format!("{logs} bytes of logs, more than {bound}"))
    }

    /// Returns what does not hold although it must, on a machine that does nothing else.
    pub fn slowness(&self) -> Vec<String> {
        let mut slowness = Vec::new();
        let is_less = |value: f64, least: f64| value.is_nan() || value < least;
        if is_less(self.ratio(), MIN_RATIO) {
            slowness.push(format!("{:.3} of the undisturbed rate", self.ratio()));
        }
        if is_less(self.recovery(), MIN_RECOVERY) {
            slowness.push(format!("{:.3} of it after the attack", self.recovery()));
        }
        let publish = self.under_attack.victim.publish[1];
        if is_less(MAX_PUBLISH, publish) {
            slowness.push(format!("{publish:.0} ms for a publish"));
        }
        slowness
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = self.under_attack.victim.publish;
        let errors = self.under_attack.errors().count();
        let slowest = self.under_attack.probe.slowest;
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let memory = format!(
            "{}/{}",
            megabytes(self.memory),
            megabytes(budgets() + MEMORY_MARGIN)
        );
        write!(
            f,
            "{:<34} {:>10.0} {:>10.0} {:>5.2} {p50:>8.1} {p99:>8.1} {errors:>6} {slowest:>8.0} \
             {memory:>14} {:>7} {:>7} {:>8.2}",
            self.name,
            self.before.victim.rate,
            self.under_attack.victim.rate,
            self.ratio(),
            megabytes(self.under_attack.logs),
            megabytes(self.under_attack.data),
            self.recovery(),
        )?;
        let logs = self.log_growth();
        let violations = self.violations();
        for violation in violations.iter().chain(&logs).chain(&self.slowness()) {
            write!(f, "\n    ✗ {violation}")?;
        }
        Ok(())
    }
}
