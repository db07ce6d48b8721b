//! Consuming: deliveries, messages and acks.
//!
//! ```text
//!   deliveries ─► queue ─► processed before? ─► open ─► Message ─► the application
//!                            │ yes               │ no               │ ack
//!                            └─► ack again       └─► Unopenable     ├─► recorded as processed
//!                                                    │ reject       └─► ack ... ACK_CONFIRMED
//! ```
//!
//! **Copies.** Whoever delivers messages can deliver several under one id, a forged one before the
//! genuine one. So each is opened, unless it has the same bytes as another, or its named sender has
//! already proved to have sent that id, and it was processed. A message is a duplicate only of one
//! with the same *verified* sender and the same id. When one cannot be opened, the others with its
//! id that are in the queue are opened before it is returned: a reject names the id alone, and
//! would hit the genuine one as well, so [`Unopenable::reject`] sends none then.
//!
//! A consumer runs on a connection of its own, so that it shares its prefetch and leases with
//! nobody. After a loss it reconnects under the same consumer id: the server ends the old
//! connection, if it still exists, and redelivers unacknowledged messages.
//!
//! **Exactly once.** A message counts as processed when the application acknowledges it, not
//! before. Three rules keep it from being returned twice:
//!
//! - Deliveries that the application has not taken are dropped when the connection is lost, because
//!   they will be redelivered.
//! - A [`Message`] that the application holds (neither acknowledged nor dropped) is not returned
//!   again when it is redelivered.
//! - An acknowledged message is recorded in the [`Deduplication`]: a redelivery is acknowledged
//!   again, and not returned.
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
mod list_lookup;
mod lookup;
mod message;
mod postponed;
mod shared;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use ciphermq_crypto::{OpenError, Opened, Opener};
use ciphermq_protocol::envelope::EnvelopeReader;
use ciphermq_protocol::{ClientId, Delivery, MessageId, QueueName};
use futures_util::Stream;
use jiff::Timestamp;

pub use acker::Acker;
pub use builder::ConsumerBuilder;
pub use message::{ConsumeError, Message, Rejection, Unopenable, UnopenableReason};

pub use crate::driver::AckSummary;

use self::list_lookup::ListLookup;
use self::lookup::{CertificateLookup, LookupResult, NotFound};
use self::postponed::Postponed;
use self::shared::ConsumerCore;
use crate::connection::Connection;
use crate::credentials::Trust;
use crate::dedup::{Deduplication, StreamGaps};
use crate::driver::{DeliveryQueue, Handle};
use crate::error::{ConnectError, RequestError};
use crate::event::Events;
use crate::keys::Registration;
use crate::revocation::{Fetcher, Needs, Tries};

/// Number of skipped duplicates after which the task yields to others.
const YIELD_AFTER: usize = 64;

/// The most copies of a message that are examined before the first of them is returned. A server
/// can send them endlessly.
const MAX_READY: usize = 256;

/// A stream of the opened messages of a queue that are for this client. Created by
/// [`Client::consumer`].
///
/// The [`Stream`] ends only when it is closed, or after [`ConsumeError::Ended`]. Dropping it ends
/// its connection: acks that were made are still sent, and everything else is redelivered, to the
/// next consumer.
///
/// [`Client::consumer`]: crate::Client::consumer
#[derive(Debug)]
pub struct Consumer {
    queue: QueueName,
    opener: Opener,
    /// The authorities in use, which the opener follows.
    trust: Trust,
    lists: Fetcher,
    /// A delivery that waits until lists were asked for, or until authorities are known. Later
    /// ones wait for it.
    held: Option<ListLookup>,
    /// Deliveries that wait for lists that the server does not have.
    postponed: Postponed,
    has_ended: bool,
    reader: EnvelopeReader,
    /// The pending request for a sender's certificate. Later deliveries wait for it.
    lookup: Option<CertificateLookup>,
    /// Items to return next.
    ready: VecDeque<Item>,
    /// The id of the unopenable item in `ready`, if there is one.
    copies_of: Option<MessageId>,
    shared: Arc<ConsumerCore>,
    registration: Option<Registration>,
}

type Item = Result<Message, ConsumeError>;

