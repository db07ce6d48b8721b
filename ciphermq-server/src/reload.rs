//! What the server reads again while it runs: its certificates and authorities, and the rules and
//! the administrators of its configuration.
//!
//! Everything that can be reloaded is replaced here, as a whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broker::Broker;
use crate::config::{self, Config};
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
        "{} is empty\nWrite the whole file, best beside the old one, and rename it; then send \
         SIGHUP again.", path.display()
    )]
    Empty {
        /// The path.
        path: PathBuf,
    },
}

/// Replaces what can be reloaded.
pub struct Reloader {
    /// The configuration that the server was started with.
    started_with: Config,
    broker: Arc<Broker>,
    tls: Arc<CurrentTls>,
}

impl Reloader {
    /// Creates a reloader for a server that was started with this configuration.
    #[must_use]
    pub fn new(started_with: Config, broker: Arc<Broker>, tls: Arc<CurrentTls>) -> Self {
        Self {
            started_with,
            broker,
            tls,
        }
    }

    /// Reads the configuration and the certificates again, puts them in force, and logs the result.
    /// If one of them cannot be used, everything stays as it is.
    pub fn reload(&self) {
        let (config, credentials) = match read(&self.started_with.path) {
            Ok(read) => read,
            Err(error) => return log(&error),
        };
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let changed = self.started_with.changed_settings(&config);
        if !changed.is_empty() {
            let settings = changed.join(", ");
            tracing::warn!(
                settings,
                "These settings have changed, and are in force only after a \
                restart: {settings}"
            );
        }
        self.tls.replace(credentials);
        let policy = config.authorization;
        let (rules, administrators) = (policy.rules.len(), policy.administrators.len());
        if *self.broker.authorization().get().0 == policy {
            tracing::info!(
                rules,
                administrators,
                "The configuration is read again, with its certificates; \
                rules and administrators are the same"
            );
        } else {
            self.broker.replace_rules(policy);
            tracing::info!(
                rules,
                administrators,
                "The configuration is read again, with its certificates; \
                its rules and administrators are in force"
            );
        }
    }
}

/// The length of a file that may say nothing, in bytes.
const SMALL: u64 = 1 << 20;

/// Whether a file has nothing but white space and comments.
fn says_nothing(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim_start);
        lines.all(|line| line.is_empty() || line.starts_with('#'))
    })
}

/// Reads the configuration and its certificates as a start does.
fn read(path: &Path) -> Result<(Config, Credentials), Error> {
    let config = read_config(path)?;
    let credentials = tls::load(&config.tls)?;
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

fn log(error: &Error) {
    let text = error.to_string();
    let (error, advice) = text.split_once('\n').unwrap_or((&text, ""));
    tracing::error!(
        error,
        advice,
        "The configuration cannot be read again, and everything stays \
        as it is: {error}"
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
