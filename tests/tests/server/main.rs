//! The server in its environment: connections, older receivers, signals, environment variables,
//! older configurations and databases.

mod at_rest;
mod certificates;
mod connections;
mod log_files;
mod memory;
mod revocation_lists;
mod signals;
mod surroundings;
mod unanswered;
mod watching;
