//! Generation 0 (v1.3.1), Python: publishes batches; its receiver keeps the deliveries that arrive
//! while it waits for a confirmation.

use std::collections::VecDeque;
use std::time::Duration;

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Envelopes, Received, delivery};

const BATCHES: usize = 12;
const BATCH: usize = 7;
/// The time that it waits for a reply.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut envelopes = Envelopes::of("0");
    let sent = envelopes.clone();
    let send = async {
        let mut sender = deployment.sender().await;
        for number in 0..BATCHES {
            let mut batch = Batch::new(&mut envelopes);
            // Every third connection is lost in the middle of the replies.
            if number % 3 == 0 {
                batch.publish(&mut sender, BATCH / 2).await;
                assert_eq!(batch.waiting.len(), BATCH - BATCH / 2);
                sender = deployment.sender().await;
            }
            batch.publish_until_acked(&mut sender).await;
        }
    };
    let receive = async {
        while receiver.received.count() < BATCHES * BATCH {
            receiver.step(&sent).await;
        }
        assert_eq!((receiver.received.duplicates, receiver.kept.len()), (0, 0));
        receiver.socket.ask("ping", "PONG").await;
    };
    tokio::join!(send, receive);
}

/// The ids and envelopes of messages that have no ACK yet.
struct Batch {
    waiting: Vec<(String, String)>,
}

impl Batch {
    fn new(envelopes: &mut Envelopes) -> Self {
        let message = |_| {
            let id = uuid::Uuid::new_v4().to_string();
            let json = envelopes.next(&id);
            (id, json)
        };
        Self {
            waiting: (0..BATCH).map(message).collect(),
        }
    }

    /// Publishes up to three times what is not acknowledged.
    async fn publish_until_acked(&mut self, sender: &mut RawClient) {
        for _ in 0..3 {
            self.publish(sender, usize::MAX).await;
            if self.waiting.is_empty() {
                return;
            }
        }
        panic!("{} messages were given up", self.waiting.len());
    }

    /// Publishes them in one line, and reads one reply for each, but no more than `most`.
    async fn publish(&mut self, sender: &mut RawClient, most: usize) {
        let json: Vec<&str> = self.waiting.iter().map(|(_, json)| json.as_str()).collect();
        let (_, exchange, key) = BINDING;
        let line = format!("publish_batch {exchange} {key} [{}]", json.join(", "));
        sender.send_line(&line).await;
        for _ in 0..self.waiting.len().min(most) {
            let Ok(Some(line)) = sender.read_line(TIMEOUT).await else {
                break;
            };
            self.waiting
                .retain(|(id, _)| line.strip_prefix("ACK ") != Some(id));
        }
    }
}

struct Receiver {
    socket: RawClient,
    /// Deliveries that arrived before a confirmation.
    kept: VecDeque<String>,
    received: Received,
}

impl Receiver {
    async fn subscribe(deployment: &Deployment) -> Self {
        let mut socket = deployment.receiver().await;
        socket
            .ask(&format!("consume {}", BINDING.0), "Subscribed to queue")
            .await;
        Self {
            socket,
            kept: VecDeque::new(),
            received: Received::default(),
        }
    }

    async fn step(&mut self, sent: &Envelopes) {
        let line = match self.kept.pop_front() {
            Some(line) => line,
            None => self.socket.line().await,
        };
        let id = self.received.add_line(&line, sent);
        self.ack(id).await;
    }

    async fn ack(&mut self, id: &str) {
        let confirmation = format!("ACK_CONFIRMED {id}");
        for _ in 0..3 {
            self.socket.send_line(&format!("ack {id}")).await;
            while let Ok(Some(line)) = self.socket.read_line(TIMEOUT).await {
                if line == confirmation {
                    return;
                }
                if delivery(&line).is_some() {
                    self.kept.push_back(line);
                }
            }
        }
        panic!("the ack of {id} was given up");
    }
}
