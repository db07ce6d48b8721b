//! Everything that the server has acknowledged survives its end, whether it is stopped or killed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_tests::{Backend, EnvelopeText, PATIENCE, RawClient, Server, on_both_databases};

#[derive(Clone, Copy)]
enum Shutdown {
    Terminated,
    Killed,
}

impl Shutdown {
    /// Ends the server in this way, and starts it again.
    async fn restart(self, server: &mut Server) {
        match self {
            Self::Terminated => drop(server.terminate().await),
            Self::Killed => server.kill9().await,
        }
        server.restart().await;
    }
}

fn envelope(index: usize) -> EnvelopeText {
    EnvelopeText::older(&format!("m{index}"), "receiver").set("number", index)
}

async fn sender_with_queue(server: &Server) -> RawClient {
    let mut sender = RawClient::connect(server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    sender
}

async fn publish(sender: &mut RawClient, index: usize) {
    let envelope = envelope(index);
    sender
        .ask(&format!("publish e k {envelope}"), &format!("ACK m{index}"))
        .await;
}

async fn expect_messages(receiver: &mut RawClient, indices: impl IntoIterator<Item = usize>) {
    for index in indices {
        receiver
            .expect(&format!("Message: m{index} {}", envelope(index)))
            .await;
    }
}

async fn consumer(server: &Server, prefetch: u32) -> RawClient {
    let mut receiver = RawClient::connect(server, "receiver").await;
    receiver
        .ask(&format!("consume q {prefetch}"), "Subscribed to queue")
        .await;
    receiver
}

async fn a_terminated_server_keeps_everything(backend: Backend) {
    restart_keeps_everything(&backend, Shutdown::Terminated).await;
}

async fn a_killed_server_keeps_everything(backend: Backend) {
    restart_keeps_everything(&backend, Shutdown::Killed).await;
}

async fn restart_keeps_everything(backend: &Backend, shutdown: Shutdown) {
    let mut server = backend.server().await;
    let mut sender = sender_with_queue(&server).await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    let key = BASE64_STANDARD.encode([7; 32]);
    receiver
        .ask(
            &format!("register_public_key {key}"),
            "Public key registered",
        )
        .await;
    sender.send_line("get_certificate receiver").await;
    let certificate = sender.line().await;
    assert!(certificate.starts_with("Certificate: "), "{certificate}");
    for index in 0..6 {
        publish(&mut sender, index).await;
    }
    receiver.ask("consume q 3", "Subscribed to queue").await;
    expect_messages(&mut receiver, 0..3).await;
    receiver.ask("ack m1", "ACK_CONFIRMED m1").await;
    expect_messages(&mut receiver, [3]).await;
    receiver.send_line("reject m2 no key").await;
    receiver.expect("Rejected m2").await;

    shutdown.restart(&mut server).await;

    // The receiver may acknowledge earlier deliveries now, without a lease, before it consumes.
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver.ask("ack m0 m1", "ACK_CONFIRMED m0").await;
    receiver.expect("ACK_CONFIRMED m1").await;
    // The declarations have survived, too.
    let mut sender = RawClient::connect(&server, "sender").await;
    publish(&mut sender, 6).await;
    for index in [0, 1, 2, 5] {
        publish(&mut sender, index).await;
    }
    receiver.ask("consume q 100", "Subscribed to queue").await;
    expect_messages(&mut receiver, [3, 4, 5, 6]).await;
    receiver.ask("ping", "PONG").await;
    sender
        .ask("get_public_key receiver", &format!("Public key: {key}"))
        .await;
    sender.ask("get_certificate receiver", &certificate).await;
    sender.ask("resend m2", "Message ID not found").await;
    sender.ask("resend m3", "Resend requested").await;
    expect_messages(&mut receiver, [3]).await;

    let database = server.database().await;
    let ids = "SELECT message_id FROM message_metadata WHERE acknowledged_time IS NULL AND \
               rejected_time IS NULL \
               ORDER BY message_id";
    let open: Vec<_> = database
        .rows(ids)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert_eq!(open, ["m3", "m4", "m5", "m6"]);
    assert_eq!(
        database
            .number("SELECT count(*) FROM message_metadata")
            .await,
        7
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM rejected_messages")
            .await,
        1
    );
}

/// After several kills in mid-stream, every acknowledged message is stored once and in order.
async fn a_server_killed_in_mid_stream_keeps_what_it_acknowledged(backend: Backend) {
    let mut server = backend.server().await;
    drop(sender_with_queue(&server).await);
    let mut acked = Vec::new();
    for round in 0..3 {
        let mut sender = RawClient::connect(&server, "sender").await;
        let first = round * 1000;
        let lines: String = (first..first + 1000)
            .map(|index| format!("publish e k {}\n", envelope(index)))
            .collect();
        sender.send_bytes(lines).await;
        for index in first..first + 200 {
            sender.expect(&format!("ACK m{index}")).await;
            acked.push(index);
        }
        server.kill9().await;
        // Acknowledgements that were in transit when it was killed count as well.
        while let Ok(Some(line)) = sender.read_line(PATIENCE).await {
            let index = line
                .strip_prefix("ACK m")
                .unwrap_or_else(|| panic!("{line}"));
            acked.push(index.parse().unwrap());
        }
        server.restart().await;
    }
    let mut receiver = consumer(&server, 10_000).await;
    let mut received = Vec::new();
    let waiting = server
        .database()
        .await
        .number("SELECT count(*) FROM messages")
        .await;
    while i64::try_from(received.len()).unwrap() < waiting {
        let line = receiver.line().await;
        let Some(delivery) = line.strip_prefix("Message: m") else {
            continue;
        };
        let (index, json) = delivery.split_once(' ').unwrap();
        let index: usize = index.parse().unwrap();
        assert_eq!(json, envelope(index).to_string());
        received.push(index);
    }
    assert!(
        received.is_sorted_by(|one, next| one < next),
        "out of order, or duplicated"
    );
    let lost: Vec<_> = acked
        .iter()
        .filter(|index| received.binary_search(index).is_err())
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

/// After SIGTERM in mid-stream, every line that was read is answered, and TLS is closed.
async fn a_terminated_server_answers_what_it_has_read(backend: Backend) {
    let mut server = backend.server().await;
    let mut sender = sender_with_queue(&server).await;
    let lines: String = (0..2000)
        .map(|index| format!("publish e k {}\n", envelope(index)))
        .collect();
    sender.send_bytes(lines).await;
    sender.expect("ACK m0").await;
    let mut acked = 1;
    let (console, ()) = tokio::join!(server.terminate(), async {
        while let Some(line) = sender.read_line(PATIENCE).await.expect("TLS is closed") {
            assert_eq!(line, format!("ACK m{acked}"));
            acked += 1;
        }
    });
    assert!(console.contains("Stopped"), "{console}");
    server.restart().await;
    let database = server.database().await;
    assert_eq!(
        database.number("SELECT count(*) FROM messages").await,
        acked
    );
}

on_both_databases!(
    a_terminated_server_keeps_everything,
    a_killed_server_keeps_everything,
    a_server_killed_in_mid_stream_keeps_what_it_acknowledged,
    a_terminated_server_answers_what_it_has_read,
);

#[tokio::test]
async fn idle_clients_do_not_delay_the_shutdown() {
    let mut server = Server::start(ciphermq_tests::server::Options::sqlite()).await;
    let mut idle = RawClient::connect(&server, "idle").await;
    idle.ask("ping", "PONG").await;
    let mut unfinished = RawClient::connect(&server, "unfinished").await;
    unfinished.send_bytes("declare_queue q").await;
    // A connection that has not begun its handshake.
    let raw = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    let start = std::time::Instant::now();
    server.interrupt().await;
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    idle.expect_closed().await;
    unfinished.expect_closed().await;
    drop(raw);
}
