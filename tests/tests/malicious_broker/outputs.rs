//! Outputs damaged by a power failure, with a broker that has not received the acks of the messages
//! written last.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use ciphermq_tests::Server;
use ciphermq_tests::faults::proxy::Direction;
use ciphermq_tests::malicious::MaliciousBroker;
use ciphermq_tests::server::Options;

use crate::published_through;
use ciphermq_tests::workspace::Workspace;

const MESSAGES: usize = 100;

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text {number}")).collect()
}

/// The disk has lost one of the first pages of the last write, but kept the later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_the_disk_has_lost() {
    let server = Server::start(Options::sqlite()).await;
    let broker = MaliciousBroker::start(&server).await;
    for lost in 0..3 {
        let workspace = Workspace::at(
            broker.address(),
            server.pki(),
            "sender",
            &format!("receiver-{lost}"),
        );
        workspace.register_receiver().await;
        let all = texts(MESSAGES);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        workspace.send_messages(&all[..2]).await;
        workspace.receive(2).await;
        let path = workspace.path("data/received_messages.jsonl");
        let synced = std::fs::metadata(&path).unwrap().len();
        // The receiver writes the messages, and is killed before an ack reaches the server.
        broker.intercept(|line| match line.direction {
            Direction::ToServer if line.text.starts_with("ack ") => Vec::new(),
            _ => line.honest(),
        });
        let mut receiver = workspace.receiving(&["-v"]).await;
        workspace.send_messages(&all[2..]).await;
        let last = published_through(&broker, "sender").pop().unwrap();
        let last: serde_json::Value = serde_json::from_str(&last).unwrap();
        let stored = format!("Stored message {}", last["message_id"].as_str().unwrap());
        receiver.stderr.expect(&stored).await;
        receiver.kill().await;
        broker.stop_intercepting();
        assert_eq!(workspace.texts(), all);

        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let page = (synced / 4096 + lost) * 4096;
        let start = page.max(synced);
        let zeros = vec![0; usize::try_from(page + 4096 - start).unwrap()];
        file.write_all_at(&zeros, start).unwrap();
        drop(file);

        let received = workspace
            .cli("receive")
            .args(["--idle-exit", "3"])
            .run()
            .await
            .success();
        assert_eq!(
            workspace.texts(),
            all,
            "each once, in order, and nothing else"
        );
        let aside = workspace.path("data/received_messages.jsonl.damaged-1");
        assert!(
            received
                .stderr
                .contains("received_messages.jsonl.damaged-1"),
            "{}",
            received.stderr
        );
        let mode = std::fs::metadata(&aside).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(std::fs::read(aside).unwrap().contains(&0));
        workspace.expect_empty_queue(&server).await;
    }
}
