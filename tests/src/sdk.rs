//! Clients of the SDK: their connections, keys, publishers and consumers.

use std::ops::Range;
use std::path::PathBuf;

use ciphermq_client::keys::read_private;
use ciphermq_client::{
    Client, ClientBuilder, Consumer, ConsumerBuilder, DEFAULT_EXCHANGE, Keyring, Message,
    MessageId, Publisher, default_queue, default_routing_key,
};
use tempfile::TempDir;

use crate::pki::Files;
use crate::{PATIENCE, Server};

/// Returns a builder of a connection with this certificate.
pub fn builder(server: &Server, identity: &Files) -> ClientBuilder {
    Client::builder(format!("localhost:{}", server.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(&identity.certificate, &identity.key)
}

/// Connects as a client whose certificate is made if need be.
///
/// # Panics
///
/// If it cannot connect.
pub async fn connect(server: &Server, id: &str) -> Client {
    builder(server, &server.pki().client(id))
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{id} cannot connect: {error}"))
}

/// A receiver's key pair, in a folder of its own.
pub struct Keys(TempDir);

impl Keys {
    /// Makes a key pair, as `keygen` does.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    #[allow(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        keygen::keys::run(&keygen::KeysArgs {
            out: folder.path().to_owned(),
            force: false,
            post_quantum: false,
        })
        .expect("a key pair");
        Self(folder)
    }

    /// Returns the path of the private key.
    pub fn private_key(&self) -> PathBuf {
        self.0.path().join("receiver_private.key")
    }

    /// Reads the private key.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn keyring(&self) -> Keyring {
        Keyring::new(read_private(&self.private_key()).expect("a private key"))
    }
}

/// Returns a builder of a consumer of the client's default queue, which it declares and binds; it
/// registers the client's key.
///
/// # Panics
///
/// If the client's name is too long for the names of a queue.
pub fn consumer(receiver: &Client, keyring: Keyring) -> ConsumerBuilder {
    let route = default_routing_key(receiver.id()).expect("a routing key");
    receiver
        .consumer(&default_queue(receiver.id()).expect("a queue"))
        .keyring(keyring)
        .register_key(true)
        .bind(DEFAULT_EXCHANGE.into(), route)
}

/// Publishes these numbers without waiting for their acknowledgements.
///
/// # Panics
///
/// If one cannot be sent.
pub async fn submit(publisher: &Publisher, numbers: Range<u64>) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for number in numbers {
        let sent = publisher.submit(number.to_string().as_str()).await;
        ids.push(sent.expect("a message can be sent"));
    }
    ids
}

/// Returns the number that a message holds.
///
/// # Panics
///
/// If it holds none.
pub fn number(message: &Message) -> u64 {
    let text = std::str::from_utf8(message.payload()).expect("a text");
    text.parse().expect("a number")
}

/// Waits for the next message of a consumer.
///
/// # Panics
///
/// If none comes in time, or one that cannot be opened.
pub async fn next(consumer: &mut Consumer) -> Message {
    tokio::time::timeout(PATIENCE, consumer.next())
        .await
        .expect("no message arrived in time")
        .expect("the consumer is open")
        .expect("the message can be opened")
}
