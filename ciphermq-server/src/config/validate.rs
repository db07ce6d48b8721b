//! Conversion of the raw form into the validated one: defaults, units, ranges and relations.

use std::{ops::RangeInclusive, path::Path, path::PathBuf};

use ciphermq_protocol::text::{holds_key, shown};

use super::{
    Config, Error, Logging, Origin, Rotation, Server, Tls, authorization, database, encryption,
    error::line_at,
    file::{self, Boolean, Location, Quantity, Setting, Text},
    level, limits, older,
    quantity::{Number, QuantityKind},
};

/// The name of a setting: its section and its field.
pub(super) type SettingName = (&'static str, &'static str);

/// Validates the whole configuration.
///
/// # Errors
///
/// [`Error::Setting`] for the first setting that cannot be used.
pub(super) fn config(file: file::File, validator: &Validator<'_>) -> Result<Config, Error> {
    let mut warnings = older::warnings(&file, validator);
    Ok(Config {
        server: server(&file.server, validator)?,
        tls: Tls {
            cert_path: validator.path(
                ("tls", "cert_path"),
                file.tls.cert_path.as_ref(),
                "certs/server.crt",
            )?,
            key_path: validator.path(
                ("tls", "key_path"),
                file.tls.key_path.as_ref(),
                "certs/server.key",
            )?,
            ca_cert_path: validator.path(
                ("tls", "ca_cert_path"),
                file.tls.ca_cert_path.as_ref(),
                "certs/ca.crt",
            )?,
        },
        logging: logging(&file.logging, validator, &mut warnings)?,
        database: database::validate(file.database, validator)?,
        encryption: encryption::validate(file.encryption, validator)?,
        limits: limits::validate(&file.limits, validator)?,
        authorization: authorization::validate(&file.authorization, validator)?,
        warnings,
    })
}

fn server(section: &file::Server, validator: &Validator<'_>) -> Result<Server, Error> {
    if let Some(kind) = &section.connection_type
        && !kind.value.0.trim().eq_ignore_ascii_case("tls")
    {
        return Err(validator.invalid(
            ("server", "connection_type"),
            Some(&kind.location),
            format!(
                "`{}` is not supported: clients are identified by their certificates",
                shown(&kind.value.0)
            ),
            "Write connection_type = \"tls\", or leave the line out.",
        ));
    }
    let address = match &section.address {
        None => String::from("127.0.0.1:5672"),
        Some(address) if is_address(address.value.0.trim()) => address.value.0.trim().to_owned(),
        Some(address) => {
            return Err(validator.invalid(
                ("server", "address"),
                Some(&address.location),
                format!("`{}` is not a host and port", shown(&address.value.0)),
                "Write host:port, such as 127.0.0.1:5672, 0.0.0.0:5672 or [::1]:5672.",
            ));
        }
    };
    Ok(Server { address })
}

/// Returns whether `text` has the form `host:port`. The listener resolves the host.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host_valid = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace())
        }
    };
    is_host_valid && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn logging(
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
    let total: u64 = validator.quantity::<Number, _>(
        ("logging", "max_total_mb"),
        section.max_total_mb.as_ref(),
        1024,
        0..=1 << 30,
    )?;
    let max_files: usize = validator.quantity::<Number, _>(
        ("logging", "max_files"),
        section.max_files.as_ref(),
        0,
        0..=1 << 20,
    )?;
    if total > 0 && total < megabytes {
        // A default has no line to correct, so the error names a setting that is written.
        let (name, setting) = match &section.max_total_mb {
            Some(setting) => ("max_total_mb", Some(setting)),
            None => ("max_size_mb", section.max_size_mb.as_ref()),
        };
        return Err(validator.invalid(
            ("logging", name),
            setting.map(|setting| &setting.location),
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
