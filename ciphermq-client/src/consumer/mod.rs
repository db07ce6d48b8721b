//! Deliveries, messages, acks.
//!
//! ```text
//!   deliveries ─► inbox ─► processed before? ─► open ─► Message ─► the application
//!                            │ yes               │ no               │ ack
//!                            └─► ack again       └─► Unopenable     ├─► recorded as processed
//!                                                    │ reject       └─► ack ... ACK_CONFIRMED
//! ```
//!
//! **Copies.** Whoever delivers messages can deliver several under one id, a forged one before the
//! genuine one. So each is opened, unless its bytes are the same as another's, or the sender that
//! it names has already proved to have sent that id, and it was processed. A message is a duplicate
//! only of one with the same *verified* sender and the same id. When one cannot be opened, the
//! others under its id that are here are looked at before it is handed over: a reject names the id
//! alone, and would take the genuine one with it, so [`Unopenable::reject`] sends none then.
//!
//! A consumer runs on a connection of its own, so that its prefetch and leases are nobody else's.
//! After a loss it connects again under the same consumer id: the server ends the old connection,
//! if it still stands, and delivers again what was not acked.
//!
//! **Exactly once.** Three things keep a message from being handed over twice. What has been
//! delivered and not yet been taken is dropped when the connection is lost, because it will come
//! again. What the application holds (a [`Message`] that is neither acked nor dropped) is not
//! handed over again if it comes again. And what it has acked is known to the [`Deduplication`]: it
//! is acked again, and not handed over. A message counts as processed when the application acks it,
//! not before.
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
mod delivery_queue;
mod lookup;
mod message;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ciphermq_crypto::{OpenError, Opened, Opener};
use ciphermq_protocol::envelope::EnvelopeReader;
use ciphermq_protocol::{ClientId, Command, Delivery, MessageId, QueueName, Reply};
use futures_util::Stream;

pub use acker::{AckSummary, Acker};
pub use builder::ConsumerBuilder;
pub use message::{ConsumeError, Message, Rejection, Unopenable, UnopenableReason};

pub(crate) use acker::AckTally;
pub(crate) use delivery_queue::DeliveryQueue;

use self::lookup::{Found, Lookup, NotFound};
use crate::client::Connection;
use crate::dedup::{Deduplication, StreamGaps};
use crate::driver::{AckItem, Handle};
use crate::error::RequestError;
use crate::event::Events;
use crate::keys::Registration;

/// After so many messages that were left out the task lets others run.
const YIELD_AFTER: usize = 64;

/// How many copies of a message are looked at before the first of them is handed over. A broker can
/// send them without end.
const MAX_READY: usize = 256;

/// Receives the messages of a queue that are for this client, opened. Made by [`Client::consumer`].
///
/// It is a [`Stream`] that ends only when it is closed. Dropping it ends its connection: what was
/// acked is still sent, what was not is delivered again, to the next consumer.
///
/// [`Client::consumer`]: crate::Client::consumer
#[derive(Debug)]
pub struct Consumer {
    queue: QueueName,
    opener: Opener,
    reader: EnvelopeReader,
    /// A sender's certificate that is being asked for. What was delivered after its message waits
    /// for it.
    lookup: Option<Lookup>,
    /// What is to be handed over next.
    ready: VecDeque<Item>,
    /// The id of which something in `ready` could not be opened.
    copies_of: Option<MessageId>,
    shared: Arc<ConsumerCore>,
    registration: Option<Registration>,
}

type Item = Result<Message, ConsumeError>;

/// What a consumer and its messages have in common.
pub(crate) struct ConsumerCore {
    pub(crate) handle: Handle,
    pub(crate) queued: Arc<DeliveryQueue>,
    pub(crate) dedup: Mutex<Box<dyn Deduplication>>,
    duplicates: AtomicU64,
}

