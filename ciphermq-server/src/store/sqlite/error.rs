//! What SQLite's result codes mean: <https://www.sqlite.org/rescode.html>.

use crate::store::{BoxError, Error};

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

pub(super) fn error(error: sqlx::Error) -> Error {
    let code = code(&error);
    let is_ours = matches!(error, sqlx::Error::Encode(_));
    let is_strange = matches!(
        error,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound
    );
    judge(code, is_ours, is_strange, error.into())
}

/// The same of the connection that writes.
fn write_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.extended_code & 0xff),
        _ => None,
    }
}

pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    write_code(error) == Some(FULL)
}

pub(super) fn write_error(error: rusqlite::Error) -> Error {
    let code = write_code(&error);
    let is_ours = matches!(error, rusqlite::Error::ToSqlConversionFailure(_));
    let is_strange = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::QueryReturnedNoRows
    );
    judge(code, is_ours, is_strange, error.into())
}

/// `is_ours`: what was to be written cannot be said in SQL; `is_strange`: what was read is not what
/// this server writes.
fn judge(code: Option<i32>, is_ours: bool, is_strange: bool, error: BoxError) -> Error {
    match code {
        Some(FULL) => Error::Full(error),
        Some(TOO_BIG | CONSTRAINT | MISMATCH) => Error::Refused(error),
        Some(ERROR | CORRUPT | NOT_A_DATABASE) => Error::Corrupt(error.to_string()),
        _ if is_ours => Error::Refused(error),
        _ if is_strange => Error::Corrupt(error.to_string()),
        _ => Error::Unavailable(error),
    }
}

/// What was read for the reader is not what this server writes.
pub(super) fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// What was read for the committer is not what this server writes.
pub(super) fn strange(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}
