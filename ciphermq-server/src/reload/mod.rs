//! What the server reads again while it runs: its certificates, authorities and revocation lists,
//! and of its configuration the rules and administrators, the limits of clients, and the log level.
//!
//! Everything that can be reloaded is replaced here, as a whole or not at all.
//!
//! - `requests`: who asks for it, one after the other
//! - `watch`: the files of certificates that are read again by themselves

mod requests;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ciphermq_certificates::ClientIdFrom;
use ciphermq_logging::Handle;
use ciphermq_protocol::administration::Reloaded;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::MissedTickBehavior;

pub use self::requests::{Outcome, Reloads, Requests, channel};
use self::watch::{Snapshot, Watch};
use crate::broker::Broker;
use crate::config::{self, Config, Tls};
use crate::file_roles::{self, SharedFile};
use crate::tls;
use crate::tls::current::{Credentials, CurrentTls};

/// The reason why the configuration was not read again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A file has two roles.
    #[error(transparent)]
    SharedFile(#[from] SharedFile),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The configuration came from a pipe, which can be read only once.
    #[error(
        "{} is not a file, and can be read only once\nStart the server with a file to be able to \
         reload it, or restart the server.", path.display()
    )]
    NotFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is empty. All settings would have their defaults, and there would be no rules.
    #[error(
        "{} is empty\nWrite the whole file, best beside the old one, and rename it; then reload it \
         again.", path.display()
    )]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// Reading the files was interrupted by a defect.
    #[error("the files could not be read: {0}\nPlease report it.")]
    Interrupted(#[from] JoinError),
}

/// Replaces what can be reloaded.
pub struct Reloader {
    /// The configuration that the server was started with.
    started_with: Config,
    /// The one that was read last. What needs a restart is not in force.
    last: Config,
    broker: Arc<Broker>,
    tls: Arc<CurrentTls>,
    logs: Handle,
    watch: Watch,
    /// Why changed certificates could not be read, as it was logged last.
    unreadable: Option<String>,
}

impl Reloader {
    /// Creates a reloader for a server that was started with this configuration.
    #[must_use]
    pub fn new(
        started_with: Config,
        broker: Arc<Broker>,
        tls: Arc<CurrentTls>,
        logs: Handle,
    ) -> Self {
        Self {
            last: started_with.clone(),
            started_with,
            broker,
            tls,
            logs,
            watch: Watch::default(),
            unreadable: None,
        }
    }

