//! From the low-level form to the high-level one: defaults, units, ranges and relations.

use std::{ops::RangeInclusive, path::Path, path::PathBuf};

use super::{
    Config, Error, Logging, Origin, Rotation, Server, Tls, database, encryption,
    error::line_at,
    file::{self, Place, Quantity, Setting, Switch, Text},
    level, limits, older,
    quantity::{Kind, Number},
};

/// A section and a field of it.
pub(super) type Name = (&'static str, &'static str);

/// Checks the whole configuration.
pub(super) fn config(file: file::File, check: &Check<'_>) -> Result<Config, Error> {
    let mut warnings = older::warnings(&file, check);
    Ok(Config {
        server: server(&file.server, check)?,
        tls: Tls {
            cert_path: check.path(
                ("tls", "cert_path"),
                file.tls.cert_path.as_ref(),
                "certs/server.crt",
            )?,
            key_path: check.path(
                ("tls", "key_path"),
                file.tls.key_path.as_ref(),
                "certs/server.key",
            )?,
            ca_cert_path: check.path(
                ("tls", "ca_cert_path"),
                file.tls.ca_cert_path.as_ref(),
                "certs/ca.crt",
            )?,
        },
        logging: logging(&file.logging, check, &mut warnings)?,
        database: database::validate(file.database, check)?,
        encryption: encryption::validate(file.encryption, check)?,
        limits: limits::validate(&file.limits, check)?,
        warnings,
    })
}

fn server(section: &file::Server, check: &Check<'_>) -> Result<Server, Error> {
    if let Some(kind) = &section.connection_type
        && !kind.value.0.trim().eq_ignore_ascii_case("tls")
    {
        return Err(check.wrong(
            ("server", "connection_type"),
            Some(&kind.place),
            format!(
                "`{}` is not supported: clients are known by their certificates",
                kind.value.0
            ),
            "Write connection_type = \"tls\", or leave the line out.",
        ));
    }
    let address = match &section.address {
        None => String::from("127.0.0.1:5672"),
        Some(address) if is_address(address.value.0.trim()) => address.value.0.trim().to_owned(),
        Some(address) => {
            return Err(check.wrong(
                ("server", "address"),
                Some(&address.place),
                format!("`{}` is no host and port", address.value.0),
                "Write host:port, such as 127.0.0.1:5672, 0.0.0.0:5672 or [::1]:5672.",
            ));
        }
    };
    Ok(Server { address })
}

