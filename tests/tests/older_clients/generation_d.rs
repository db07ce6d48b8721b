//! Generation D (after v1.5.0), Rust: sends as generation C; its receiver sends heartbeats and
//! reconnects by itself.

use std::collections::HashSet;

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Envelopes, Received, delivery};
use crate::generation_c::{PIPELINE, send};

/// The number of messages between two heartbeats, in place of the real client's 30 s.
const HEARTBEAT: usize = 50;
/// The number of messages after which it loses its connection.
const LOSS: usize = 333;

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    // It seals as generation C.
    let envelopes = Envelopes::of("C");
    let sent = envelopes.clone();
    let receive = async {
        while receiver.received.count() < PIPELINE {
            receiver.next(deployment, &sent).await;
        }
        receiver.settle().await;
        assert_eq!(receiver.received.duplicates, 0);
        let heartbeats = receiver.received.count() / HEARTBEAT;
        assert_eq!(receiver.heartbeats, heartbeats);
        assert_eq!(receiver.answered, heartbeats);
    };
    tokio::join!(send(deployment, envelopes), receive);
}

struct Receiver {
    socket: RawClient,
    received: Received,
    /// Acks that were sent and are not confirmed.
    unconfirmed: HashSet<String>,
    heartbeats: usize,
    answered: usize,
}

impl Receiver {
    async fn subscribe(deployment: &Deployment) -> Self {
        Self {
            socket: Self::connect(deployment).await,
            received: Received::default(),
            unconfirmed: HashSet::new(),
            heartbeats: 0,
            answered: 0,
        }
    }

    async fn connect(deployment: &Deployment) -> RawClient {
        let mut socket = deployment.receiver().await;
        socket.send_line(&format!("consume {}", BINDING.0)).await;
        socket
    }

    /// Reads a line, and acks a message that it has not seen, without waiting.
    async fn next(&mut self, deployment: &Deployment, sent: &Envelopes) {
        let line = self.socket.line().await;
        let Some((id, json)) = delivery(&line) else {
            self.skip(&line);
            return;
        };
        if !self.received.add(id, json, sent) {
            return;
        }
        self.unconfirmed.insert(id.to_owned());
        let mut lines = format!("ack {id}\n");
        if self.received.count().is_multiple_of(HEARTBEAT) {
            self.heartbeats += 1;
            lines.push_str("heartbeat\n");
        }
        self.socket.send_bytes(lines).await;
        if self.received.count() == LOSS {
            // It would ignore messages that it has acked and that are delivered again.
            self.settle().await;
            self.socket = Self::connect(deployment).await;
        }
    }

    /// Reads until every ack is confirmed and every heartbeat answered. With a prefetch of 1 a
    /// delivery may follow the last confirmation, and is repeated on the next connection.
    async fn settle(&mut self) {
        while !self.unconfirmed.is_empty() || self.answered < self.heartbeats {
            let line = self.socket.line().await;
            if delivery(&line).is_none() {
                self.skip(&line);
            }
        }
    }

    /// Skips a line that is no delivery, after checking that it was to be expected.
    fn skip(&mut self, line: &str) {
        match line {
            "Heartbeat received" => self.answered += 1,
            "Subscribed to queue" => {}
            line => {
                let id = line.strip_prefix("ACK_CONFIRMED ");
                let confirmed = id.is_some_and(|id| self.unconfirmed.remove(id));
                assert!(confirmed, "unexpected: {line}");
            }
        }
    }
}
