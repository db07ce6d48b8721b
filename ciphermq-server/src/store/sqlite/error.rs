//! What SQLite's result codes mean: <https://www.sqlite.org/rescode.html>.

use crate::store::Error;

const FULL: i32 = 13;
const CORRUPT: i32 = 11;
const TOO_BIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const NOT_A_DATABASE: i32 = 26;
/// Among others: a table that is not there.
const ERROR: i32 = 1;

/// The primary result code, without what extends it.
fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

pub(super) fn is_not_a_database(error: &sqlx::Error) -> bool {
    code(error) == Some(NOT_A_DATABASE)
}

pub(super) fn is_full(error: &sqlx::Error) -> bool {
    code(error) == Some(FULL)
}

pub(super) fn error(error: sqlx::Error) -> Error {
    match (code(&error), &error) {
        (Some(FULL), _) => Error::Full(error.into()),
        (Some(TOO_BIG | CONSTRAINT | MISMATCH), _) | (_, sqlx::Error::Encode(_)) => {
            Error::Refused(error.into())
        }
        (Some(ERROR | CORRUPT | NOT_A_DATABASE), _)
        | (_, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound) => {
            Error::Corrupt(error.to_string())
        }
        _ => Error::Unavailable(error.into()),
    }
}

/// What was read is not what this server writes.
pub(super) fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
