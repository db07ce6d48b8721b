//! The README's walkthrough, with the commands taken from the README itself, so that it cannot
//! document commands that fail.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ciphermq_tests::process::Process;
use ciphermq_tests::{Cli, PATIENCE, Postgres, binaries, data, ports, received};
use rustix::process::Signal;
use tempfile::TempDir;

/// Returns the README's fenced blocks of a language, in the section with this title.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let readme =
        std::fs::read_to_string(checkout().join("README.md")).expect("the README can be read");
    let (_, section_on) = readme
        .split_once(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("the README has no section {section:?}"));
    let text = section_on.split("\n## ").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are in the checkout")
        .to_owned()
}

/// A copy of those files in the README's folder that its commands need.
struct ReadmeFolder {
    folder: TempDir,
    path: OsString,
    port: u16,
    environment: Vec<(&'static str, String)>,
}

impl ReadmeFolder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sample = "tests/data/sensor-readings.jsonl";
        for name in ["config.toml", sample, "certs/README.md", "certs/.gitignore"] {
            let to = folder.path().join(name);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(checkout().join(name), to)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        // As after `cargo install`, the programs are found in the PATH.
        let programs = binaries::binary("ciphermq-cli")
            .parent()
            .unwrap()
            .to_owned();
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&others)))
                .unwrap();
        Self {
            folder,
            path,
            port: ports::free(),
            environment: Vec::new(),
        }
    }

    /// Returns a shell that runs a script in the folder.
    fn shell(&self, script: &str) -> Cli {
        let mut shell = Cli::program("sh")
            .args(["-e", "-c", script])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            // The only difference from the README: several of these tests run at the same time.
            .env(
                "CIPHERMQ_SERVER_ADDRESS",
                format!("127.0.0.1:{}", self.port),
            )
            .env("CIPHERMQ_SERVER", format!("localhost:{}", self.port));
        for (name, value) in &self.environment {
            shell = shell.env(name, value);
        }
        shell
    }

    /// Starts a command that keeps running, and waits until it is ready.
    async fn background(&self, command: &str, ready: &str) -> Process {
        assert_eq!(
            command.lines().count(),
            1,
            "each terminal has one command: {command}"
        );
        // With `exec`, signals reach the program itself.
        let process = self.shell(&format!("exec {command}")).spawn();
        process.stderr.expect(ready).await;
        process
    }

    /// Creates the keys of a second receiver, starts it, and sends it a message.
    async fn run_second_receiver(&self, [make_keys, start_receiver, send]: [String; 3]) {
        self.shell(&make_keys).run().await.success();
        let mut receiver = self.background(&start_receiver, "Receiving from").await;
        self.shell(&send).run().await.success();
        let output = self.folder.path().join("data/receiver_2.jsonl");
        wait_for_lines(&output, 1).await;
        receiver.signal(Signal::INT);
        assert_eq!(receiver.ended(PATIENCE).await.code(), Some(0));
        let received = std::fs::read_to_string(&output).unwrap();
        assert!(received.contains("for the second one"), "{received}");
    }

    /// Runs the commands of the section, and checks the results that it describes.
    async fn run_walkthrough(&self) {
        let mut blocks: VecDeque<String> = blocks("By hand, in three terminals", "sh").into();
        let mut next = |begins: &str| -> String {
            let block = blocks
                .pop_front()
                .unwrap_or_else(|| panic!("no block that begins {begins:?}"));
            assert!(block.starts_with(begins), "the next block is {block:?}");
            block.trim_end().to_owned()
        };
        let (make_keys, start_server) = (next("keygen certs"), next("ciphermq-server"));
        let (start_receiver, send) = (next("ciphermq-cli receive"), next("echo "));
        let second = [
            next("keygen certs"),
            next("ciphermq-cli receive"),
            next("ciphermq-cli send"),
        ];
        assert!(blocks.is_empty(), "unexpected blocks: {blocks:?}");

        self.shell(&make_keys).run().await.success();
        let mut server = self.background(&start_server, "listening on").await;
        let mut receiver = self.background(&start_receiver, "Receiving from").await;
        let sent = self.shell(&send).run().await.success();
        assert!(
            sent.stderr
                .contains("17518 sent, 17518 acknowledged, 0 unacknowledged"),
            "{}",
            sent.stderr
        );
        // "`ciphermq-cli status` shows the server and the connection".
        let status = self.shell("ciphermq-cli status").run().await.success();
        assert!(status.stdout.contains("sender_1"), "{}", status.stdout);

        let readings = std::fs::read_to_string(data::readings()).unwrap();
        let echoed = "{\"temperature_f\": 47.8}";
        assert!(send.contains(echoed), "{send}");
        let expected: Vec<&str> = [echoed].into_iter().chain(readings.lines()).collect();
        let output = self.folder.path().join("data/received_messages.jsonl");
        wait_for_lines(&output, expected.len()).await;
        self.run_second_receiver(second).await;
        receiver.signal(Signal::INT);
        assert_eq!(
            receiver.ended(PATIENCE).await.code(),
            Some(0),
            "Ctrl-C ends the receiver with success"
        );
        server.signal(Signal::INT);
        assert_eq!(
            server.ended(PATIENCE).await.code(),
            Some(0),
            "Ctrl-C ends the server with success"
        );

        let received = received::read(&output);
        received::assert_exactly(&received, expected.iter().copied());
        let order: Vec<&str> = received.iter().filter_map(|line| line.json()).collect();
        assert!(
            order == expected,
            "they are in the order in which they were sent"
        );
        assert!(
            received
                .iter()
                .all(|line| line.sender.as_deref() == Some("sender_1"))
        );
    }
}

