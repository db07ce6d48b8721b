//! The section `[logging]`.

use std::path::Path;

use ciphermq_logging::{Rotation, Settings};

use super::{Error, file, level, quantity::Number, validator::Validator};

/// Validates the section, with a warning about the level in use if it is a filter.
///
/// # Errors
///
/// [`Error::Setting`] for the first setting that cannot be used, or two log files with one path.
pub(super) fn validate(
    section: &file::Logging,
    validator: &Validator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Settings, Error> {
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
    Ok(Settings {
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
