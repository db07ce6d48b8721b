//! The policy in force, which can be replaced as a whole while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_protocol::ClientId;
use parking_lot::RwLock;

use super::Policy;

/// The policy in force, with a number that grows when it is replaced.
#[derive(Debug, Default)]
pub struct CurrentPolicy {
    policy: RwLock<Arc<Policy>>,
    generation: AtomicU64,
}

impl CurrentPolicy {
    /// Puts a policy in force.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: RwLock::new(Arc::new(policy)),
            generation: AtomicU64::new(0),
        }
    }

    /// Puts another policy in force; connections see it with their next command.
    pub fn replace(&self, policy: Policy) {
        let mut current = self.policy.write();
        *current = Arc::new(policy);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns the number of the policy in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the policy in force, with its number.
    #[must_use]
    pub fn get(&self) -> (Arc<Policy>, u64) {
        let current = self.policy.read();
        // It changes under the lock only.
        (Arc::clone(&current), self.generation())
    }

    /// Returns whether a client may administer.
    #[must_use]
    pub fn is_administrator(&self, client_id: &ClientId) -> bool {
        self.get().0.is_administrator(client_id)
    }
}