/// Whether `text` is `host:port`. The host is not looked up: that is the listener's part.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_fits = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace())
        }
    };
    host_fits && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn logging(
    section: &file::Logging,
    check: &Check<'_>,
    warnings: &mut Vec<String>,
) -> Result<Logging, Error> {
    let level = level::validate(section.level.as_ref(), check, warnings)?;
    let messages = check.switch(("logging", "messages"), section.messages.as_ref(), true)?;
    let rotation = check.choice(
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
    let info_file_path = check.path(
        info,
        section.info_file_path.as_ref(),
        "logs/server_info.log",
    )?;
    let debug_file_path = check.path(
        debug,
        section.debug_file_path.as_ref(),
        "logs/server_debug.log",
    )?;
    let error_file_path = check.path(
        error,
        section.error_file_path.as_ref(),
        "logs/server_error.log",
    )?;
    // Two rotating writers on one file would each rename it under the other. Devices and the like
    // are never renamed.
    let is_shared = |one: &Path, other: &Path| {
        one == other
            && std::fs::metadata(one).map_or(true, |there| there.is_file())
            && !ciphermq_files::resolve(one)
                .is_ok_and(|place| ciphermq_files::is_descriptor(&place))
    };
    let clash = if is_shared(&debug_file_path, &info_file_path) {
        Some((debug, section.debug_file_path.as_ref(), "info_file_path"))
    } else if is_shared(&error_file_path, &info_file_path) {
        Some((error, section.error_file_path.as_ref(), "info_file_path"))
    } else if is_shared(&error_file_path, &debug_file_path) {
        Some((error, section.error_file_path.as_ref(), "debug_file_path"))
    } else {
        None
    };
    if let Some((name, setting, other)) = clash {
        return Err(check.wrong(
            name,
            setting.map(|setting| &setting.place),
            format!("it is the same file as {other}"),
            "Give each of the three log files a path of its own.",
        ));
    }
    let megabytes: u64 = check.quantity::<Number, _>(
        ("logging", "max_size_mb"),
        section.max_size_mb.as_ref(),
        100,
        0..=1 << 20,
    )?;
    Ok(Logging {
        level,
        messages,
        info_file_path,
        debug_file_path,
        error_file_path,
        rotation,
        max_size_bytes: (megabytes > 0).then_some(megabytes << 20),
    })
}

/// The file that is being checked, for errors that say where.
pub(super) struct Check<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> Check<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    /// The error for a setting that cannot be used.
    pub(super) fn wrong(
        &self,
        (section, field): Name,
        place: Option<&Place>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Error {
        Error::Setting {
            origin: self.origin(place),
            section,
            field,
            problem: problem.into(),
            advice: advice.into(),
        }
    }

    /// Where a setting was made.
    pub(super) fn origin(&self, place: Option<&Place>) -> Origin {
        match place {
            Some(Place::Offset(offset)) => {
                Origin::Line(self.path.to_owned(), line_at(self.text, *offset))
            }
            Some(Place::Variable(name)) => Origin::Variable(name.clone()),
            None => Origin::Missing(self.path.to_owned()),
        }
    }

    /// A text that must not be empty.
    pub(super) fn text(&self, name: Name, setting: &Setting<Text>) -> Result<String, Error> {
        let text = setting.value.0.trim();
        if text.is_empty() {
            let advice = "Write a value between the quotes, or leave the line out.";
            return Err(self.wrong(name, Some(&setting.place), "it is empty", advice));
        }
        Ok(text.to_owned())
    }

    /// A path, relative to the working directory of the server if it is not absolute.
    pub(super) fn path(
        &self,
        name: Name,
        setting: Option<&Setting<Text>>,
        default: &str,
    ) -> Result<PathBuf, Error> {
        setting.map_or_else(
            || Ok(PathBuf::from(default)),
            |setting| self.text(name, setting).map(PathBuf::from),
        )
    }

    /// One of a few words, in any case.
    pub(super) fn choice<T>(
        &self,
        name: Name,
        setting: Option<&Setting<Text>>,
        default: T,
        read: impl Fn(&str) -> Option<T>,
        choices: &str,
    ) -> Result<T, Error> {
        let Some(setting) = setting else {
            return Ok(default);
        };
        read(&setting.value.0.trim().to_ascii_lowercase()).ok_or_else(|| {
            let problem = format!("`{}` is unknown", setting.value.0);
            self.wrong(
                name,
                Some(&setting.place),
                problem,
                format!("Write {choices}."),
            )
        })
    }

    /// Yes or no.
    pub(super) fn switch(
        &self,
        name: Name,
        setting: Option<&Setting<Switch>>,
        default: bool,
    ) -> Result<bool, Error> {
        let Some(setting) = setting else {
            return Ok(default);
        };
        let text = setting.value.0.trim();
        text.to_ascii_lowercase().parse().map_err(|_| {
            let problem = format!("`{text}` is neither");
            self.wrong(name, Some(&setting.place), problem, "Write true or false.")
        })
    }

    /// A quantity within bounds, as the type that holds it.
    pub(super) fn quantity<K: Kind, T: TryFrom<K::Value>>(
        &self,
        name: Name,
        setting: Option<&Setting<Quantity>>,
        default: T,
        bounds: RangeInclusive<K::Bound>,
    ) -> Result<T, Error> {
        let Some(setting) = setting else {
            return Ok(default);
        };
        let text = &setting.value.0;
        let wrong = |problem: &str| {
            let (least, most) = (K::show(*bounds.start()), K::show(*bounds.end()));
            let advice = format!(
                "Write a {} from {least} to {most}.{}",
                K::DESCRIPTION,
                K::ALTERNATIVE
            );
            self.wrong(
                name,
                Some(&setting.place),
                format!("`{text}` {problem}"),
                advice,
            )
        };
        let value = K::read(text).ok_or_else(|| wrong("cannot be read"))?;
        match K::bounded(value) {
            Some(bounded) if bounded < *bounds.start() => Err(wrong("is too small")),
            Some(bounded) if bounded > *bounds.end() => Err(wrong("is too large")),
            _ => T::try_from(value).map_err(|_| wrong("is too large for this machine")),
        }
    }
}
