//! Programs that are killed at their syncs and run again, before the power fails: what the first
//! run has left is used by the second one, which must not rely on what was not synced.

use std::path::Path;

use super::promise::Claim;
use super::record::Record;
use super::recording::Recording;
use super::scenario::Scenario;
use crate::Cli;

/// Number of syncs at which a program is killed at most.
const MOST: u32 = 30;

impl Scenario {
    /// Kills the user's programs at each of their syncs, one after the other, and runs them again.
    /// Returns the record, and what was being synced at each kill.
    ///
    /// # Panics
    ///
    /// If a program fails otherwise.
    pub async fn record_interrupted(&mut self) -> (Record, Vec<String>) {
        let user = std::fs::canonicalize(self.workspace.path("")).expect("a folder");
        self.places.sent = (1..=MOST)
            .map(|at| user.join(format!("sent/{at}/lines")))
            .collect();
        let mut record = Recording::begin(&[self.server.folder(), &user]);
        self.launch(&mut record).await;
        let registering = self.workspace.cli("receive").args(["--idle-exit", "0.05"]);
        self.traced(&mut record, "receive", registering).await;
        record.create_folder(&user.join("pins"));
        let mut kills = Vec::new();
        for at in 1..=MOST {
            match self.send_twice(&mut record, &user, at).await {
                Some(sync) => kills.push(sync),
                None => break,
            }
        }
        for at in 1..=MOST {
            match self.keys_twice(&mut record, &user, at).await {
                Some(sync) => kills.push(sync),
                None => break,
            }
        }
        self.repair(&mut record).await;
        self.backup(&mut record, &user).await;
        self.server.terminate().await;
        self.server.run_under(Vec::new());
        (record.finish(self.places.clone()), kills)
    }

    /// Sends a file; returns what the first run was syncing when it was killed.
    async fn send_twice(&self, record: &mut Recording, user: &Path, at: u32) -> Option<String> {
        let input = format!("{at}.jsonl");
        record.write(&user.join(&input), &format!("\"{at} one\"\n\"{at} two\"\n"));
        let (checkpoint, pins) = (format!("sent/{at}/lines"), format!("pins/{at}"));
        // There already, so that the pin is the first thing that is made.
        record.create_folder(&user.join(&pins));
        let send = || {
            let send = self.workspace.send().args(["--file", &input]);
            send.args(["--checkpoint", &checkpoint, "--pins", &pins])
        };
        let sync = killed(record, "send", user, at, send()).await;
        self.traced(record, "send", send()).await;
        self.promise_stored(record, &["accepted"]);
        sync
    }

    /// Makes a key pair, and registers it; returns what the first run was syncing when killed.
    async fn keys_twice(&self, record: &mut Recording, user: &Path, at: u32) -> Option<String> {
        let folder = format!("keys/{at}");
        let keygen = || Cli::keygen().current_dir(user).args(["--out", &folder]);
        let sync = killed(record, "keygen", user, at, keygen()).await;
        let private = user.join(&folder).join("receiver_private.key");
        if !private.exists() {
            let wrapper = record.wrapper("keygen", user);
            keygen().under(&wrapper).run().await.success();
        }
        let register = self
            .workspace
            .cli("register-key")
            .arg("--private-key")
            .arg(&private);
        self.traced(record, "register-key", register).await;
        // From now on messages are sealed for this key.
        let key = std::fs::read(&private).expect("the private key");
        record.promise(Claim::File(private, key));
        sync
    }

    /// Receives, kills the receiver, changes a line as a person might, and starts the receiver
    /// again, which takes the line out, and moves all later ones.
    async fn repair(&mut self, record: &mut Recording) {
        let mut receiver = self.receiving(record).await;
        let long = "x".repeat(1000);
        for count in [1, 8] {
            let texts = (0..count).map(|number| format!("--message={number} {long}"));
            let send = self.workspace.send().args(["--pins", "pins"]).args(texts);
            self.traced(record, "send", send).await;
            self.promise_stored(record, &["accepted"]);
            self.settled(record, count).await;
        }
        receiver.kill().await;
        let text = std::fs::read_to_string(&self.places.output).expect("the output");
        let lines: Vec<&str> = text.lines().collect();
        let damaged = lines[lines.len() - 7];
        let id = damaged.split('"').nth(3).expect("its id");
        record.forget_line(id);
        let at = text.find(damaged).expect("the line") + damaged.find("x").expect("its text");
        record.edit(&self.places.output, at, "\"");
        let again = self.receive().args(["--idle-exit", "0.05"]);
        self.traced(record, "receive", again).await;
        let repaired = std::fs::read_to_string(&self.places.output).expect("the output");
        assert_eq!(repaired, text.replace(&format!("{damaged}\n"), ""));
    }

    /// Makes a backup in a folder that the user has made.
    async fn backup(&self, record: &mut Recording, user: &Path) {
        let wrapper = record.wrapper("user", user);
        let mkdir = Cli::program("mkdir").arg("backup").current_dir(user);
        mkdir.under(&wrapper).run().await.success();
        let wrapper = record.wrapper("backup", self.server.folder());
        let program = Cli::program(crate::binaries::binary("ciphermq-server"));
        let config = self.server.folder().join("config.toml");
        let backup = program
            .arg("--config")
            .arg(config)
            .arg("backup")
            .arg(user.join("backup"));
        let backup = backup.current_dir(self.server.folder());
        backup.under(&wrapper).run().await.success();
        record.promise_files(&user.join("backup"));
    }
}

/// Runs a program that is killed at its sync of this number; returns what it was syncing, or `None`
/// if it has made fewer syncs.
async fn killed(
    record: &mut Recording,
    program: &'static str,
    user: &Path,
    at: u32,
    cli: Cli,
) -> Option<String> {
    let wrapper = record.killing_wrapper(program, user, at);
    let outcome = cli.under(&wrapper).run().await;
    assert!(matches!(outcome.code, None | Some(0)), "{outcome:?}");
    outcome.code.is_none().then(|| record.last_sync(user))
}
