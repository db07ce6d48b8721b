//! The server where it meets its surroundings: older receivers, signals, variables, older
//! configurations and databases.

mod at_rest;
mod log_files;
mod signals;
mod surroundings;
mod unanswered;
