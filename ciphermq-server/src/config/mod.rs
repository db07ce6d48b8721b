//! The server's configuration: `config.toml`, overridden by environment variables.
//!
//! A configuration is loaded in two steps. The raw form (`file`) has the values of the file and the
//! environment as written, field by field, each with its location. The validated form ([`Config`])
//! has defaults filled in, units converted, and ranges and relations checked. Only the validated
//! form leaves this module, so no other part of the server has to handle an invalid configuration.
//!
//! Modules, in reading order:
//!
//! - `setting`: values as written, each with its location;
//! - `section`: the macro that defines a section's deserializer and its variables;
//! - `file`: the raw form, and the environment variables;
//! - `validator`: checks of single values;
//! - `server`, `tls`, `logging`, `database`, `encryption`, `limits`: the sections, one module each,
//!   with defaults and checks; the table of limits also generates their documentation;
//! - `authorization`: the section with the rules about clients;
//! - `level`: the log level, or the filter of an older file;
//! - `acl`: roles in older files, which are read as rules;
//! - `changes`: the settings that differ between two configurations;
//! - `older`: sections of older files that have no effect yet;
//! - `service_link`: variables that Kubernetes sets for its services;
//! - `quantity`, `units`: numbers, sizes and durations in human-readable form;
//! - `secret`: text that is never printed;
//! - `error`: errors with their location and advice.
//!
//! Relative paths are relative to the working directory of the server, not to the configuration
//! file. Older servers resolved them in the same way, and a configuration file can be moved without
//! the files that it names.
//!
//! Loading reads only the configuration file: no other file is opened or created.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

mod acl;
mod authorization;
mod changes;
mod database;
mod encryption;
mod error;
mod file;
mod level;
mod limits;
mod logging;
mod older;
mod quantity;
mod secret;
mod section;
mod server;
mod service_link;
mod setting;
mod tls;
mod units;
mod validator;

#[cfg(test)]
mod tests;

pub use database::{Database, Postgres, SslMode, Target};
pub use encryption::{Algorithm, Encryption, KeySource, OlderRows};
pub use error::{Error, Origin};
pub use limits::{ClientLimits, Limits};
pub use secret::Secret;
pub use server::Server;
pub use tls::{CrlPolicy, Tls};

use file::File;
use validator::Validator;

use crate::authorization::Policy;
use crate::quota::Quotas;

/// The target of warnings about the configuration, which are logged at every `[logging] level`.
pub const WARNINGS: &str = "ciphermq_server::config";

/// The size limit of the configuration file, so that a path such as `/dev/zero` is an error.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The server's configuration, complete and validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// The address to listen on.
    pub server: Server,
    /// The server's certificate and key, and the authority that verifies the clients.
    pub tls: Tls,
    /// Levels, files and rotation of the logs.
    pub logging: ciphermq_logging::Settings,
    /// The database for messages, bindings, metadata and public keys.
    pub database: Database,
    /// The encryption of public keys in the database.
    pub encryption: Encryption,
    /// Bounds on time, memory and disk.
    pub limits: Limits,
    /// Bounds on what each client holds and sends.
    pub quotas: Quotas,
    /// Which client may do what.
    pub authorization: Policy,
    /// Problems that do not prevent the server from starting, as lines to log.
    pub warnings: Vec<String>,
}

impl Config {
    /// Loads the file at `path`, overrides its settings with the variables of `env`, and validates
    /// the result.
    ///
    /// Pass [`environment`] for `env`; tests pass their own. Variables whose names do not begin
    /// with `CIPHERMQ_` and the name of a section are ignored.
    ///
    /// # Errors
    ///
    /// [`Error`] if the file cannot be read or is not TOML, or if a setting of the file or the
    /// environment is unknown or invalid. The message names the setting, the problem and the
    /// solution, and contains no secret.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let text = read_file(path)?;
        Self::parse(&text, path, env)
    }

    /// Parses and validates the text of a configuration file; `path` is only used in messages.
    ///
    /// # Errors
    ///
    /// [`Error`] as for [`Config::load`], except the errors of reading the file.
    pub fn parse(
        text: &str,
        path: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut file = File::parse(text, path)?;
        file.apply_environment(env)?;
        Self::validate(file, &Validator::new(path, text), path)
    }

    /// Converts the raw form into the validated one, section by section.
    fn validate(file: File, validator: &Validator<'_>, path: &Path) -> Result<Self, Error> {
        let mut warnings = older::warnings(file.older_sections(), &file.older_variables, validator);
        let limits = limits::validate(&file.limits, validator)?;
        Ok(Self {
            path: path.to_owned(),
            server: server::validate(&file.server, validator)?,
            tls: tls::validate(&file.tls, validator)?,
            logging: logging::validate(&file.logging, validator, &mut warnings)?,
            database: database::validate(file.database, validator)?,
            encryption: encryption::validate(file.encryption, validator)?,
            quotas: limits::validate_quotas(&file.limits, &limits, validator)?,
            limits,
            authorization: authorization::validate(
                &file.authorization,
                file.acl.as_ref(),
                validator,
                &mut warnings,
            )?,
            warnings,
        })
    }

    /// Returns the space that the logs leave to an SQLite database, if they are on its disk.
    #[must_use]
    pub fn log_reserve(&self) -> Option<ciphermq_logging::Reserve> {
        match &self.database {
            Database::Sqlite { path } => Some(ciphermq_logging::Reserve {
                path: path.clone(),
                bytes: self.limits.disk_reserve,
                last_line: "the disk has hardly more free space than limits.disk_reserve, which is \
                            the database's: no lines are written until there is more",
            }),
            Database::Postgres(_) => None,
        }
    }
}

/// Returns the environment variables of this process that begin with `CIPHERMQ_`.
///
/// Unlike [`std::env::vars`], the iterator does not panic on a value that is not UTF-8. Invalid
/// sequences become U+FFFD, and [`Config::load`] then refuses the variable by its name.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with(section::PREFIX)
            .then(|| (name, value.to_string_lossy().into_owned()))
    })
}

fn read_file(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    fs::File::open(path)
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
        Error::NotUtf8 {
            path: path.to_owned(),
            line,
        }
    })
}
