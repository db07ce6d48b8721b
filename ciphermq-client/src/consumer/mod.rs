//! Deliveries, messages, acks.
//!
//! ```text
//!   deliveries ─► inbox ─► processed before? ─► open ─► Message ─► the application
//!                            │ yes               │ no               │ ack
//!                            └─► ack again       └─► Unopenable     ├─► recorded as processed
//!                                                    │ reject       └─► ack ... ACK_CONFIRMED
//! ```
//!
//! A consumer runs on a connection of its own, so that its prefetch and leases are nobody else's. After a
//! loss it connects again under the same consumer id: the server ends the old connection, if it still
//! stands, and delivers again what was not acked.
//!
//! **Exactly once.** Three things keep a message from being handed over twice. What has been delivered and not
//! yet been taken is dropped when the connection is lost, because it will come again. What the application
//! holds (a [`Message`] that is neither acked nor dropped) is not handed over again if it comes again. And
//! what it has acked is known to the [`Deduplication`]: it is acked again, and not handed over. A message
//! counts as processed when the application acks it, not before.
//!
//! ```no_run
//! use ciphermq_client::keys::read_private;
//! use ciphermq_client::{Client, Keyring, default_queue};
//!
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut consumer = client
//!     .consumer(&default_queue(client.id())?)
//!     .keyring(Keyring::new(read_private("certs/receiver_private.key".as_ref())?))
//!     .start()
//!     .await?;
//! while let Some(message) = consumer.next().await {
//!     let message = message?;
//!     println!("{}", String::from_utf8_lossy(message.payload()));
//!     message.ack().await?;
//! }
//! # Ok(())
//! # }
//! ```

mod acker;
mod builder;
mod inbox;
mod lookup;
mod message;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ciphermq_crypto::{OpenError, Opened, Opener};
use ciphermq_protocol::envelope::EnvelopeReader;
use ciphermq_protocol::{ClientId, Delivery, MessageId, QueueName};
use futures_util::Stream;

pub use acker::{AckSummary, Acker};
pub use builder::ConsumerBuilder;
pub use message::{ConsumeError, Message, Unopenable, UnopenableReason};

pub(crate) use acker::AckTally;
pub(crate) use inbox::Inbox;

use self::lookup::{Found, Lookup, NotFound};
use crate::client::Connection;
use crate::dedup::{Deduplication, StreamGaps};
use crate::driver::{AckItem, Handle};
use crate::event::Events;
use crate::keys::Registration;

/// After so many messages that were left out the task lets others run.
const YIELD_AFTER: usize = 64;

/// Receives the messages of a queue that are for this client, opened. Made by [`Client::consumer`].
///
/// It is a [`Stream`] that ends only when it is closed. Dropping it ends its connection: what was acked is
/// still sent, what was not is delivered again, to the next consumer.
///
/// [`Client::consumer`]: crate::Client::consumer
#[derive(Debug)]
pub struct Consumer {
    queue: QueueName,
    opener: Opener,
    reader: EnvelopeReader,
    /// A sender's certificate that is being asked for. What was delivered after its message waits for it.
    lookup: Option<Lookup>,
    shared: Arc<Shared>,
    registration: Option<Registration>,
}

