//! The harness itself: what it starts is what it says, and what it checks with can fail.

mod cli;
mod database;
mod pki;
mod postgres;
mod raw;
