//! A receiver's private keys.

use super::{KeyId, PrivateKey, RecipientKey, XWingPrivateKey};

/// The private keys of a receiver.
///
/// The newest of each kind are announced; older ones still open the messages that were sealed for
/// them.
#[derive(Debug, Clone)]
pub struct Keyring {
    newest: PrivateKey,
    older: Vec<PrivateKey>,
    x_wing: Option<XWingPrivateKey>,
    older_x_wing: Vec<XWingPrivateKey>,
}

impl Keyring {
    /// Creates a keyring of one key.
    #[must_use]
    pub fn new(newest: PrivateKey) -> Self {
        Self {
            newest,
            older: Vec::new(),
            x_wing: None,
            older_x_wing: Vec::new(),
        }
    }

    /// Adds an X25519 key that is no longer announced, unless it is present.
    #[must_use]
    pub fn with_older(mut self, key: PrivateKey) -> Self {
        if self.find(key.public_key().key_id()).is_none() {
            self.older.push(key);
        }
        self
    }

    /// Adds the X-Wing key to announce; the previous one becomes an older key.
    #[must_use]
    pub fn with_x_wing(mut self, key: XWingPrivateKey) -> Self {
        let id = key.public_key().key_id();
        self.older_x_wing.extend(self.x_wing.replace(key));
        self.older_x_wing
            .retain(|older| older.public_key().key_id() != id);
        self
    }

    /// Adds an X-Wing key that is no longer announced, unless it is present.
    #[must_use]
    pub fn with_older_x_wing(mut self, key: XWingPrivateKey) -> Self {
        if self.find_x_wing(key.public_key().key_id()).is_none() {
            self.older_x_wing.push(key);
        }
        self
    }

    /// Returns the X25519 key to register.
    #[must_use]
    pub fn newest(&self) -> &PrivateKey {
        &self.newest
    }

    /// Returns the public keys to announce, that of the strongest suite first.
    #[must_use]
    pub fn recipient_keys(&self) -> Vec<RecipientKey> {
        let x_wing = self
            .x_wing
            .iter()
            .map(|key| key.public_key().clone().into());
        x_wing
            .chain([RecipientKey::X25519(*self.newest.public_key())])
            .collect()
    }

    /// Returns all X25519 keys, the newest first.
    pub fn keys(&self) -> impl Iterator<Item = &PrivateKey> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    /// Returns all X-Wing keys, the newest first.
    pub fn x_wing_keys(&self) -> impl Iterator<Item = &XWingPrivateKey> {
        self.x_wing.iter().chain(&self.older_x_wing)
    }

    /// Returns the ids of all keys, announced and older ones.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        let x_wing = self.x_wing_keys().map(|key| key.public_key().key_id());
        x_wing.chain(self.keys().map(|key| key.public_key().key_id()))
    }

    /// Returns whether there is a key with this id.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.key_ids().any(|held| held == id)
    }

    /// Returns the X25519 key with this id.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&PrivateKey> {
        self.keys().find(|key| key.public_key().key_id() == id)
    }

    /// Returns the X-Wing key with this id.
    #[must_use]
    pub fn find_x_wing(&self, id: KeyId) -> Option<&XWingPrivateKey> {
        self.x_wing_keys()
            .find(|key| key.public_key().key_id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Suite;

    #[test]
    fn keys_are_found_by_id() {
        let [newest, older, other] = [(); 3].map(|()| PrivateKey::generate().unwrap());
        let keyring = Keyring::new(newest.clone()).with_older(older.clone());
        let find = |key: &PrivateKey| {
            keyring
                .find(key.public_key().key_id())
                .map(|key| *key.public_key())
        };
        assert_eq!(find(&newest), Some(*newest.public_key()));
        assert_eq!(find(&older), Some(*older.public_key()));
        assert_eq!(find(&other), None);
        assert_eq!(keyring.newest().public_key(), newest.public_key());
    }

    #[test]
    fn announces_the_newest_of_each_kind_the_strongest_first() {
        let keyring = Keyring::new(PrivateKey::generate().unwrap());
        assert_eq!(keyring.recipient_keys().len(), 1);
        let [first, second, third] = [(); 3].map(|()| XWingPrivateKey::generate().unwrap());
        let ids = [&first, &second, &third].map(|key| key.public_key().key_id());
        let keyring = keyring
            .with_x_wing(first)
            .with_x_wing(second)
            .with_older_x_wing(third.clone())
            .with_older_x_wing(third);
        let announced = keyring.recipient_keys();
        assert_eq!(announced[0].suite(), Suite::XWingAes256Gcm);
        assert_eq!(announced[0].key_id(), ids[1]);
        assert_eq!(announced[1].suite(), Suite::X25519Aes256Gcm);
        assert_eq!(announced.len(), 2);
        assert!(
            ids.into_iter()
                .all(|id| keyring.contains(id) && keyring.find_x_wing(id).is_some())
        );
        assert_eq!(keyring.key_ids().count(), 4);
    }
}
