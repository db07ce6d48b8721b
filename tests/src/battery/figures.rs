//! The results of one attack, as a row of the table, and the bounds that they must respect.

use std::fmt;

use ciphermq_server::config::Limits;

use super::probe::Probed;
use super::victim::Measured;

/// The least part of its undisturbed rate that the victim keeps under attack.
const MIN_RATIO: f64 = 0.4;
/// The least part of that rate once the attack has ended. It is less than 1, because measurements
/// vary.
const MIN_RECOVERY: f64 = 0.75;
/// The limit on the 99th percentile of a publish's latency under attack, in milliseconds.
const MAX_PUBLISH: f64 = 250.0;
/// The memory that a server uses in addition to its budgets, in bytes.
const MEMORY_MARGIN: u64 = 100 * 1000 * 1000;
/// The bytes of logs that an attack may cause, in addition to twice what the victim causes.
const LOG_MARGIN: u64 = 2 << 20;
/// The bytes of logs that each message may cause which the server has accepted from an attacker:
/// its id is logged, and limited by the attacker's quotas as the message is.
const LOGGED_MESSAGE: u64 = 48;

/// The measurements of one phase.
#[derive(Debug, Clone, Default)]
pub struct Phase {
    /// The victim's measurements.
    pub victim: Measured,
    /// The observations of other honest clients.
    pub probe: Probed,
    /// The bytes by which the logs have grown.
    pub logs: u64,
    /// The bytes by which the database file has grown; 0 on PostgreSQL.
    pub data: u64,
}

impl Phase {
    fn errors(&self) -> impl Iterator<Item = &String> {
        self.victim.errors.iter().chain(&self.probe.errors)
    }
}

/// The results of one attack.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The attack, and the database.
    pub name: String,
    /// The phase before the attack.
    pub before: Phase,
    /// The phase during the attack.
    pub under_attack: Phase,
    /// The phase that begins 5 seconds after the attack.
    pub after: Phase,
    /// The server's peak memory, in bytes.
    pub memory: u64,
    /// The attackers that were not under way in time.
    pub late_attackers: Vec<String>,
    /// The number of messages that the server has accepted from the attackers.
    pub accepted: u64,
    /// The bytes of rejected messages in the database.
    pub rejected: u64,
    /// The most that the attackers' quotas allow.
    pub max_rejected: u64,
}

/// The sum of the memory budgets that a server with default settings has, in bytes.
pub fn budgets() -> u64 {
    let limits = Limits::default();
    let budgets = [
        limits.max_buffered_bytes,
        // For replies, and as much again for deliveries.
        2 * limits.max_unread_bytes,
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

    /// Returns the violations of what must hold on every machine.
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.late_attackers.clone();
        let phases = [
            ("before the attack", &self.before),
            ("under attack", &self.under_attack),
            ("after the attack", &self.after),
        ];
        for (when, phase) in phases {
            violations.extend(phase.errors().map(|error| format!("{when}: {error}")));
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
        let bound = 2 * self.before.logs + LOG_MARGIN + LOGGED_MESSAGE * self.accepted;
        let logs = self.under_attack.logs;
        (logs > bound).then(|| format!("{logs} bytes of logs, more than {bound}"))
    }

    /// Returns the violations of what must hold on a machine that does nothing else.
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