impl Consumer {
    fn new(
        queue: QueueName,
        opener: Opener,
        (trust, lists): (Trust, Fetcher),
        handle: Handle,
        queued: Arc<DeliveryQueue>,
        dedup: Box<dyn Deduplication>,
        registration: Option<Registration>,
    ) -> Self {
        Self {
            queue,
            opener,
            trust,
            lists,
            held: None,
            postponed: Postponed::default(),
            has_ended: false,
            reader: EnvelopeReader::default(),
            lookup: None,
            ready: VecDeque::new(),
            copies_of: None,
            shared: Arc::new(ConsumerCore::new(handle, queued, dedup)),
            registration,
        }
    }

    /// Returns the next message; `None` once the consumer is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Message, ConsumeError>> {
        futures_util::StreamExt::next(self).await
    }

    /// Returns the next message if one is already here. None is while newer revocation lists are
    /// required: [`next`](Self::next) fetches them, or ends.
    pub fn try_next(&mut self) -> Option<Result<Message, ConsumeError>> {
        // It ends where it is awaited.
        let may_open = self.trust.check_lists(Timestamp::now()).is_ok();
        while self.lookup.is_none() && self.held.is_none() && may_open {
            self.follow_authority(None);
            let delivery = match self.next_copy() {
                Some(copy) => copy,
                None if self.ready.is_empty() => self.shared.queued.pop()?,
                None => return self.ready.pop_front(),
            };
            let item = self.open_delivery(delivery, Tries::default());
            self.keep(item);
        }
        None
    }

    /// Changes the prefetch, the number of messages that may be delivered and not acknowledged, on
    /// this and future connections.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer. The new prefetch then applies from
    /// the next connection on.
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

    /// Returns a handle that acknowledges messages from other tasks.
    #[must_use]
    pub fn acker(&self) -> Acker {
        Acker::new(self.shared.clone())
    }

    /// Acknowledges a group of messages, in as few lines as possible, and returns the outcome of
    /// each, in order.
    pub async fn ack_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<(
        ciphermq_protocol::MessageId,
        Result<(), crate::error::AckError>,
    )> {
        self.acker().ack_all(messages).await
    }

    /// Waits until every ack of [`Message::ack_later`] is settled, and returns the outcomes.
    pub async fn flush_acks(&self) -> AckSummary {
        self.acker().flush().await
    }

    /// Returns the number of skipped deliveries that had been processed before.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.shared.duplicates()
    }

    /// Returns the gaps in the streams of verified senders, according to the consumer's
    /// [`Deduplication`]. Unacknowledged and delayed messages count as missing;
    /// [`GapWatch`](crate::dedup::GapWatch) reports those that stay missing.
    #[must_use]
    pub fn gaps(&self) -> Vec<StreamGaps> {
        self.shared.lock_dedup().gaps()
    }

    /// Returns the consumer's queue.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Returns the id of the client that the messages are for.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.shared.handle.connection().server.client_id.clone()
    }

    /// Returns the result of registering this client's keys at the start, if that was requested.
    #[must_use]
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// Returns the properties of the current or last connection.
    #[must_use]
    pub fn connection(&self) -> Arc<Connection> {
        self.shared.handle.connection()
    }

    /// Subscribes to the events of the consumer's connection.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.handle.events()
    }

    /// Settles the pending acks, then ends the connection.
    pub async fn close(self) -> AckSummary {
        let summary = self.flush_acks().await;
        self.shared.handle.close().await;
        summary
    }

    /// Returns another delivery with the id of an unopenable one.
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

    /// Opens a delivery; `None` if it is skipped, or waits.
    fn open_delivery(&mut self, delivery: Delivery, tries: Tries) -> Option<Item> {
        let Delivery {
            message_id,
            envelope: raw,
        } = self.follow_authority(Some(delivery))?;
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
        // A message that this sender has proved to have sent, and that was processed, is not opened
        // again; its key may be gone.
        let sender = envelope.sender_client_id.as_ref();
        if sender.is_some() && self.shared.is_processed(sender, &message_id) {
            self.shared.skip_processed(message_id);
            return None;
        }
        match self.opener.open_parsed(&envelope, &fields) {
            Ok(opened) => self.accept(opened),
            Err(OpenError::CertificateNeeded {
                sender,
                fingerprint,
            }) => {
                let shared = self.shared.clone();
                self.lookup = Some(CertificateLookup::start(
                    shared,
                    envelope,
                    sender,
                    fingerprint,
                ));
                None
            }
            Err(error) => match Needs::of_message(&error) {
                Some(needs) => {
                    let delivery = Delivery {
                        message_id,
                        envelope: raw,
                    };
                    self.provide(delivery, (error, needs), tries);
                    None
                }
                None => refuse(UnopenableReason::Sealed(error)),
            },
        }
    }

    /// Ends because of revocation lists that are too old. What is not opened is delivered again, to
    /// the next consumer.
    fn end(&mut self, reason: ConnectError) -> Item {
        self.has_ended = true;
        self.shared.handle.end();
        Err(ConsumeError::Ended(reason))
    }

    /// Opens a delivery whose sender's certificate was requested; `None` if it is skipped.
    fn open_after_lookup(&mut self, found: LookupResult) -> Option<Item> {
        let LookupResult {
            envelope,
            sender,
            fingerprint,
            chain,
        } = found;
        match chain {
            Ok(chain) => self.opener.add_sender_chain(chain),
            Err(NotFound::Certificate) => {}
            Err(NotFound::Closed) => return None,
        }
        let delivery = Delivery {
            message_id: envelope.message_id.clone(),
            envelope: envelope.raw().clone(),
        };
        let Delivery {
            message_id,
            envelope: raw,
        } = self.follow_authority(Some(delivery))?;
        let reason = match self.opener.open(&envelope) {
            Ok(opened) => return self.accept(opened),
            Err(OpenError::CertificateNeeded { .. }) => UnopenableReason::NoCertificate {
                sender,
                fingerprint,
            },
            Err(error) => {
                if let Some(needs) = Needs::of_message(&error) {
                    let delivery = Delivery {
                        message_id,
                        envelope: raw,
                    };
                    self.provide(delivery, (error, needs), Tries::default());
                    return None;
                }
                UnopenableReason::Sealed(error)
            }
        };
        let unopenable = Unopenable::new(message_id, raw.to_bytes(), reason, self.shared.clone());
        unopenable.map(|unopenable| Err(ConsumeError::Unopenable(unopenable)))
    }

    /// Returns a message unless it was processed before or is held by the application.
    fn accept(&self, opened: Opened) -> Option<Item> {
        let sender = opened.sender.as_ref().filter(|_| opened.is_sender_verified);
        if !self.shared.queued.hold(&opened.message_id, sender) {
            return None;
        }
        let message = Message::new(opened, self.shared.clone());
        // Checked once the message is held, not before: an ack in another task first records the
        // message and then ends its hold.
        if self
            .shared
            .is_processed(message.verified_sender(), message.message_id())
        {
            self.shared.skip_processed(message.message_id().clone());
            return None;
        }
        Some(Ok(message))
    }
}

impl Stream for Consumer {
    type Item = Result<Message, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        for _ in 0..YIELD_AFTER {
            let item = if let Some(held) = &mut self.held {
                let held = std::task::ready!(held.poll(cx));
                self.held = None;
                if let Err(reason) = self.trust.check_lists(Timestamp::now()) {
                    return Poll::Ready(Some(self.end(reason)));
                }
                self.open_held(held)
            } else if let Some(lookup) = &mut self.lookup {
                let found = std::task::ready!(lookup.poll(cx));
                self.lookup = None;
                self.open_after_lookup(found)
            } else if let Some(copy) = self.next_copy() {
                self.open_delivery(copy, Tries::default())
            } else if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(item));
            } else {
                if self.postponed.poll_change(cx).is_ready() {
                    self.follow_authority(None);
                }
                let Some(delivery) = std::task::ready!(self.shared.queued.poll_pop(cx)) else {
                    let end = self.shared.queued.take_end();
                    return Poll::Ready(end.map(|reason| Err(ConsumeError::Ended(reason))));
                };
                if self.trust.check_lists(Timestamp::now()).is_err() {
                    self.hold(delivery);
                    continue;
                }
                self.open_delivery(delivery, Tries::default())
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
