//! A sender, a receiver and a bystander, all connected through an evil broker.

use std::time::Duration;

use ciphermq_client::{
    Client, ClientBuilder, ConsumeError, Consumer, ConsumerBuilder, ExchangeName, Keyring, Message,
    MessageId, PrivateKey, PublishError, PublisherBuilder, Unopenable, XWingPrivateKey,
    default_queue, default_routing_key,
};

use super::Evil;
use crate::server::Options;
use crate::{PATIENCE, Server};

/// The real server, the evil broker before it, and its clients. The bystander is a sender that
/// nobody attacks.
pub struct EvilFixture {
    /// The real server.
    pub server: Server,
    /// What all clients connect to.
    pub evil: Evil,
    /// The client `sender`.
    pub sender: Client,
    /// The client `receiver`.
    pub receiver: Client,
    bystander: Client,
    key: String,
    x_wing: Option<String>,
}

impl EvilFixture {
    /// All connected; the receiver's key is registered, its queue declared and bound.
    ///
    /// # Panics
    ///
    /// If anything of that fails.
    pub async fn new() -> Self {
        Self::with(Options::sqlite()).await
    }

    /// The same with other settings of the server.
    ///
    /// # Panics
    ///
    /// If anything of that fails.
    pub async fn with(options: Options) -> Self {
        Self::set(options, None, false).await
    }

    /// The same with connections that pack what they say.
    ///
    /// # Panics
    ///
    /// If anything of that fails.
    pub async fn packing(options: Options) -> Self {
        Self::set(options, None, true).await
    }

    /// The same with a receiver that has an X-Wing key besides, which senders then use.
    ///
    /// # Panics
    ///
    /// If anything of that fails.
    pub async fn post_quantum(options: Options) -> Self {
        let key = XWingPrivateKey::generate().expect("randomness");
        Self::set(options, Some(key.to_base64().to_string()), false).await
    }

    async fn set(options: Options, x_wing: Option<String>, packs: bool) -> Self {
        let server = Server::start(options).await;
        let evil = Evil::start(&server).await;
        if packs {
            evil.keep_packed();
        }
        let key = PrivateKey::generate().expect("randomness");
        let fixture = Self {
            sender: connect(builder(&server, &evil, "sender")).await,
            receiver: connect(builder(&server, &evil, "receiver")).await,
            bystander: connect(builder(&server, &evil, "bystander")).await,
            server,
            evil,
            key: key.to_base64().to_string(),
            x_wing,
        };
        fixture
            .consumer()
            .start()
            .await
            .expect("a consumer")
            .close()
            .await;
        fixture
    }

    /// A client that connects through the evil broker, not connected yet.
    pub fn builder(&self, id: &str) -> ClientBuilder {
        builder(&self.server, &self.evil, id)
    }

    /// A client of this name, connected.
    ///
    /// # Panics
    ///
    /// If it cannot connect.
    pub async fn connect(&self, id: &str) -> Client {
        connect(self.builder(id)).await
    }

    /// The receiver's private key.
    ///
    /// # Panics
    ///
    /// Never: it was made here.
    pub fn private_key(&self) -> PrivateKey {
        PrivateKey::from_base64(&self.key).expect("a private key")
    }

    /// The receiver's private key, base64.
    pub fn private_key_text(&self) -> &str {
        &self.key
    }

    /// All private keys of the receiver.
    ///
    /// # Panics
    ///
    /// Never: they were made here.
    pub fn keyring(&self) -> Keyring {
        let keyring = Keyring::new(self.private_key());
        match &self.x_wing {
            Some(seed) => keyring.with_x_wing(XWingPrivateKey::from_base64(seed).expect("a seed")),
            None => keyring,
        }
    }

    /// The receiver's X-Wing seed, base64, if it has one.
    pub fn x_wing_text(&self) -> Option<&str> {
        self.x_wing.as_deref()
    }

