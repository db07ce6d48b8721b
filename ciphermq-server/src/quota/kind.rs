//! The quotas by name.

use crate::config::ClientLimits;

/// A quota on what a client holds. Its name is that of its setting in `[limits.client]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Connections at once.
    Connections,
    /// Queues that it has made.
    Queues,
    /// Exchanges that it has made.
    Exchanges,
    /// Bindings that it has made.
    Bindings,
    /// Queues that its connections consume from.
    Consumers,
    /// Messages that it has sent and that wait for their receivers.
    WaitingMessages,
    /// Their envelopes' bytes.
    WaitingBytes,
    /// Messages that it has sent and that were rejected.
    RejectedMessages,
    /// Their envelopes' bytes.
    RejectedBytes,
}

/// What a client holds of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUsage {
    /// The quota's name.
    pub quota: &'static str,
    /// What the client holds.
    pub held: u64,
    /// The most that it may hold; 0 means no limit.
    pub limit: u64,
}

impl Quota {
    /// Every quota, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Connections,
        Self::Queues,
        Self::Exchanges,
        Self::Bindings,
        Self::Consumers,
        Self::WaitingMessages,
        Self::WaitingBytes,
        Self::RejectedMessages,
        Self::RejectedBytes,
    ];

    /// Returns the name of its setting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Queues => "queues",
            Self::Exchanges => "exchanges",
            Self::Bindings => "bindings",
            Self::Consumers => "consumers",
            Self::WaitingMessages => "waiting_messages",
            Self::WaitingBytes => "waiting_bytes",
            Self::RejectedMessages => "rejected_messages",
            Self::RejectedBytes => "rejected_bytes",
        }
    }

    /// Returns what a client with these limits may hold; 0 means no limit.
    #[must_use]
    pub fn limit(self, limits: &ClientLimits) -> u64 {
        match self {
            Self::Connections => limits.connections as u64,
            Self::Queues => limits.queues,
            Self::Exchanges => limits.exchanges,
            Self::Bindings => limits.bindings,
            Self::Consumers => limits.consumers,
            Self::WaitingMessages => limits.waiting_messages,
            Self::WaitingBytes => limits.waiting_bytes,
            Self::RejectedMessages => limits.rejected_messages,
            Self::RejectedBytes => limits.rejected_bytes,
        }
    }

    /// Returns what a client that has reached the limit can do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Connections => "close some of them",
            Self::Queues => "delete a queue first, or ask for a higher limit",
            Self::Exchanges => "delete an exchange first, or ask for a higher limit",
            Self::Bindings => "unbind a queue first, or ask for a higher limit",
            Self::Consumers => "end another consumer first, or ask for a higher limit",
            Self::WaitingMessages | Self::WaitingBytes => {
                "send again when receivers have acknowledged messages, or ask for a higher limit"
            }
            Self::RejectedMessages | Self::RejectedBytes => {
                "find out why receivers reject messages; an administrator can remove them by \
                 limits.client.rejected_age, or raise the limit"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quota_has_the_name_of_its_setting() {
        let limits = format!("{:?}", ClientLimits::default());
        for quota in Quota::ALL {
            let (name, limit) = (quota.name(), quota.limit(&ClientLimits::default()));
            assert!(limits.contains(&format!(" {name}: {limit}")), "{name}");
        }
    }
}