/// What a consumer and its messages have in common.
pub(crate) struct Shared {
    pub(crate) handle: Handle,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) dedup: Mutex<Box<dyn Deduplication>>,
    duplicates: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("handle", &self.handle)
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    fn new(
        queue: QueueName,
        opener: Opener,
        handle: Handle,
        inbox: Arc<Inbox>,
        dedup: Box<dyn Deduplication>,
        registration: Option<Registration>,
    ) -> Self {
        let shared = Shared {
            handle,
            inbox,
            dedup: Mutex::new(dedup),
            duplicates: AtomicU64::new(0),
        };
        Self {
            queue,
            opener,
            reader: EnvelopeReader::default(),
            lookup: None,
            shared: Arc::new(shared),
            registration,
        }
    }

    /// The next message; `None` once the consumer is closed. May be cancelled without loss.
    pub async fn next(&mut self) -> Option<Result<Message, ConsumeError>> {
        futures_util::StreamExt::next(self).await
    }

    /// The next message, if one is there already.
    pub fn try_next(&mut self) -> Option<Result<Message, ConsumeError>> {
        while self.lookup.is_none()
            && let Some(delivery) = self.shared.inbox.pop()
        {
            if let Some(item) = self.examine(delivery) {
                return Some(item);
            }
        }
        None
    }

    /// Acks for use in other tasks, and for groups of messages.
    #[must_use]
    pub fn acker(&self) -> Acker {
        Acker::new(self.shared.clone())
    }

    /// Acks a group of messages, in as few lines as possible, and tells what became of each, in order.
    pub async fn ack_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<(ciphermq_protocol::MessageId, Result<(), crate::error::AckError>)> {
        self.acker().ack_all(messages).await
    }

    /// Waits until everything that was acked with [`Message::ack_later`] is settled, and tells what became
    /// of it.
    pub async fn flush_acks(&self) -> AckSummary {
        self.acker().flush().await
    }

    /// How many deliveries were left out because they had been processed before.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.shared.duplicates.load(Ordering::Relaxed)
    }

    /// What is missing in the streams of verified senders, as far as the consumer's [`Deduplication`] can tell: what was not
    /// acked counts as missing, and what is late, too. [`GapWatch`](crate::dedup::GapWatch) tells those that stay.
    #[must_use]
    pub fn gaps(&self) -> Vec<StreamGaps> {
        self.shared.lock_dedup().gaps()
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Whose messages these are.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.shared.handle.connection().server.client_id.clone()
    }

    /// What became of this client's keys when the consumer started, if it was to register them.
    #[must_use]
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// The connection that stands, or stood last.
    #[must_use]
    pub fn connection(&self) -> Arc<Connection> {
        self.shared.handle.connection()
    }

    /// What happens to the consumer's connection from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.handle.events()
    }

    /// Settles the acks that are under way, then ends the connection.
    pub async fn close(self) -> AckSummary {
        let summary = self.flush_acks().await;
        self.shared.handle.close().await;
        summary
    }

    /// What to do with a delivery; `None` if it is left out.
    fn examine(&mut self, delivery: Delivery) -> Option<Result<Message, ConsumeError>> {
        let Delivery {
            message_id,
            envelope: raw,
        } = delivery;
        let refuse = |reason| {
            let unopenable = Unopenable::new(message_id.clone(), raw.to_bytes(), reason, self.shared.clone());
            Some(Err(ConsumeError::Unopenable(unopenable)))
        };
        let (envelope, fields) = match self.reader.read(&raw) {
            Ok(read) if read.0.message_id == message_id => read,
            Ok(_) => return refuse(UnopenableReason::OtherId),
            Err(error) => return refuse(UnopenableReason::NoEnvelope(error.to_string())),
        };
        // What this sender has proved to have sent, and was processed, is not opened again; its key may be gone.
        let sender = envelope.sender_client_id.as_ref();
        if sender.is_some() && self.shared.is_processed(sender, &message_id) {
            self.shared.leave_out(message_id);
            return None;
        }
        match self.opener.open_read(&envelope, &fields) {
            Ok(opened) => self.shared.hand_over(opened),
            Err(OpenError::CertificateNeeded { sender, fingerprint }) => {
                let shared = self.shared.clone();
                self.lookup = Some(Lookup::start(shared, envelope, sender, fingerprint));
                None
            }
            Err(error) => refuse(UnopenableReason::Sealed(error)),
        }
    }

    /// What to do with a delivery whose sender's certificate was asked for; `None` if nothing can come any more.
    fn examine_again(&mut self, found: Found) -> Option<Result<Message, ConsumeError>> {
        let Found {
            envelope,
            sender,
            fingerprint,
            chain,
        } = found;
        let message_id = envelope.message_id.clone();
        match chain {
            Ok(chain) => self.opener.learn(chain),
            Err(NotFound::Certificate) => {}
            Err(NotFound::Closed) => {
                self.shared.inbox.release(&message_id);
                return None;
            }
        }
        let reason = match self.opener.open(&envelope) {
            Ok(opened) => return self.shared.hand_over(opened),
            Err(OpenError::CertificateNeeded { .. }) => {
                UnopenableReason::NoCertificate { sender, fingerprint }
            }
            Err(error) => UnopenableReason::Sealed(error),
        };
        let unopenable = Unopenable::new(message_id, envelope.raw().to_bytes(), reason, self.shared.clone());
        Some(Err(ConsumeError::Unopenable(unopenable)))
    }
}

impl Shared {
    /// Hands over a message, unless it comes from a sender that proved nothing and was processed before.
    fn hand_over(self: &Arc<Self>, opened: Opened) -> Option<Result<Message, ConsumeError>> {
        if !opened.is_sender_verified && self.is_processed(None, &opened.message_id) {
            self.leave_out(opened.message_id);
            return None;
        }
        Some(Ok(Message::new(opened, Arc::clone(self))))
    }

    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        self.lock_dedup().is_processed(sender, message_id)
    }

    /// Acks again what was processed before.
    fn leave_out(&self, message_id: MessageId) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
        self.inbox.release(&message_id);
        // If the connection is closed it comes again, and is left out again.
        let _ = self.handle.push_acks([AckItem::again(message_id)]);
    }

    pub(crate) fn lock_dedup(&self) -> std::sync::MutexGuard<'_, Box<dyn Deduplication>> {
        self.dedup
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Stream for Consumer {
    type Item = Result<Message, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        for _ in 0..YIELD_AFTER {
            let item = if let Some(lookup) = &mut self.lookup {
                let found = std::task::ready!(lookup.poll(cx));
                self.lookup = None;
                self.examine_again(found)
            } else {
                let Some(delivery) = std::task::ready!(self.shared.inbox.poll_pop(cx)) else {
                    return Poll::Ready(None);
                };
                self.examine(delivery)
            };
            if let Some(item) = item {
                return Poll::Ready(Some(item));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.handle.end();
    }
}
