//! The server of a benchmark, and its clients.

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
    pub(super) fn running(settings: ConnectionSettings, pid: Option<u32>) -> Self {
        Self::Running {
            settings: Box::new(settings),
            pid,
        }
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

    /// The server's process, if it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Running { pid, .. } => *pid,
            Self::Spawned(spawned) => spawned.server.id(),
        }
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
