//! Paths of PostgreSQL's server programs. `scripts/lib.sh` searches the same places in the same
//! order, and installs the programs if it finds none.

use std::path::{Path, PathBuf};

use crate::binaries;

/// The folder that contains `initdb` and `postgres`.
///
/// # Panics
///
/// If there is none. The message explains how to install the programs.
pub(super) fn folder() -> PathBuf {
    let chosen = std::env::var_os("CIPHERMQ_POSTGRES_BIN").filter(|value| !value.is_empty());
    if let Some(chosen) = chosen {
        let chosen = PathBuf::from(chosen);
        assert!(
            holds_both(&chosen),
            "CIPHERMQ_POSTGRES_BIN is {}, which lacks initdb or postgres: set it to the folder that \
             contains both, or unset it",
            chosen.display()
        );
        return chosen;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(binaries::tools())
        .chain(std::env::split_paths(&path))
        .chain(debian())
        .find(|folder| holds_both(folder))
        .expect(
            "PostgreSQL's server programs (initdb, postgres) are not installed.\n\
             Run scripts/test, which installs them, or set CIPHERMQ_POSTGRES_BIN to their folder",
        )
}

fn holds_both(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

/// The folders `/usr/lib/postgresql/<version>/bin`, newest first, which Debian keeps out of PATH.
fn debian() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .iter()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))
        .collect()
}
