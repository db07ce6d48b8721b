//! `queues`, `exchanges` and `bindings`: list, make and remove them.

pub(crate) mod bindings;
pub(crate) mod exchanges;
pub(crate) mod queues;

use ciphermq_client::ClientId;

fn maker(made_by: Option<&ClientId>) -> String {
    made_by.map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn there_is_no(what: &str) -> String {
    format!("There is no {what} that this client may see.")
}
