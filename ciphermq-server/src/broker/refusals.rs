//! Messages of a command that are refused, while others of it are carried out.

use std::collections::HashMap;

use ciphermq_protocol::ErrorReply;

/// The messages of a command that are refused, by their place in it.
#[derive(Default)]
pub(super) struct Refusals(HashMap<usize, ErrorReply>);

impl Refusals {
    /// Refuses the message at this place.
    pub(super) fn insert(&mut self, place: usize, error: ErrorReply) {
        self.0.insert(place, error);
    }

    /// Returns the refusal of the message at this place, if there is one.
    pub(super) fn take(&mut self, place: usize) -> Option<ErrorReply> {
        match self.0.is_empty() {
            true => None,
            false => self.0.remove(&place),
        }
    }

    /// Returns the number of messages that are refused.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
