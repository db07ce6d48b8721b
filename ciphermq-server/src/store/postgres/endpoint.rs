//! The database to connect to: the server, the role, and their names in messages.

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::pem_files;
use crate::config::{Postgres, SslMode, Target};
use crate::store::Error;

/// The database, and how to connect to it.
#[derive(Clone)]
pub(super) struct Endpoint {
    options: PgConnectOptions,
    /// Names this process in `pg_stat_activity`, to distinguish its lost sessions from those of
    /// another server.
    instance: String,
}

impl Endpoint {
    /// Reads the settings and the files that they name.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`] if the URL or a file of certificates cannot be used.
    pub(super) fn new(settings: &Postgres) -> Result<Self, Error> {
        let instance = format!("ciphermq-server {:016x}", rand::random::<u64>());
        let mut options = match &settings.target {
            // The error of a URL may show the URL.
            Target::Url(url) => url.expose().parse::<PgConnectOptions>().map_err(|_| {
                Error::Unusable(String::from(
                    "[database] url cannot be read; write \
                     postgres://user:password@host:5432/dbname, with special \
                     characters of the password percent-encoded",
                ))
            })?,
            Target::Fields {
                host,
                port,
                user,
                password,
                dbname,
            } => {
                let options = PgConnectOptions::new()
                    .host(host)
                    .port(*port)
                    .username(user)
                    .database(dbname);
                match password {
                    Some(password) => options.password(password.expose()),
                    None => options,
                }
            }
        };
        if let Some(mode) = settings.sslmode {
            options = options.ssl_mode(match mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Allow => PgSslMode::Allow,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            });
        }
        if let Some(certificate) = &settings.sslrootcert {
            options = options.ssl_root_cert(certificate);
        }
        pem_files::check(settings, options.get_ssl_mode())?;
        // Poolers refuse `extra_float_digits`, and no number here has a fraction.
        let options = options
            .application_name(&instance)
            .extra_float_digits(None)
            .disable_statement_logging();
        Ok(Self { options, instance })
    }

    /// Returns the database's name for people.
    pub(super) fn place(&self) -> String {
        format!(
            "PostgreSQL database \"{}\" at {}",
            self.database(),
            self.address()
        )
    }

    /// Returns the name of this process in `pg_stat_activity`.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Returns the options of every connection.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the role that connects.
    pub(super) fn user(&self) -> &str {
        self.options.get_username()
    }

    /// Returns the database's name.
    pub(super) fn database(&self) -> &str {
        // PostgreSQL's own default.
        self.options
            .get_database()
            .unwrap_or_else(|| self.options.get_username())
    }

    /// Returns the host and port, or the socket.
    pub(super) fn address(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }
}
