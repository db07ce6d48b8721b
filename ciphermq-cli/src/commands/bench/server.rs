//! The server of a benchmark, its clients, and the resource usage of processes.

use std::path::Path;
use std::time::Duration;

use ciphermq_client::{Client, Keyring, keys};
use keygen::KeysArgs;
use tempfile::TempDir;

use super::plan::{PlanArgs, SpawnArgs};
use crate::commands::keygen::failure as keygen_failure;
use crate::connection::ConnectionSettings;
use crate::exit::{Failure, key_file_failure};
use crate::local::{self, Child, END_TIMEOUT};

/// The server that is measured.
pub(super) enum BenchServer {
    /// A running server, with one client in all roles.
    Running {
        settings: Box<ConnectionSettings>,
        pid: Option<u32>,
    },
    /// A temporary server.
    Spawned(Box<Spawned>),
}

/// A temporary server, with a client for each role.
pub(super) struct Spawned {
    server: Child,
    address: String,
    folder: TempDir,
    /// The part that the names of all its clients share.
    run: String,
}

/// The role of a client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Sender(u32),
    Receiver(u32),
    Absent,
}

impl BenchServer {
    pub(super) fn running(settings: ConnectionSettings, pid: Option<u32>) -> Result<Self, Failure> {
        if let Some(pid) = pid {
            usage(pid).ok_or_else(|| {
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

    /// Creates certificates, keys and configuration for a server and its clients, and starts it.
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
                    format!("A temporary folder cannot be created: {error}."),
                    "Check that there is room, or name another folder in TMPDIR.",
                )
            })?;
        let senders = (0..plan.senders.get()).map(Role::Sender);
        let receivers = (0..plan.receivers.get()).map(Role::Receiver);
        // Names that are unique to this run: the database may have been used before, with keys and
        // certificates that no longer exist.
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

    /// The resources that the server's process has used so far; `None` if they are unknown.
    pub(super) fn usage(&self) -> Option<ResourceUsage> {
        let pid = match self {
            Self::Running { pid, .. } => *pid,
            Self::Spawned(spawned) => spawned.server.id(),
        };
        usage(pid?)
    }

    /// Ends a temporary server.
    pub(super) async fn end(self) -> Result<(), Failure> {
        if let Self::Spawned(mut spawned) = self {
            spawned.server.terminate()?;
            spawned.server.wait_success(Some(END_TIMEOUT)).await?;
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

/// The resources that a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ResourceUsage {
    pub(super) cpu: Duration,
    /// Peak resident memory in bytes.
    pub(super) peak_memory: u64,
}

/// The resources that this process has used so far.
pub(super) fn own_usage() -> Option<ResourceUsage> {
    usage(std::process::id())
}

/// Reads the resource usage of a process from Linux (proc(5)).
fn usage(pid: u32) -> Option<ResourceUsage> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    parse(&stat, &status, rustix::param::clock_ticks_per_second())
}

fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<ResourceUsage> {
    // The program's name, in parentheses, may contain any characters. After it, `utime` is the 12th
    // field and `stime` the 13th.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(ResourceUsage {
        cpu: Duration::from_millis(ticks * 1000 / ticks_per_second.max(1)),
        peak_memory: kibibytes * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_parsed_from_proc() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 5 0 0 0 150 75 0 0 20 0 4 0 100 1 1";
        let status = "Name:\ta) b\nVmPeak:\t  9999 kB\nVmHWM:\t    2048 kB\n";
        let expected = ResourceUsage {
            cpu: Duration::from_millis(2250),
            peak_memory: 2 << 20,
        };
        assert_eq!(parse(stat, status, 100), Some(expected));
        assert_eq!(parse("42 (a) S", status, 100), None);
        assert_eq!(parse(stat, "Name:\ta\n", 100), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(own_usage().unwrap().peak_memory > 1 << 20);
        assert_eq!(usage(u32::MAX), None);
    }
}