/// Waits until a file has at least `count` lines.
async fn wait_for_lines(path: &Path, count: usize) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let lines = std::fs::read(path)
            .map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
            .unwrap_or_default();
        if lines >= count {
            return;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "the file has {lines} lines of {count}"
        );
        // A file sends no notification when it grows.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_terminals_on_sqlite() {
    let readme = ReadmeFolder::new();
    readme.run_walkthrough().await;
    let path = |name: &str| readme.folder.path().join(name);
    // "It makes its database, `data/ciphermq.db`, and the key that public keys are sealed with at
    // rest".
    for name in [
        "data/ciphermq.db",
        "data/at-rest.key",
        "certs/receiver_1_public.key",
    ] {
        assert!(path(name).is_file(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_terminals_on_postgres() {
    let postgres = Postgres::start().await;
    let readme = postgres_readme(&postgres).await;

    // "name them in `config.toml` in place of `url`".
    let [section] = blocks("PostgreSQL", "toml")
        .try_into()
        .expect("one block of TOML");
    let section = section
        .trim()
        .strip_prefix("[database]")
        .expect("the section [database]");
    let section = section.replace("port = 5432", &format!("port = {}", postgres.port()));
    let config = readme.folder.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let url = "url = \"sqlite://data/ciphermq.db\"";
    assert!(text.contains(url));
    std::fs::write(&config, text.replace(url, section.trim())).unwrap();

    readme.run_walkthrough().await;
    assert!(!readme.folder.path().join("data/ciphermq.db").exists());
    assert_stored(&postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_named_by_the_environment() {
    let postgres = Postgres::start().await;
    let mut folder = postgres_readme(&postgres).await;
    // "The environment can do the same": CIPHERMQ_DATABASE_URL=... ciphermq-server ...
    let readme = std::fs::read_to_string(checkout().join("README.md")).unwrap();
    // The command is wrapped like the surrounding text.
    let readme = readme.replace('\n', " ");
    let (_, after) = readme
        .split_once("CIPHERMQ_DATABASE_URL=")
        .expect("the README documents the variable");
    let (url, command) = after.split_once(' ').unwrap();
    assert!(
        command.starts_with("ciphermq-server --config config.toml`"),
        "{command:.60}"
    );
    let url = url.replace("@localhost/", &format!("@localhost:{}/", postgres.port()));
    folder.environment.push(("CIPHERMQ_DATABASE_URL", url));
    folder.run_walkthrough().await;
    assert_stored(&postgres).await;
}

/// Creates the role and the database with the README's statements.
async fn postgres_readme(postgres: &Postgres) -> ReadmeFolder {
    let [commands] = blocks("PostgreSQL", "sh")
        .try_into()
        .expect("one block of commands");
    let statements: Vec<&str> = commands.split('"').skip(1).step_by(2).collect();
    assert_eq!(statements.len(), 2, "{commands}");
    let database = ciphermq_tests::Database::connect(&postgres.url("postgres")).await;
    for statement in statements {
        database.execute(statement).await;
    }
    ReadmeFolder::new()
}

/// Checks that all messages went through the database that the README names.
async fn assert_stored(postgres: &Postgres) {
    let database = ciphermq_tests::Database::connect(&postgres.url("ciphermq")).await;
    assert_eq!(
        database
            .number(ciphermq_tests::Database::ACKNOWLEDGED)
            .await,
        i64::try_from(data::READINGS).unwrap() + 2
    );
}

/// "The first prints what was sent, received, how fast, and where the output is. Neither needs a
/// free port or a fixed folder, so any number of checkouts can run them at once."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_demos_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let demo = || {
        Cli::new("demo")
            .current_dir(&checkout())
            .env("TMPDIR", folder.path())
            .limit(PATIENCE * 2)
            .run()
    };
    let (one, two) = tokio::join!(demo(), demo());
    let readings = std::fs::read_to_string(data::readings()).unwrap();
    let mut outputs = Vec::new();
    for outcome in [one, two] {
        let outcome = outcome.success();
        let value = |name: &str| -> String {
            let line = outcome
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in:\n{}", outcome.stdout))
                .trim()
                .to_owned()
        };
        assert!(
            value("sent").starts_with("17518 messages, all acknowledged, in "),
            "{}",
            value("sent")
        );
        assert!(
            value("received").starts_with("17518 messages"),
            "{}",
            value("received")
        );
        assert!(value("sent").ends_with("/s)") && value("received").ends_with("/s)"));
        let output = PathBuf::from(value("output"));
        received::assert_exactly(&received::read(&output), readings.lines());
        assert!(output.starts_with(folder.path()), "{}", output.display());
        outputs.push(output);
    }
    assert_ne!(outputs[0], outputs[1]);
}

/// A failed demo reports it by its exit code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_without_messages_fails() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.jsonl");
    std::fs::write(&empty, "\n\n").unwrap();
    let demo = |file: &Path| {
        Cli::new("demo")
            .env("TMPDIR", folder.path())
            .arg("--file")
            .arg(file)
            .run()
    };
    assert!(demo(&empty).await.code(1).stderr.contains("no messages"));
    assert!(
        demo(&folder.path().join("nowhere"))
            .await
            .code(1)
            .stderr
            .contains("nowhere")
    );
}
