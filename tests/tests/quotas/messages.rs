//! Waiting and rejected messages, counted for their sender.

use std::time::Duration;

use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, EnvelopeText, PATIENCE, RawClient, Server};
use tokio::time::{Instant, sleep};

use super::{batch, batch_to, exceeded, limits, server};

const WAITING: &str = "Error: quota_exceeded: limits.client.waiting_messages is 3 for sender; send \
                       again when receivers have acknowledged messages, or ask for a higher limit";

/// Makes the route of the messages, and returns their sender and their receiver.
async fn pair(server: &Server) -> (RawClient, RawClient) {
    let mut receiver = RawClient::connect(server, "receiver").await;
    receiver.declare_and_bind("q", "e", "k").await;
    (RawClient::connect(server, "sender").await, receiver)
}

pub(super) async fn a_sender_is_refused_while_as_much_waits_as_may(backend: Backend) {
    let mut server = server(&backend, "waiting_messages = 3").await;
    let (mut sender, mut receiver) = pair(&server).await;
    // Copies in several queues are one message.
    receiver.declare_and_bind("q2", "e", "k").await;
    sender
        .send_line(&batch(&["m1", "m2", "m3", "m4", "m5"]))
        .await;
    for id in ["m1", "m2", "m3"] {
        sender.expect(&format!("ACK {id}")).await;
    }
    for id in ["m4", "m5"] {
        sender.expect(&format!("{WAITING} for message {id}")).await;
    }
    // A retry of what is stored is acknowledged; the answers are in order.
    sender.send_line(&batch(&["m2", "m4", "m3"])).await;
    sender.expect("ACK m2").await;
    sender.expect(&format!("{WAITING} for message m4")).await;
    sender.expect("ACK m3").await;
    let alone = EnvelopeText::modern("m6", "receiver");
    sender.ask(&format!("publish e k {alone}"), WAITING).await;
    // Another client sends to the same receiver.
    let mut other = RawClient::connect(&server, "other").await;
    other.ask(&batch(&["o1"]), "ACK o1").await;
    receiver.ask("ack m2", "ACK_CONFIRMED m2").await;
    sender.send_line(&batch(&["m4", "m5"])).await;
    sender.expect("ACK m4").await;
    sender.expect(&format!("{WAITING} for message m5")).await;

    // Killed, the server counts the same again.
    server.kill9().await;
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender
        .ask(&batch(&["m5"]), &format!("{WAITING} for message m5"))
        .await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver.ask("reject m1 no", "Rejected m1").await;
    sender.send_line(&batch(&["m5", "m6"])).await;
    sender.expect("ACK m5").await;
    sender.expect(&format!("{WAITING} for message m6")).await;
}

pub(super) async fn waiting_bytes_are_bounded(backend: Backend) {
    let server = server(&backend, "waiting_bytes = \"2KiB\"").await;
    let (mut sender, mut receiver) = pair(&server).await;
    let large = |id: &str| {
        let envelope = EnvelopeText::modern(id, "receiver");
        format!(
            "publish e k {}",
            envelope.set("ciphertext", "A".repeat(1200))
        )
    };
    sender.ask(&large("m1"), "ACK m1").await;
    assert_eq!(
        exceeded(&mut sender, &large("m2"), "waiting_bytes").await,
        2048
    );
    sender.ask(&batch(&["small"]), "ACK small").await;
    receiver.ask("ack m1", "ACK_CONFIRMED m1").await;
    sender.ask(&large("m2"), "ACK m2").await;
}

pub(super) async fn rejected_messages_count_for_their_sender(backend: Backend) {
    let mut server = server(&backend, "rejected_messages = 2").await;
    let (mut sender, mut receiver) = pair(&server).await;
    sender.send_line(&batch(&["m1", "m2", "m3", "m4"])).await;
    for id in ["m1", "m2", "m3", "m4"] {
        sender.expect(&format!("ACK {id}")).await;
    }
    sender.ask(&batch_to("second", &["s1"]), "ACK s1").await;
    // The receiver gets rid of all of them, beyond the limit as well.
    for id in ["m1", "m2", "m3"] {
        receiver
            .ask(&format!("reject {id} no"), &format!("Rejected {id}"))
            .await;
    }
    // The other half is another receiver's.
    sender.ask(&batch_to("third", &["t1"]), "ACK t1").await;
    let mut second = RawClient::connect(&server, "second").await;
    second.ask("reject s1 no", "Rejected s1").await;
    sender.send_line(&batch_to("third", &["t1", "t2"])).await;
    sender.expect("ACK t1").await;
    let all = "Error: quota_exceeded: limits.client.rejected_messages is 2 for sender; find out";
    sender.expect_prefix(all).await;
    assert_eq!(
        exceeded(&mut sender, &batch(&["m5"]), "rejected_messages").await,
        2
    );
    sender.ask(&batch(&["m4"]), "ACK m4").await;
    let mut other = RawClient::connect(&server, "other").await;
    other.ask(&batch(&["o1"]), "ACK o1").await;

    server.kill9().await;
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    assert_eq!(
        exceeded(&mut sender, &batch(&["m5"]), "rejected_messages").await,
        2
    );
    let entry = limits("clients = [\"send*\"]\nrejected_messages = 0");
    server.terminate().await;
    server.configure("limits", "clients", vec![entry]);
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.ask(&batch(&["m5"]), "ACK m5").await;
}