    /// The receiver's consumer, which registers its key and binds its queue.
    ///
    /// # Panics
    ///
    /// Never: the names are good.
    pub fn consumer(&self) -> ConsumerBuilder {
        let queue = default_queue(self.receiver.id()).expect("a queue's name");
        let route = default_routing_key(self.receiver.id()).expect("a routing key");
        let exchange = ExchangeName::new("ciphermq_exchange").expect("an exchange's name");
        self.receiver
            .consumer(&queue)
            .keyring(self.keyring())
            .register_key(true)
            .bind(exchange, route)
    }

    /// The sender's publisher to the receiver.
    pub fn publisher(&self) -> PublisherBuilder {
        self.sender.publisher(self.receiver.id())
    }

    /// Publishes these from the sender, and waits until the server has them.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn publish<'a>(&self, payloads: impl IntoIterator<Item = &'a str>) -> Vec<MessageId> {
        let publisher = self.publisher().start().await.expect("a publisher");
        let mut ids = Vec::new();
        for payload in payloads {
            ids.push(
                publisher
                    .submit(payload)
                    .await
                    .expect("a message that is taken"),
            );
        }
        let summary = publisher.finish().await;
        assert_eq!(
            (summary.unacknowledged, summary.acknowledged),
            (0, ids.len() as u64)
        );
        ids
    }

    /// Why a publisher of the sender does not start.
    ///
    /// # Panics
    ///
    /// If it does, or if the sender has ever published anything.
    pub async fn refused(&self, publisher: PublisherBuilder) -> PublishError {
        let error = publisher
            .start()
            .await
            .map(|_| ())
            .expect_err("a key that must be refused was taken");
        assert_eq!(
            self.evil.published_by("sender"),
            [""; 0],
            "nothing may be sent"
        );
        error
    }

    /// The bystander sends this, and the receiver's consumer hands it over next.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn honest_traffic_arrives(&self, consumer: &mut Consumer, payload: &str) {
        let publisher = self
            .bystander
            .publisher(self.receiver.id())
            .start()
            .await
            .expect("a publisher");
        publisher
            .submit(payload)
            .await
            .expect("a message that is taken");
        publisher.finish().await;
        let message = opened(consumer).await;
        assert_eq!(text(&message), payload);
        assert_eq!(message.verified_sender(), Some(self.bystander.id()));
        message.ack().await.expect("acked");
    }

    /// The same, with a consumer of its own.
    ///
    /// # Panics
    ///
    /// If it does not arrive.
    pub async fn honest_traffic_still_arrives(&self) {
        let mut consumer = self.consumer().start().await.expect("a consumer");
        self.honest_traffic_arrives(&mut consumer, "beside it")
            .await;
        consumer.close().await;
    }
}

fn builder(server: &Server, evil: &Evil, id: &str) -> ClientBuilder {
    let identity = server.pki().client(id);
    Client::builder(format!("localhost:{}", evil.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(identity.certificate, identity.key)
        // Keys are asked for anew for every publisher.
        .key_ttl(Duration::ZERO)
}

async fn connect(builder: ClientBuilder) -> Client {
    builder
        .connect()
        .await
        .unwrap_or_else(|error| panic!("a client cannot connect: {error}"))
}

/// What a consumer yields next.
///
/// # Panics
///
/// If nothing comes.
pub async fn next(consumer: &mut Consumer) -> Result<Message, ConsumeError> {
    tokio::time::timeout(PATIENCE, consumer.next())
        .await
        .expect("no message has come")
        .expect("the consumer is open")
}

/// The next message, opened.
///
/// # Panics
///
/// If none comes, or one that cannot be opened.
pub async fn opened(consumer: &mut Consumer) -> Message {
    next(consumer)
        .await
        .unwrap_or_else(|error| panic!("it must be opened: {error}"))
}

/// The next message, which cannot be opened.
///
/// # Panics
///
/// If none comes, or one that can be opened.
pub async fn unopenable(consumer: &mut Consumer, what: &str) -> Unopenable {
    match next(consumer).await {
        Err(ConsumeError::Unopenable(unopenable)) => unopenable,
        Err(error) => panic!("{what}: {error}"),
        Ok(message) => panic!("{what}: it was opened: {}", text(&message)),
    }
}

/// What was sent, as text.
///
/// # Panics
///
/// If it is none.
pub fn text(message: &Message) -> &str {
    std::str::from_utf8(message.payload()).expect("a text")
}
