//! What clients hold of their quotas, how fast they publish, and the answers to those who exceed
//! that.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ciphermq_protocol::{ClientId, Envelope, ErrorCode, ErrorReply};
use dashmap::DashMap;
use parking_lot::Mutex;

use super::{Broker, ClientSession};
use crate::quota::{Ledger, PublishRate, Quota, QuotaUsage, Quotas, TooFast};
use crate::repeated::Event;

/// How fast one client publishes, shared by its connections.
pub(super) type SharedRate = Arc<Mutex<PublishRate>>;

/// How fast the clients publish.
///
/// A client that connects again still owes what it owed before.
#[derive(Debug)]
pub(super) struct PublishRates {
    rates: DashMap<ClientId, SharedRate>,
    /// The beginning of the time.
    epoch: Instant,
}

impl Default for PublishRates {
    fn default() -> Self {
        Self {
            rates: DashMap::new(),
            epoch: Instant::now(),
        }
    }
}

impl PublishRates {
    /// Returns the state of a client, by the limits in the ledger.
    pub(super) fn of(&self, client_id: &ClientId, ledger: &Ledger) -> SharedRate {
        let rate = self.rates.entry(client_id.clone());
        // The limits are read while the entry is locked: if others come into force, it gets them
        // here or by `limit`.
        let new = || Arc::new(Mutex::new(PublishRate::new(ledger.quotas().of(client_id))));
        Arc::clone(&rate.or_insert_with(new))
    }

    /// Goes on with other limits, which are in force already.
    fn limit(&self, quotas: &Quotas) {
        let now = self.epoch.elapsed();
        for rate in &self.rates {
            rate.value().lock().limit(now, quotas.of(rate.key()));
        }
    }

    /// Returns the used parts of a client's burst, in messages and bytes.
    fn used(&self, client_id: &ClientId) -> (u64, u64) {
        let now = self.epoch.elapsed();
        let rate = self.rates.get(client_id);
        rate.map_or((0, 0), |rate| rate.lock().used(now))
    }

    /// Forgets clients that have gone and owe nothing.
    pub(super) fn forget_full(&self) {
        let now = self.epoch.elapsed();
        self.rates
            .retain(|_, rate| Arc::strong_count(rate) > 1 || !rate.lock().is_full(now));
    }

    fn admit(&self, rate: &SharedRate, envelopes: &[Envelope]) -> Result<(), TooFast> {
        let bytes: usize = envelopes.iter().map(|envelope| envelope.raw().len()).sum();
        let (messages, bytes) = (envelopes.len() as u64, bytes as u64);
        rate.lock().admit(self.epoch.elapsed(), messages, bytes)
    }
}

/// The number of a client's consumers.
#[derive(Debug, Default)]
pub(super) struct ConsumerCount(AtomicU64);

/// A consumer, which counts until this is dropped.
#[derive(Debug)]
pub(super) struct ConsumerSlot(Arc<ConsumerCount>);

