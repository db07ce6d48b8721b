//! Programs that run under a recorder, and what they promise meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::disk::{Disk, Tree};
use super::loss::Loss;
use super::promise::{Claim, Places, Promise};
use super::record::Record;
use super::trace::{self, Call, Event};
use crate::faults::sync_trace;
use crate::files;

/// How long each sync is delayed.
const DELAY: Duration = Duration::from_millis(4);

/// A record that is being made.
pub struct Recording {
    logs: TempDir,
    tops: Vec<PathBuf>,
    before: Tree,
    /// Programs, their working directories and their logs.
    runs: Vec<(&'static str, PathBuf, PathBuf)>,
    /// Files that the user writes.
    own: Vec<Event>,
    promises: Vec<Promise>,
}

impl Recording {
    /// Begins with what is in the folders `tops`, which counts as durable.
    ///
    /// # Panics
    ///
    /// If they cannot be read.
    pub fn begin(tops: &[&Path]) -> Self {
        // As strace shows them.
        let canonical = |top: &&Path| std::fs::canonicalize(top).expect("a folder");
        let tops: Vec<_> = tops.iter().map(canonical).collect();
        let before = tops.iter().flat_map(|top| read(top)).collect();
        Self {
            logs: files::folder("power"),
            tops,
            before,
            runs: Vec::new(),
            own: Vec::new(),
            promises: Vec::new(),
        }
    }

    /// The wrapper command that records a run of `program`, which has this working directory.
    pub fn wrapper(&mut self, program: &'static str, working: &Path) -> Vec<String> {
        self.command(program, working, None)
    }

    /// The wrapper command that records a run of `program`, and kills it at its sync of this
    /// number.
    pub fn killing_wrapper(
        &mut self,
        program: &'static str,
        working: &Path,
        at: u32,
    ) -> Vec<String> {
        self.command(program, working, Some(at))
    }

    fn command(
        &mut self,
        program: &'static str,
        working: &Path,
        kill_at: Option<u32>,
    ) -> Vec<String> {
        let log = self.logs.path().join(self.runs.len().to_string());
        let command = trace::command(&log, DELAY, kill_at);
        self.runs.push((program, working.to_owned(), log));
        command
    }

    /// What the last run was syncing when it was killed, without the folder `user`.
    ///
    /// # Panics
    ///
    /// If its log shows no such sync.
    pub fn last_sync(&self, user: &Path) -> String {
        let (.., log) = self.runs.last().expect("a run");
        let path = trace::unfinished_sync(&sync_trace::read_complete(log));
        let path = path.unwrap_or_else(|| panic!("{} shows no kill at a sync", log.display()));
        path.strip_prefix(user)
            .unwrap_or(&path)
            .display()
            .to_string()
    }

    /// Writes a file as a careful user: whole, and durable before it gets its name.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&mut self, path: &Path, data: &str) {
        let folder = path.parent().expect("a path in a folder");
        let folder = std::fs::canonicalize(folder).expect("a folder");
        let path = folder.join(path.file_name().expect("a name"));
        let draft = folder.join("draft");
        std::fs::write(&draft, data)
            .and_then(|()| std::fs::rename(&draft, &path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let descriptor = 0;
        self.own_calls([
            Call::Open {
                descriptor,
                path: draft.clone(),
                creates: true,
                truncates: false,
                appends: false,
            },
            Call::Write {
                descriptor,
                path: draft.clone(),
                offset: Some(0),
                data: data.into(),
            },
            Call::Sync(draft.clone()),
            Call::Rename {
                from: draft,
                to: path,
            },
            Call::Sync(folder),
        ]);
    }

    /// Changes bytes of a file as a user who waits until they are on the disk.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn edit(&mut self, path: &Path, at: usize, data: &str) {
        use std::os::unix::fs::FileExt as _;
        let path = std::fs::canonicalize(path).expect("a file");
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("a file");
        file.write_all_at(data.as_bytes(), at as u64)
            .expect("it can be written");
        let write = Call::Write {
            descriptor: 0,
            path: path.clone(),
            offset: Some(at as u64),
            data: data.into(),
        };
        self.own_calls([write, Call::Sync(path)]);
    }

