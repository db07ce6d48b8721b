//! The CipherMQ SDK: publish sealed messages and consume them, exactly once, over mutual TLS.
//!
//! ```text
//!  your code          handles                 one task a connection              the broker
//!
//!                ┌─► Publisher ── seal ──┐   ┌──────── driver ────────┐
//!  payloads ─────┤   window, receipts    ├──►│ outboxes: what has no  │  commands
//!                │                       │   │ answer yet, in order   │ ─────────►  TLS
//!  requests ─────┴─► Client ─────────────┘   │ session: who waits for │ ◄─────────
//!                                            │ which reply            │   replies
//!                                            └────────────────────────┘
//!                                            ┌──────── driver ────────┐
//!  messages ◄─────── Consumer ◄─ open ◄───── │ inbox, acks            │ ◄─────────  TLS
//!                    deduplication           └────────────────────────┘  deliveries
//! ```
//!
//! - A [`Client`] is one connection, shared by cheap clones. It reconnects by itself.
//! - A [`Publisher`] seals payloads for one receiver, puts them into batches and keeps them until
//!   the server has acknowledged them; after a lost connection they are sent again, in order, with
//!   the same ids.
//! - A [`Consumer`] runs on a connection of its own, opens what is delivered, leaves out what was
//!   processed before, and acks what the application has processed.
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
//! - [`builder`]: how to reach the server, and who this client is
//! - [`client`]: the connection's handle, and the requests
//! - [`publisher`]: sealing, windows, batches, receipts
//! - [`consumer`]: deliveries, messages, acks
//! - [`dedup`]: what was already processed, in memory and over crashes
//! - [`resume`]: publishing that goes on after a crash, under the same ids
//! - [`checkpoint`]: the small files that both keep
//! - [`defaults`]: names that fit together by themselves
//! - [`keys`]: receivers' public keys and how long they are believed
//! - [`event`]: what happens to a connection
//! - [`error`](mod@error): kinds, blame, advice
//! - [`backoff`]: the pauses between tries to connect
//! - `connector`: TCP and TLS
//! - `driver`: the task that owns a connection, and its protocol logic without sockets or clock

pub mod backoff;
pub mod builder;
pub mod checkpoint;
pub mod client;
mod connector;
pub mod consumer;
pub mod dedup;
pub mod defaults;
mod driver;
pub mod error;
pub mod event;
pub mod keys;
pub mod publisher;
pub mod resume;

pub use backoff::Backoff;
pub use builder::ClientBuilder;
pub use checkpoint::CheckpointError;
pub use client::{Client, Connection, ResendOutcome};
pub use consumer::{
    AckSummary, Acker, ConsumeError, Consumer, ConsumerBuilder, Message, Rejection, Unopenable,
    UnopenableReason,
};
pub use dedup::{Deduplication, InMemory};
pub use defaults::{DEFAULT_EXCHANGE, default_queue, default_routing_key};
pub use error::{
    AckError, AckErrorKind, Blame, ConnectError, ConnectErrorKind, Error, Kind, PublishError,
    PublishErrorKind, RequestError, RequestErrorKind,
};
pub use event::{Event, Events};
pub use publisher::{BatchLimits, Outcome, Payload, Publisher, PublisherBuilder, Receipt, Summary};

pub use ciphermq_crypto::stream::start as start_stream;
pub use ciphermq_crypto::{
    Announcement, Authority, Certificate, Fingerprint, Form, Identity, KeyError, KeyFileError,
    KeyId, Keyring, OlderForm, OpenError, OpenPolicy, Opened, Opener, Pin, PrivateKey, PublicKey,
    RandomError, RecipientKey, SenderError, SignedKeyError, Suite, VerifiedKeys, XWingPrivateKey,
    XWingPublicKey,
};
pub use ciphermq_protocol::hello::{HelloLimits, HelloReply};
pub use ciphermq_protocol::name::{NameError, StaticName};
pub use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage, RejectedPage};
pub use ciphermq_protocol::text;
pub use ciphermq_protocol::waiting::WaitingKey;
pub use ciphermq_protocol::{
    CertificateChain, ClientId, DEFAULT_MAX_LINE_BYTES, Delivery, Envelope, ErrorCode,
    ExchangeName, MessageId, QueueName, RoutingKey, StreamId,
};
pub use jiff::Timestamp;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
