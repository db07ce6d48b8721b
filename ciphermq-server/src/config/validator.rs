//! Checks of single values: presence, form, range. Errors name the place of the value.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use ciphermq_protocol::text::{holds_key, shown};

use super::{
    Error, Origin,
    error::line_at,
    quantity::QuantityKind,
    setting::{Boolean, Location, Quantity, Setting, Text},
};

/// The name of a setting: its section and its field.
pub(super) type SettingName = (&'static str, &'static str);

/// Functions that validate values, with the file for the locations in errors.
pub(super) struct Validator<'a> {
    pub(super) config_path: &'a Path,
    pub(super) config_text: &'a str,
}

impl<'a> Validator<'a> {
    pub(super) fn new(config_path: &'a Path, config_text: &'a str) -> Self {
        Self {
            config_path,
            config_text,
        }
    }

    /// Returns the error for a setting that cannot be used; no `location` means it is missing.
    pub(super) fn invalid(
        &self,
        (section, field): SettingName,
        location: Option<&Location>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Error {
        Error::Setting {
            origin: self.origin(location),
            section,
            field,
            problem: problem.into(),
            advice: advice.into(),
        }
    }

    /// Returns the location of a setting for messages.
    pub(super) fn origin(&self, location: Option<&Location>) -> Origin {
        match location {
            Some(Location::Offset(offset)) => Origin::Line(
                self.config_path.to_owned(),
                line_at(self.config_text, *offset),
            ),
            Some(Location::Variable(name)) => Origin::Variable(name.clone()),
            None => Origin::Missing(self.config_path.to_owned()),
        }
    }

    /// Returns a text without surrounding whitespace.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if nothing else is left of it.
    pub(super) fn text(&self, name: SettingName, setting: &Setting<Text>) -> Result<String, Error> {
        let text = setting.value.0.trim();
        if text.is_empty() {
            let advice = "Write a value between the quotes, or leave the line out.";
            return Err(self.invalid(name, Some(&setting.location), "it is empty", advice));
        }
        Ok(text.to_owned())
    }

    /// Returns a path as written; a relative one is relative to the server's working directory.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the setting is blank, or is a key instead of its path.
    pub(super) fn path(
        &self,
        name: SettingName,
        setting: Option<&Setting<Text>>,
        default: &str,
    ) -> Result<PathBuf, Error> {
        let Some(setting) = setting else {
            return Ok(PathBuf::from(default));
        };
        let path = PathBuf::from(self.text(name, setting)?);
        // The errors of a missing file would show it, in several places.
        if holds_key(&path) && !path.exists() {
            return Err(self.invalid(
                name,
                Some(&setting.location),
                "it holds a key or certificate, not the path of one",
                "Write it to a file that only the server's user may read (chmod 600), and name \
                 that file.",
            ));
        }
        Ok(path)
    }

    /// Parses a case-insensitive keyword; `parse` gets it in lower case.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with the advice to write one of `choices` if `parse` returns `None`.
    pub(super) fn choice<T>(
        &self,
        name: SettingName,
        setting: Option<&Setting<Text>>,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        choices: &str,
    ) -> Result<T, Error> {
        let Some(setting) = setting else {
            return Ok(default);
        };
        parse(&setting.value.0.trim().to_ascii_lowercase()).ok_or_else(|| {
            let problem = format!("`{}` is unknown", shown(&setting.value.0));
            self.invalid(
                name,
                Some(&setting.location),
                problem,
                format!("Write {choices}."),
            )
        })
    }

    /// Parses `true` or `false`, case-insensitively.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the value is another word.
    pub(super) fn boolean(
        &self,
        name: SettingName,
        setting: Option<&Setting<Boolean>>,
        default: bool,
    ) -> Result<bool, Error> {
        let Some(setting) = setting else {
            return Ok(default);
        };
        let text = setting.value.0.trim();
        text.to_ascii_lowercase().parse().map_err(|_| {
            let problem = format!("`{}` is neither true nor false", shown(text));
            self.invalid(
                name,
                Some(&setting.location),
                problem,
                "Write true or false.",
            )
        })
    }

    /// Parses a quantity, and checks that it is within `bounds` and fits into `T`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the value is invalid, out of bounds, or does not fit into `T`.
    pub(super) fn quantity<K: QuantityKind, T: TryFrom<K::Value>>(
        &self,
        name: SettingName,
        setting: Option<&Setting<Quantity>>,
        default: T,
        bounds: RangeInclusive<K::Bound>,
    ) -> Result<T, Error> {
        let Some(setting) = setting else {
            return Ok(default);
        };
        let text = &setting.value.0;
        let invalid = |problem: &str| {
            let (min, max) = (K::format(*bounds.start()), K::format(*bounds.end()));
            let advice = format!(
                "Write a {} from {min} to {max}.{}",
                K::DESCRIPTION,
                K::ALTERNATIVE
            );
            self.invalid(
                name,
                Some(&setting.location),
                format!("`{}` {problem}", shown(text)),
                advice,
            )
        };
        let value = K::parse(text).ok_or_else(|| invalid("cannot be read"))?;
        match K::as_bound(value) {
            Some(bound) if bound < *bounds.start() => Err(invalid("is too small")),
            Some(bound) if bound > *bounds.end() => Err(invalid("is too large")),
            _ => T::try_from(value).map_err(|_| invalid("is too large for this machine")),
        }
    }
}
