//! The store's contract: each test has one body and runs on SQLite and on PostgreSQL.

/// Defines a test on each database for each function.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod sqlite {
            use $crate::store::tests::fixture::Database;
            $(#[tokio::test] async fn $name() { super::$name(&Database::sqlite().await).await; })*
        }
        mod postgres {
            use $crate::store::tests::fixture::Database;
            $(#[tokio::test] async fn $name() { super::$name(&Database::postgres().await).await; })*
        }
    };
}

mod batches;
mod blocks;
mod contract;
pub(super) mod fixture;
mod offline;
mod postgres;
mod quotas;
mod sqlite;
mod topology;
