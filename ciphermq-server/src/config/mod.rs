//! The server's configuration: `config.toml`, with environment variables laid over it.
//!
//! A configuration is read in two steps. The low-level form (`file`) is what stands in the file and
//! the environment, field by field, each with the place it came from. The high-level form
//! ([`Config`]) is what the server works with: defaults filled in, units converted, ranges and
//! relations checked. Only the second leaves this module, so that no other part of the server meets
//! a configuration that makes no sense.
//!
//! Modules, in reading order:
//!
//! - `file`: the low-level form, and the environment variables;
//! - `section`: a list of fields as a TOML reader and a table of variables;
//! - `validate`: from the low-level form to the high-level one;
//! - `limits`: the table of limits, which also makes their documentation;
//! - `database`, `encryption`: the sections with checks of their own;
//! - `level`: one level, or the filter of an older file;
//! - `older`: sections of older files that have no meaning yet;
//! - `service_link`: variables that Kubernetes sets for its services;
//! - `quantity`, `units`: numbers, sizes and durations as people write them;
//! - `secret`: text that is never printed;
//! - `error`: what is wrong, where, and how to correct it.
//!
//! Relative paths are relative to the working directory of the server, not to the configuration
//! file: so it has always been, and so a configuration file can be moved without moving everything
//! that it names.
//!
//! Loading reads the configuration file and nothing else: no other file is opened or made.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

mod database;
mod encryption;
mod error;
mod file;
mod level;
mod limits;
mod older;
mod quantity;
mod secret;
mod section;
mod service_link;
mod units;
mod validate;

#[cfg(test)]
mod tests;

pub use database::{Database, Postgres, SslMode, Target};
pub use encryption::{Algorithm, Encryption, KeySource, OlderRows};
pub use error::{Error, Origin};
pub use limits::Limits;
pub use secret::Secret;

/// The longest configuration file that is read. A longer one is a mistake, such as a device that
/// never ends.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The server's configuration, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server listens.
    pub server: Server,
    /// The server's certificate, its key, and the authority that names the clients.
    pub tls: Tls,
    /// Levels, files and rotation of the logs.
    pub logging: Logging,
    /// Where messages, bindings, metadata and public keys are kept.
    pub database: Database,
    /// How public keys are sealed in the database.
    pub encryption: Encryption,
    /// Bounds on time, memory and disk.
    pub limits: Limits,
    /// What a person should know of it, though the server starts: log these lines.
    pub warnings: Vec<String>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets. Port
    /// 0 lets the operating system choose a free one.
    pub address: String,
}

/// `[tls]`
///
/// `[server] connection_type` has no place here: `tls` is the only one there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate chain, PEM.
    pub cert_path: PathBuf,
    /// The private key of that certificate, PEM.
    pub key_path: PathBuf,
    /// The certificate authority that client certificates are verified against, PEM.
    pub ca_cert_path: PathBuf,
}

/// `[logging]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// The most talkative level that is written anywhere.
    pub level: tracing::Level,
    /// Whether there is a line of level INFO for every message that is accepted or acknowledged.
    pub messages: bool,
    /// Holds the lines of level INFO.
    pub info_file_path: PathBuf,
    /// Holds the lines of level DEBUG and TRACE.
    pub debug_file_path: PathBuf,
    /// Holds the lines of level ERROR and WARN.
    pub error_file_path: PathBuf,
    /// When a new file is begun for the time's sake.
    pub rotation: Rotation,
    /// When a new file is begun for the size's sake, in bytes. `None`: never.
    pub max_size_bytes: Option<u64>,
}

/// How often a new log file is begun. Hours and days are those of UTC, as the lines' timestamps
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// At every full hour.
    Hourly,
    /// At midnight.
    Daily,
    /// Only when the file is full.
    Never,
}

impl Config {
    /// Reads the file at `path`, lays the variables of `env` over it, and checks the whole.
    ///
    /// Pass [`environment`] for `env`; tests pass their own. Variables whose names do not begin
    /// with `CIPHERMQ_` and one of the six sections are left alone.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no TOML, or when a setting of the file or of the
    /// environment is unknown or unusable. The error's text names the setting, says what is wrong
    /// with it and how to correct it, and holds no secret.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let text = read(path)?;
        Self::parse(&text, path, env)
    }

    /// As [`Config::load`], with the file's text at hand; `path` only stands in errors.
    ///
    /// # Errors
    ///
    /// As [`Config::load`], but for those of reading.
    pub fn parse(
        text: &str,
        path: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut file = file::File::parse(text, path)?;
        file.overlay(env)?;
        validate::config(file, &validate::Check::new(path, text))
    }
}

/// The variables of this process that [`Config::load`] looks at.
///
/// Unlike [`std::env::vars`] this does not panic when some variable is not UTF-8. If it is one of
/// ours, its broken characters are replaced by U+FFFD, which `load` refuses by the variable's name.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with(file::PREFIX)
            .then(|| (name, value.to_string_lossy().into_owned()))
    })
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::TooLong {
            path: path.to_owned(),
            max_bytes: MAX_FILE_BYTES,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|&&byte| byte == b'\n')
            .count();
        Error::NotText {
            path: path.to_owned(),
            line,
        }
    })
}
