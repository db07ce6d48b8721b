//! Failing disks and full disks: only durable messages are acknowledged, the error is clear, and
//! work resumes once there is room.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ciphermq_tests::faults::Campaign;
use ciphermq_tests::faults::campaign::Settings;
use ciphermq_tests::faults::tracing::{self, Injection};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, Database, EnvelopeText, RawClient, Server};

/// Makes the syncs fail that `when` selects in the syntax of strace, counted for each thread.
async fn failing_syncs(when: &str) {
    if let Err(reason) = tracing::allowed() {
        panic!("programs cannot be traced on this machine, so the test cannot run: {reason}");
    }
    let settings = Settings {
        lines: 100,
        ..Settings::new(super::random::seed(), 0)
    };
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    campaign.run_until_received(50).await;
    let injection = Injection::error("fsync,fdatasync", "EIO", when);
    campaign.server.run_under(injection.command());
    campaign.server.restart().await;
    campaign.run_until_received(300).await;
    let console = campaign.server.console().text();
    assert!(
        console.contains("The outcome of a commit is not known")
            || console.contains("The database is not available"),
        "no sync has failed, or the failure was not reported: {}",
        console
            .lines()
            .filter(|line| !line.contains(" INFO "))
            .collect::<Vec<_>>()
            .join("\n")
    );
    campaign.server.run_under(Vec::new());
    campaign.kill_server().await;
    let report = campaign.settle().await.expect_sound();
    eprintln!("{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_one_failing_sync() {
    failing_syncs("12").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_many_failing_syncs() {
    // Reopening the database takes about six syncs. If every seventh failed, so would every commit
    // after a reopening, and nothing would ever be acknowledged.
    failing_syncs("10+11").await;
}

/// A separate file system of a few megabytes, unmounted when the value is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, mebibytes: usize) -> Self {
        let path = folder.join("disk");
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mebibytes}m,mode=0700"))
            .arg("none")
            .arg(&path)
            .output()
            .expect("mount cannot be started");
        assert!(
            output.status.success(),
            "nothing can be mounted on this machine, so the test cannot run: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Self(path)
    }

    /// The URL of a database on it.
    fn url(&self) -> String {
        format!("sqlite://{}", self.0.join("ciphermq.db").display())
    }

    /// Fills this number of bytes, or all that are left.
    fn fill(&self, bytes: Option<usize>) {
        let file = self.0.join("filling");
        let chunk = vec![1; 4096];
        let mut filling = std::fs::File::create(file).unwrap();
        let mut left = bytes.unwrap_or(usize::MAX);
        while left > 0 && std::io::Write::write_all(&mut filling, &chunk[..left.min(4096)]).is_ok()
        {
            left -= left.min(4096);
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filling")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because the server, which is dropped later, may have open files in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A line that publishes a message of some 20 kB.
fn line(number: usize) -> String {
    let envelope = EnvelopeText::older(&format!("m-{number}"), "receiver")
        .set("ciphertext", "A".repeat(20_000));
    format!("publish e k {envelope}")
}

/// Connects the receiver, and waits until these messages are delivered to it.
async fn consumer(server: &Server, messages: Range<usize>) -> RawClient {
    let mut receiver = RawClient::connect(server, "receiver").await;
    receiver.ask("consume q 1000", "Subscribed to queue").await;
    for number in messages {
        receiver
            .expect_prefix(&format!("Message: m-{number} "))
            .await;
    }
    receiver
}

/// Expects that hardly an acknowledgement had to wait for room since the server's start.
fn expect_few_full(server: &Server) {
    let console = server.console().text();
    let full = console.matches("The database's disk is full").count();
    assert!(full <= 3, "{full} acknowledgements had no room:\n{console}");
}

/// Ends the server, and expects its database to be intact.
async fn intact(server: &mut Server, url: &str) -> Database {
    let database = Database::connect(url).await;
    server.terminate().await;
    assert_eq!(
        database.rows("PRAGMA integrity_check").await,
        [[Some("ok".to_owned())]]
    );
    database
}

/// The disk is filled by messages up to the reserve, and then by another file to the last byte.
/// Publishes are refused, and acknowledged messages are delivered. Acks succeed, even after a
/// restart, and drain the queue. With enough room, publishes do too.
#[tokio::test(flavor = "multi_thread")]
async fn mounted_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path(), 12);
    let url = disk.url();
    let options = Options::sqlite().set("database", "url", url.as_str()).set(
        "limits",
        "disk_reserve",
        "4MiB",
    );
    let mut server = Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    let mut accepted = 0;
    let refusal = loop {
        sender.send_line(&line(accepted)).await;
        let reply = sender.line().await;
        if reply != format!("ACK m-{accepted}") {
            break reply;
        }
        accepted += 1;
        assert!(accepted < 2000, "the disk is never full");
    };
    assert!(refusal.starts_with("Error: storage_full: "), "{refusal}");
    assert!(accepted > 20, "{accepted}");

    // The disk is completely full now. Nothing is acknowledged, nothing crashes, and the waiting
    // messages are delivered.
    disk.fill(None);
    sender.send_line(&line(accepted)).await;
    sender.expect_prefix("Error: storage_full: ").await;
    let mut receiver = consumer(&server, 0..accepted).await;
    // An ack has the space that was set aside.
    receiver.ack("m-0").await;
    disk.free();
    // There is some room, but less than the reserve.
    disk.fill(Some(1024 * 1024));
    server.kill9().await;
    server.restart().await;
    let mut receiver = consumer(&server, 1..accepted).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    for number in 1..accepted {
        receiver.ack(&format!("m-{number}")).await;
    }
    // The log of the database fills what is left, perhaps. It is emptied then, at once.
    expect_few_full(&server);
    disk.free();
    // The server releases space in small steps, while it is otherwise idle.
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        sender.send_line(&line(accepted)).await;
        let reply = sender.line().await;
        if reply == format!("ACK m-{accepted}") {
            break;
        }
        assert!(reply.starts_with("Error: storage_full: "), "{reply}");
        assert!(
            tokio::time::Instant::now() < end,
            "publishing is still refused although there is room: {reply}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    receiver
        .expect_prefix(&format!("Message: m-{accepted} "))
        .await;
    receiver.ack(&format!("m-{accepted}")).await;
    let database = intact(&mut server, &url).await;
    assert_eq!(database.number("SELECT count(*) FROM messages").await, 0);
    assert_eq!(
        database
            .number(ciphermq_tests::Database::ACKNOWLEDGED)
            .await,
        i64::try_from(accepted).unwrap() + 1
    );
}

/// Another program fills the disk to the last byte while the database's log holds messages that
/// the database has to grow for. Acknowledgements go on all the same.
async fn others_fill_the_disk(restarts: bool) {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path(), 220);
    let url = disk.url();
    let options = Options::sqlite().set("database", "url", url.as_str());
    let mut server = Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    let wal = disk.0.join("ciphermq.db-wal");
    let mut accepted = 0;
    while std::fs::metadata(&wal).unwrap().len() < 10 << 20 {
        assert!(accepted < 2000, "the database's log does not grow");
        sender
            .ask(&line(accepted), &format!("ACK m-{accepted}"))
            .await;
        accepted += 1;
    }
    disk.fill(None);
    sender.send_line(&line(accepted)).await;
    sender.expect_prefix("Error: storage_full: ").await;
    if restarts {
        server.kill9().await;
        server.restart().await;
    }
    let mut receiver = consumer(&server, 0..accepted).await;
    for number in 0..accepted {
        receiver.ack(&format!("m-{number}")).await;
    }
    expect_few_full(&server);
    disk.free();
    let mut sender = RawClient::connect(&server, "sender").await;
    sender
        .ask(&line(accepted), &format!("ACK m-{accepted}"))
        .await;
    let database = intact(&mut server, &url).await;
    assert_eq!(database.number("SELECT count(*) FROM messages").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mounted_a_disk_that_others_fill() {
    others_fill_the_disk(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounted_a_server_that_is_restarted_on_a_disk_that_others_fill() {
    others_fill_the_disk(true).await;
}

/// When the disk fills, logs stop first, with a last word; then publishes, and acknowledgements at
/// last. With room again, lines are written again.
#[tokio::test(flavor = "multi_thread")]
async fn mounted_logs_leave_the_reserve_to_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path(), 64);
    let log = disk.0.join("info.log");
    let url = disk.url();
    let options = Options::sqlite()
        .set("database", "url", url.as_str())
        .set("limits", "disk_reserve", "8MiB")
        .set("logging", "info_file_path", log.display().to_string());
    let server = Server::start(options).await;
    let mut client = RawClient::connect(&server, "client").await;
    client.declare_and_bind("q", "e", "k").await;
    client.ask("consume q 1000", "Subscribed to queue").await;
    // The database's files have their size before the disk is filled: its log grows to little
    // more than 2 MiB, a quarter of the reserve.
    let wal = disk.0.join("ciphermq.db-wal");
    let mut number = 0;
    while std::fs::metadata(&wal).unwrap().len() < 2 << 20 {
        assert!(number < 3000, "the database's log does not grow");
        exchange(&mut client, number).await;
        number += 1;
    }
    // Between the reserve, and where logs stop.
    let free = rustix::fs::statvfs(&disk.0).unwrap();
    let free = usize::try_from(free.f_bavail * free.f_frsize).unwrap();
    disk.fill(Some(free - (15 << 20)));
    let text = || std::fs::read_to_string(&log).unwrap();
    let end = number + 3000;
    while !text().contains("limits.disk_reserve, which is the database's") {
        assert!(number < end, "the log does not stop");
        exchange(&mut client, number).await;
        number += 1;
    }
    let length = text().len();
    for _ in 0..100 {
        exchange(&mut client, number).await;
        number += 1;
    }
    assert_eq!(text().len(), length, "the log goes on");
    disk.free();
    let end = tokio::time::Instant::now() + ciphermq_tests::PATIENCE;
    while text().len() == length {
        assert!(tokio::time::Instant::now() < end, "the log does not go on");
        exchange(&mut client, number).await;
        number += 1;
    }
}

/// Publishes a message to the client itself, and acknowledges it.
async fn exchange(client: &mut RawClient, number: usize) {
    let id = format!("m-{number}");
    let envelope = EnvelopeText::older(&id, "client");
    client.send_line(&format!("publish e k {envelope}")).await;
    let mut acked = false;
    let mut delivered = false;
    while !(acked && delivered) {
        let line = client.line().await;
        assert!(!line.starts_with("Error: "), "{line}");
        acked |= line == format!("ACK {id}");
        delivered |= line.starts_with(&format!("Message: {id} "));
    }
    client
        .ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"))
        .await;
}
