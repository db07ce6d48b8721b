//! A sender, a receiver and a bystander, all connected through a malicious broker.

use std::time::Duration;

use ciphermq_client::{
    Client, ClientBuilder, ConsumeError, Consumer, ConsumerBuilder, ExchangeName, Keyring, Message,
    MessageId, PrivateKey, PublishError, PublisherBuilder, Unopenable, XWingPrivateKey,
    default_queue, default_routing_key,
};

use super::MaliciousBroker;
use crate::server::Options;
use crate::{PATIENCE, Server};
use ciphermq_protocol::hello::Packing;

/// The real server, the malicious broker in front of it, and its clients. The bystander is a sender
/// that is not attacked.
pub struct MaliciousBrokerFixture {
    /// The real server.
    pub server: Server,
    /// The malicious broker, which all clients connect to.
    pub broker: MaliciousBroker,
    /// The client `sender`.
    pub sender: Client,
    /// The client `receiver`.
    pub receiver: Client,
    bystander: Client,
    key: String,
    x_wing: Option<String>,
}

impl MaliciousBrokerFixture {
    /// Starts the server and the broker with default options, connects the clients, registers the
    /// receiver's key, and declares and binds its queue.
    ///
    /// # Panics
    ///
    /// If any of this fails.
    pub async fn new() -> Self {
        Self::with(Options::sqlite()).await
    }

    /// Creates a fixture like [`new`](Self::new) with these options of the server.
    ///
    /// # Panics
    ///
    /// See [`new`](Self::new).
    pub async fn with(options: Options) -> Self {
        Self::create(options, None, Packing::None).await
    }

    /// Creates a fixture whose connections use packed lines of this form.
    ///
    /// # Panics
    ///
    /// See [`new`](Self::new).
    pub async fn packing(options: Options, packing: Packing) -> Self {
        Self::create(options, None, packing).await
    }

    /// Creates a fixture whose receiver also has an X-Wing key, which senders prefer.
    ///
    /// # Panics
    ///
    /// See [`new`](Self::new).
    pub async fn post_quantum(options: Options) -> Self {
        let key = XWingPrivateKey::generate().expect("randomness");
        Self::create(options, Some(key.to_base64().to_string()), Packing::None).await
    }

    async fn create(options: Options, x_wing: Option<String>, packing: Packing) -> Self {
        let server = Server::start(options).await;
        let broker = MaliciousBroker::start(&server).await;
        broker.keep_packed(packing);
        let key = PrivateKey::generate().expect("randomness");
        let fixture = Self {
            sender: connect(builder(&server, &broker, "sender")).await,
            receiver: connect(builder(&server, &broker, "receiver")).await,
            bystander: connect(builder(&server, &broker, "bystander")).await,
            server,
            broker,
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

    /// The builder of a client that connects through the malicious broker.
    pub fn builder(&self, id: &str) -> ClientBuilder {
        builder(&self.server, &self.broker, id)
    }

    /// Connects the client `id` through the malicious broker.
    ///
    /// # Panics
    ///
    /// If it cannot connect.
    pub async fn connect(&self, id: &str) -> Client {
        connect(self.builder(id)).await
    }

    /// Makes a sender fetch and pin the receiver's key.
    ///
    /// # Panics
    ///
    /// If it does not accept the key.
    pub async fn pin_key(&self, sender: &Client) {
        let publisher = sender.publisher(self.receiver.id());
        publisher.start().await.expect("an acceptable key");
    }

    /// The receiver's private key.
    ///
    /// # Panics
    ///
    /// Never: the key was generated here.
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
    /// Never: the keys were generated here.
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
    /// Never: the names are valid.
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

    /// The sender's publisher for the receiver.
    pub fn publisher(&self) -> PublisherBuilder {
        self.sender.publisher(self.receiver.id())
    }

    /// Publishes `payloads` from the sender, and waits until the server has acknowledged them.
    ///
    /// # Panics
    ///
    /// If a message is not acknowledged.
    pub async fn publish<'a>(&self, payloads: impl IntoIterator<Item = &'a str>) -> Vec<MessageId> {
        let publisher = self.publisher().start().await.expect("a publisher");
        let mut ids = Vec::new();
        for payload in payloads {
            ids.push(
                publisher
                    .submit(payload)
                    .await
                    .expect("a message that is accepted"),
            );
        }
        let summary = publisher.finish().await;
        assert_eq!(
            (summary.unacknowledged, summary.acknowledged),
            (0, ids.len() as u64)
        );
        ids
    }

    /// Starts a publisher of the sender, which must fail, and returns its error.
    ///
    /// # Panics
    ///
    /// If the publisher starts, or if the sender has ever published anything.
    pub async fn refused(&self, publisher: PublisherBuilder) -> PublishError {
        let error = publisher
            .start()
            .await
            .map(|_| ())
            .expect_err("a key that must be refused was accepted");
        assert_eq!(
            self.broker.published_by("sender"),
            [""; 0],
            "nothing may be published"
        );
        error
    }

    /// Publishes `payload` from the bystander, and checks that it is the next message of
    /// `consumer`.
    ///
    /// # Panics
    ///
    /// If it is not.
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
            .expect("a message that is accepted");
        publisher.finish().await;
        let message = opened(consumer).await;
        assert_eq!(text(&message), payload);
        assert_eq!(message.verified_sender(), Some(self.bystander.id()));
        message.ack().await.expect("acked");
    }

