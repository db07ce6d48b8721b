//! The server, who speaks to it, and what it costs.

use std::path::Path;
use std::time::Duration;

use ciphermq_client::{Client, Keyring, keys};
use keygen::KeysArgs;
use tempfile::TempDir;

use super::plan::{PlanArgs, SpawnArgs};
use crate::commands::keygen::failure as keygen_failure;
use crate::connection::{ConnectionSettings, key_file_failure};
use crate::exit::Failure;
use crate::local::{self, Child, ENDING};

/// A server, and how to reach it.
pub(super) enum Target {
    /// One that runs. One client speaks in all roles.
    Running {
        settings: Box<ConnectionSettings>,
        pid: Option<u32>,
    },
    /// One of our own.
    Spawned(Box<Spawned>),
}

pub(super) struct Spawned {
    server: Child,
    address: String,
    /// Removed at the end.
    folder: TempDir,
    /// What the names of its clients have in common.
    run: String,
}

/// Who connects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Sender(u32),
    Receiver(u32),
    Absent,
}

impl Target {
    pub(super) fn running(settings: ConnectionSettings, pid: Option<u32>) -> Result<Self, Failure> {
        if let Some(pid) = pid {
            cost(pid).ok_or_else(|| {
                Failure::usage(
                    format!("There is no process {pid} on this machine whose times can be read."),
                    "Name the server's process id, or leave --server-pid out.",
                )
            })?;
        }
        Ok(Self::Running {
            settings: Box::new(settings),
            pid,
        })
    }

    /// Makes everything that a server and its clients need, and starts it.
    pub(super) async fn spawn(
        database: &str,
        args: &SpawnArgs,
        plan: &PlanArgs,
    ) -> Result<Self, Failure> {
        local::server_program()?;
        let folder = tempfile::Builder::new()
            .prefix("ciphermq-bench-")
            .tempdir()
            .map_err(|error| {
                Failure::new(
                    format!("No temporary folder can be made: {error}."),
                    "See that there is room, or name another place in TMPDIR.",
                )
            })?;
        let senders = (0..plan.senders.get()).map(Role::Sender);
        let receivers = (0..plan.receivers.get()).map(Role::Receiver);
        // Names of their own: the database may have been used before, with keys and certificates
        // that are gone.
        let run = format!("{:08x}", rand::random::<u32>());
        let clients: Vec<String> = senders
            .chain(receivers)
            .chain([Role::Absent])
            .map(|role| role.name(&run))
            .collect();
        local::certificates(folder.path(), &clients)?;
        keygen::keys::run(&KeysArgs {
            out: folder.path().join("certs"),
            force: false,
            post_quantum: args.post_quantum,
        })
        .map_err(keygen_failure)?;
        let logging = local::Logging {
            messages: !args.no_log_messages,
        };
        let (server, address) = local::start_server(folder.path(), database, logging).await?;
        Ok(Self::Spawned(Box::new(Spawned {
            server,
            address,
            folder,
            run,
        })))
    }

    pub(super) async fn connect(&self, role: Role) -> Result<Client, Failure> {
        match self {
            Self::Running { settings, .. } => settings.connect().await,
            Self::Spawned(spawned) => {
                let certs = spawned.folder.path().join("certs");
                let own = certs.join(role.name(&spawned.run));
                let builder = Client::builder(&spawned.address)
                    .ca_file(certs.join("ca.crt"))
                    .identity_files(own.join("client.crt"), own.join("client.key"));
                Ok(builder.connect().await?)
            }
        }
    }

    /// The receivers' private keys.
    pub(super) fn keyring(&self) -> Result<Keyring, Failure> {
        match self {
            Self::Running { settings, .. } => settings.keyring(),
            Self::Spawned(spawned) => {
                let path = spawned.folder.path().join("certs/receiver_private.key");
                keys::read_keyring(&path).map_err(key_file_failure)
            }
        }
    }

    /// What the server's process has cost up to now; `None` if that cannot be told.
    pub(super) fn cost(&self) -> Option<Cost> {
        let pid = match self {
            Self::Running { pid, .. } => *pid,
            Self::Spawned(spawned) => spawned.server.id(),
        };
        cost(pid?)
    }

    /// Ends the server, if it is ours.
    pub(super) async fn end(self) -> Result<(), Failure> {
        if let Self::Spawned(mut spawned) = self {
            spawned.server.terminate()?;
            spawned.server.ended_well(Some(ENDING)).await?;
        }
        Ok(())
    }
}

impl Role {
    fn name(self, run: &str) -> String {
        match self {
            Self::Sender(number) => format!("bench_{run}_sender_{}", number + 1),
            Self::Receiver(number) => format!("bench_{run}_receiver_{}", number + 1),
            Self::Absent => format!("bench_{run}_absent"),
        }
    }
}

/// What a process has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    /// Resident memory at its highest.
    pub(super) peak_memory: u64,
}

/// This process.
pub(super) fn own_cost() -> Option<Cost> {
    cost(std::process::id())
}

/// From what Linux tells of a process (proc(5)).
fn cost(pid: u32) -> Option<Cost> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    parse(&stat, &status, rustix::param::clock_ticks_per_second())
}

fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Cost> {
    // The program's name, in brackets, may hold anything. After it, `utime` is the 12th field and
    // `stime` the 13th.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Cost {
        cpu: Duration::from_millis(ticks * 1000 / ticks_per_second.max(1)),
        peak_memory: kibibytes * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_tells_of_a_process() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 5 0 0 0 150 75 0 0 20 0 4 0 100 1 1";
        let status = "Name:\ta) b\nVmPeak:\t  9999 kB\nVmHWM:\t    2048 kB\n";
        let expected = Cost {
            cpu: Duration::from_millis(2250),
            peak_memory: 2 << 20,
        };
        assert_eq!(parse(stat, status, 100), Some(expected));
        assert_eq!(parse("42 (a) S", status, 100), None);
        assert_eq!(parse(stat, "Name:\ta\n", 100), None);
    }

    #[test]
    fn this_process_costs_something() {
        assert!(own_cost().unwrap().peak_memory > 1 << 20);
        assert_eq!(cost(u32::MAX), None);
    }
}
