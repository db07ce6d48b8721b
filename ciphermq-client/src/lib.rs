//! The CipherMQ SDK: publish sealed messages and consume them, exactly once, over mutual TLS.
//!
//! ```text
//!  your code          handles                 one task per connection            the broker
//!
//!                ┌─► Publisher ── seal ──┐   ┌──────── driver ────────┐
//!  payloads ─────┤   window, receipts    ├──►│ outboxes: unanswered   │  commands
//!                │                       │   │ items, in order        │ ─────────►  TLS
//!  requests ─────┴─► Client ─────────────┘   │ pending replies        │ ◄─────────
//!                                            │                        │   replies
//!                                            └────────────────────────┘
//!                                            ┌──────── driver ────────┐
//!  messages ◄─────── Consumer ◄─ open ◄───── │ delivery queue, acks   │ ◄─────────  TLS
//!                    deduplication           └────────────────────────┘  deliveries
//! ```
//!
//! - A [`Client`] is one connection, shared by cheap clones. It reconnects automatically.
//! - A [`Publisher`] seals payloads for one receiver, batches them and keeps them until the server
//!   has acknowledged them; after a lost connection they are sent again, in order, with the same
//!   ids.
//! - A [`Consumer`] runs on a connection of its own, opens messages, skips those that were
//!   processed before, and acknowledges those that the application has processed.
//!
//! ```no_run
//! use ciphermq_client::{Client, ClientId, ExchangeName, RoutingKey};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("localhost:5672")
//!     .ca_file("certs/ca.crt")
//!     .identity_files("certs/sender_1/client.crt", "certs/sender_1/client.key")
//!     .connect()
//!     .await?;
//! let publisher = client
//!     .publisher(&ClientId::new("receiver_1")?)
//!     .exchange(ExchangeName::new("ciphermq_exchange")?)
//!     .routing_key(RoutingKey::new("receiver_1_key")?)
//!     .start()
//!     .await?;
//! let receipt = publisher.send("21.5 °C").await?;
//! println!("the server has {}", receipt.await?);
//! publisher.finish().await;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Modules in reading order:
//!
//! - [`builder`]: the server's address and this client's identity
//! - [`client`]: the handle of a connection, and its requests
//! - [`publisher`]: sealing, windows, batches, receipts
//! - [`consumer`]: deliveries, messages, acks
//! - [`dedup`]: records of processed messages, in memory and across crashes
//! - [`resume`]: publishing that resumes after a crash, under the same ids
//! - [`checkpoint`]: the small files that both use
//! - [`defaults`]: default names, derived from the receiver's client id
//! - [`keys`]: verification, caching and pinning of receivers' public keys
//! - [`revocation`]: revocation lists: fetched from the server, verified, and kept
//! - [`event`]: events of a connection
//! - [`error`](mod@error): kinds, blame, advice
//! - [`backoff`]: pauses between attempts to connect
//! - `credentials`: this client's certificate, key and authority, and their replacement
//! - `blocking`: work that waits for a disk
//! - `client_core`: what publishers and consumers share with their client
//! - `connector`, `connection`: TCP and TLS, and what was negotiated
//! - `driver`: the task that owns a connection, and its protocol logic without sockets or clock

pub mod backoff;
mod blocking;
pub mod builder;
pub mod checkpoint;
pub mod client;
mod client_core;
mod connection;
mod connector;
pub mod consumer;
mod credentials;
pub mod dedup;
pub mod defaults;
mod driver;
pub mod error;
pub mod event;
pub mod keys;
pub mod publisher;
pub mod resume;
pub mod revocation;

pub use backoff::Backoff;
pub use builder::ClientBuilder;
pub use checkpoint::CheckpointError;
pub use client::{Client, Connection, DeleteQueue, ResendOutcome};
pub use consumer::{
    AckSummary, Acker, ConsumeError, Consumer, ConsumerBuilder, Message, Rejection, Unopenable,
    UnopenableReason,
};
pub use credentials::{CertificateEnd, CertificateRole};
pub use dedup::{Deduplication, InMemory};
pub use defaults::{DEFAULT_EXCHANGE, default_queue, default_routing_key};
pub use error::{
    AckError, AckErrorKind, Blame, ConnectError, ConnectErrorKind, Error, Kind, PublishError,
    PublishErrorKind, RequestError, RequestErrorKind,
};
pub use event::{Event, Events};
pub use publisher::{BatchLimits, Outcome, Payload, Publisher, PublisherBuilder, Receipt, Summary};

pub use ciphermq_crypto::identity::{
    ClientIdFrom, ClientIdFromError, NameField as ClientIdField, RevocationList,
};
pub use ciphermq_crypto::stream::start as start_stream;
pub use ciphermq_crypto::{
    Announcement, Authority, Certificate, Fingerprint, Form, Identity, KeyError, KeyFileError,
    KeyId, Keyring, OlderForm, OpenError, OpenPolicy, Opened, Opener, Pin, PrivateKey, PublicKey,
    RandomError, RecipientKey, SenderError, SignedKeyError, Suite, VerifiedKeys, XWingPrivateKey,
    XWingPublicKey,
};
pub use ciphermq_protocol::administration::{
    BlockInfo, ClientInfo, ClientsPage, ClientsRequest, ConnectionInfo, ConnectionsPage,
    ConnectionsRequest, QuotaInfo, Reloaded,
};
pub use ciphermq_protocol::ends::EndInfo;
pub use ciphermq_protocol::hello::{HelloLimits, HelloReply};
pub use ciphermq_protocol::name::pattern::{Pattern, PatternError};
pub use ciphermq_protocol::name::{NameError, StaticName};
pub use ciphermq_protocol::permission::{Action, Permission, PermissionRequest};
pub use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage, RejectedPage};
pub use ciphermq_protocol::text;
pub use ciphermq_protocol::topology::{
    BindingCursor, BindingInfo, BindingsPage, BindingsRequest, ExchangeInfo, ExchangesPage,
    ExchangesRequest, QueueInfo, QueuesPage, QueuesRequest,
};
pub use ciphermq_protocol::waiting::WaitingKey;
pub use ciphermq_protocol::{
    CertificateChain, ClientId, DEFAULT_MAX_LINE_BYTES, Delivery, Envelope, ErrorCode,
    ExchangeName, MessageId, QueueName, RoutingKey, StreamId,
};
pub use jiff::Timestamp;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
