//! Signals and failing outputs do not end the server, except for signals that should.

use std::process::Command;

use ciphermq_tests::binaries::binary;
use ciphermq_tests::server::Options;
use ciphermq_tests::{EnvelopeText, PATIENCE, RawClient, Server};
use rustix::process::Signal;

async fn bound(server: &Server) -> RawClient {
    let mut client = RawClient::connect(server, "client").await;
    client.declare_and_bind("q", "e", "k").await;
    client
}

async fn publish(client: &mut RawClient, id: &str) {
    let envelope = EnvelopeText::older(id, "client");
    client
        .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
        .await;
}

/// Rotation as by logrotate: rename, signal, continue. Every line is in the old or in the new file.
#[tokio::test]
async fn sighup_reopens_the_log_files() {
    let mut server = Server::start(Options::sqlite().set("logging", "level", "debug")).await;
    let mut client = bound(&server).await;
    let logs = server.folder().join("logs");
    for round in 0..3 {
        publish(&mut client, &format!("before-{round}")).await;
        for level in ["info", "debug", "error"] {
            let live = logs.join(format!("server_{level}.log"));
            std::fs::rename(&live, logs.join(format!("{level}.old.{round}"))).unwrap();
        }
        server.process().signal(Signal::HUP);
        // All three are created again, even if there is nothing to write.
        let recreated = async {
            while ["info", "debug", "error"]
                .iter()
                .any(|level| !logs.join(format!("server_{level}.log")).exists())
            {
                publish(&mut client, &format!("during-{}", uuid::Uuid::new_v4())).await;
            }
        };
        tokio::time::timeout(PATIENCE, recreated)
            .await
            .expect("the log files are created again");
        publish(&mut client, &format!("after-{round}")).await;
    }
    drop(client);
    server.terminate().await;
    let mut text = String::new();
    for entry in std::fs::read_dir(&logs).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("info") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    for round in 0..3 {
        for when in ["before", "after"] {
            let id = format!("{when}-{round}");
            assert!(text.contains(&id), "{id} is in no log");
        }
    }
}

#[tokio::test]
async fn sigquit_stops_cleanly_and_other_signals_are_ignored() {
    let mut server = Server::start(Options::sqlite()).await;
    let mut client = bound(&server).await;
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::PIPE,
        Signal::XFSZ,
        Signal::HUP,
    ] {
        server.process().signal(signal);
        client.ask("ping", "PONG").await;
    }
    publish(&mut client, "one").await;
    server.process().signal(Signal::QUIT);
    let ended = server.ended(PATIENCE).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("Stopped"), "{}", ended.stderr);
}

/// With a limit on the size of files, the server reports that the storage is full, and messages
/// that it has accepted can still be acked.
#[tokio::test]
async fn a_limit_on_the_size_of_files_does_not_end_the_server() {
    let wrapper = ["prlimit", "--fsize=4194304", "--"]
        .map(str::to_owned)
        .to_vec();
    let options = Options::sqlite()
        .set("limits", "disk_reserve", "2MiB")
        .under(wrapper);
    let mut server = Server::start(options).await;
    let mut client = bound(&server).await;
    let padding = "A".repeat(200_000);
    let mut acked = Vec::new();
    for number in 0..100 {
        let id = format!("m{number}");
        client
            .send_line(&format!(
                r#"publish e k {{"message_id":"{id}","receiver_client_id":"client","enc_session_key":"AA==","nonce":"AA==","ciphertext":"{padding}"}}"#
            ))
            .await;
        let line = client.line().await;
        if line == format!("ACK {id}") {
            acked.push(id);
        } else {
            assert!(line.starts_with("Error: storage_full: "), "{line}");
            break;
        }
    }
    assert!(
        !acked.is_empty() && acked.len() < 100,
        "{} were accepted",
        acked.len()
    );
    for id in &acked {
        client.ack(id).await;
    }
    drop(client);
    server.terminate().await;
}

/// If standard error is closed or its disk is full, the exit code still shows the result, and
/// nothing panics.
#[test]
fn a_failing_standard_error_causes_no_panic() {
    let server = binary("ciphermq-server");
    // Help and version are the output: without it they fail.
    for (redirection, printed) in [
        ("2>/dev/full", 0),
        ("2>&-", 0),
        (">/dev/full 2>/dev/full", 1),
        (">&- 2>&-", 1),
    ] {
        for (arguments, code) in [
            ("--config /nowhere", 1),
            ("--help", printed),
            ("--version", printed),
            ("--what", 2),
        ] {
            let script = format!("exec \"$0\" {arguments} {redirection}");
            let status = Command::new("sh")
                .args(["-c", &script])
                .arg(&server)
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(code), "{arguments} {redirection}");
        }
    }
}
