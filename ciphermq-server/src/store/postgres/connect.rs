//! Connects to the server, and explains failures.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::endpoint::Endpoint;
use super::error::{NARROW, POOLED, code, error, has_waited, is_pooled, server_message};
use super::session;
use crate::store::{Error, described};

/// The time limit of connecting, TLS and password included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit of a session of its own for reporting its number.
const SHARED_TIMEOUT: Duration = Duration::from_secs(5);

/// A factory of sessions.
#[derive(Clone)]
pub(super) struct SessionFactory(Endpoint);

impl SessionFactory {
    /// Creates a factory of sessions with this endpoint.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self(endpoint)
    }

    /// Returns the endpoint of the sessions.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0
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

    /// Opens a session that is not set up, and holds no lock.
    pub(super) async fn connect(&self) -> Result<PgConnection, Error> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.0.options().connect()).await {
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
        let pooled = |what: &str| Err(Error::Unusable(format!("{}: {what}", self.0.place())));
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
            session::check(connection, &self.0).await?;
            session::lock(connection, &self.0).await
        };
        // One of its answers may never come.
        match tokio::time::timeout(session::ANSWER_TIMEOUT, ready).await {
            Ok(ready) => ready,
            Err(elapsed) => Err(self.unreachable(elapsed)),
        }
    }

    fn unreachable(&self, source: impl Into<crate::store::BoxError>) -> Error {
        let what = format!(
            "cannot reach PostgreSQL at {}; check that it runs, and host and port in [database] \
             (or its url)",
            self.0.address()
        );
        Error::Unavailable(described(what, source))
    }

    /// Explains a failed connection. The password is in none of the texts.
    fn connect_error(&self, source: sqlx::Error) -> Error {
        let (address, user, what) = (self.0.address(), self.0.user(), server_message(&source));
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
                self.0.database(),
                self.0.database()
            )),
            (Some("42501"), _) => Error::Unusable(format!(
                "user \"{user}\" may not connect to {}: {what}; GRANT CONNECT ON DATABASE to it, \
                 or check user and \
                 dbname in [database]",
                self.0.place()
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
