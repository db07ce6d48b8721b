//! The programs, started again on what a power failure has left.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;

use super::disk::Tree;
use super::loss::Loss;
use super::promise::{Claim, read_database};
use super::record::Record;
use super::recording::read;
use super::scenario::Scenario;
use crate::received::{self, Received};
use crate::{PATIENCE, files};

impl Scenario {
    /// Starts all programs again on `count` images, at some of these moments, with random losses.
    ///
    /// # Panics
    ///
    /// If a promise is broken.
    pub async fn restart_on_images(
        &mut self,
        record: &Record,
        moments: impl IntoIterator<Item = usize>,
        seed: u64,
        count: u64,
    ) {
        let moments: Vec<usize> = moments.into_iter().collect();
        let mut random = StdRng::seed_from_u64(seed);
        for number in 0..count {
            let cut = moments[random.random_range(0..moments.len())];
            // Often only what was synced.
            let loss = match number % 3 {
                0 => Loss::Everything,
                _ => Loss::Some(random.random()),
            };
            let image = record.disk().image(cut, &[], loss);
            let broken = self.broken_after_restart(record, &image, cut).await;
            assert!(broken.is_empty(), "at {cut} with {loss:?}: {broken:#?}");
        }
    }

    /// Puts an image in the place of the files, starts all programs with the same commands, and
    /// returns the promises that are broken when everything is sent and received.
    ///
    /// # Panics
    ///
    /// If a program does not do its work.
    pub async fn broken_after_restart(
        &mut self,
        record: &Record,
        image: &Tree,
        cut: usize,
    ) -> Vec<String> {
        for top in [self.server.folder(), &self.workspace.path("")] {
            replace(&std::fs::canonicalize(top).expect("a folder"), image);
        }
        if let Err(refusal) = self.server.launch().await {
            return vec![format!("the server does not start: {}", refusal.stderr)];
        }
        let mut receiver = self.receive().spawn();
        let receiving = receiver.stderr.find(0, PATIENCE, |line| {
            line.contains("Receiving from").then_some(())
        });
        if receiving.await.is_none() {
            return vec![format!(
                "the receiver does not start: {}",
                receiver.stderr.text()
            )];
        }
        let mut broken = Vec::new();
        let input = self.workspace.path("lines.jsonl");
        let expected = std::fs::read_to_string(&input).unwrap_or_default();
        if input.exists() {
            let sent = self.send().run().await;
            if sent.code != Some(0) {
                broken.push(format!("send ended with {:?}: {}", sent.code, sent.stderr));
            }
        }
        let waiting = "SELECT count(*) FROM messages WHERE receiver_client_id = 'power_receiver'";
        self.server.database().await.eventually(waiting, 0).await;
        receiver.signal(Signal::TERM);
        receiver.ended(PATIENCE).await;
        self.server.terminate().await;

        let mut counts = BTreeMap::new();
        let received = received::read(&self.places.output);
        for line in received.iter().filter_map(Received::json) {
            *counts.entry(line.to_owned()).or_insert(0) += 1;
        }
        for line in expected.lines() {
            match counts.get(line).copied().unwrap_or(0) {
                1 => {}
                count => broken.push(format!("{line} is in the output {count} times")),
            }
        }
        match read_database(&self.places.database) {
            Err(error) => broken.push(error),
            Ok(stored) => broken.extend(record.promises_at(cut).filter_map(|promise| {
                let held = match &promise.claim {
                    Claim::Stored(what) => stored.contains(what),
                    Claim::Line(id) => received.iter().any(|one| one.message_id == *id),
                    // The programs have written them since.
                    Claim::Text(..) | Claim::File(..) => true,
                };
                (!held).then(|| format!("lost: {:?}", promise.claim))
            })),
        }
        broken
    }
}

/// Replaces the content of a folder by an image's.
fn replace(top: &Path, image: &Tree) {
    for (path, content) in read(top).iter().rev() {
        let removed = match content {
            None => std::fs::remove_dir(path),
            Some(_) => std::fs::remove_file(path),
        };
        removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let inside = image.iter().filter(|(path, _)| path.starts_with(top));
    for (path, content) in inside {
        match content {
            None => std::fs::create_dir(path).expect("a new folder"),
            // The index of the log is memory, and is made anew.
            Some(_) if path.to_string_lossy().ends_with("-shm") => {}
            Some(content) => files::create(path, content, 0o600),
        }
    }
}
