//! Where PostgreSQL's server programs are: `scripts/lib.sh` looks in the same places in the same
//! order, and installs them when they are nowhere.

use std::path::{Path, PathBuf};

use crate::binaries;

/// The folder that holds `initdb` and `postgres`.
///
/// # Panics
///
/// If there is none; the message says how to get one.
pub(super) fn folder() -> PathBuf {
    let chosen = std::env::var_os("CIPHERMQ_POSTGRES_BIN").filter(|value| !value.is_empty());
    if let Some(chosen) = chosen {
        let chosen = PathBuf::from(chosen);
        assert!(
            holds_both(&chosen),
            "CIPHERMQ_POSTGRES_BIN is {}, which lacks initdb or postgres: name the folder that \
             holds both, or unset it",
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
             Run scripts/test, which installs them; or name their folder in CIPHERMQ_POSTGRES_BIN",
        )
}

fn holds_both(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

/// `/usr/lib/postgresql/<version>/bin`, newest first: Debian keeps them out of PATH.
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
