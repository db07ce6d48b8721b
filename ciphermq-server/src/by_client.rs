//! Values of which each client has one, for as long as somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use ciphermq_protocol::ClientId;
use parking_lot::Mutex;

/// One value for each client, made when it is first asked for and dropped with its last user.
#[derive(Debug)]
pub(crate) struct ByClient<T> {
    values: Mutex<HashMap<ClientId, Weak<T>>>,
}

impl<T> Default for ByClient<T> {
    fn default() -> Self {
        Self {
            values: Mutex::default(),
        }
    }
}

impl<T> ByClient<T> {
    /// Returns the client's value, which `make` makes unless somebody holds it.
    pub(crate) fn get(&self, client_id: &ClientId, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.values.lock();
        if let Some(value) = values.get(client_id).and_then(Weak::upgrade) {
            return value;
        }
        // Forgets those that are gone whenever the map would grow, so that a call costs the same
        // however many clients have come and gone.
        if values.len() == values.capacity() {
            values.retain(|_, value| value.strong_count() > 0);
        }
        let value = Arc::new(make());
        values.insert(client_id.clone(), Arc::downgrade(&value));
        value
    }

    /// Calls `act` with every value that somebody holds.
    pub(crate) fn for_each(&self, mut act: impl FnMut(&T)) {
        for value in self.values.lock().values().filter_map(Weak::upgrade) {
            act(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: usize) -> ClientId {
        ClientId::new(&format!("client-{number}")).unwrap()
    }

    #[test]
    fn a_value_lasts_as_long_as_somebody_holds_it() {
        let values = ByClient::default();
        let first = values.get(&client(1), || 1);
        assert_eq!(*values.get(&client(1), || 2), 1);
        drop(first);
        assert_eq!(*values.get(&client(1), || 3), 3);
    }

    #[test]
    fn clients_that_are_gone_take_no_memory() {
        let values = ByClient::default();
        let held = values.get(&client(0), || 0);
        for number in 1..10_000 {
            values.get(&client(number), || number);
        }
        assert!(values.values.lock().len() < 100);
        let mut found = Vec::new();
        values.for_each(|value| found.push(*value));
        assert_eq!(found, [0]);
        drop(held);
    }
}