pub(super) async fn one_receiver_stops_only_messages_to_itself(backend: Backend) {
    const REFUSED: &str = "Error: quota_exceeded: limits.client.rejected_messages is 8 for sender, \
                           at most a quarter of it for messages to one receiver, which those to \
                           receiver have reached; ";
    let mut server = server(&backend, "rejected_messages = 8").await;
    let (mut sender, mut receiver) = pair(&server).await;
    let many: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    sender.send_line(&batch(&many)).await;
    for id in &many {
        sender.expect(&format!("ACK {id}")).await;
    }
    receiver.ask("reject m0 no", "Rejected m0").await;
    sender.ask(&batch(&["n1"]), "ACK n1").await;
    // More than the whole limit, because it waited already.
    for id in &many[1..] {
        receiver
            .ask(&format!("reject {id} no"), &format!("Rejected {id}"))
            .await;
    }
    sender.send_line(&batch(&["n1", "n2"])).await;
    sender.expect("ACK n1").await;
    let rest = sender.expect_prefix(REFUSED).await;
    assert!(rest.ends_with(" for message n2"), "{rest}");
    sender.ask(&batch_to("second", &["s1"]), "ACK s1").await;
    let mut other = RawClient::connect(&server, "other").await;
    other.ask(&batch(&["o1"]), "ACK o1").await;

    // Killed, the server counts the same again.
    server.kill9().await;
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.send_line(&batch(&["n2"])).await;
    sender.expect_prefix(REFUSED).await;
    sender.ask(&batch_to("second", &["s2"]), "ACK s2").await;
    let entry = limits("clients = [\"send*\"]\nrejected_messages = 80");
    server.terminate().await;
    server.configure("limits", "clients", vec![entry]);
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.ask(&batch(&["n2"]), "ACK n2").await;
}

pub(super) async fn old_rejected_messages_are_removed(backend: Backend) {
    let mut server = server(&backend, "rejected_bytes = 4").await;
    let (mut sender, mut receiver) = pair(&server).await;
    sender.ask(&batch(&["m1"]), "ACK m1").await;
    receiver.ask("reject m1 no", "Rejected m1").await;
    assert_eq!(
        exceeded(&mut sender, &batch(&["m2"]), "rejected_bytes").await,
        4
    );
    sender.ask(&batch_to("second", &["s1"]), "ACK s1").await;
    server.terminate().await;
    let old = limits("rejected_bytes = 4\nrejected_age = \"1s\"");
    server.configure("limits", "client", old);
    sleep(Duration::from_secs(1)).await;
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        sender.send_line(&batch(&["m2"])).await;
        let reply = sender.line().await;
        if reply == "ACK m2" {
            break;
        }
        assert!(reply.starts_with("Error: quota_exceeded"), "{reply}");
        assert!(Instant::now() < deadline);
        // It is removed while the server is idle.
        sleep(Duration::from_secs(1)).await;
    }
    sender
        .ask(
            "list_rejected",
            "Rejected messages: {\"messages\":[],\"more\":false}",
        )
        .await;
    server
        .console()
        .expect("Rejected messages of a client are removed")
        .await;
}

/// With a reserve of three quarters of what is free, less than twice the reserve is.
pub(super) async fn who_holds_most_of_a_short_disk_is_refused_first() {
    let folder = tempfile::tempdir().unwrap();
    let disk = rustix::fs::statvfs(folder.path()).unwrap();
    let reserve = disk.f_bavail.saturating_mul(disk.f_frsize) / 4 * 3;
    let reserve = i64::try_from(reserve.min(1 << 40)).unwrap();
    let options = Options::sqlite().set("limits", "disk_reserve", reserve);
    let server = Server::start(options).await;
    let (mut sender, mut receiver) = pair(&server).await;
    // Alone, it holds no more than its share.
    for id in ["m1", "m2"] {
        sender.ask(&batch(&[id]), &format!("ACK {id}")).await;
    }
    let mut other = RawClient::connect(&server, "other").await;
    other.ask(&batch(&["o1"]), "ACK o1").await;
    sender.send_line(&batch(&["m2", "m3"])).await;
    sender.expect("ACK m2").await;
    let prefix = "Error: storage_full: the server's disk is nearly full, and this client holds \
                  more than its share";
    sender.expect_prefix(prefix).await;
    other.ask(&batch(&["o2"]), "ACK o2").await;
    receiver.ask("ack m1 m2", "ACK_CONFIRMED m1").await;
    receiver.expect("ACK_CONFIRMED m2").await;
    sender.ask(&batch(&["m3"]), "ACK m3").await;
}
