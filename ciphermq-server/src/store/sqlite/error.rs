//! Maps SQLite's result codes: <https://www.sqlite.org/rescode.html>.

use crate::store::{BoxError, Error};

const FULL: i32 = 13;
const CORRUPT: i32 = 11;
const TOO_BIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const NOT_A_DATABASE: i32 = 26;
/// Reported for a missing table, among others.
const ERROR: i32 = 1;

/// Returns the primary result code.
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
    let is_corrupt = matches!(
        error,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound
    );
    classify(code, is_ours, is_corrupt, error.into())
}

/// Returns the primary result code of an error of the writing connection.
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
    let is_corrupt = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::QueryReturnedNoRows
    );
    classify(code, is_ours, is_corrupt, error.into())
}

/// Maps a result code. `is_ours`: a value to write cannot be expressed in SQL; `is_corrupt`: a
/// value was read that this server cannot have written.
fn classify(code: Option<i32>, is_ours: bool, is_corrupt: bool, error: BoxError) -> Error {
    match code {
        Some(FULL) => Error::Full(error),
        Some(TOO_BIG | CONSTRAINT | MISMATCH) => Error::Refused(error),
        Some(ERROR | CORRUPT | NOT_A_DATABASE) => Error::Corrupt(error.to_string()),
        _ if is_ours => Error::Refused(error),
        _ if is_corrupt => Error::Corrupt(error.to_string()),
        _ => Error::Unavailable(error),
    }
}

/// Wraps an error of reading a value that this server cannot have written, for the reader.
pub(super) fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// Wraps an error of reading a value that this server cannot have written, for the committer.
pub(super) fn corrupt_row(
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}
