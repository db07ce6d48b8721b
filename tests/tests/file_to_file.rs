//! Exactly-once delivery from file to file: sender, receiver, server and PostgreSQL are killed at
//! random moments and restarted with the same commands; in the end, the output must contain every
//! line of the input exactly once.
//!
//! `FILE_TO_FILE_SEED=<number>` repeats the random choices of a run, `FILE_TO_FILE_KILLS=<number>`
//! sets the number of kills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_tests::backend::Backend;
use ciphermq_tests::postgres::Stop;
use ciphermq_tests::process::Process;
use ciphermq_tests::{Cli, PATIENCE, Server, data};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

/// The time limit for completing the transfer after the last kill.
const COMPLETION: Duration = Duration::from_secs(120);

struct Fixture {
    server: Server,
    folder: TempDir,
}

impl Fixture {
    async fn new(backend: &Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Cli::keygen()
            .arg("--out")
            .arg(folder.path())
            .run()
            .await
            .success();
        // A copy, because the checkpoint is written to the same folder.
        std::fs::copy(data::readings(), folder.path().join("readings.jsonl")).unwrap();
        Self {
            server: backend.server().await,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the send command, with small batches so that there is time for the kills.
    fn send(&self) -> Cli {
        Cli::new("send")
            .args(["--to", "receiver_1", "--batch-size", "1", "--file"])
            .arg(self.path("readings.jsonl"))
            .connecting(&self.server, "sender_1")
            .limit(COMPLETION)
    }

    fn receive(&self) -> Cli {
        self.receive_with("8")
    }

    fn receive_with(&self, prefetch: &str) -> Cli {
        Cli::new("receive")
            .args(["--prefetch", prefetch, "--output"])
            .arg(self.path("out.jsonl"))
            .arg("--private-key")
            .arg(self.path("receiver_private.key"))
            .connecting(&self.server, "receiver_1")
            .limit(COMPLETION)
    }

    /// Appends a line to the input, which belongs to the next stream.
    fn append(&self, line: &str) {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new()
            .append(true)
            .open(self.path("readings.jsonl"));
        writeln!(file.unwrap(), "{line}").unwrap();
    }

    /// Declares the queue and registers the key, so that the sender can begin.
    async fn prepare(&self) {
        self.receive()
            .args(["--idle-exit", "0.1"])
            .run()
            .await
            .success();
    }

    fn input_lines(&self) -> Vec<String> {
        lines(&self.path("readings.jsonl"))
    }

    /// Returns the messages in the output, in order.
    fn messages(&self) -> Vec<String> {
        lines(&self.path("out.jsonl"))
            .iter()
            .map(|line| {
                #[derive(serde::Deserialize)]
                struct Line<'a> {
                    #[serde(borrow)]
                    message: &'a serde_json::value::RawValue,
                }
                let line: Line<'_> =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                line.message.get().to_owned()
            })
            .collect()
    }
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Returns the lines whose number in `found` differs from that in `expected`, with the difference.
fn differences(expected: &[String], found: &[String]) -> Vec<(String, i64)> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for line in found {
        *counts.entry(line).or_default() += 1;
    }
    for line in expected {
        *counts.entry(line).or_default() -= 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(line, count)| (line.to_owned(), count))
        .collect()
}

#[test]
fn the_comparison_detects_lost_duplicated_and_unexpected_lines() {
    let texts = |lines: &[&str]| {
        lines
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    let expected = texts(&["a", "b", "c"]);
    assert!(differences(&expected, &texts(&["c", "a", "b"])).is_empty());
    assert_eq!(
        differences(&expected, &texts(&["a", "b", "b", "x"])),
        [
            ("b".to_owned(), 1),
            ("c".to_owned(), -1),
            ("x".to_owned(), 1)
        ]
    );
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn run_with_kills(mut backend: Backend, kills: u64) {
    let seed = setting("FILE_TO_FILE_SEED").unwrap_or_else(rand::random);
    let kills = setting("FILE_TO_FILE_KILLS").unwrap_or(kills);
    println!("FILE_TO_FILE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut fixture = Fixture::new(&backend).await;
    fixture.prepare().await;
    let (mut sender, mut receiver) = (fixture.send().spawn(), fixture.receive().spawn());
    let (mut counts, mut in_traffic) = (BTreeMap::<&str, u32>::new(), 0);
    for _ in 0..kills {
        // Long enough for a program to connect and transfer something, and short enough that the
        // transfer is not complete before the last kill.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..300))).await;
        in_traffic += u64::from(lines(&fixture.path("out.jsonl")).len() < data::READINGS);
        let victims = [
            "sender",
            "receiver",
            "server",
            "database",
            "database without shutdown",
        ];
        let candidates = if backend.is_postgres() {
            victims.len()
        } else {
            3
        };
        let victim = victims[random.random_range(0..candidates)];
        *counts.entry(victim).or_default() += 1;
        match (victim, &mut backend) {
            ("sender", _) => {
                sender.kill().await;
                fixture.append(&format!("{{\"appended\":{in_traffic}}}"));
                sender = fixture.send().spawn();
            }
            ("receiver", _) => {
                receiver.kill().await;
                receiver = fixture.receive().spawn();
            }
            ("database", Backend::Postgres(postgres)) => {
                postgres.stop(Stop::Immediate).await;
                postgres.restart().await;
            }
            ("database without shutdown", Backend::Postgres(postgres)) => {
                postgres.kill().await;
                postgres.restart().await;
            }
            _ => {
                fixture.server.kill9().await;
                fixture.server.restart().await;
            }
        }
    }
    println!("killed: {counts:?}, {in_traffic} of {kills} before everything had arrived");
    assert!(
        in_traffic >= kills / 2,
        "the transfer completed before enough kills"
    );
    expect_complete(&fixture, &mut sender, &mut receiver).await;
}

/// Lets the transfer complete and compares the output with the input, then checks that running both
/// programs again changes nothing.
async fn expect_complete(fixture: &Fixture, sender: &mut Process, receiver: &mut Process) {
    // A sender that found no server has ended with an error; the same command resumes.
    let mut status = sender.ended(COMPLETION).await;
    for _ in 0..10 {
        if status.success() {
            break;
        }
        status = fixture.send().spawn().ended(COMPLETION).await;
    }
    assert!(status.success(), "{}", sender.stderr.text());
    // The receiver may have found no server either.
    receiver.kill().await;
    fixture
        .receive_with("1024")
        .args(["--idle-exit", "3"])
        .run()
        .await
        .success();
    let expected = fixture.input_lines();
    assert!(expected.len() >= data::READINGS);
    let wrong = differences(&expected, &fixture.messages());
    assert!(
        wrong.is_empty(),
        "{} wrong: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );

    let before = std::fs::read(fixture.path("out.jsonl")).unwrap();
    let again = fixture.send().run().await.success();
    assert!(
        again.stderr.contains("was already sent"),
        "{}",
        again.stderr
    );
    let rest = fixture
        .receive()
        .args(["--idle-exit", "0.5"])
        .run()
        .await
        .success();
    assert!(rest.stderr.contains(" 0 received"), "{}", rest.stderr);
    assert!(std::fs::read(fixture.path("out.jsonl")).unwrap() == before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reading_arrives_once_despite_kills_heavy_sqlite() {
    run_with_kills(Backend::Sqlite, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reading_arrives_once_despite_kills_heavy_postgres() {
    run_with_kills(Backend::postgres().await, 16).await;
}

/// Verifies the check itself: without a checkpoint, a kill duplicates lines, which is detected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_of_a_sender_without_a_checkpoint_are_detected() {
    let fixture = Fixture::new(&Backend::Sqlite).await;
    fixture.prepare().await;
    let mut sender = fixture.send().args(["--no-checkpoint", "-v"]).spawn();
    sender.stderr.expect("Server ACK received").await;
    sender.kill().await;
    fixture.send().arg("--no-checkpoint").run().await.success();
    fixture
        .receive_with("1024")
        .args(["--idle-exit", "2"])
        .run()
        .await
        .success();
    let wrong = differences(&fixture.input_lines(), &fixture.messages());
    assert!(
        !wrong.is_empty() && wrong.iter().all(|(_, count)| *count == 1),
        "{wrong:?}"
    );
}

/// Measures the time until a killed receiver is ready again, and its peak memory in bytes, with
/// this number of lines in its output.
async fn measure_restart(lines: u64) -> (Duration, u64) {
    use std::io::Write as _;
    let fixture = Fixture::new(&Backend::Sqlite).await;
    let stream = ciphermq_protocol::StreamId::new(1, 1);
    let mut output =
        std::io::BufWriter::new(std::fs::File::create(fixture.path("out.jsonl")).unwrap());
    for position in 0..lines {
        let id = stream.message_id(position).unwrap();
        writeln!(output, "{{\"message_id\":\"{id}\",\"sender\":\"sender_1\",\"message\":{{\"temperature_f\":47.8}},\"sent_time\":\"2025-09-08T07:03:00.123Z\",\"received_time\":\"2025-09-08T07:03:00.131Z\"}}").unwrap();
    }
    output.into_inner().unwrap();
    let mut fastest = (Duration::MAX, u64::MAX);
    for run in 0..4 {
        let start = std::time::Instant::now();
        let mut receiver = fixture.receive().spawn();
        receiver.stderr.expect("Receiving from").await;
        let taken = (start.elapsed(), receiver.peak_rss_bytes());
        receiver.kill().await;
        let known = format!("{lines} messages already");
        assert!(
            receiver.stderr.text().contains(&known),
            "{}",
            receiver.stderr.text()
        );
        // The first run has no checkpoint yet, and reads the whole output.
        if run > 0 {
            fastest = (fastest.0.min(taken.0), fastest.1.min(taken.1));
        }
    }
    fastest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_time_does_not_depend_on_the_length_of_the_output_heavy() {
    let (few, many) = (
        measure_restart(1_000).await,
        measure_restart(1_000_000).await,
    );
    println!("1,000 lines: {few:?}; 1,000,000 lines: {many:?} (time, bytes)");
    assert!(
        many.0 < few.0 * 2 + Duration::from_millis(100),
        "{few:?} {many:?}"
    );
    assert!(many.1 < few.1 + 4 * 1024 * 1024, "{few:?} {many:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grown_file_is_resumed_and_a_changed_one_is_refused() {
    let fixture = Fixture::new(&Backend::Sqlite).await;
    fixture.prepare().await;
    let file = fixture.path("readings.jsonl");
    std::fs::write(&file, "1\n2\n\n3").unwrap();
    let sent = fixture.send().run().await.success();
    assert!(
        sent.stderr.contains("3 sent, 3 acknowledged"),
        "{}",
        sent.stderr
    );
    let again = fixture.send().run().await.success();
    assert!(
        again.stderr.contains("was already sent"),
        "{}",
        again.stderr
    );

    std::fs::write(&file, "1\n2\n\n3\n4\n").unwrap();
    let grown = fixture.send().run().await.success();
    assert!(
        grown.stderr.contains("1 sent, 1 acknowledged"),
        "{}",
        grown.stderr
    );

    for changed in ["1\n7\n\n3\n4\n", "1\n2\n\n3\n", ""] {
        std::fs::write(&file, changed).unwrap();
        let refused = fixture.send().run().await.code(1);
        assert!(refused.stderr.contains("--again"), "{}", refused.stderr);
    }
    std::fs::write(&file, "1\n2\n\n3\n4\n").unwrap();
    let other_route = fixture
        .send()
        .args(["--exchange", "other"])
        .run()
        .await
        .code(1);
    assert!(
        other_route
            .stderr
            .contains("the exchange was ciphermq_exchange"),
        "{}",
        other_route.stderr
    );
    let repeated = fixture.send().arg("--again").run().await.success();
    assert!(
        repeated.stderr.contains("4 sent, 4 acknowledged"),
        "{}",
        repeated.stderr
    );

    fixture
        .receive()
        .args(["--count", "8"])
        .run()
        .await
        .success();
    let mut messages = fixture.messages();
    messages.sort();
    assert_eq!(messages, ["1", "1", "2", "2", "3", "3", "4", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sender_or_receiver_with_the_same_file_is_refused() {
    let fixture = Fixture::new(&Backend::Sqlite).await;
    fixture.prepare().await;
    let receiver = fixture.receive().spawn();
    receiver.stderr.expect("Receiving from").await;
    let second = fixture.receive().run().await.code(1);
    assert!(
        second.stderr.contains("Another receiver"),
        "{}",
        second.stderr
    );
    // Another output with the same checkpoint is refused as well.
    let shared = fixture.path("out.jsonl.ciphermq-receive");
    let other = Cli::new("receive")
        .arg("--output")
        .arg(fixture.path("other.jsonl"))
        .arg("--checkpoint")
        .arg(&shared)
        .arg("--private-key")
        .arg(fixture.path("receiver_private.key"))
        .connecting(&fixture.server, "receiver_1");
    assert!(other.run().await.code(1).stderr.contains("Another"));

    let mut sender = fixture.send().arg("-v").spawn();
    sender.stderr.expect("Encrypted message").await;
    sender.signal(rustix::process::Signal::STOP);
    let second = fixture.send().run().await.code(1);
    assert!(
        second.stderr.contains("Another sender"),
        "{}",
        second.stderr
    );
    sender.signal(rustix::process::Signal::CONT);
    assert!(sender.ended(PATIENCE).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_checkpoint_is_reported() {
    let fixture = Fixture::new(&Backend::Sqlite).await;
    fixture.prepare().await;
    std::fs::write(fixture.path("readings.jsonl"), "1\n2\n").unwrap();
    let nowhere = fixture.path("readings.jsonl").join("checkpoint");
    let refused = fixture
        .send()
        .arg("--checkpoint")
        .arg(&nowhere)
        .run()
        .await
        .code(1);
    for advice in ["--checkpoint FILE", "--no-checkpoint"] {
        assert!(refused.stderr.contains(advice), "{}", refused.stderr);
    }
    fixture.send().arg("--no-checkpoint").run().await.success();
    let checkpoint = fixture.path("readings.jsonl.receiver_1.ciphermq-send");
    assert!(!checkpoint.exists());

    fixture.send().run().await.success();
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let damaged = fixture.send().run().await.code(1);
    assert!(
        damaged.stderr.contains("it is damaged"),
        "{}",
        damaged.stderr
    );
    fixture.send().arg("--again").run().await.success();
    assert!(
        fixture
            .send()
            .run()
            .await
            .success()
            .stderr
            .contains("was already sent")
    );
}
