//! An attacker's process: the battery's program, with a hidden command.

use std::time::Duration;

use tokio::process::Command;

use super::Attack;
use super::target::{TargetArgs, UNDER_WAY};
use crate::binaries::binary;
use crate::process::Process;

/// The limit on an attacker's preparations, which a slow server delays.
const PREPARATIONS: Duration = Duration::from_secs(120);

/// A running attacker. Dropping it ends the attack.
pub struct Attacker {
    process: Process,
    /// Whether the attack was under way before the limit.
    pub is_under_way: bool,
}

impl Attacker {
    /// Starts an attack, and waits until it is under way.
    ///
    /// # Panics
    ///
    /// If the program has not been built, or ends.
    pub async fn start(attack: Attack, target: &TargetArgs) -> Self {
        let mut command = Command::new(binary("battery"));
        command
            .arg("attack")
            .arg(attack.name())
            .args(target.words());
        let process = Process::spawn(&format!("battery attack {}", attack.name()), command);
        let is_line = |line: &str| (line == UNDER_WAY).then_some(());
        let found = process.stdout.find(0, PREPARATIONS, is_line).await;
        assert!(
            !process.stdout.is_complete(),
            "the attacker has ended:\n{}",
            process.stderr.text()
        );
        Self {
            process,
            is_under_way: found.is_some(),
        }
    }

    /// Ends the attack.
    pub async fn end(mut self) {
        self.process.kill().await;
    }
}