    /// Records that the output need not hold the message with this id any more.
    pub fn forget_line(&mut self, id: &str) {
        let until = now();
        for promise in &mut self.promises {
            if matches!(&promise.claim, Claim::Line(line) if line == id) {
                promise.until = promise.until.min(until);
            }
        }
    }

    /// Creates a folder as a user who waits until it is on the disk.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    pub fn create_folder(&mut self, path: &Path) {
        std::fs::create_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = std::fs::canonicalize(path).expect("a folder");
        let parent = path.parent().expect("a path in a folder").to_owned();
        self.own_calls([Call::CreateFolder(path), Call::Sync(parent)]);
    }

    fn own_calls(&mut self, calls: impl IntoIterator<Item = Call>) {
        for call in calls {
            // Each call ends before the next one begins.
            let start = now().max(self.own.last().map_or(0, |event| event.end + 1));
            let end = start;
            self.own.push(Event { start, end, call });
        }
    }

    /// Records that something holds from now on.
    pub fn promise(&mut self, claim: Claim) {
        let (since, until) = (now(), u64::MAX);
        self.promises.push(Promise {
            claim,
            since,
            until,
        });
    }

    /// Records that the files in a folder keep their present contents until they are [changed](
    /// Self::changing).
    pub fn promise_files(&mut self, folder: &Path) {
        if !folder.exists() {
            return;
        }
        for (path, content) in read(&std::fs::canonicalize(folder).expect("a folder")) {
            // Locks hold nothing, and drafts of killed programs belong to nobody.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_lock = name.starts_with('.') || name.ends_with(".lock");
            if let Some(content) = content.filter(|_| !is_lock) {
                self.promise(Claim::File(path, content));
            }
        }
    }

    /// Records that the files in a folder may change from now on.
    pub fn changing(&mut self, folder: &Path) {
        let folder = std::fs::canonicalize(folder).unwrap_or_default();
        let until = now();
        for promise in &mut self.promises {
            if matches!(&promise.claim, Claim::File(path, _) if path.starts_with(&folder)) {
                promise.until = promise.until.min(until);
            }
        }
    }

    /// Ends the record, after all programs.
    ///
    /// # Panics
    ///
    /// If the record does not explain how the files became what they are.
    pub fn finish(self, places: Places) -> Record {
        let mut runs = vec![("user".to_owned(), self.own)];
        for (program, working, log) in &self.runs {
            let text = sync_trace::read_complete(log);
            runs.push(((*program).to_owned(), trace::parse(&text, working)));
        }
        let disk = Disk::build(&self.tops, &self.before, runs);
        let modelled = disk.image(disk.ticks(), &[], Loss::Nothing);
        let real: Tree = self.tops.iter().flat_map(|top| read(top)).collect();
        let paths: BTreeSet<_> = real.keys().chain(modelled.keys()).collect();
        for path in paths {
            let shown = path.display().to_string();
            // Written by the harness, without a promise, and memory.
            let is_other = ["/config.toml", "/logs", "-shm"]
                .iter()
                .any(|part| shown.contains(part));
            assert!(
                is_other || real.get(path) == modelled.get(path),
                "the recorded calls do not explain {shown}"
            );
        }
        Record::new(disk, self.before, self.promises, places)
    }
}

/// Reads everything in a folder.
pub(super) fn read(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder);
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path.clone());
                tree.insert(path, None);
            } else {
                let content = std::fs::read(&path);
                let content = content.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                tree.insert(path, Some(content));
            }
        }
    }
    tree
}

fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(time.expect("a time after 1970").as_micros()).expect("a time before 500000")
}
