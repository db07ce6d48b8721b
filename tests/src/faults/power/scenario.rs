//! What the programs do while they are recorded: keys, two files that are sent and received, and
//! messages over sockets, with a server that is killed and stopped in between.

use std::path::PathBuf;

use ciphermq_files::beside;
use rustix::process::Signal;

use super::promise::{Claim, Places, read_database};
use super::record::Record;
use super::recording::Recording;
use crate::process::Process;
use crate::server::Options;
use crate::workspace::Workspace;
use crate::{Cli, EnvelopeText, PATIENCE, RawClient, Server};

/// A server and a user's folder, recorded and then used for images of them.
pub struct Scenario {
    pub(super) server: Server,
    pub(super) workspace: Workspace,
    pub(super) places: Places,
}

impl Default for Scenario {
    fn default() -> Self {
        Self::new()
    }
}

impl Scenario {
    /// Prepares the folders.
    ///
    /// # Panics
    ///
    /// If they cannot be made.
    pub fn new() -> Self {
        // A small reserve has the log copied into the database every few commits.
        let server = Server::prepare(Options::sqlite().set("limits", "disk_reserve", "512KiB"));
        let workspace = Workspace::at(
            server.address(),
            server.pki(),
            "power_sender",
            "power_receiver",
        );
        let real = |path| std::fs::canonicalize(path).expect("a folder");
        let (data, user) = (
            real(server.folder()).join("data"),
            real(&workspace.path("")),
        );
        let places = Places {
            database: data.join("ciphermq.db"),
            at_rest_key: data.join("at-rest.key"),
            sent: vec![user.join("sent/deep/lines")],
            output: user.join("out/deep/lines.jsonl"),
        };
        Self {
            server,
            workspace,
            places,
        }
    }

    /// Runs the programs, and returns the record.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub async fn record(&mut self) -> Record {
        let mut record = Recording::begin(&[self.server.folder(), &self.workspace.path("")]);
        self.launch(&mut record).await;
        let mut client = RawClient::connect(&self.server, "power_raw").await;
        client.declare_and_bind("q", "e", "k").await;
        self.promise_stored(&mut record, &["queue", "exchange", "binding"]);
        self.keys(&mut record).await;

        self.traced(
            &mut record,
            "receive",
            self.receive().args(["--idle-exit", "0.05"]),
        )
        .await;
        self.promise_stored(&mut record, &["key", "signed-key"]);
        let lines = self.workspace.path("lines.jsonl");
        record.write(&lines, &texts(0..20));
        self.traced(&mut record, "send", self.send()).await;
        self.promise_stored(&mut record, &["accepted"]);
        publish(&mut record, &mut client, 0..6).await;

        let mut receiver = self.receiving(&mut record).await;
        self.settled(&mut record, 20).await;
        for text in ["one", "two", "three"] {
            let send = self
                .workspace
                .send()
                .args(["--pins", "pins/deep", "--message", text]);
            self.traced(&mut record, "send", send).await;
            self.promise_stored(&mut record, &["accepted"]);
            self.settled(&mut record, 1).await;
        }
        self.set_aside(&mut record, &mut client).await;
        acknowledge(
            &mut record,
            &mut RawClient::connect(&self.server, "power_taker").await,
            0..3,
        )
        .await;
        self.ended(&mut record, &mut receiver).await;

