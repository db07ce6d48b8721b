//! Generation 0 (v1.3.1), Python: publishes by the batch; what its receiver meets while it waits
//! for a confirmation it keeps.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Post, delivery};

const BATCHES: usize = 12;
const BATCH: usize = 7;
/// How long it waits for a reply.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut post = Post::of("0");
    let account = post.clone();
    let send = async {
        let mut sender = deployment.sender().await;
        for number in 0..BATCHES {
            let mut batch = Batch::new(&mut post);
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
        while receiver.received.len() < BATCHES * BATCH {
            receiver.step(&account).await;
        }
        assert_eq!((receiver.duplicates, receiver.kept.len()), (0, 0));
        receiver.socket.ask("ping", "PONG").await;
    };
    tokio::join!(send, receive);
}

/// Messages that have no ACK yet: ids and envelopes.
struct Batch {
    waiting: Vec<(String, String)>,
}

impl Batch {
    fn new(post: &mut Post) -> Self {
        let message = |_| {
            let id = uuid::Uuid::new_v4().to_string();
            let json = post.envelope(&id);
            (id, json)
        };
        Self {
            waiting: (0..BATCH).map(message).collect(),
        }
    }

    /// Up to three tries with what is not acknowledged.
    async fn publish_until_acked(&mut self, sender: &mut RawClient) {
        for _ in 0..3 {
            self.publish(sender, usize::MAX).await;
            if self.waiting.is_empty() {
                return;
            }
        }
        panic!("{} messages were given up", self.waiting.len());
    }

    /// Publishes them in one line, and reads one line for each, at most `most`.
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
    /// Deliveries that came before a confirmation.
    kept: VecDeque<String>,
    received: HashSet<String>,
    duplicates: usize,
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
            received: HashSet::new(),
            duplicates: 0,
        }
    }

    async fn step(&mut self, post: &Post) {
        let line = match self.kept.pop_front() {
            Some(line) => line,
            None => self.socket.line().await,
        };
        let Some((id, json)) = delivery(&line) else {
            panic!("unexpected: {line}")
        };
        post.check(id, json);
        if !self.received.insert(id.to_owned()) {
            self.duplicates += 1;
        }
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