    /// Carries out requests, and watches the files of certificates if that is configured, forever:
    /// spawn it as a task.
    pub async fn run(mut self, Requests(mut requests): Requests) {
        let mut looks = tokio::time::interval(watch::INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(asks) = request else { return };
                    let outcome = self.reload().await;
                    if let Some(asks) = asks {
                        // A client that has gone does not want to know any more.
                        let _ = asks.send(outcome);
                    }
                }
                _ = looks.tick(), if self.last.tls.watch => self.look().await,
            }
        }
    }

    /// Reads the configuration and the certificates again, puts them in force, and logs the result.
    ///
    /// # Errors
    ///
    /// [`Error`] if one of them cannot be used. Everything stays as it is then.
    pub async fn reload(&mut self) -> Outcome {
        let path = self.started_with.path.clone();
        let client_id_from = self.started_with.tls.client_id_from;
        let read = spawn_blocking(move || read(&path, client_id_from)).await;
        match read.map_err(Error::from).and_then(|read| read) {
            Ok((config, credentials)) => Ok(self.put_in_force(config, credentials)),
            Err(error) => {
                log(&error, "The configuration cannot be read again");
                Err(error)
            }
        }
    }

    fn put_in_force(&mut self, config: Config, credentials: Credentials) -> Reloaded {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let restart = self.started_with.changed_settings(&config);
        if !restart.is_empty() {
            let settings = restart.join(", ");
            tracing::warn!(
                settings,
                "These settings have changed, and are in force only after a \
                restart: {settings}"
            );
        }
        let changes = self.tls.replace(credentials);
        let mut changed: Vec<String> = changes.names().map(str::to_owned).collect();
        let policy = config.authorization.clone();
        let (rules, administrators) = (policy.rules.len(), policy.administrators.len());
        let has_other_rules = *self.broker.authorization().get().0 != policy;
        if has_other_rules {
            self.broker.replace_rules(policy);
            changed.push("rules".to_owned());
        }
        if config.quotas != self.last.quotas {
            self.broker.replace_quotas(config.quotas.clone());
            changed.push("quotas".to_owned());
        }
        if config.logging.level != self.last.logging.level {
            self.logs.set_level(config.logging.level);
            changed.push("log_level".to_owned());
        }
        let names = match changed.is_empty() {
            true => "nothing".to_owned(),
            false => changed.join(", "),
        };
        let text = match has_other_rules {
            true => "its rules and administrators are in force",
            false => "rules and administrators are the same",
        };
        tracing::info!(
            rules,
            administrators,
            changed = names,
            "The configuration is read again, with its certificates; {text}. Changed: {names}"
        );
        self.last = config;
        Reloaded { changed, restart }
    }

    /// Looks whether the files of certificates have changed, and reads them again if they have.
    async fn look(&mut self) {
        let settings = self.last.tls.clone();
        let snapshot = spawn_blocking(move || Snapshot::take(&settings)).await;
        let Ok(snapshot) = snapshot else { return };
        if !self.watch.look(snapshot.clone()) {
            return;
        }
        let settings = Tls {
            client_id_from: self.started_with.tls.client_id_from,
            ..self.last.tls.clone()
        };
        let read = spawn_blocking(move || {
            let read = tls::load(&settings);
            (read, snapshot == Snapshot::take(&settings))
        });
        let (read, is_whole) = match read.await {
            Ok(read) => read,
            Err(error) => return log(&error.into(), UNREADABLE),
        };
        if !is_whole {
            // Somebody is writing them.
            return self.watch.try_again();
        }
        let credentials = match read {
            Ok(credentials) => credentials,
            Err(error) => {
                // The file system may be at fault, which shows in no change of the files.
                if matches!(error, tls::Error::File { .. }) {
                    self.watch.try_again();
                }
                let error = Error::from(error);
                if self.unreadable.replace(error.to_string()) != Some(error.to_string()) {
                    log(&error, UNREADABLE);
                }
                return;
            }
        };
        self.unreadable = None;
        let changed: Vec<&str> = self.tls.replace(credentials).names().collect();
        if !changed.is_empty() {
            let changed = changed.join(", ");
            tracing::info!(
                changed,
                "Files of certificates have changed, and are in force: {changed}"
            );
        }
    }
}

/// What is logged of certificates that have changed and cannot be used.
const UNREADABLE: &str = "Certificates that have changed cannot be read";

/// The length of a file that may say nothing, in bytes.
const SMALL: u64 = 1 << 20;

/// Whether a file has nothing but white space and comments.
fn says_nothing(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim_start);
        lines.all(|line| line.is_empty() || line.starts_with('#'))
    })
}

/// Reads the configuration and its certificates as a start does; clients keep being named by the
/// same fields of their certificates.
fn read(path: &Path, client_id_from: ClientIdFrom) -> Result<(Config, Credentials), Error> {
    let config = read_config(path)?;
    let settings = Tls {
        client_id_from,
        ..config.tls.clone()
    };
    let credentials = tls::load(&settings)?;
    Ok((config, credentials))
}

fn read_config(path: &Path) -> Result<Config, Error> {
    let metadata = path.metadata();
    if metadata.as_ref().is_ok_and(|file| !file.is_file()) {
        let path = path.to_owned();
        return Err(Error::NotFile { path });
    }
    if metadata.is_ok_and(|file| file.len() < SMALL) && says_nothing(path) {
        let path = path.to_owned();
        return Err(Error::Empty { path });
    }
    let config = Config::load(path, config::environment())?;
    file_roles::refuse_shared(&config, path)?;
    Ok(config)
}

fn log(error: &Error, what: &str) {
    let text = error.to_string();
    let (error, advice) = text.split_once('\n').unwrap_or((&text, ""));
    tracing::error!(
        error,
        advice,
        "{what}, and everything stays as it is: {error}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_remove_all_rules_by_accident_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert!(
            matches!(read_config(&path), Err(Error::Config(_))),
            "it is missing"
        );
        std::fs::write(&path, "").unwrap();
        assert!(matches!(read_config(&path), Err(Error::Empty { .. })));
        assert!(matches!(
            read_config(folder.path()),
            Err(Error::NotFile { .. })
        ));
        std::fs::write(&path, "[authorization]\ndefault = \"deny\"\n").unwrap();
        assert!(read_config(&path).is_ok());
        let logs_to_itself = format!("[logging]\ninfo_file_path = {path:?}\n");
        std::fs::write(&path, logs_to_itself).unwrap();
        assert!(matches!(read_config(&path), Err(Error::SharedFile(_))));
    }
}