    /// Checks with a new consumer that a message of the bystander arrives.
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

fn builder(server: &Server, broker: &MaliciousBroker, id: &str) -> ClientBuilder {
    let identity = server.pki().client(id);
    Client::builder(format!("localhost:{}", broker.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(identity.certificate, identity.key)
        // Every publisher requests the receiver's key again.
        .key_ttl(Duration::ZERO)
}

async fn connect(builder: ClientBuilder) -> Client {
    builder
        .connect()
        .await
        .unwrap_or_else(|error| panic!("a client cannot connect: {error}"))
}

/// Waits for the next item of a consumer.
///
/// # Panics
///
/// If none arrives within [`PATIENCE`].
pub async fn next(consumer: &mut Consumer) -> Result<Message, ConsumeError> {
    tokio::time::timeout(PATIENCE, consumer.next())
        .await
        .expect("no message has arrived")
        .expect("the consumer is open")
}

/// Expects messages with these texts, in order, and acknowledges each.
///
/// # Panics
///
/// If another message arrives, none arrives in time, or one cannot be opened or acknowledged.
pub async fn expect_texts<T: AsRef<str>>(
    consumer: &mut Consumer,
    texts: impl IntoIterator<Item = T>,
) {
    for expected in texts {
        let message = opened(consumer).await;
        assert_eq!(text(&message), expected.as_ref());
        message.ack().await.expect("a confirmed ack");
    }
}

/// Waits for the next message, which must be openable.
///
/// # Panics
///
/// If none arrives, or if it cannot be opened.
pub async fn opened(consumer: &mut Consumer) -> Message {
    next(consumer)
        .await
        .unwrap_or_else(|error| panic!("the message cannot be opened: {error}"))
}

/// Waits for the next message, which must not be openable. `what` identifies it in a panic.
///
/// # Panics
///
/// If none arrives, or if it can be opened.
pub async fn unopenable(consumer: &mut Consumer, what: &str) -> Unopenable {
    match next(consumer).await {
        Err(ConsumeError::Unopenable(unopenable)) => unopenable,
        Err(error) => panic!("{what}: {error}"),
        Ok(message) => panic!("{what}: it was opened: {}", text(&message)),
    }
}

/// The payload of a message, as text.
///
/// # Panics
///
/// If it is not UTF-8.
pub fn text(message: &Message) -> &str {
    std::str::from_utf8(message.payload()).expect("a text")
}
