//! Values of one option from its sources, with errors that name the source.

use std::ffi::OsString;
use std::path::PathBuf;

use ciphermq_client::text::{holds_key, shown};

use crate::exit::Failure;

/// The values of `retries`.
pub(super) const RETRIES: &str = "a whole number from 1 to 4294967295";

/// The environment variable of an option.
pub(super) fn variable(option: &str) -> String {
    format!("CIPHERMQ_{}", option.replace('-', "_").to_uppercase())
}

/// Returns the paths of the first source that has any: flags, environment, configuration file.
///
/// # Errors
///
/// [`Failure`] of usage if one of them is empty, or is a key instead of its path.
pub(super) fn checked_paths(
    option: &str,
    sources: [Vec<PathBuf>; 3],
) -> Result<Vec<PathBuf>, Failure> {
    let names = [
        format!("--{option} on the command line"),
        format!("{} in the environment", variable(option)),
        format!("{option} in the configuration file"),
    ];
    let mut sources = names.into_iter().zip(sources);
    let Some((name, paths)) = sources.find(|(_, paths)| !paths.is_empty()) else {
        return Ok(Vec::new());
    };
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(Failure::usage(
            format!("{name} cannot be used: it is empty."),
            "Write a path, or leave it out.",
        ));
    }
    // The errors of a missing file would show it.
    if paths.iter().any(|path| holds_key(path) && !path.exists()) {
        return Err(Failure::usage(
            format!("{name} holds a key or certificate, not the path of one."),
            "Write it to a file that only you can read (chmod 600), and name that file.",
        ));
    }
    Ok(paths)
}

pub(super) fn text(
    env: &impl Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, Failure> {
    let text = env(name).map(OsString::into_string).transpose();
    text.map_err(|_| bad_value(name, "the environment", "it is not UTF-8"))
}

/// Parses a value of the configuration file.
pub(super) fn parsed_in_file<T>(
    value: Option<String>,
    name: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    let parsed = value.map(|value| parse(&value)).transpose();
    parsed.map_err(|error| bad_value(name, "the configuration file", &error))
}

pub(super) fn parsed<T>(
    env: &impl Fn(&str) -> Option<OsString>,
    name: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    text(env, name)?
        .map(|value| parse(&value))
        .transpose()
        .map_err(|error| bad_value(name, "the environment", &error))
}

pub(super) fn bad_value(name: &str, place: &str, error: &str) -> Failure {
    Failure::usage(
        format!("{name} in {place} cannot be used: {error}."),
        "Correct it, or give the option as a flag.",
    )
}

pub(super) fn at_least_one(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("`{}` is not {RETRIES}", shown(text)))
}
