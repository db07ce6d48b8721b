//! Many short test cases that run concurrently on one server. The clients, queues and keys of each
//! are named after it, so that none sees another's messages. Starting a server, and PostgreSQL in
//! particular, takes longer than most test cases.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::envelope::EnvelopeText;
use crate::raw::Tls;
use crate::{RawClient, Server};

/// A test case's view of the shared server: names that no other test case uses.
#[derive(Clone)]
pub struct Fixture {
    /// The server, shared with other test cases: do not stop it.
    pub server: Arc<Server>,
    name: &'static str,
}

impl Fixture {
    /// Creates the fixture of the test case `name`.
    pub fn new(server: Arc<Server>, name: &'static str) -> Self {
        Self { server, name }
    }

    /// A unique name for a client, a queue or a message, such as `receiver.fetch_rules`.
    pub fn id(&self, what: &str) -> String {
        format!("{what}.{}", self.name)
    }

    /// TLS settings with the certificate of the client [`id(what)`](Self::id).
    pub fn tls(&self, what: &str) -> Tls {
        let pki = self.server.pki();
        Tls::trusting(&pki.ca()).identity(pki.client(&self.id(what)))
    }

    /// Connects as the client [`id(what)`](Self::id).
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn client(&self, what: &str) -> RawClient {
        RawClient::connect(&self.server, &self.id(what)).await
    }

    /// Declares the queue [`id("q")`](Self::id) and the exchange [`id("e")`](Self::id), and binds
    /// them by the key `k`.
    ///
    /// # Panics
    ///
    /// If the server does not confirm it.
    pub async fn bind(&self, client: &mut RawClient) {
        self.bind_queue(client, "q").await;
    }

    /// Declares the queue [`id(queue)`](Self::id) and the exchange [`id("e")`](Self::id), and binds
    /// them by the key `k`.
    ///
    /// # Panics
    ///
    /// See [`bind`](Self::bind).
    pub async fn bind_queue(&self, client: &mut RawClient, queue: &str) {
        client
            .declare_and_bind(&self.id(queue), &self.id("e"), "k")
            .await;
    }

    /// Connects as the client `sender`, and declares and binds the queue and the exchange.
    ///
    /// # Panics
    ///
    /// See [`client`](Self::client) and [`bind`](Self::bind).
    pub async fn sender(&self) -> RawClient {
        let mut sender = self.client("sender").await;
        self.bind(&mut sender).await;
        sender
    }

    /// Connects as the client `receiver`, and consumes the queue [`id("q")`](Self::id).
    ///
    /// # Panics
    ///
    /// See [`client`](Self::client). Also if the server does not confirm it.
    pub async fn receiver(&self, prefetch: u32) -> RawClient {
        let mut receiver = self.client("receiver").await;
        let consume = format!("consume {} {prefetch}", self.id("q"));
        receiver.ask(&consume, "Subscribed to queue").await;
        receiver
    }

    /// An envelope of an older client for the client `receiver`.
    pub fn envelope(&self, message_id: &str) -> EnvelopeText {
        EnvelopeText::older(&self.id(message_id), &self.id("receiver"))
    }

    /// The line that publishes an envelope to the exchange [`id("e")`](Self::id) by the key `k`.
    pub fn publish(&self, envelope: &impl std::fmt::Display) -> String {
        format!("publish {} k {envelope}", self.id("e"))
    }

    /// Publishes an envelope with the id [`id(message_id)`](Self::id), and expects its ACK.
    ///
    /// # Panics
    ///
    /// If the server does not acknowledge it.
    pub async fn publish_acked(
        &self,
        client: &mut RawClient,
        message_id: &str,
        envelope: &impl std::fmt::Display,
    ) {
        let ack = format!("ACK {}", self.id(message_id));
        client.ask(&self.publish(envelope), &ack).await;
    }

    /// The line that publishes these envelopes in one batch.
    pub fn publish_batch<E: std::fmt::Display>(&self, envelopes: &[E]) -> String {
        let envelopes: Vec<String> = envelopes.iter().map(E::to_string).collect();
        format!("publish_batch {} k [{}]", self.id("e"), envelopes.join(","))
    }

    /// The line that delivers an envelope of [`envelope`](Self::envelope).
    pub fn delivery(&self, message_id: &str, envelope: &impl std::fmt::Display) -> String {
        format!("Message: {} {envelope}", self.id(message_id))
    }
}

/// Test cases that run concurrently on one server. See [`run_cases!`](crate::run_cases).
pub struct Cases {
    server: Arc<Server>,
    running: JoinSet<&'static str>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Cases {
    /// Creates an empty set of test cases for `server`.
    pub fn new(server: Server) -> Self {
        Self {
            server: Arc::new(server),
            running: JoinSet::new(),
            names: Vec::new(),
        }
    }

    /// Starts the test case `name`.
    pub fn start<F>(&mut self, name: &'static str, case: impl FnOnce(Fixture) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let case = case(Fixture::new(Arc::clone(&self.server), name));
        let task = self.running.spawn(async move {
            case.await;
            name
        });
        self.names.push((task.id(), name));
    }

    /// Waits for all test cases, then checks that the server still answers and terminates cleanly.
    ///
    /// # Panics
    ///
    /// If a test case failed. The message names all that did.
    pub async fn finish(mut self) {
        let mut failed = Vec::new();
        while let Some(result) = self.running.join_next().await {
            if let Err(error) = result {
                let name = self.names.iter().find(|(id, _)| *id == error.id());
                failed.push(name.map_or("?", |(_, name)| name));
            }
        }
        let mut server = Arc::into_inner(self.server).expect("all test cases have ended");
        if !failed.is_empty() {
            panic!("failed test cases: {}; see above", failed.join(", "));
        }
        RawClient::connect(&server, "last")
            .await
            .ask("ping", "PONG")
            .await;
        server.terminate().await;
    }
}

/// Runs the functions `async fn(Fixture)` concurrently on one server.
#[macro_export]
macro_rules! run_cases {
    ($server:expr, [$($case:path),+ $(,)?]) => {{
        let mut cases = $crate::fixture::Cases::new($server);
        $(cases.start(stringify!($case), $case);)+
        cases.finish().await;
    }};
}
