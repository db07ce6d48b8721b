//! Connects to the server, and explains failures.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::error::{NARROW, POOLED, code, error, has_waited, is_pooled, server_message};
use super::{pem_files, session};
use crate::config::{Postgres, SslMode, Target};
use crate::store::{Error, described};

/// The time limit of connecting, TLS and password included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit of a session of its own for reporting its number.
const SHARED_TIMEOUT: Duration = Duration::from_secs(5);

/// A factory of sessions.
#[derive(Clone)]
pub(super) struct SessionFactory {
    options: PgConnectOptions,
    /// Names this process in `pg_stat_activity`, to distinguish its lost sessions from those of
    /// another server.
    instance: String,
}

impl SessionFactory {
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

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Opens a session that may write: it is set up and checked, and holds the lock.
    pub(super) async fn writing(&self) -> Result<PgConnection, Error> {
        let mut connection = self.connect().await?;
        self.refuse_shared(&mut connection).await?;
        self.ready(&mut connection).await?;
        Ok(connection)
    }

    /// Opens a session in place of one that was lost.
    ///
    /// Whatever was fine when the server started and is not now, such as a password, is for the
    /// operator to fix while the server waits. Only another server's lock or an unsafe
    /// configuration ends this server.
    pub(super) async fn reconnect(&self) -> Result<PgConnection, Error> {
        let mut connection = self.connect().await.map_err(|error| match error {
            Error::Unusable(text) => Error::Unavailable(text.into()),
            other => other,
        })?;
        self.ready(&mut connection).await?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await {
            Ok(connected) => connected.map_err(|source| self.connect_error(source)),
            Err(elapsed) => Err(self.unreachable(elapsed)),
        }
    }

    /// Refuses a pooler that shares sessions: while another connection is in a transaction, this
    /// one must keep its session. Uses plain statements, because prepared ones are the first to
    /// fail there.
    async fn refuse_shared(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let mut other = self.connect().await?;
        let sessions = two_sessions(connection, &mut other);
        let answered = tokio::time::timeout(session::ANSWER_TIMEOUT, sessions).await;
        let _ = other.close().await;
        let pooled = |what: &str| Err(Error::Unusable(format!("{}: {what}", self.place())));
        match answered {
            Ok(Ok(Sessions::Own)) => Ok(()),
            Ok(Ok(Sessions::Shared)) => pooled(POOLED),
            Ok(Ok(Sessions::TooFew)) => pooled(NARROW),
            Ok(Err(failure)) if has_waited(&failure) => pooled(NARROW),
            // A pooler that gives each statement another session takes no transaction.
            Ok(Err(failure))
                if code(&failure).is_some_and(|code| code == "08P01" || is_pooled(&code)) =>
            {
                pooled(POOLED)
            }
            Ok(Err(failure)) => Err(error(failure)),
            Err(elapsed) => Err(self.unreachable(elapsed)),
        }
    }

    async fn ready(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let ready = async {
            session::prepare(connection).await.map_err(error)?;
            session::check(connection, self).await?;
            session::lock(connection, self).await
        };
        // One of its answers may never come.
        match tokio::time::timeout(session::ANSWER_TIMEOUT, ready).await {
            Ok(ready) => ready,
            Err(elapsed) => Err(self.unreachable(elapsed)),
        }
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

    fn address(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }

    fn unreachable(&self, source: impl Into<crate::store::BoxError>) -> Error {
        let what = format!(
            "cannot reach PostgreSQL at {}; check that it runs, and host and port in [database] \
             (or its url)",
            self.address()
        );
        Error::Unavailable(described(what, source))
    }

    /// Explains a failed connection. The password is in none of the texts.
    fn connect_error(&self, source: sqlx::Error) -> Error {
        let (address, user, what) = (self.address(), self.user(), server_message(&source));
        match (code(&source).as_deref(), &source) {
            // Invalid authorization, invalid password.
            (Some("28000" | "28P01"), _) => Error::Unusable(format!(
                "PostgreSQL at {address} refuses user \"{user}\": {what}; check user and password \
                 in [database] (or \
                 its url), and the server's pg_hba.conf"
            )),
            (Some("3D000"), _) => Error::Unusable(format!(
                "there is no database \"{}\" on PostgreSQL at {address}; make it (createdb -O \
                 {user} {}), or check \
                 dbname in [database] (or its url)",
                self.database(),
                self.database()
            )),
            (Some("42501"), _) => Error::Unusable(format!(
                "user \"{user}\" may not connect to {}: {what}; GRANT CONNECT ON DATABASE to it, \
                 or check user and \
                 dbname in [database]",
                self.place()
            )),
            (None, _) if is_tls(&source) => Error::Unusable(format!(
                "no TLS connection to PostgreSQL at {address}: {what}; check sslmode and \
                 sslrootcert in [database]"
            )),
            (None, sqlx::Error::Io(_)) => self.unreachable(source),
            (None, _) => Error::Unusable(format!(
                "no connection to PostgreSQL at {address}: {what}; check [database]"
            )),
            // Starting up, shutting down, too many connections ...
            (Some(_), _) => Error::Unavailable(described(
                format!("PostgreSQL at {address} takes no connection now"),
                what,
            )),
        }
    }
}

/// How sessions are given to two connections at once.
enum Sessions {
    /// Each has its own.
    Own,
    /// One may have the other's.
    Shared,
    /// One waits until the other gives its session back.
    TooFew,
}

/// Finds out how sessions are given to two connections at once.
async fn two_sessions(
    one: &mut PgConnection,
    other: &mut PgConnection,
) -> Result<Sessions, sqlx::Error> {
    const SESSION: &str = "SELECT pg_backend_pid()";
    let before: i32 = sqlx::raw_sql(SESSION)
        .fetch_one(&mut *one)
        .await?
        .try_get(0)?;
    let begun = async {
        sqlx::raw_sql("BEGIN").execute(&mut *other).await?;
        sqlx::raw_sql(SESSION).execute(&mut *other).await
    };
    let Ok(begun) = tokio::time::timeout(SHARED_TIMEOUT, begun).await else {
        return Ok(Sessions::TooFew);
    };
    begun?;
    let after = sqlx::raw_sql(SESSION).fetch_one(&mut *one);
    let after = tokio::time::timeout(SHARED_TIMEOUT, after).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *other).await?;
    let Ok(after) = after else {
        return Ok(Sessions::TooFew);
    };
    let after: i32 = after?.try_get(0)?;
    Ok(if after == before {
        Sessions::Own
    } else {
        Sessions::Shared
    })
}

/// Whether TLS is what failed. A certificate that is not trusted is reported as an I/O error.
fn is_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}
