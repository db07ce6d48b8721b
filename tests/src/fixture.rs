//! Many short plays on one running server, at the same time: each has clients, queues and keys of
//! its own name, so that none sees another's messages. Starting a server, and PostgreSQL above all,
//! takes longer than most of them.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::envelope::EnvelopeText;
use crate::raw::Tls;
use crate::{RawClient, Server};

/// One play's part of a server.
#[derive(Clone)]
pub struct Fixture {
    /// The server, shared with other plays: do not stop it.
    pub server: Arc<Server>,
    name: &'static str,
}

impl Fixture {
    /// A part of this name.
    pub fn new(server: Arc<Server>, name: &'static str) -> Self {
        Self { server, name }
    }

    /// A name for a client, a queue or a message that no other play uses: `receiver.fetch_rules`.
    pub fn id(&self, what: &str) -> String {
        format!("{what}.{}", self.name)
    }

    /// Certificates of the client with this [`id`](Self::id).
    pub fn tls(&self, what: &str) -> Tls {
        let pki = self.server.pki();
        Tls::trusting(&pki.ca()).identity(pki.client(&self.id(what)))
    }

    /// A connection of the client with this [`id`](Self::id).
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn client(&self, what: &str) -> RawClient {
        RawClient::connect(&self.server, &self.id(what)).await
    }

    /// Declares the play's queue and exchange, both named [`id("q")`](Self::id) and
    /// [`id("e")`](Self::id), and binds them by the key `k`.
    ///
    /// # Panics
    ///
    /// If the server answers anything but that it did so.
    pub async fn bind(&self, client: &mut RawClient) {
        self.bind_queue(client, "q").await;
    }

    /// The same with another queue.
    ///
    /// # Panics
    ///
    /// As [`bind`](Self::bind).
    pub async fn bind_queue(&self, client: &mut RawClient, queue: &str) {
        client
            .declare_and_bind(&self.id(queue), &self.id("e"), "k")
            .await;
    }

    /// A connection of the client `sender` that has declared and bound.
    ///
    /// # Panics
    ///
    /// As [`client`](Self::client) and [`bind`](Self::bind).
    pub async fn sender(&self) -> RawClient {
        let mut sender = self.client("sender").await;
        self.bind(&mut sender).await;
        sender
    }

    /// A connection of the client `receiver` that consumes the play's queue.
    ///
    /// # Panics
    ///
    /// As [`client`](Self::client), or if the server answers anything but that it did so.
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

    /// The line that publishes an envelope to the play's exchange by the key `k`.
    pub fn publish(&self, envelope: &impl std::fmt::Display) -> String {
        format!("publish {} k {envelope}", self.id("e"))
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

/// Plays, started on one server at the same time. See [`fixtures!`](crate::fixtures).
pub struct Scenes {
    server: Arc<Server>,
    running: JoinSet<&'static str>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Scenes {
    /// On this server.
    pub fn new(server: Server) -> Self {
        Self {
            server: Arc::new(server),
            running: JoinSet::new(),
            names: Vec::new(),
        }
    }

    /// Starts a play.
    pub fn start<F>(&mut self, name: &'static str, play: impl FnOnce(Fixture) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let play = play(Fixture::new(Arc::clone(&self.server), name));
        let task = self.running.spawn(async move {
            play.await;
            name
        });
        self.names.push((task.id(), name));
    }

    /// Waits for all of them, and then ends the server, which must still be well: it answers, and
    /// ends cleanly.
    ///
    /// # Panics
    ///
    /// If a play failed; the message names all that did.
    pub async fn finish(mut self) {
        let mut failed = Vec::new();
        while let Some(result) = self.running.join_next().await {
            if let Err(error) = result {
                let name = self.names.iter().find(|(id, _)| *id == error.id());
                failed.push(name.map_or("?", |(_, name)| name));
            }
        }
        let mut server = Arc::into_inner(self.server).expect("all plays have ended");
        if !failed.is_empty() {
            panic!("failed: {}; see above", failed.join(", "));
        }
        RawClient::connect(&server, "last")
            .await
            .ask("ping", "PONG")
            .await;
        server.terminate().await;
    }
}

/// Runs these functions `async fn(Fixture)` on one server.
#[macro_export]
macro_rules! fixtures {
    ($server:expr, [$($play:path),+ $(,)?]) => {{
        let mut fixtures = $crate::fixture::Scenes::new($server);
        $(fixtures.start(stringify!($play), $play);)+
        fixtures.finish().await;
    }};
}
