//! What PostgreSQL's error codes mean: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::store::Error;

/// The SQLSTATE.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the server has said that this statement failed, and goes on. Otherwise it may have ended in the
/// middle: what the statement did is not known.
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
        sqlx::Error::Encode(_) => return Error::Refused(error.into()),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => {
            return Error::Corrupt(error.to_string());
        }
        _ => {}
    }
    let code = code(&error).unwrap_or_default();
    match (code.as_str(), code.get(..2)) {
        // Disk full.
        ("53100", _) => Error::Full(error.into()),
        // The one division there is: see `WRITE`.
        ("22012", _) => Error::Corrupt(String::from(
            "it does not stand where this server left it: another server or a person has written to it. Nothing was \
             written over it; see that this server has its database for itself, without a pooler between, and start it again",
        )),
        // Data exception, integrity constraint violation, program limit exceeded.
        (_, Some("22" | "23" | "54")) => Error::Refused(error.into()),
        // A table or a right is gone; data or an index is damaged.
        ("XX001" | "XX002", _) | (_, Some("42")) => Error::Corrupt(error.to_string()),
        _ => Error::Unavailable(error.into()),
    }
}

/// What was read is not what this server writes.
pub(super) fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
