//! Which of the changes that were not synced a power failure destroys.

use std::hash::{DefaultHasher, Hasher as _};

use super::disk::Node;

/// The choice, for each change that was not synced, whether it survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Everything survives, as if all programs were killed.
    Nothing,
    /// Nothing survives that was not synced.
    Everything,
    /// Names survive, data does not: a new file is empty.
    Data,
    /// Data survives, names do not.
    Names,
    /// Names and lengths survive, data does not: it reads as zeros.
    Contents,
    /// Each name, each sector and each length survives or not, as this number decides.
    Some(u64),
}

impl Loss {
    /// Those that do not depend on a number.
    pub const PLAIN: [Self; 5] = [
        Self::Everything,
        Self::Data,
        Self::Names,
        Self::Contents,
        Self::Nothing,
    ];

    /// Whether a folder's change of names survives, the `index`-th since the last sync.
    pub(super) fn keeps_names(self, folder: Node, index: usize) -> bool {
        match self {
            Self::Nothing | Self::Data | Self::Contents => true,
            Self::Everything | Self::Names => false,
            Self::Some(seed) => hash((seed, folder, index)).is_multiple_of(2),
        }
    }

    /// Whether a sector of a file's change survives, the `index`-th since the last sync.
    pub(super) fn keeps_data(self, file: Node, index: usize, sector: usize) -> bool {
        match self {
            Self::Nothing | Self::Names => true,
            Self::Everything | Self::Data | Self::Contents => false,
            // All, or three quarters, or a quarter of the sectors, so that short changes survive
            // and are torn.
            Self::Some(seed) => match hash((seed, file)) % 3 {
                0 => true,
                1 => !hash((seed, file, index, sector)).is_multiple_of(4),
                _ => hash((seed, file, index, sector)).is_multiple_of(4),
            },
        }
    }

    /// Which of the lengths that a file has had since the last sync survives: a number less than
    /// `lengths`, 0 for the synced one.
    pub(super) fn length(self, file: Node, lengths: usize) -> usize {
        match self {
            Self::Nothing | Self::Names | Self::Contents => lengths - 1,
            Self::Everything | Self::Data => 0,
            // Often the last one: ext4 and others write data before lengths.
            Self::Some(seed) => match hash((seed, file, "length")) {
                odd if odd % 2 == 1 => lengths - 1,
                even => usize::try_from(even / 2 % lengths as u64).unwrap_or(0),
            },
        }
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
