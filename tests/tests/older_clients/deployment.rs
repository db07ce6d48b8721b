//! What all generations share: a server that trusts their CA, the first steps of every client, and
//! the record of what was sent and received.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ciphermq_tests::data::{OlderEnvelope, older_envelopes, older_lines};
use ciphermq_tests::pki::Files;
use ciphermq_tests::pki::openssl::OpensslAuthority;
use ciphermq_tests::raw::Tls;
use ciphermq_tests::server::Options;
use ciphermq_tests::{RawClient, Server};
use rand::RngExt as _;

/// The queue, exchange and routing key of the older clients' configuration.
pub(crate) const BINDING: (&str, &str, &str) =
    ("receiver_1_queue", "ciphermq_exchange", "receiver_1_key");

/// A server, and the certificates of the two clients.
pub(crate) struct Deployment {
    server: Server,
    ca: OpensslAuthority,
    sender: Files,
    receiver: Files,
    /// The receiver's public key, as in its file.
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

    /// Declares and binds, and waits for the reply to each line.
    async fn declare(client: &mut RawClient) {
        let (queue, exchange, key) = BINDING;
        client.declare_and_bind(queue, exchange, key).await;
    }

    /// Returns the options with which `ciphermq-cli` connects as the sender.
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

    /// Starts a sender: one connection binds and gets the receiver's key, another one, which is
    /// returned, publishes.
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

    /// Starts a receiver, up to the point at which it consumes.
    pub(crate) async fn receiver(&self) -> RawClient {
        let mut client = self.connect(&self.receiver).await;
        let register = format!("register_public_key {}", self.key);
        client.ask(&register, "Public key registered").await;
        Self::declare(&mut client).await;
        client
    }

    /// Checks that no message waits and none was lost, and stops the server.
    pub(crate) async fn close(mut self) {
        let database = self.server.database().await;
        assert_eq!(database.number("SELECT count(*) FROM messages").await, 0);
        let open = "SELECT count(*) FROM message_metadata WHERE acknowledged_time IS NULL";
        assert_eq!(database.number(open).await, 0);
        drop(database);
        self.server.terminate().await;
    }
}

/// Real envelopes of a generation, each sent under a new id, and a record of those sent.
#[derive(Clone)]
pub(crate) struct Envelopes {
    envelopes: Arc<Vec<OlderEnvelope>>,
    sent: Arc<Mutex<HashMap<String, String>>>,
    position: usize,
}

impl Envelopes {
    pub(crate) fn of(generation: &str) -> Self {
        let mut envelopes = older_lines();
        envelopes.retain(|envelope| envelope.generation == generation);
        assert!(!envelopes.is_empty());
        Self {
            envelopes: Arc::new(envelopes),
            sent: Arc::default(),
            position: 0,
        }
    }

    /// Returns the next envelope, with this id.
    pub(crate) fn next(&mut self, id: &str) -> String {
        let json = self.envelopes[self.position % self.envelopes.len()].with_id(id);
        self.position += 1;
        self.sent
            .lock()
            .unwrap()
            .insert(id.to_owned(), json.clone());
        json
    }

    /// Returns the line that publishes the next envelope, with this id.
    pub(crate) fn publish(&mut self, id: &str) -> String {
        let json = self.next(id);
        let (_, exchange, key) = BINDING;
        format!("publish {exchange} {key} {json}")
    }

    /// Checks that a delivered message was sent, byte for byte.
    fn check(&self, id: &str, json: &str) {
        assert_eq!(
            self.sent.lock().unwrap().get(id).map(String::as_str),
            Some(json)
        );
    }
}

/// The messages that a receiver has received.
#[derive(Default)]
pub(crate) struct Received {
    ids: HashSet<String>,
    /// The number of deliveries that repeated an earlier one.
    pub(crate) duplicates: usize,
}

impl Received {
    /// Returns the number of different messages.
    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether these are all messages.
    pub(crate) fn is(&self, ids: &[String]) -> bool {
        self.ids == ids.iter().cloned().collect()
    }

    /// Records a delivery of an envelope that must have been sent; returns whether it is new.
    pub(crate) fn add(&mut self, id: &str, json: &str, sent: &Envelopes) -> bool {
        sent.check(id, json);
        let is_new = self.ids.insert(id.to_owned());
        self.duplicates += usize::from(!is_new);
        is_new
    }

    /// Records a line that must be a delivery, and returns the message's id.
    pub(crate) fn add_line<'a>(&mut self, line: &'a str, sent: &Envelopes) -> &'a str {
        let (id, json) = delivery(line).unwrap_or_else(|| panic!("unexpected: {line}"));
        self.add(id, json, sent);
        id
    }
}

/// Returns a message id as generations B and C form it.
pub(crate) fn short_id() -> String {
    let random: u32 = rand::rng().random();
    format!("sender_1-{random:08x}-receiver_1")
}

/// Returns the id and the envelope of a line that delivers a message; `None` for any other line.
pub(crate) fn delivery(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("Message: ")?.split_once(' ')
}
