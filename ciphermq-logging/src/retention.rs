//! Removes old files of a log.
//!
//! Only regular files whose names are exactly those that the server gives to its own: the log's
//! name, an hour or a day, and a number. What a tool has compressed or renamed is its own, and so
//! is a link.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ciphermq_files::parent;

use super::rotated_name::Age;

/// The limits of the old files of one log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retention {
    /// The bytes of all its files; `None` for no limit.
    pub(super) max_total: Option<u64>,
    /// The number of old files; `None` for no limit.
    pub(super) max_files: Option<usize>,
}

struct OldFile {
    age: Age,
    path: PathBuf,
    bytes: u64,
}

impl Retention {
    /// Removes old files beside the current one at `place`, the oldest first, so that they and
    /// `current` bytes of it are within the limits.
    ///
    /// `dated` says whether the names have a date; other names are not touched.
    pub(super) fn apply(self, place: &Path, dated: bool, current: u64) -> io::Result<()> {
        if self.max_total.is_none() && self.max_files.is_none() {
            return Ok(());
        }
        let mut old = old_files(place, dated)?;
        old.sort_by(|one, other| other.age.cmp(&one.age));
        let mut bytes = current;
        let mut full = false;
        for (index, file) in old.iter().enumerate() {
            bytes = bytes.saturating_add(file.bytes);
            full |= self.max_total.is_some_and(|max| bytes > max)
                || self.max_files.is_some_and(|max| index >= max);
            if full {
                match fs::remove_file(&file.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn old_files(place: &Path, dated: bool) -> io::Result<Vec<OldFile>> {
    let folder = parent(place);
    let stem = place.file_name().unwrap_or_default();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(age) = Age::of_name(folder, stem, &entry.file_name(), dated) else {
            continue;
        };
        // Of the entry itself, not of what it leads to.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // A tool has moved it away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_file() {
            files.push(OldFile {
                age,
                path: entry.path(),
                bytes: metadata.len(),
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Names that look like the server's, and are not.
    const OTHERS: [&str; 12] = [
        "a.log",
        "a.log.2025-09-01.gz",
        "a.log.2025-09-01.1.gz",
        "a.log.2025-9-1",
        "a.log.2025-09-01.01",
        "a.log.2025-09-01.0",
        "a.log.2025-09-01-7",
        "a.log.old",
        "b.a.log.2025-09-01",
        "a.log.x.2025-09-01",
        "a.logs.2025-09-01",
        "xa.log.2025-09-01",
    ];

    #[test]
    fn the_oldest_files_of_the_server_are_removed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let own = [
            "a.log.2025-09-01",
            "a.log.2025-09-02",
            "a.log.2025-09-02.1",
            "a.log.2025-09-02.2",
            "a.log.2025-09-02.10",
            "a.log.2025-09-03-07",
        ];
        for name in own.iter().chain(&OTHERS) {
            fs::write(folder.path().join(name), "0123456789").unwrap();
        }
        fs::create_dir(folder.path().join("a.log.2025-08-01")).unwrap();
        let target = folder.path().join("elsewhere");
        fs::write(&target, "x").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join("a.log.2025-08-02")).unwrap();
        let before = names(folder.path());
        let place = folder.path().join("a.log");
        Retention::default().apply(&place, true, 0).unwrap();
        assert_eq!(names(folder.path()), before);
        let without = |removed: &[&str]| -> Vec<String> {
            let stays = |name: &&String| !removed.contains(&name.as_str());
            before.iter().filter(stays).cloned().collect()
        };
        let by_size = Retention {
            max_total: Some(45),
            max_files: None,
        };
        by_size.apply(&place, true, 5).unwrap();
        assert_eq!(names(folder.path()), without(&own[..2]));
        let by_number = Retention {
            max_total: None,
            max_files: Some(2),
        };
        by_number.apply(&place, true, 0).unwrap();
        assert_eq!(names(folder.path()), without(&own[..4]));
        by_size.apply(&place, true, 1000).unwrap();
        assert_eq!(names(folder.path()), without(&own));
    }

    #[test]
    fn numbers_alone_are_old_files_only_without_dates() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.log");
        for name in [
            "a.log",
            "a.log.1",
            "a.log.2",
            "a.log.10",
            "a.log.2025-09-01",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let one = Retention {
            max_total: None,
            max_files: Some(1),
        };
        one.apply(&place, true, 0).unwrap();
        assert_eq!(names(folder.path()).len(), 5);
        one.apply(&place, false, 0).unwrap();
        assert_eq!(
            names(folder.path()),
            ["a.log", "a.log.10", "a.log.2025-09-01"]
        );
    }
}
