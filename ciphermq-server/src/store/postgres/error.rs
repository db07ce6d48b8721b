//! Maps PostgreSQL's error codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use ciphermq_protocol::text::Escaped;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::store::{BoxError, Error, described};

/// Returns the server's own message, without the driver's words and without a line of PostgreSQL's
/// source.
///
/// It is escaped: until its password and certificate are checked, any server may have written it.
pub(super) fn server_message(error: &sqlx::Error) -> String {
    let Some(database) = error.as_database_error() else {
        return Escaped(error).to_string();
    };
    let mut text = database.message().trim_end_matches('.').to_owned();
    let detail = database.try_downcast_ref::<PgDatabaseError>();
    if let Some(detail) = detail.and_then(PgDatabaseError::detail) {
        text.push_str(&format!(" ({})", detail.trim_end_matches('.')));
    }
    Escaped(text).to_string()
}

/// Boxes an error, reduced to the server's message if it has one.
fn boxed(error: sqlx::Error) -> BoxError {
    match error {
        sqlx::Error::Database(_) => server_message(&error).into(),
        other => other.into(),
    }
}

/// Describes a pooler that gives each transaction another session.
pub(super) const POOLED: &str = "it is reached through a pooler that shares sessions, as PgBouncer \
                                 does with pool_mode = \
                                 transaction or statement, and the lock that keeps a second server \
                                 out would not be \
                                 held; set pool_mode = session for this database, or name \
                                 PostgreSQL itself in [database]";

/// Describes a pooler that has too few sessions, or gives them to others.
pub(super) const NARROW: &str = "it is reached through a pooler that did not give two sessions at \
                                 once within 5 seconds: it gives fewer connections than the 5 that \
                                 the server needs (default_pool_size), or shares them (pool_mode = \
                                 transaction or statement); set pool_mode = session and \
                                 default_pool_size = 5 or more for this database, or name \
                                 PostgreSQL itself in [database]";

/// Whether PgBouncer reports that a client has waited too long for a session.
pub(super) fn has_waited(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().contains("query_wait_timeout"))
}

/// Whether a session reports that it is not the one that was set up: a prepared statement is not
/// there, or is another one.
pub(super) fn is_pooled(code: &str) -> bool {
    matches!(code, "26000" | "42P05")
}

/// Returns the SQLSTATE.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the server has reported that this statement failed, and goes on. Otherwise it may have
/// ended in the middle: what the statement did is not known.
pub(super) fn is_definite(error: &sqlx::Error) -> bool {
    let Some(error) = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        return false;
    };
    let code = error.code();
    error.severity() == PgSeverity::Error && !code.starts_with("57") && !code.starts_with("08")
}

pub(super) fn error(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Encode(_) => return Error::Refused(boxed(error)),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => {
            return Error::Corrupt(error.to_string());
        }
        _ => {}
    }
    let code = code(&error).unwrap_or_default();
    match (code.as_str(), code.get(..2)) {
        // Disk full.
        ("53100", _) => Error::Full(boxed(error)),
        // The only division is the one in `WRITE`.
        ("22012", _) => Error::Corrupt(String::from(
            "it does not stand where this server left it: another server or a person has written \
             to it. Nothing was \
             written over it; see that this server has its database for itself, without a pooler \
             between, and start it again",
        )),
        (code, _) if is_pooled(code) => {
            Error::Unusable(format!("The PostgreSQL database: {POOLED}"))
        }
        // Read-only: set so for a while, or a standby after a failover.
        ("25006", _) => Error::Unavailable(described(
            "PostgreSQL takes no writes; make the database writable again, or name the primary in \
             [database]",
            boxed(error),
        )),
        // A right is missing. The operator can grant it again while the server waits.
        ("42501", _) => Error::Unavailable(described(
            "the server's role lacks a right; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES \
             IN SCHEMA of its tables, and USAGE ON that SCHEMA, to the role in [database], or make \
             it their owner",
            boxed(error),
        )),
        // Data exception, integrity constraint violation, program limit exceeded.
        (_, Some("22" | "23" | "54")) => Error::Refused(boxed(error)),
        // A table is missing; data or an index is damaged.
        ("XX001" | "XX002", _) | (_, Some("42")) => Error::Corrupt(server_message(&error)),
        _ => Error::Unavailable(boxed(error)),
    }
}

/// Wraps an error of reading a value that this server cannot have written.
pub(super) fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
