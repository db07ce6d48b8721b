//! Files that a power failure could lose: created, but without a subsequent sync of their folder.
//!
//! A program runs under `strace`, which records the files that it creates and the folders that it
//! syncs. A directory entry is durable once its folder was synced after it was created.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// System calls that create directory entries, or sync folders.
const CALLS: &str =
    "trace=mkdir,mkdirat,link,linkat,rename,renameat,renameat2,open,openat,creat,fsync";

/// The wrapper command that traces a program, and writes the trace to `log`.
pub fn command(log: &Path) -> Vec<String> {
    let log = log.display().to_string();
    [
        "strace", "-D", "-f", "-y", "-q", "-s", "4096", "-o", &log, "-e", CALLS, "--",
    ]
    .map(str::to_owned)
    .into()
}

/// The wrapper command that makes every sync of `folder` fail with `error`.
pub fn failing_syncs(folder: &Path, error: &str) -> Vec<String> {
    let folder = folder.display().to_string();
    let inject = format!("inject=fsync:error={error}");
    [
        "strace",
        "-D",
        "-f",
        "-qqq",
        "-o",
        "/dev/null",
        "-P",
        &folder,
        "-e",
        "trace=fsync",
        "-e",
        &inject,
        "--",
    ]
    .map(str::to_owned)
    .into()
}

/// A parsed trace.
#[derive(Debug, Default)]
pub struct SyncTrace {
    /// Paths that were created, and whose folder was not synced since.
    unsynced: BTreeSet<PathBuf>,
    /// Paths that were created.
    made: BTreeSet<PathBuf>,
    /// Folders that were synced.
    synced: Vec<PathBuf>,
    /// Working directory according to the trace, to which paths without a folder are relative.
    working: PathBuf,
}

impl SyncTrace {
    /// Parses the trace in `log`, when it is complete.
    ///
    /// # Panics
    ///
    /// If it is not complete within [`PATIENCE`].
    pub fn read(log: &Path) -> Self {
        let text = read_complete(log);
        let mut trace = Self::default();
        text.lines().for_each(|line| trace.parse_line(line));
        trace
    }

    /// The paths in `folder`, including its own, that exist and that a power failure could lose.
    pub fn unsynced(&self, folder: &Path) -> Vec<PathBuf> {
        let is_there =
            |path: &&PathBuf| path.starts_with(folder) && path.symlink_metadata().is_ok();
        self.unsynced.iter().filter(is_there).cloned().collect()
    }

    /// Whether this path was created, or opened with `O_CREAT`.
    pub fn made(&self, path: &Path) -> bool {
        self.made.contains(path)
    }

    /// Whether a folder was synced.
    pub fn synced(&self, folder: &Path) -> bool {
        self.synced.iter().any(|synced| synced == folder)
    }

    /// Parses a line such as
    /// `1234 openat(AT_FDCWD</folder>, "name", O_RDWR|O_CREAT, 0600) = 3</folder/name>`.
    fn parse_line(&mut self, line: &str) {
        let Some((call, rest)) = line.split_once('(') else {
            return;
        };
        let call = call.rsplit(' ').next().unwrap_or_default();
        if rest
            .rsplit_once(" = ")
            .is_some_and(|(_, result)| result.starts_with('-'))
        {
            return;
        }
        if let Some(working) = rest
            .strip_prefix("AT_FDCWD<")
            .and_then(|rest| rest.split('>').next())
        {
            self.working = working.into();
        }
        if call == "fsync" {
            let Some(path) = between(rest, '<', '>') else {
                return;
            };
            self.unsynced
                .retain(|name| name.parent() != Some(Path::new(path)));
            self.synced.push(path.into());
            return;
        }
        if call.starts_with("open") && !rest.contains("O_CREAT") {
            return;
        }
        // The last path is the created one. A relative path follows its folder.
        let mut parts = rest.split('"');
        let mut name = None;
        while let (Some(before), Some(text)) = (parts.next(), parts.next()) {
            let folder = before
                .rsplit_once('<')
                .and_then(|(_, rest)| rest.split('>').next());
            name = Some(folder.map_or(&*self.working, Path::new).join(text));
        }
        if let Some(name) = name {
            self.made.insert(name.clone());
            self.unsynced.insert(name);
        }
    }
}

/// Reads the trace in `log`. Waits until it is complete, because strace outlives the program that
/// it traces.
///
/// # Panics
///
/// If the trace does not contain the program's end within [`PATIENCE`].
pub(super) fn read_complete(log: &Path) -> String {
    let patience = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if has_ended(&text) {
            return text;
        }
        assert!(
            Instant::now() < patience,
            "{}: the trace does not contain the end of the program",
            log.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the trace contains the end of the first process: `1234 +++ exited with 0 +++`.
fn has_ended(text: &str) -> bool {
    let Some(first) = text.split_whitespace().next() else {
        return false;
    };
    text.lines().any(|line| {
        line.split_once(' ').is_some_and(|(process, what)| {
            process == first && what.contains("+++ ") && what.ends_with(" +++")
        })
    })
}

fn between(text: &str, from: char, to: char) -> Option<&str> {
    text.split_once(from)?
        .1
        .split_once(to)
        .map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn traced_names_are_unsynced_until_their_folder_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let log = root.join("trace");
        let script = "mkdir a; mkdir a/b; : >a/b/c; : >a/b/x; mv a/b/x a/b/d; sync a; sync a/b";
        for (script, unsynced) in [
            (script, vec!["a"]),
            (
                "mkdir e; : >e/f; mv e/f e/g; ln e/g h",
                vec!["e", "e/g", "h"],
            ),
        ] {
            let command = command(&log);
            let status = Command::new(&command[0])
                .args(&command[1..])
                .args(["sh", "-c", script])
                .current_dir(&root)
                .status()
                .unwrap();
            assert!(status.success());
            let unsynced: Vec<_> = unsynced.into_iter().map(|name| root.join(name)).collect();
            let trace = SyncTrace::read(&log);
            assert_eq!(
                trace.unsynced(&root.join("a")),
                unsynced
                    .iter()
                    .filter(|name| name.ends_with("a"))
                    .cloned()
                    .collect::<Vec<_>>()
            );
            let left: Vec<_> = trace
                .unsynced(&root)
                .into_iter()
                .filter(|name| !name.ends_with("trace"))
                .collect();
            assert_eq!(left, unsynced);
        }
    }
}