impl std::fmt::Debug for ConsumerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerCore")
            .field("handle", &self.handle)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    fn new(
        queue: QueueName,
        opener: Opener,
        handle: Handle,
        queued: Arc<DeliveryQueue>,
        dedup: Box<dyn Deduplication>,
        registration: Option<Registration>,
    ) -> Self {
        let shared = ConsumerCore {
            handle,
            queued,
            dedup: Mutex::new(dedup),
            duplicates: AtomicU64::new(0),
        };
        Self {
            queue,
            opener,
            reader: EnvelopeReader::default(),
            lookup: None,
            ready: VecDeque::new(),
            copies_of: None,
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
        while self.lookup.is_none() {
            let delivery = match self.next_copy() {
                Some(copy) => copy,
                None if self.ready.is_empty() => self.shared.queued.pop()?,
                None => return self.ready.pop_front(),
            };
            let item = self.examine(delivery);
            self.keep(item);
        }
        None
    }

    /// Changes how many messages may be delivered and not acked, on this connection and on those
    /// that come after it.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer. Then it holds from the next
    /// connection on.
    pub fn set_prefetch(
        &self,
        prefetch: NonZeroU32,
    ) -> impl Future<Output = Result<(), RequestError>> + Send + use<> {
        self.shared
            .queued
            .prefetch()
            .store(prefetch.get(), Ordering::Relaxed);
        let (shared, queue) = (self.shared.clone(), self.queue.clone());
        async move { shared.subscribe(queue, prefetch).await }
    }

    /// Acks for use in other tasks, and for groups of messages.
    #[must_use]
    pub fn acker(&self) -> Acker {
        Acker::new(self.shared.clone())
    }

    /// Acks a group of messages, in as few lines as possible, and tells what became of each, in
    /// order.
    pub async fn ack_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<(
        ciphermq_protocol::MessageId,
        Result<(), crate::error::AckError>,
    )> {
        self.acker().ack_all(messages).await
    }

    /// Waits until everything that was acked with [`Message::ack_later`] is settled, and tells what
    /// became of it.
    pub async fn flush_acks(&self) -> AckSummary {
        self.acker().flush().await
    }

    /// How many deliveries were left out because they had been processed before.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.shared.duplicates.load(Ordering::Relaxed)
    }

    /// What is missing in the streams of verified senders, as far as the consumer's
    /// [`Deduplication`] can tell: what was not acked counts as missing, and what is late, too.
    /// [`GapWatch`](crate::dedup::GapWatch) tells those that stay.
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

    /// Another delivery under the id of one that could not be opened.
    fn next_copy(&mut self) -> Option<Delivery> {
        let message_id = self.copies_of.as_ref()?;
        if self.ready.len() >= MAX_READY {
            return None;
        }
        let copy = self.shared.queued.pop_copy(message_id);
        if copy.is_none() {
            self.copies_of = None;
        }
        copy
    }

    fn keep(&mut self, item: Option<Item>) {
        if let Some(Err(ConsumeError::Unopenable(unopenable))) = &item {
            self.copies_of = Some(unopenable.message_id().clone());
        }
        self.ready.extend(item);
    }

    /// What to do with a delivery; `None` if it is left out.
    fn examine(&mut self, delivery: Delivery) -> Option<Item> {
        let Delivery {
            message_id,
            envelope: raw,
        } = delivery;
        let refuse = |reason| {
            let unopenable = Unopenable::new(
                message_id.clone(),
                raw.to_bytes(),
                reason,
                self.shared.clone(),
            );
            unopenable.map(|unopenable| Err(ConsumeError::Unopenable(unopenable)))
        };
        let (envelope, fields) = match self.reader.read(&raw) {
            Ok(read) if read.0.message_id == message_id => read,
            Ok(_) => return refuse(UnopenableReason::OtherId),
            Err(error) => return refuse(UnopenableReason::NoEnvelope(error.to_string())),
        };
        // What this sender has proved to have sent, and was processed, is not opened again; its key
        // may be gone.
        let sender = envelope.sender_client_id.as_ref();
        if sender.is_some() && self.shared.is_processed(sender, &message_id) {
            self.shared.leave_out(message_id);
            return None;
        }
        match self.opener.open_parsed(&envelope, &fields) {
            Ok(opened) => self.shared.hand_over(opened),
            Err(OpenError::CertificateNeeded {
                sender,
                fingerprint,
            }) => {
                let shared = self.shared.clone();
                self.lookup = Some(Lookup::start(shared, envelope, sender, fingerprint));
                None
            }
            Err(error) => refuse(UnopenableReason::Sealed(error)),
        }
    }

    /// What to do with a delivery whose sender's certificate was asked for; `None` if nothing can
    /// come any more.
    fn examine_again(&mut self, found: Found) -> Option<Item> {
        let Found {
            envelope,
            sender,
            fingerprint,
            chain,
        } = found;
        let message_id = envelope.message_id.clone();
        match chain {
            Ok(chain) => self.opener.add_sender_chain(chain),
            Err(NotFound::Certificate) => {}
            Err(NotFound::Closed) => return None,
        }
        let reason = match self.opener.open(&envelope) {
            Ok(opened) => return self.shared.hand_over(opened),
            Err(OpenError::CertificateNeeded { .. }) => UnopenableReason::NoCertificate {
                sender,
                fingerprint,
            },
            Err(error) => UnopenableReason::Sealed(error),
        };
        let unopenable = Unopenable::new(
            message_id,
            envelope.raw().to_bytes(),
            reason,
            self.shared.clone(),
        );
        unopenable.map(|unopenable| Err(ConsumeError::Unopenable(unopenable)))
    }
}

impl ConsumerCore {
    /// Hands over a message, unless it was processed before, or is in the application's hands.
    fn hand_over(self: &Arc<Self>, opened: Opened) -> Option<Item> {
        let sender = opened.sender.as_ref().filter(|_| opened.is_sender_verified);
        if !self.queued.hold(&opened.message_id, sender) {
            return None;
        }
        let message = Message::new(opened, Arc::clone(self));
        // Asked once it is held, not before: an ack in another task records a message first, and
        // then lets go of it.
        if self.is_processed(message.verified_sender(), message.message_id()) {
            self.leave_out(message.message_id().clone());
            return None;
        }
        Some(Ok(message))
    }

    /// Whether a message under this id was opened and is at hand, or was processed, whoever has
    /// sent it.
    pub(crate) fn has_opened(&self, message_id: &MessageId) -> bool {
        self.queued.is_opened(message_id) || self.lock_dedup().is_any_processed(message_id)
    }

    async fn subscribe(&self, queue: QueueName, prefetch: NonZeroU32) -> Result<(), RequestError> {
        let command = Command::Consume {
            queue,
            prefetch: Some(prefetch),
        };
        self.handle
            .expect(command, |reply| {
                matches!(reply, Reply::Subscribed).then_some(())
            })
            .await
    }

    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        self.lock_dedup().is_processed(sender, message_id)
    }

    /// Acks again what was processed before.
    fn leave_out(&self, message_id: MessageId) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
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
            } else if let Some(copy) = self.next_copy() {
                self.examine(copy)
            } else if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(item));
            } else {
                let Some(delivery) = std::task::ready!(self.shared.queued.poll_pop(cx)) else {
                    return Poll::Ready(None);
                };
                self.examine(delivery)
            };
            self.keep(item);
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
