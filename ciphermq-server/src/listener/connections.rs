//! The numbers of established connections, without I/O.

use std::collections::HashMap;
use std::hash::Hash;

use ciphermq_protocol::ClientId;

use super::source::Source;

/// The most connections of each kind; 0 means no limit, except for `all`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    pub(super) all: usize,
    /// The further connections that only administrators get.
    pub(super) reserved: usize,
    pub(super) per_source: usize,
}

/// The reason why a connection is refused: the text is for the client and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("limits.max_connections is reached ({0}); try again later")]
    All(usize),
    #[error(
        "limits.client.connections, or its older name limits.max_connections_per_client, is {0} \
         for this client; close some of its connections"
    )]
    Client(usize),
    #[error(
        "this address has limits.max_connections_per_address connections ({0}); close some of them"
    )]
    Address(usize),
}

/// The connections that are established.
#[derive(Debug)]
pub(super) struct Connections {
    limits: ConnectionLimits,
    all: usize,
    by_client: HashMap<ClientId, usize>,
    by_source: HashMap<Source, usize>,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            all: 0,
            by_client: HashMap::new(),
            by_source: HashMap::new(),
        }
    }

    /// Adds a connection of a client that may have `per_client` of them.
    ///
    /// An administrator gets a reserved one if there are too many others, whatever its address
    /// holds.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    pub(super) fn add(
        &mut self,
        client_id: &ClientId,
        source: Source,
        is_administrator: bool,
        per_client: usize,
    ) -> Result<(), Refusal> {
        let limits = self.limits;
        let reaches = |held: Option<&usize>, max| max > 0 && held.is_some_and(|&held| held >= max);
        if reaches(self.by_client.get(client_id), per_client) {
            return Err(Refusal::Client(per_client));
        }
        let max = if is_administrator {
            limits.all.saturating_add(limits.reserved)
        } else {
            limits.all
        };
        if self.all >= max {
            return Err(Refusal::All(limits.all));
        }
        if !is_administrator && reaches(self.by_source.get(&source), limits.per_source) {
            return Err(Refusal::Address(limits.per_source));
        }
        self.all += 1;
        *self.by_client.entry(client_id.clone()).or_default() += 1;
        *self.by_source.entry(source).or_default() += 1;
        Ok(())
    }

    /// Removes a connection that was added.
    pub(super) fn remove(&mut self, client_id: &ClientId, source: Source) {
        self.all = self.all.saturating_sub(1);
        decrement(&mut self.by_client, client_id);
        decrement(&mut self.by_source, &source);
    }
}

fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    fn source(address: &str) -> Source {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn each_limit_refuses_by_its_name() {
        let mut connections = Connections::new(ConnectionLimits {
            all: 4,
            reserved: 1,
            per_source: 3,
        });
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        connections.add(&client("a"), one, false, 2).unwrap();
        connections.add(&client("a"), one, false, 2).unwrap();
        let refused = connections.add(&client("a"), two, false, 2);
        assert_eq!(refused, Err(Refusal::Client(2)));
        connections.add(&client("b"), one, false, 2).unwrap();
        let refused = connections.add(&client("b"), one, false, 2);
        assert_eq!(refused, Err(Refusal::Address(3)));
        connections.add(&client("c"), two, false, 2).unwrap();
        let refused = connections.add(&client("d"), two, false, 2);
        assert_eq!(refused, Err(Refusal::All(4)));
        // One is reserved, and only one.
        connections.add(&client("ops"), one, true, 2).unwrap();
        let refused = connections.add(&client("ops"), two, true, 2);
        assert_eq!(refused, Err(Refusal::All(4)));
        connections.remove(&client("ops"), one);
        connections.remove(&client("a"), one);
        connections.add(&client("d"), two, false, 2).unwrap();
        assert_eq!(connections.all, 4);
    }

    #[test]
    fn zero_is_no_limit_and_nothing_is_left_of_what_has_ended() {
        let mut connections = Connections::new(ConnectionLimits {
            all: 1000,
            reserved: 0,
            per_source: 0,
        });
        let one = source("2001:db8::1");
        for _ in 0..1000 {
            connections.add(&client("a"), one, false, 0).unwrap();
        }
        for _ in 0..1000 {
            connections.remove(&client("a"), one);
        }
        assert_eq!(connections.all, 0);
        assert!(connections.by_client.is_empty() && connections.by_source.is_empty());
    }
}
