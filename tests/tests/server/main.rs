//! The server in its environment: older receivers, signals, environment variables, older
//! configurations and databases.

mod at_rest;
mod log_files;
mod signals;
mod surroundings;
mod unanswered;
