//! Generation B (v1.4.1 and v1.4.2), Python: publishes one by one, acks from a task of its own,
//! ignores what it has seen.

use std::collections::HashSet;

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Post, delivery, short_id};

const MESSAGES: usize = 100;

async fn publish(sender: &mut RawClient, post: &mut Post) -> String {
    let id = short_id();
    sender.send_line(&post.publish(&id)).await;
    sender.expect(&format!("ACK {id}")).await;
    id
}

/// Reads lines as they come: the reply to `consume` and confirmations stand among the deliveries
/// and are skipped.
pub(crate) struct Receiver {
    socket: RawClient,
    pub(crate) received: HashSet<String>,
    pub(crate) duplicates: usize,
    /// Acks that its task has yet to send: it sends them some time after, in one go.
    acks: String,
}

impl Receiver {
    pub(crate) async fn subscribe(deployment: &Deployment) -> Self {
        let mut socket = deployment.receiver().await;
        socket.send_line(&format!("consume {}", BINDING.0)).await;
        Self {
            socket,
            received: HashSet::new(),
            duplicates: 0,
            acks: String::new(),
        }
    }

    /// Connects anew, and still knows what it has seen. What it had yet to ack it does not ack any
    /// more.
    async fn reconnect(mut self, deployment: &Deployment) -> Self {
        self.socket = deployment.receiver().await;
        self.socket
            .send_line(&format!("consume {}", BINDING.0))
            .await;
        self.acks.clear();
        self
    }

    /// Reads until a message comes that it has not seen.
    pub(crate) async fn next(&mut self, post: &Post) {
        loop {
            if !self.acks.is_empty() {
                self.socket.send_bytes(std::mem::take(&mut self.acks)).await;
            }
            let line = self.socket.line().await;
            let Some((id, json)) = delivery(&line) else {
                assert!(
                    line == "Subscribed to queue" || line.starts_with("ACK_CONFIRMED "),
                    "{line}"
                );
                continue;
            };
            post.check(id, json);
            if self.received.insert(id.to_owned()) {
                self.acks = format!("ack {id}\n");
                return;
            }
            self.duplicates += 1;
        }
    }

    /// Sends what it has yet to ack, and reads until all is confirmed.
    pub(crate) async fn finish(&mut self) {
        let last = self.acks.trim_end().replace("ack ", "ACK_CONFIRMED ");
        self.socket.send_bytes(std::mem::take(&mut self.acks)).await;
        while self.socket.line().await != last {}
    }
}

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut post = Post::of("B");
    let account = post.clone();
    let send = async {
        let mut sender = deployment.sender().await;
        for _ in 0..MESSAGES {
            publish(&mut sender, &mut post).await;
        }
    };
    let receive = async {
        while receiver.received.len() < MESSAGES {
            receiver.next(&account).await;
        }
        receiver.finish().await;
        assert_eq!(receiver.duplicates, 0);
    };
    tokio::join!(send, receive);
}

/// A message that it got, and lost the connection before its ack left, comes again, is ignored, and
/// never acked: it must not keep the others from coming.
pub(crate) async fn duplicates(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut post = Post::of("B");
    let mut sender = deployment.sender().await;
    let lost = publish(&mut sender, &mut post).await;
    receiver.next(&post).await;
    let mut receiver = receiver.reconnect(deployment).await;
    for _ in 0..5 {
        publish(&mut sender, &mut post).await;
    }
    while receiver.received.len() < 6 {
        receiver.next(&post).await;
    }
    receiver.finish().await;
    assert!(
        receiver.duplicates > 0,
        "the message whose ack was lost has come again"
    );
    // A new process has seen nothing, and acks it.
    drop(receiver);
    let mut fresh = Receiver::subscribe(deployment).await;
    fresh.next(&post).await;
    assert_eq!(fresh.received, HashSet::from([lost]));
    fresh.finish().await;
}
