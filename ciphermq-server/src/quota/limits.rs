//! Which limits a client has.

use std::sync::Arc;

use ciphermq_protocol::ClientId;

use crate::authorization::Pattern;
use crate::config::ClientLimits;

/// The limits of all clients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quotas {
    /// The limits of clients that no entry names.
    pub default: Arc<ClientLimits>,
    /// Limits of certain clients; the first entry that names a client decides.
    pub entries: Vec<ClientEntry>,
}

/// The limits of clients whose ids match a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientEntry {
    /// Patterns of client ids.
    pub clients: Vec<Pattern>,
    /// Their limits.
    pub limits: Arc<ClientLimits>,
}

impl Quotas {
    /// Returns the limits of a client.
    #[must_use]
    pub fn of(&self, client_id: &ClientId) -> &Arc<ClientLimits> {
        let names = |entry: &&ClientEntry| {
            let mut patterns = entry.clients.iter();
            patterns.any(|pattern| pattern.matches(client_id.as_str()))
        };
        let entry = self.entries.iter().find(names);
        entry.map_or(&self.default, |entry| &entry.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_names_a_client_decides() {
        let entry = |pattern: &str, queues| ClientEntry {
            clients: vec![Pattern::parse(pattern).unwrap()],
            limits: Arc::new(ClientLimits {
                queues,
                ..ClientLimits::default()
            }),
        };
        let quotas = Quotas {
            default: Arc::default(),
            entries: vec![entry("sensor-1*", 1), entry("sensor-*", 2)],
        };
        let queues = |client: &str| quotas.of(&client.parse().unwrap()).queues;
        assert_eq!(queues("sensor-10"), 1);
        assert_eq!(queues("sensor-2"), 2);
        assert_eq!(queues("other"), ClientLimits::default().queues);
    }
}