impl ConsumerSlot {
    /// Counts a consumer unless there are as many as `limit`; 0 means no limit.
    fn take(count: &Arc<ConsumerCount>, limit: u64) -> Option<Self> {
        let more = |held: u64| (limit == 0 || held < limit).then_some(held + 1);
        let taken = count
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for ConsumerSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Broker {
    /// Returns the limits of all clients.
    #[must_use]
    pub fn quotas(&self) -> Arc<Quotas> {
        self.ledger.quotas()
    }

    /// Replaces the limits of all clients, also for connections that are open. What a client has
    /// beyond a new limit is not taken away.
    pub fn replace_quotas(&self, quotas: Quotas) {
        self.ledger.replace(quotas);
        self.rates.limit(&self.quotas());
    }

    /// Returns what a client holds of each quota.
    #[must_use]
    pub fn usage(&self, client_id: &ClientId) -> Vec<QuotaUsage> {
        let limits = Arc::clone(self.quotas().of(client_id));
        let (made, held) = (self.topology.made(client_id), self.ledger.held(client_id));
        let usage = |quota: Quota| QuotaUsage {
            quota: quota.name(),
            held: match quota {
                Quota::Connections => self.connections_of(client_id),
                Quota::Consumers => {
                    let count = self.consumer_counts.get(client_id, ConsumerCount::default);
                    count.0.load(Ordering::Relaxed)
                }
                Quota::Queues | Quota::Exchanges | Quota::Bindings => made.of(quota),
                Quota::WaitingMessages
                | Quota::WaitingBytes
                | Quota::RejectedMessages
                | Quota::RejectedBytes => held.of(quota),
            },
            limit: quota.limit(&limits),
        };
        let mut usage = Quota::ALL.map(usage).to_vec();
        let (messages, bytes) = self.rates.used(client_id);
        usage.extend([
            QuotaUsage {
                quota: "publish_messages_per_second",
                held: messages,
                limit: limits.publish_messages_per_second,
            },
            QuotaUsage {
                quota: "publish_bytes_per_second",
                held: bytes,
                limit: limits.publish_bytes_per_second,
            },
        ]);
        usage
    }

    /// Returns every client that holds anything of a quota.
    #[must_use]
    pub fn clients_with_usage(&self) -> BTreeSet<ClientId> {
        let connections = self.dispatcher.connections.iter();
        let mut clients: BTreeSet<ClientId> = connections.map(|of| of.client_id.clone()).collect();
        clients.extend(self.topology.makers());
        clients.extend(self.ledger.senders());
        clients
    }

    /// Returns the error of a client that has reached a quota, and logs it.
    pub(super) fn exceeded(&self, client_id: &ClientId, quota: Quota) -> ErrorReply {
        let limit = quota.limit(self.quotas().of(client_id));
        let text = format!(
            "limits.client.{} is {limit} for {client_id}; {}",
            quota.name(),
            quota.advice()
        );
        self.log_reached(client_id, quota.name(), limit, None);
        ErrorReply::new(ErrorCode::QuotaExceeded, text)
    }

    /// Returns the error of a client whose messages to one receiver have used up what one receiver
    /// can use up of a quota, and logs it.
    pub(super) fn exceeded_by(
        &self,
        client_id: &ClientId,
        quota: Quota,
        receiver: &ClientId,
    ) -> ErrorReply {
        let limit = quota.limit(self.quotas().of(client_id));
        let text = format!(
            "limits.client.{} is {limit} for {client_id}, at most a quarter of it for messages to \
             one receiver, which those to {receiver} have reached; others can be sent to; {}",
            quota.name(),
            quota.advice()
        );
        self.log_reached(client_id, quota.name(), limit, Some(receiver));
        ErrorReply::new(ErrorCode::QuotaExceeded, text)
    }

    /// Logs that a client has reached a limit, for messages to one receiver or for all: the first
    /// time for each.
    fn log_reached(
        &self,
        client_id: &ClientId,
        quota: &str,
        limit: u64,
        receiver: Option<&ClientId>,
    ) {
        let reason = match receiver {
            Some(receiver) => Cow::from(format!("{quota} of messages to {receiver}")),
            None => Cow::from(quota),
        };
        if self
            .repeated
            .is_first(Event::QuotaReached, client_id.as_str(), &reason)
        {
            let receiver = receiver.map(tracing::field::display);
            tracing::warn!(%client_id, quota, limit, receiver, "Quota of a client is reached");
        }
    }
}

impl ClientSession {
    /// Returns the error of a client that has reached a quota, and logs it.
    pub(super) fn exceeded(&self, quota: Quota) -> ErrorReply {
        self.broker.exceeded(&self.client_id, quota)
    }

    /// Counts a further consumer.
    ///
    /// # Errors
    ///
    /// `quota_exceeded` if the client has as many as it may.
    pub(super) fn consumer_slot(&self) -> Result<ConsumerSlot, ErrorReply> {
        let limit = self.broker.quotas().of(&self.client_id).consumers;
        ConsumerSlot::take(&self.consumer_count, limit)
            .ok_or_else(|| self.exceeded(Quota::Consumers))
    }

    /// Lets the messages of a line through unless the client publishes too fast.
    ///
    /// # Errors
    ///
    /// `rate_limited`, which says when to send them again.
    pub(super) fn admit(&self, envelopes: &[Envelope]) -> Result<(), ErrorReply> {
        let Err(TooFast {
            limit,
            value,
            pause,
        }) = self.broker.rates.admit(&self.rate, envelopes)
        else {
            return Ok(());
        };
        let client_id = &self.client_id;
        self.broker.log_reached(client_id, limit, value, None);
        let text = format!("limits.client.{limit} is {value} for {client_id}");
        Err(ErrorReply::rate_limited(&text, pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_count_until_they_end() {
        let count = Arc::new(ConsumerCount::default());
        let one = ConsumerSlot::take(&count, 2).unwrap();
        let _two = ConsumerSlot::take(&count, 2).unwrap();
        assert!(ConsumerSlot::take(&count, 2).is_none());
        let _free = ConsumerSlot::take(&count, 0).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        drop(one);
        assert!(ConsumerSlot::take(&count, 2).is_none(), "two are left");
        assert!(ConsumerSlot::take(&count, 3).is_some());
    }
}
