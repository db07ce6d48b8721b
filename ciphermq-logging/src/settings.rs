//! The settings of the logs.

use std::path::PathBuf;

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The most verbose level that is logged.
    pub level: tracing::Level,
    /// Whether every accepted and every acknowledged message is logged, at level INFO.
    pub messages: bool,
    /// The file for lines of level INFO.
    pub info_file_path: PathBuf,
    /// The file for lines of level DEBUG and TRACE.
    pub debug_file_path: PathBuf,
    /// The file for lines of level ERROR and WARN.
    pub error_file_path: PathBuf,
    /// The interval at which log files are rotated.
    pub rotation: Rotation,
    /// The size in bytes at which a log file is rotated; `None` for no limit.
    pub max_size_bytes: Option<u64>,
    /// The size in bytes of all files of one log, beyond which old ones are removed; `None` for no
    /// limit.
    pub max_total_bytes: Option<u64>,
    /// The number of old files of one log, beyond which the oldest are removed; `None` for no
    /// limit.
    pub max_files: Option<usize>,
}

/// The free space on a disk that the logs leave to something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    /// A path on the disk. It may not exist yet.
    pub path: PathBuf,
    /// The space in bytes.
    pub bytes: u64,
    /// Why no lines are written until there is more space: the last line of a log that stops.
    pub last_line: &'static str,
}

/// The interval at which log files are rotated.
///
/// Hours and days are in UTC, like the timestamps of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Rotation at every full hour.
    Hourly,
    /// Rotation at midnight.
    Daily,
    /// Rotation by size only.
    Never,
}
