//! What a commit may still add for each client.

use std::collections::HashMap;

use ciphermq_protocol::ClientId;

use super::Quota;

/// The reason why a message is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excess {
    /// A quota of its sender.
    Quota(Quota),
    /// A quota of its sender, of which its receiver has used up what one receiver can.
    Receiver(Quota, ClientId),
    /// The disk is short, and its sender holds more than its share.
    DiskShare,
}

/// What one client may still add; `u64::MAX` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Queues.
    pub queues: u64,
    /// Exchanges.
    pub exchanges: u64,
    /// Bindings.
    pub bindings: u64,
    /// Messages that wait.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The reason why no message is taken, whatever the room.
    pub refuses: Option<Excess>,
    /// Receivers for whom no message is taken, each with the quota.
    pub refuses_for: HashMap<ClientId, Quota>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            queues: u64::MAX,
            exchanges: u64::MAX,
            bindings: u64::MAX,
            messages: u64::MAX,
            bytes: u64::MAX,
            refuses: None,
            refuses_for: HashMap::new(),
        }
    }
}

impl Room {
    /// Returns what is left of a limit, of which 0 means none.
    pub(super) fn left(limit: u64, held: u64) -> u64 {
        match limit {
            0 => u64::MAX,
            limit => limit.saturating_sub(held),
        }
    }
}

/// The room of each client that a transaction concerns. Others have no limit.
#[derive(Debug, Clone, Default)]
pub struct Rooms(HashMap<ClientId, Room>);

impl Rooms {
    /// Sets a client's room.
    pub fn insert(&mut self, client_id: ClientId, room: Room) {
        self.0.insert(client_id, room);
    }

    /// Returns a client's room, which is that of `make` unless it is set.
    pub(super) fn get_or_insert_with(
        &mut self,
        client_id: &ClientId,
        make: impl FnOnce() -> Room,
    ) -> &mut Room {
        self.0.entry(client_id.clone()).or_insert_with(make)
    }

    /// Takes room for a queue.
    ///
    /// # Errors
    ///
    /// The quota that leaves none.
    pub(crate) fn take_queue(&mut self, client_id: &ClientId) -> Result<(), Quota> {
        self.take_one(client_id, Quota::Queues, |room| &mut room.queues)
    }

    /// Takes room for an exchange.
    ///
    /// # Errors
    ///
    /// The quota that leaves none.
    pub(crate) fn take_exchange(&mut self, client_id: &ClientId) -> Result<(), Quota> {
        self.take_one(client_id, Quota::Exchanges, |room| &mut room.exchanges)
    }

    /// Takes room for a binding.
    ///
    /// # Errors
    ///
    /// The quota that leaves none.
    pub(crate) fn take_binding(&mut self, client_id: &ClientId) -> Result<(), Quota> {
        self.take_one(client_id, Quota::Bindings, |room| &mut room.bindings)
    }

    fn take_one(
        &mut self,
        client_id: &ClientId,
        quota: Quota,
        of: impl FnOnce(&mut Room) -> &mut u64,
    ) -> Result<(), Quota> {
        let Some(room) = self.0.get_mut(client_id) else {
            return Ok(());
        };
        let left = of(room);
        *left = left.checked_sub(1).ok_or(quota)?;
        Ok(())
    }

    /// Takes room for a message that adds so many bytes to what is stored.
    ///
    /// # Errors
    ///
    /// The reason why there is none. Nothing is taken.
    pub(crate) fn take_message(
        &mut self,
        sender: &ClientId,
        receiver: &ClientId,
        bytes: u64,
    ) -> Result<(), Excess> {
        let Some(room) = self.0.get_mut(sender) else {
            return Ok(());
        };
        if let Some(excess) = &room.refuses {
            return Err(excess.clone());
        }
        if let Some(quota) = room.refuses_for.get(receiver) {
            return Err(Excess::Receiver(*quota, receiver.clone()));
        }
        if room.messages == 0 {
            return Err(Excess::Quota(Quota::WaitingMessages));
        }
        let left = room.bytes.checked_sub(bytes);
        room.bytes = left.ok_or(Excess::Quota(Quota::WaitingBytes))?;
        room.messages -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientId {
        name.parse().unwrap()
    }

    #[test]
    fn room_is_taken_until_there_is_none() {
        let mut rooms = Rooms::default();
        let room = Room {
            queues: 1,
            messages: 2,
            bytes: 100,
            refuses_for: HashMap::from([(client("full"), Quota::RejectedBytes)]),
            ..Room::default()
        };
        let (a, b, r) = (client("a"), client("b"), client("r"));
        rooms.insert(a.clone(), room);
        assert_eq!(rooms.take_queue(&a), Ok(()));
        assert_eq!(rooms.take_queue(&a), Err(Quota::Queues));
        assert_eq!(rooms.take_exchange(&a), Ok(()));
        assert_eq!(rooms.take_queue(&b), Ok(()), "others have no limit");
        assert_eq!(rooms.take_message(&a, &r, 90), Ok(()));
        let full = Err(Excess::Quota(Quota::WaitingBytes));
        assert_eq!(rooms.take_message(&a, &r, 11), full);
        assert_eq!(rooms.take_message(&a, &r, 10), Ok(()), "a smaller one fits");
        let full = Err(Excess::Quota(Quota::WaitingMessages));
        assert_eq!(rooms.take_message(&a, &r, 0), full);
        assert_eq!(rooms.take_message(&b, &r, u64::MAX), Ok(()));
        let full = client("full");
        let refused = Err(Excess::Receiver(Quota::RejectedBytes, full.clone()));
        assert_eq!(rooms.take_message(&a, &full, 0), refused);
        assert_eq!(rooms.take_message(&b, &full, 1), Ok(()));
    }

    #[test]
    fn a_limit_that_is_passed_leaves_no_room_and_zero_is_none() {
        assert_eq!(Room::left(3, 5), 0);
        assert_eq!(Room::left(5, 3), 2);
        assert_eq!(Room::left(0, 3), u64::MAX);
    }
}
