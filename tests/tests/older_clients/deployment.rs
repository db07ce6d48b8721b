//! What all generations have in common: a server that knows their CA, the steps by which every
//! client begins, and the account of what was sent and received.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ciphermq_tests::data::{OlderEnvelope, older_envelopes, older_lines};
use ciphermq_tests::pki::Files;
use ciphermq_tests::pki::openssl::OpensslAuthority;
use ciphermq_tests::raw::Tls;
use ciphermq_tests::server::Options;
use ciphermq_tests::{RawClient, Server};
use rand::RngExt as _;

/// The names that the older clients' configuration has.
pub(crate) const BINDING: (&str, &str, &str) =
    ("receiver_1_queue", "ciphermq_exchange", "receiver_1_key");

/// A server, and the two clients' certificates.
pub(crate) struct Deployment {
    server: Server,
    ca: OpensslAuthority,
    sender: Files,
    receiver: Files,
    /// The receiver's public key, as its file holds it.
    key: String,
}

impl Deployment {
    pub(crate) async fn open(options: Options) -> Self {
        let ca = OpensslAuthority::new();
        let own = ca.issue("localhost", Some("DNS:localhost,IP:127.0.0.1"));
        let text = |path: std::path::PathBuf| path.display().to_string();
        let options = options
            .set("tls", "ca_cert_path", text(ca.ca()))
            .set("tls", "cert_path", text(own.certificate))
            .set("tls", "key_path", text(own.key))
            .set("limits", "redelivery_timeout", "300ms")
            .set("limits", "max_redeliveries", 3);
        let key = older_envelopes()["receiver_public_key"]
            .as_str()
            .unwrap()
            .to_owned();
        Self {
            server: Server::start(options).await,
            sender: ca.issue("sender_1", None),
            receiver: ca.issue("receiver_1", None),
            ca,
            key,
        }
    }

    async fn connect(&self, identity: &Files) -> RawClient {
        let tls = Tls::trusting(&self.ca.ca()).identity(identity.clone());
        RawClient::handshake(self.server.address(), &tls)
            .await
            .unwrap()
    }

    /// Each line waits for its one-line reply.
    async fn declare(client: &mut RawClient) {
        let (queue, exchange, key) = BINDING;
        client.declare_and_bind(queue, exchange, key).await;
    }

    /// The options with which `ciphermq-cli` is the sender.
    pub(crate) fn options(&self) -> Vec<std::ffi::OsString> {
        let server = format!("localhost:{}", self.server.address().port());
        [
            ("--server", server.into()),
            ("--ca", self.ca.ca().into()),
            ("--cert", self.sender.certificate.clone().into()),
            ("--key", self.sender.key.clone().into()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.into(), value])
        .collect()
    }

    /// A sender's beginning: one connection to bind and to get the receiver's key, and another to
    /// publish on.
    pub(crate) async fn sender(&self) -> RawClient {
        let mut first = self.connect(&self.sender).await;
        Self::declare(&mut first).await;
        let key = format!("Public key: {}", self.key);
        first.ask("get_public_key receiver_1", &key).await;
        first.close().await.unwrap();
        let mut second = self.connect(&self.sender).await;
        Self::declare(&mut second).await;
        second
    }

    /// A receiver's beginning, up to where it consumes.
    pub(crate) async fn receiver(&self) -> RawClient {
        let mut client = self.connect(&self.receiver).await;
        let register = format!("register_public_key {}", self.key);
        client.ask(&register, "Public key registered").await;
        Self::declare(&mut client).await;
        client
    }

    /// Nothing waits any more and nothing was lost on the way: the server says so, and is still
    /// well.
    pub(crate) async fn close(mut self) {
        let database = self.server.database().await;
        assert_eq!(database.number("SELECT count(*) FROM messages").await, 0);
        let open = "SELECT count(*) FROM message_metadata WHERE acknowledged_time IS NULL";
        assert_eq!(database.number(open).await, 0);
        drop(database);
        self.server.terminate().await;
    }
}

/// Real envelopes of a generation, each time under a new id, and which of them have arrived.
#[derive(Clone)]
pub(crate) struct Post {
    envelopes: Arc<Vec<OlderEnvelope>>,
    sent: Arc<Mutex<HashMap<String, String>>>,
    next: usize,
}

impl Post {
    pub(crate) fn of(generation: &str) -> Self {
        let mut envelopes = older_lines();
        envelopes.retain(|envelope| envelope.generation == generation);
        assert!(!envelopes.is_empty());
        Self {
            envelopes: Arc::new(envelopes),
            sent: Arc::default(),
            next: 0,
        }
    }

    /// The next envelope, under this id.
    pub(crate) fn envelope(&mut self, id: &str) -> String {
        let json = self.envelopes[self.next % self.envelopes.len()].with_id(id);
        self.next += 1;
        self.sent
            .lock()
            .unwrap()
            .insert(id.to_owned(), json.clone());
        json
    }

    /// The line that publishes the next envelope under this id.
    pub(crate) fn publish(&mut self, id: &str) -> String {
        let json = self.envelope(id);
        let (_, exchange, key) = BINDING;
        format!("publish {exchange} {key} {json}")
    }

    /// A message that was delivered must be one that was sent, byte for byte.
    pub(crate) fn check(&self, id: &str, json: &str) {
        assert_eq!(
            self.sent.lock().unwrap().get(id).map(String::as_str),
            Some(json)
        );
    }
}

/// An id of generations B and C.
pub(crate) fn short_id() -> String {
    let random: u32 = rand::rng().random();
    format!("sender_1-{random:08x}-receiver_1")
}

/// The id and the envelope of a line that delivers a message; nothing for any other line.
pub(crate) fn delivery(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("Message: ")?.split_once(' ')
}
