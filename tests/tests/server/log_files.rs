//! Paths and permissions of log files, their lines about many events, and the removal of old ones.

use ciphermq_tests::server::Options;
use ciphermq_tests::{EnvelopeText, RawClient, Server};
use tokio::net::TcpStream;

/// Logs contain client names and addresses, so their mode must not depend on the umask.
#[tokio::test]
async fn logs_are_not_world_readable() {
    use std::os::unix::fs::PermissionsExt as _;
    let wrapper = ["sh", "-c", "umask 000; exec \"$0\" \"$@\""].map(str::to_owned);
    let mut server = Server::prepare(
        Options::sqlite()
            .under(wrapper.to_vec())
            .without("logging", "info_file_path")
            .without("logging", "debug_file_path")
            .without("logging", "error_file_path"),
    );
    if let Err(refusal) = server.launch().await {
        panic!("{}", refusal.stderr);
    }
    drop(RawClient::connect(&server, "client").await);
    let logs = server.folder().join("logs");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&logs), 0o755);
    let files: Vec<_> = logs
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(!files.is_empty());
    assert!(files.iter().all(|file| mode(file) == 0o640), "{files:?}");
    server.terminate().await;
}

/// Several logs may go to one device, such as `/dev/null`, but no log may go to another file of the
/// server.
#[tokio::test]
async fn logs_may_share_a_device_and_nothing_else() {
    let levels = ["info_file_path", "debug_file_path", "error_file_path"];
    let to = |paths: [&str; 3]| {
        let paths = levels.into_iter().zip(paths);
        paths.fold(Options::sqlite(), |options, (level, path)| {
            options.set("logging", level, path)
        })
    };
    Server::start(to(["/dev/null"; 3])).await.terminate().await;
    for (key, log) in [
        ("a.key", "a.key"),
        ("a.key", "./a.key.adopted"),
        ("a.key", "b.log"),
    ] {
        let options = to([log, "c.log", "b.log"]).set("encryption", "aes_key_file", key);
        let refusal = Server::refused(options).await;
        assert!(
            refusal.stderr.contains("is the same file as"),
            "{}",
            refusal.stderr
        );
    }
}

/// A pipe that nobody reads, and a descriptor that cannot be written, would lose lines in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_no_lines_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let script = "exec \"$0\" \"$@\" 7< /dev/null".to_owned();
    let options = || {
        Options::sqlite()
            .set("logging", "info_file_path", pipe.display().to_string())
            .set("logging", "error_file_path", "/dev/fd/7")
            .under(vec!["sh".to_owned(), "-c".to_owned(), script.clone()])
    };
    let mut server = Server::start(options()).await;
    server
        .console()
        .expect("a named pipe that nobody reads")
        .await;
    server.console().expect("it is open for reading only").await;
    let console = server.terminate().await;
    assert!(
        console.contains("the last lines for the log file") && console.contains("pipe could not"),
        "{console}"
    );

    // The lines wait for a reader.
    let mut server = Server::start(options()).await;
    server
        .console()
        .expect("a named pipe that nobody reads")
        .await;
    let first_line = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(pipe).unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(file), &mut line).unwrap();
        line
    });
    let first_line = first_line.await.unwrap();
    assert!(first_line.contains("\"level\":\"INFO\""), "{first_line}");
    server.console().expect("is written again").await;
    server.terminate().await;
}

/// An address without a certificate cannot fill the disk.
#[tokio::test]
async fn failed_handshakes_of_an_address_are_counted() {
    let mut server = Server::start(Options::sqlite()).await;
    let address = server.address();
    // At once, because each waits a moment when many have failed before.
    let mut failing = tokio::task::JoinSet::new();
    for _ in 0..300 {
        failing.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET / HTTP/1.1\r\n\r\n")
                .await
                .unwrap();
            // Until the server has closed it.
            let mut answer = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer);
            read.await.ok();
        });
    }
    failing.join_all().await;
    // An honest client of the same address only waits a moment, too.
    let mut honest = RawClient::connect(&server, "honest").await;
    honest.ask("ping", "PONG").await;
    // What is counted is logged at the latest when the server stops.
    server.terminate().await;
    let lines = server.log("error");
    let failed = |line: &&serde_json::Value| {
        let message = line["message"].as_str().unwrap();
        message.starts_with("TLS handshake failed")
    };
    let failed: Vec<_> = lines.iter().filter(failed).collect();
    assert_eq!(failed[0]["message"], "TLS handshake failed");
    assert!(failed[0]["advice"].as_str().unwrap().contains("TLS"));
    // One each ten seconds, and each of the few reasons once.
    let counted: u64 = failed
        .iter()
        .filter_map(|line| line["count"].as_u64())
        .sum();
    let single = failed.iter().filter(|line| line["count"].is_null()).count();
    assert_eq!(counted + single as u64, 300, "{failed:#?}");
    assert!(single <= 8, "{failed:#?}");
    let summary = failed.iter().find(|line| line["count"].is_u64()).unwrap();
    assert_eq!(summary["source"], "127.0.0.1");
    let message = summary["message"].as_str().unwrap();
    assert!(message.contains("more of 127.0.0.1 in "), "{message}");
}

/// A batch is one line, and names all its messages, however many queues they go to.
#[tokio::test]
async fn a_batch_is_one_line() {
    let mut server = Server::start(Options::sqlite()).await;
    let mut client = RawClient::connect(&server, "client").await;
    for queue in ["one", "two", "three"] {
        client.declare_and_bind(queue, "e", "k").await;
    }
    let envelope = |id: usize| EnvelopeText::older(&format!("m{id}"), "client").to_string();
    let batch: Vec<String> = (0..20).map(envelope).collect();
    client
        .send_line(&format!("publish_batch e k [{}]", batch.join(",")))
        .await;
    for id in 0..20 {
        client.expect(&format!("ACK m{id}")).await;
    }
    let ids: Vec<String> = (0..20).map(|id| format!("m{id}")).collect();
    client.send_line(&format!("ack {}", ids.join(" "))).await;
    for id in &ids {
        client.expect(&format!("ACK_CONFIRMED {id}")).await;
    }
    server.terminate().await;
    let lines = server.log("info");
    let about: Vec<_> = lines
        .iter()
        .filter(|line| line["message_ids"].is_array())
        .collect();
    assert_eq!(about.len(), 2, "{lines:#?}");
    for line in &about {
        assert_eq!(line["message_ids"], serde_json::json!(ids));
    }
    let message = about[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Published 20 messages to 3 queues ('"),
        "{message}"
    );
    assert_eq!(
        about[1]["message"],
        "20 messages acknowledged by client, removed from queues and status"
    );
}

/// Old files are removed at the start, and nothing else.
#[tokio::test]
async fn old_log_files_beyond_the_limit_are_removed() {
    let options = Options::sqlite().set("logging", "max_files", 2);
    let mut server = Server::prepare(options);
    let logs = server.folder().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let old = ["2025-09-01", "2025-09-02", "2025-09-02.1", "2025-09-03"];
    let others = ["2025-09-01.gz", "2025-09-01.old", "1"];
    let path = |end: &&str| logs.join(format!("server_info.log.{end}"));
    for file in old.iter().chain(&others).map(path) {
        std::fs::write(file, "{}\n").unwrap();
    }
    if let Err(refusal) = server.launch().await {
        panic!("{}", refusal.stderr);
    }
    server.terminate().await;
    for file in old[..2].iter().map(path) {
        assert!(!file.exists(), "{}", file.display());
    }
    for file in old[2..].iter().chain(&others).map(path) {
        assert!(file.exists(), "{}", file.display());
    }
}
