//! Paths and permissions of log files.

use ciphermq_tests::server::Options;
use ciphermq_tests::{RawClient, Server};

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
