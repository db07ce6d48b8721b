//! The store's contract, on both databases: each test has one body and runs on SQLite and on
//! PostgreSQL.

/// Makes a test for each database of each function.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod sqlite {
            use super::super::fixture::Database;
            $(#[tokio::test] async fn $name() { super::$name(&Database::sqlite().await).await; })*
        }
        mod postgres {
            use super::super::fixture::Database;
            $(#[tokio::test] async fn $name() { super::$name(&Database::postgres().await).await; })*
        }
    };
}

mod batches;
mod contract;
pub(super) mod fixture;
mod postgres;
mod sqlite;
