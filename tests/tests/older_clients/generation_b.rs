//! Generation B (v1.4.1 and v1.4.2), Python: publishes one by one, acks from a separate task, and
//! ignores messages that it has seen.

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Envelopes, Received, delivery, short_id};

const MESSAGES: usize = 100;

async fn publish(sender: &mut RawClient, envelopes: &mut Envelopes) -> String {
    let id = short_id();
    sender.send_line(&envelopes.publish(&id)).await;
    sender.expect(&format!("ACK {id}")).await;
    id
}

/// A receiver that reads lines as they arrive, and skips the reply to `consume` and confirmations
/// among the deliveries.
pub(crate) struct Receiver {
    socket: RawClient,
    pub(crate) received: Received,
    /// Acks that its task has yet to send: it sends them later, all at once.
    acks: String,
}

impl Receiver {
    pub(crate) async fn subscribe(deployment: &Deployment) -> Self {
        let mut socket = deployment.receiver().await;
        socket.send_line(&format!("consume {}", BINDING.0)).await;
        Self {
            socket,
            received: Received::default(),
            acks: String::new(),
        }
    }

    /// Reconnects. It still knows what it has seen, but never sends the acks that were due.
    async fn reconnect(mut self, deployment: &Deployment) -> Self {
        self.socket = deployment.receiver().await;
        self.socket
            .send_line(&format!("consume {}", BINDING.0))
            .await;
        self.acks.clear();
        self
    }

    /// Reads until a message arrives that it has not seen.
    pub(crate) async fn next(&mut self, sent: &Envelopes) {
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
            if self.received.add(id, json, sent) {
                self.acks = format!("ack {id}\n");
                return;
            }
        }
    }

    /// Sends the acks that are due, and reads until all are confirmed.
    pub(crate) async fn finish(&mut self) {
        let last = self.acks.trim_end().replace("ack ", "ACK_CONFIRMED ");
        self.socket.send_bytes(std::mem::take(&mut self.acks)).await;
        while self.socket.line().await != last {}
    }
}

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut envelopes = Envelopes::of("B");
    let sent = envelopes.clone();
    let send = async {
        let mut sender = deployment.sender().await;
        for _ in 0..MESSAGES {
            publish(&mut sender, &mut envelopes).await;
        }
    };
    let receive = async {
        while receiver.received.count() < MESSAGES {
            receiver.next(&sent).await;
        }
        receiver.finish().await;
        assert_eq!(receiver.received.duplicates, 0);
    };
    tokio::join!(send, receive);
}

/// A connection is lost before an ack is sent. The message is delivered again, ignored and never
/// acked, and must not hold up the others.
pub(crate) async fn duplicates(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut envelopes = Envelopes::of("B");
    let mut sender = deployment.sender().await;
    let lost = publish(&mut sender, &mut envelopes).await;
    receiver.next(&envelopes).await;
    let mut receiver = receiver.reconnect(deployment).await;
    for _ in 0..5 {
        publish(&mut sender, &mut envelopes).await;
    }
    while receiver.received.count() < 6 {
        receiver.next(&envelopes).await;
    }
    receiver.finish().await;
    assert!(
        receiver.received.duplicates > 0,
        "the message whose ack was lost is delivered again"
    );
    // A new process has seen nothing, so it acks the message.
    drop(receiver);
    let mut fresh = Receiver::subscribe(deployment).await;
    fresh.next(&envelopes).await;
    assert!(fresh.received.is(&[lost]));
    fresh.finish().await;
}
