//! The sequence of faults, determined by a seed.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::proxy::{Direction, NetworkConditions};

/// Process or participant that a fault affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Victim {
    /// `ciphermq-server`.
    Server,
    /// All processes of PostgreSQL.
    Postgres,
    /// The senders over raw sockets.
    Sender,
    /// The receiver over raw sockets.
    Receiver,
    /// `ciphermq-cli send`.
    CliSender,
    /// `ciphermq-cli receive`.
    CliReceiver,
}

/// A fault, with its duration where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a restart after this time.
    Kill(Victim, Duration),
    /// SIGKILL to two victims at the same time.
    KillBoth(Victim, Victim, Duration),
    /// SIGTERM to the server, which must end cleanly.
    Terminate(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Victim, Duration),
    /// PostgreSQL's fast shutdown.
    StopPostgres(Duration),
    /// The server's tables are locked in PostgreSQL.
    LockTables(Duration),
    /// All connections are closed.
    Cut {
        /// Whether they are reset, rather than closed properly.
        reset: bool,
    },
    /// One direction of all connections is closed.
    HalfClose(Direction),
    /// The network is slow and splits data, or carries none.
    NetworkConditions(NetworkConditions, Duration),
}

impl Fault {
    /// Description of the kind of fault, used for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Kill(victim, _) => format!("kill {victim}"),
            Self::KillBoth(one, other, _) => format!("kill {one} and {other}"),
            Self::Terminate(_) => "terminate server".to_owned(),
            Self::Freeze(victim, _) => format!("stop and continue {victim}"),
            Self::StopPostgres(_) => "stop postgres".to_owned(),
            Self::LockTables(_) => "lock tables".to_owned(),
            Self::Cut { reset: true } => "reset connections".to_owned(),
            Self::Cut { reset: false } => "close connections".to_owned(),
            Self::HalfClose(Direction::ToServer) => "half-close to the server".to_owned(),
            Self::HalfClose(Direction::ToClient) => "half-close to the clients".to_owned(),
            Self::NetworkConditions(conditions, _) if conditions.frozen => {
                "network gone".to_owned()
            }
            Self::NetworkConditions(..) => "network slow and splitting".to_owned(),
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Postgres => "postgres",
            Self::Sender => "raw sender",
            Self::Receiver => "raw receiver",
            Self::CliSender => "cli sender",
            Self::CliReceiver => "cli receiver",
        })
    }
}

/// An infinite sequence of faults, and the pauses between them.
#[derive(Debug)]
pub struct Plan {
    random: StdRng,
    is_postgres: bool,
    kills_cli_sender: bool,
}

impl Plan {
    /// Creates the plan of this seed.
    pub fn new(seed: u64, is_postgres: bool, kills_cli_sender: bool) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            is_postgres,
            kills_cli_sender,
        }
    }

    /// Returns a seed for a participant's own choices.
    pub fn seed(&mut self) -> u64 {
        self.random.random()
    }

    /// Returns true with a probability of 1 in `n`.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    /// Returns the time until the next fault.
    pub fn pause(&mut self) -> Duration {
        self.millis(20, 500)
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        // Most are short, so that a fault happens before the effects of the last one have ended.
        let (a, b) = (
            self.random.random_range(least..=most),
            self.random.random_range(least..=most),
        );
        Duration::from_millis(a.min(b))
    }

    fn client(&mut self) -> Victim {
        let mut clients = vec![Victim::Sender, Victim::Receiver, Victim::CliReceiver];
        if self.kills_cli_sender {
            clients.push(Victim::CliSender);
        }
        let at = self.random.random_range(0..clients.len());
        clients.get(at).copied().unwrap_or(Victim::Sender)
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let store = if self.is_postgres { 8 } else { 0 };
        Some(match self.random.random_range(0..26 + store) {
            0..6 => Fault::Kill(Victim::Server, self.millis(0, 400)),
            6..10 => Fault::Kill(self.client(), self.millis(0, 200)),
            10..12 => Fault::KillBoth(Victim::Server, self.client(), self.millis(0, 200)),
            12 => Fault::KillBoth(Victim::Receiver, Victim::CliReceiver, self.millis(0, 200)),
            13 => Fault::Terminate(self.millis(0, 200)),
            14..16 => Fault::Freeze(Victim::Server, self.millis(50, 2500)),
            16 => Fault::Freeze(Victim::CliReceiver, self.millis(50, 2500)),
            17 => Fault::Freeze(Victim::CliSender, self.millis(50, 2500)),
            18..20 => Fault::Cut { reset: true },
            20 => Fault::Cut { reset: false },
            21 => Fault::HalfClose(Direction::ToServer),
            22 => Fault::HalfClose(Direction::ToClient),
            23 => Fault::NetworkConditions(
                NetworkConditions {
                    frozen: true,
                    ..NetworkConditions::default()
                },
                self.millis(100, 2500),
            ),
            24 | 25 => {
                let delay = self.millis(0, 15);
                let piece = self.random.random_range(1..400);
                Fault::NetworkConditions(
                    NetworkConditions {
                        delay,
                        piece,
                        frozen: false,
                    },
                    self.millis(100, 800),
                )
            }
            26..29 => Fault::Kill(Victim::Postgres, self.millis(0, 800)),
            29 => Fault::KillBoth(Victim::Server, Victim::Postgres, self.millis(0, 400)),
            30 => Fault::Freeze(Victim::Postgres, self.millis(50, 2500)),
            31 | 32 => Fault::StopPostgres(self.millis(0, 1500)),
            _ => Fault::LockTables(self.millis(100, 2500)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_makes_one_plan() {
        let plan = |seed| Plan::new(seed, true, true).take(100).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_of_fault_occurs() {
        let kinds = |is_postgres| -> BTreeSet<String> {
            Plan::new(1, is_postgres, true)
                .take(2000)
                .map(|fault| fault.kind())
                .collect()
        };
        let (sqlite, postgres) = (kinds(false), kinds(true));
        assert_eq!(sqlite.len(), 20, "{sqlite:#?}");
        assert_eq!(postgres.len(), 25, "{postgres:#?}");
        assert!(
            sqlite
                .iter()
                .all(|kind| !kind.contains("postgres") && !kind.contains("tables"))
        );
    }
}