        // The file has grown, so the checkpoint is replaced by that of another stream.
        record.write(&lines, &texts(0..35));
        self.traced(&mut record, "send", self.send()).await;
        self.promise_stored(&mut record, &["accepted"]);
        self.server.kill9().await;
        self.launch(&mut record).await;
        client = RawClient::connect(&self.server, "power_raw").await;
        publish(&mut record, &mut client, 6..10).await;
        self.server.terminate().await;
        self.launch(&mut record).await;
        self.traced(
            &mut record,
            "receive",
            self.receive().args(["--count", "15"]),
        )
        .await;
        self.promise_output(&mut record);
        client = RawClient::connect(&self.server, "power_raw").await;
        publish(&mut record, &mut client, 10..13).await;
        self.server.terminate().await;
        self.server.run_under(Vec::new());
        record.finish(self.places.clone())
    }

    pub(super) async fn launch(&mut self, record: &mut Recording) {
        let wrapper = record.wrapper("server", self.server.folder());
        self.server.run_under(wrapper);
        self.server.restart().await;
    }

    /// Makes and replaces key pairs.
    async fn keys(&self, record: &mut Recording) {
        let user = self.workspace.path("");
        for arguments in [&["--post-quantum"][..], &["rotate"]] {
            let keygen = Cli::keygen().args(arguments).args(["--out", "keys/deep"]);
            let wrapper = record.wrapper("keygen", &user);
            record.changing(&self.workspace.path("keys"));
            keygen
                .under(&wrapper)
                .current_dir(&user)
                .run()
                .await
                .success();
            record.promise_files(&self.workspace.path("keys"));
        }
    }

    /// Runs a command of the user's to its end, after which the files that it has written stay.
    pub(super) async fn traced(&self, record: &mut Recording, program: &'static str, cli: Cli) {
        self.changing(record, program);
        let wrapper = record.wrapper(program, &self.workspace.path(""));
        cli.under(&wrapper).run().await.success();
        for folder in self.folders(program) {
            record.promise_files(&folder);
        }
    }

    /// The folders of which a program changes files.
    fn folders(&self, program: &str) -> [PathBuf; 3] {
        let own = if program == "send" { "sent" } else { "out" };
        [own, "pins", "certs"].map(|name| self.workspace.path(name))
    }

    fn changing(&self, record: &mut Recording, program: &str) {
        for folder in self.folders(program) {
            record.changing(&folder);
        }
    }

    pub(super) fn send(&self) -> Cli {
        self.workspace.send().args([
            "--file",
            "lines.jsonl",
            "--checkpoint",
            "sent/deep/lines",
            "--pins",
            "pins/deep",
        ])
    }

    pub(super) fn receive(&self) -> Cli {
        let output = ["--output", "out/deep/lines.jsonl", "--pins", "pins/deep"];
        self.workspace.cli("receive").args(output)
    }

    pub(super) async fn receiving(&self, record: &mut Recording) -> Process {
        self.changing(record, "receive");
        let wrapper = record.wrapper("receive", &self.workspace.path(""));
        let process = self.receive().under(&wrapper).spawn();
        process.stderr.expect("Receiving from").await;
        process
    }

    /// Waits until `more` messages of the sender's are settled, which the output must hold then.
    pub(super) async fn settled(&self, record: &mut Recording, more: usize) {
        let output = self.places.output.clone();
        let held = || std::fs::read_to_string(&output).map_or(0, |text| text.lines().count());
        let sql = "SELECT count(*) FROM message_metadata
                   WHERE acknowledged_time IS NOT NULL AND client_id = 'power_sender'";
        let database = self.server.database().await;
        let expected = database
            .number(
                "SELECT count(*) FROM message_metadata \
                                        WHERE client_id = 'power_sender'",
            )
            .await;
        database.eventually(sql, expected).await;
        assert!(held() >= more);
        self.promise_output(record);
    }

    /// Publishes a message that nobody can open, and waits until the receiver has rejected it.
    async fn set_aside(&self, record: &mut Recording, client: &mut RawClient) {
        let envelope = EnvelopeText::modern("unopenable", "power_receiver");
        let publish = format!("publish ciphermq_exchange power_receiver_key {envelope}");
        client.ask(&publish, "ACK unopenable").await;
        record.promise(Claim::Stored(String::from("accepted unopenable")));
        let rejected = "SELECT count(*) FROM message_metadata WHERE rejected_time IS NOT NULL";
        self.server.database().await.eventually(rejected, 1).await;
        let quarantine = beside(&self.places.output, ".quarantine.jsonl");
        record.promise(Claim::Text(quarantine, String::from("unopenable")));
    }

    /// Promises what is settled, and that the output holds what it does.
    fn promise_output(&self, record: &mut Recording) {
        self.promise_stored(record, &["settled"]);
        let image = super::recording::read(self.places.output.parent().expect("its folder"));
        for id in super::promise::lines(&image, &self.places.output).into_keys() {
            record.promise(Claim::Line(id));
        }
    }

    async fn ended(&self, record: &mut Recording, receiver: &mut Process) {
        receiver.signal(Signal::TERM);
        receiver.ended(PATIENCE).await;
        record.promise_files(&self.workspace.path("out"));
    }

    /// Promises what the database holds of these kinds: it was read only after it was answered.
    pub(super) fn promise_stored(&self, record: &mut Recording, words: &[&str]) {
        let stored = read_database(&self.places.database).expect("a whole database");
        for what in stored {
            if words
                .iter()
                .any(|word| what.split(' ').next() == Some(word))
            {
                record.promise(Claim::Stored(what));
            }
        }
    }
}

/// The lines of a file, all different.
fn texts(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|number| format!("{{\"line\":{number}}}\n"))
        .collect()
}

async fn publish(record: &mut Recording, client: &mut RawClient, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let id = format!("m{number}");
        // Long, so that the log is soon full.
        let envelope = EnvelopeText::older(&id, "power_taker").set("more", "x".repeat(9000));
        client
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
        record.promise(Claim::Stored(format!("accepted {id}")));
    }
}

async fn acknowledge(
    record: &mut Recording,
    client: &mut RawClient,
    numbers: std::ops::Range<u32>,
) {
    for number in numbers {
        let id = format!("m{number}");
        client.send_line("fetch q").await;
        assert!(client.line().await.starts_with(&format!("Message: {id} ")));
        client.ack(&id).await;
        record.promise(Claim::Stored(format!("settled {id}")));
    }
}
