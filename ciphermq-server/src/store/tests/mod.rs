//! The store's contract, on both databases: each test has one body and runs on SQLite and on PostgreSQL.

mod contract;
pub(super) mod fixture;
mod postgres;
mod sqlite;
