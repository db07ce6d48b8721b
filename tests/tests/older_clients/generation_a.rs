//! Generation A (v1.4.0), Python: waits for every reply, and tries everything three times.

use std::time::Duration;

use ciphermq_tests::RawClient;

use crate::deployment::{BINDING, Deployment, Envelopes, Received};

const MESSAGES: usize = 60;

pub(crate) async fn exchange(deployment: &Deployment) {
    let mut receiver = Receiver::subscribe(deployment).await;
    let mut envelopes = Envelopes::of("A");
    let sent = envelopes.clone();
    let send = async {
        let mut sender = deployment.sender().await;
        for number in 0..MESSAGES {
            let id = uuid::Uuid::new_v4().to_string();
            let line = envelopes.publish(&id);
            // Every third is tried again at once, while the first try is being stored.
            publish(&mut sender, &line, &id, number % 3 == 0).await;
        }
    };
    let receive = async {
        while receiver.received.count() < MESSAGES {
            receiver.step(&sent).await;
        }
        // No ack was lost, so nothing is delivered twice.
        assert_eq!(receiver.received.duplicates, 0);
        receiver.socket.ask("ping", "PONG").await;
    };
    tokio::join!(send, receive);
}

/// Tries up to three times, waits a second for each line, and longer after each try.
async fn publish(sender: &mut RawClient, line: &str, id: &str, is_impatient: bool) {
    let ack = format!("ACK {id}");
    if is_impatient {
        sender.send_line(line).await;
    }
    for tries in 1..=3 {
        sender.send_line(line).await;
        loop {
            match sender.read_line(Duration::from_secs(1)).await {
                Ok(Some(line)) if line == ack => return,
                Ok(Some(line)) if line.starts_with("Error:") => break,
                // Whatever else it is: the ACK of a try before.
                Ok(Some(_)) => {}
                Ok(None) => panic!("the server has closed the connection"),
                Err(_) => break,
            }
        }
        tokio::time::sleep(Duration::from_secs(tries)).await;
    }
    panic!("{id} was given up");
}

struct Receiver {
    socket: RawClient,
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
            received: Received::default(),
        }
    }

    async fn step(&mut self, sent: &Envelopes) {
        let line = self.socket.line().await;
        let id = self.received.add_line(&line, sent);
        self.ack(id).await;
    }

    /// Discards every line that is not the confirmation: a delivery among them would be lost to
    /// this client.
    async fn ack(&mut self, id: &str) {
        let confirmation = format!("ACK_CONFIRMED {id}");
        for _ in 0..3 {
            self.socket.send_line(&format!("ack {id}")).await;
            while let Ok(Some(line)) = self.socket.read_line(Duration::from_secs(10)).await {
                if line == confirmation {
                    return;
                }
            }
        }
        panic!("the ack of {id} was given up");
    }
}
