//! Generation D (after v1.5.0), Rust: sends as C; its receiver sends heartbeats and connects again
//! by itself.

use std::collections::HashSet;

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Post, delivery};
use crate::generation_c::{PIPELINE, send};

/// What stands for its 30 s between two heartbeats: so many messages.
const HEARTBEAT: usize = 50;
/// After so many messages it loses its connection.
const LOSS: usize = 333;

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    // It seals as C.
    let post = Post::of("C");
    let account = post.clone();
    let receive = async {
        while receiver.received.len() < PIPELINE {
            receiver.next(deployment, &account).await;
        }
        receiver.settle().await;
        assert_eq!(receiver.duplicates, 0);
        let sent = receiver.received.len() / HEARTBEAT;
        assert_eq!((receiver.heartbeats, receiver.answered), (sent, sent));
    };
    tokio::join!(send(deployment, post), receive);
}

struct Receiver {
    socket: RawClient,
    received: HashSet<String>,
    duplicates: usize,
    /// Acks that were sent and are not confirmed.
    unconfirmed: HashSet<String>,
    heartbeats: usize,
    answered: usize,
}

impl Receiver {
    async fn subscribe(deployment: &Deployment) -> Self {
        Self {
            socket: Self::connect(deployment).await,
            received: HashSet::new(),
            duplicates: 0,
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

    /// Reads a line; a message that it has not seen it acks, without waiting.
    async fn next(&mut self, deployment: &Deployment, post: &Post) {
        let line = self.socket.line().await;
        let Some((id, json)) = delivery(&line) else {
            self.pass_over(&line);
            return;
        };
        post.check(id, json);
        if !self.received.insert(id.to_owned()) {
            self.duplicates += 1;
            return;
        }
        self.unconfirmed.insert(id.to_owned());
        let mut lines = format!("ack {id}\n");
        if self.received.len().is_multiple_of(HEARTBEAT) {
            self.heartbeats += 1;
            lines.push_str("heartbeat\n");
        }
        self.socket.send_bytes(lines).await;
        if self.received.len() == LOSS {
            // What it has acked before the loss it would ignore when it came again.
            self.settle().await;
            self.socket = Self::connect(deployment).await;
        }
    }

    /// Reads until all is confirmed and answered. With a prefetch of 1 a delivery may be behind the
    /// last confirmation, and comes again on the next connection.
    async fn settle(&mut self) {
        while !self.unconfirmed.is_empty() || self.answered < self.heartbeats {
            let line = self.socket.line().await;
            if delivery(&line).is_none() {
                self.pass_over(&line);
            }
        }
    }

    /// Lines that are no deliveries: it looks at none of them.
    fn pass_over(&mut self, line: &str) {
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
