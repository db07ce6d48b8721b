//! The section `[logging]`.

use std::path::{Path, PathBuf};

use super::{Error, file, level, quantity::Number, validator::Validator};

/// The section `[logging]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
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

/// The free space on a disk that the logs leave to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReserve {
    /// The database, whose disk it is.
    pub database: PathBuf,
    /// The space in bytes.
    pub bytes: u64,
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

/// Validates the section, with a warning about the level in use if it is a filter.
///
/// # Errors
///
/// [`Error::Setting`] for the first setting that cannot be used, or two log files with one path.
pub(super) fn validate(
    section: &file::Logging,
    validator: &Validator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Logging, Error> {
    let level = level::validate(section.level.as_ref(), validator, warnings)?;
    let messages = validator.boolean(("logging", "messages"), section.messages.as_ref(), true)?;
    let rotation = validator.choice(
        ("logging", "rotation"),
        section.rotation.as_ref(),
        Rotation::Daily,
        |text| {
            Some(match text {
                "hourly" => Rotation::Hourly,
                "daily" => Rotation::Daily,
                "never" => Rotation::Never,
                _ => return None,
            })
        },
        "hourly, daily or never",
    )?;
    let info = ("logging", "info_file_path");
    let debug = ("logging", "debug_file_path");
    let error = ("logging", "error_file_path");
    let info_file_path = validator.path(
        info,
        section.info_file_path.as_ref(),
        "logs/server_info.log",
    )?;
    let debug_file_path = validator.path(
        debug,
        section.debug_file_path.as_ref(),
        "logs/server_debug.log",
    )?;
    let error_file_path = validator.path(
        error,
        section.error_file_path.as_ref(),
        "logs/server_error.log",
    )?;
    // Two writers that rotate the same file would rename it under each other. Devices and other
    // special files are never rotated.
    let is_shared = |one: &Path, other: &Path| {
        one == other
            && std::fs::metadata(one).map_or(true, |metadata| metadata.is_file())
            && !ciphermq_files::resolve(one)
                .is_ok_and(|resolved| ciphermq_files::is_descriptor(&resolved))
    };
    let conflict = if is_shared(&debug_file_path, &info_file_path) {
        Some((debug, section.debug_file_path.as_ref(), "info_file_path"))
    } else if is_shared(&error_file_path, &info_file_path) {
        Some((error, section.error_file_path.as_ref(), "info_file_path"))
    } else if is_shared(&error_file_path, &debug_file_path) {
        Some((error, section.error_file_path.as_ref(), "debug_file_path"))
    } else {
        None
    };
    if let Some((name, setting, other)) = conflict {
        return Err(validator.invalid(
            name,
            setting.map(|setting| &setting.location),
            format!("it is the same file as {other}"),
            "Give each of the three log files its own path.",
        ));
    }
    let megabytes: u64 = validator.quantity::<Number, _>(
        ("logging", "max_size_mb"),
        section.max_size_mb.as_ref(),
        100,
        0..=1 << 20,
    )?;
    // A larger `max_size_mb` that was written before `max_total_mb` existed stays valid.
    let total: u64 = validator.quantity::<Number, _>(
        ("logging", "max_total_mb"),
        section.max_total_mb.as_ref(),
        megabytes.max(1024),
        0..=1 << 30,
    )?;
    let max_files: usize = validator.quantity::<Number, _>(
        ("logging", "max_files"),
        section.max_files.as_ref(),
        0,
        0..=1 << 20,
    )?;
    if total > 0 && total < megabytes {
        return Err(validator.invalid(
            ("logging", "max_total_mb"),
            section
                .max_total_mb
                .as_ref()
                .map(|setting| &setting.location),
            format!("one file of max_size_mb ({megabytes}) exceeds max_total_mb ({total})"),
            "Lower max_size_mb, or raise max_total_mb; 0 means no limit.",
        ));
    }
    Ok(Logging {
        level,
        messages,
        info_file_path,
        debug_file_path,
        error_file_path,
        rotation,
        max_size_bytes: (megabytes > 0).then_some(megabytes << 20),
        max_total_bytes: (total > 0).then_some(total << 20),
        max_files: (max_files > 0).then_some(max_files),
    })
}
