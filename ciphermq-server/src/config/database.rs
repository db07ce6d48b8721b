//! The section `[database]`: SQLite by default, PostgreSQL by `url` or by its separate fields.
//!
//! This module depends on no database driver: the store connects with the settings defined here.

use std::{fmt, path::PathBuf};

use url::Url;

use super::{
    Error, Secret, file,
    quantity::Number,
    setting::{Quantity, Setting, Text},
    validator::{SettingName, Validator},
};

const URL: SettingName = ("database", "url");

/// The database that stores the messages.
///
/// `Display` omits the password, so its output may be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// An SQLite database, created if its file is missing.
    Sqlite {
        /// The path of the database file.
        path: PathBuf,
    },
    /// A database on a PostgreSQL server.
    Postgres(Postgres),
}

/// The connection settings of a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// The server, the database and the credentials.
    pub target: Target,
    /// The TLS mode. `None` means the mode in the URL, or else [`SslMode::Prefer`].
    pub sslmode: Option<SslMode>,
    /// The PEM file of the authority that verifies the server's certificate.
    pub sslrootcert: Option<PathBuf>,
}

/// A PostgreSQL server, a database on it, and the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A valid `postgres://` or `postgresql://` URL, with its password if it has one.
    Url(Secret),
    /// Separate fields, in which a password needs no percent-encoding.
    Fields {
        /// A host name, an IP address, or the directory of a Unix socket.
        host: String,
        /// The TCP port, or the number in the name of the Unix socket.
        port: u16,
        /// The role to connect as.
        user: String,
        /// The role's password. `None` if the server requires none, or a password file has it.
        password: Option<Secret>,
        /// The name of the database.
        dbname: String,
    },
}

/// The TLS mode of connections to PostgreSQL, with the names and meanings of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS only if the server requires it.
    Allow,
    /// TLS if the server supports it.
    Prefer,
    /// TLS without verification of the server's certificate.
    Require,
    /// TLS with a certificate issued by the authority.
    VerifyCa,
    /// TLS with a certificate issued by the authority for the host.
    VerifyFull,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "SQLite {}", path.display()),
            Self::Postgres(postgres) => match &postgres.target {
                Target::Fields {
                    host,
                    port,
                    user,
                    dbname,
                    ..
                } => {
                    write!(f, "PostgreSQL {user}@{host}:{port}/{dbname}")
                }
                Target::Url(url) => {
                    // Only the parts without secrets are shown: the query may contain a password.
                    f.write_str("PostgreSQL ")?;
                    let Ok(url) = Url::parse(url.expose()) else {
                        return f.write_str("by url");
                    };
                    if !url.username().is_empty() {
                        write!(f, "{}@", url.username())?;
                    }
                    f.write_str(url.host_str().unwrap_or_default())?;
                    if let Some(port) = url.port() {
                        write!(f, ":{port}")?;
                    }
                    f.write_str(url.path())
                }
            },
        }
    }
}

/// Selects SQLite or PostgreSQL, and checks that its settings are complete and consistent.
///
/// # Errors
///
/// [`Error::Setting`] for an invalid, missing or contradictory setting.
pub(super) fn validate(
    section: file::Database,
    validator: &Validator<'_>,
) -> Result<Database, Error> {
    let file::Database {
        url,
        host,
        port,
        user,
        password,
        dbname,
        sslmode,
        sslrootcert,
    } = section;
    let first_field = [
        host.as_ref().map(|setting| ("host", &setting.location)),
        port.as_ref().map(|setting| ("port", &setting.location)),
        user.as_ref().map(|setting| ("user", &setting.location)),
        password
            .as_ref()
            .map(|setting| ("password", &setting.location)),
        dbname.as_ref().map(|setting| ("dbname", &setting.location)),
    ]
    .into_iter()
    .flatten()
    .next();

    if let (Some(url), Some((field, location))) = (&url, first_field) {
        let url_source = if url.is_variable() {
            "the variable that sets url"
        } else {
            "url"
        };
        return Err(validator.invalid(
            ("database", field),
            Some(location),
            format!("it contradicts {url_source}: only one of them may name the database"),
            "Keep either url, or host, port, user, password and dbname.",
        ));
    }

    let target = match (&url, first_field) {
        (None, None) => {
            return sqlite_without_tls(
                None,
                PathBuf::from("data/ciphermq.db"),
                &sslmode,
                &sslrootcert,
                validator,
            );
        }
        (Some(url), _) => match parse_url(url, validator)? {
            ParsedUrl::Sqlite(path) => {
                return sqlite_without_tls(Some(url), path, &sslmode, &sslrootcert, validator);
            }
            ParsedUrl::Postgres { sslmode: true } if sslmode.is_some() => {
                return Err(validator.invalid(
                    ("database", "sslmode"),
                    sslmode.as_ref().map(|setting| &setting.location),
                    "the url sets sslmode as well",
                    "Keep one of the two.",
                ));
            }
            ParsedUrl::Postgres { .. } => Target::Url(url.value.clone()),
        },
        (None, Some(_)) => target_from_fields(host, port, user, password, dbname, validator)?,
    };

    let in_url = matches!(target, Target::Url(_));
    let mode = sslmode
        .as_ref()
        .map(|setting| {
            validator.choice(
                ("database", "sslmode"),
                Some(setting),
                SslMode::Prefer,
                parse_ssl_mode,
                SSL_MODES,
            )
        })
        .transpose()?;
    let root = sslrootcert
        .as_ref()
        .map(|setting| validator.path(("database", "sslrootcert"), Some(setting), ""))
        .transpose()?;
    // An authority that is never used would give a false sense of security. The driver checks
    // the sslmode of a URL.
    let verifies =
        matches!(mode, Some(SslMode::VerifyCa | SslMode::VerifyFull)) || (in_url && mode.is_none());
    if root.is_some() && !verifies {
        return Err(validator.invalid(
            ("database", "sslrootcert"),
            sslrootcert.as_ref().map(|setting| &setting.location),
            "the server's certificate is verified against it only with sslmode verify-ca or \
             verify-full",
            "Write sslmode = \"verify-full\", or remove sslrootcert.",
        ));
    }
    Ok(Database::Postgres(Postgres {
        target,
        sslmode: mode,
        sslrootcert: root,
    }))
}

const SSL_MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";

fn parse_ssl_mode(text: &str) -> Option<SslMode> {
    Some(match text {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return None,
    })
}

/// Returns an SQLite database, after checking that no TLS settings would be silently ignored.
fn sqlite_without_tls(
    url: Option<&Setting<Secret>>,
    path: PathBuf,
    sslmode: &Option<Setting<Text>>,
    sslrootcert: &Option<Setting<Text>>,
    validator: &Validator<'_>,
) -> Result<Database, Error> {
    for (field, setting) in [("sslmode", sslmode), ("sslrootcert", sslrootcert)] {
        if let Some(setting) = setting
            // A variable that replaces the file's PostgreSQL database by SQLite also overrides the
            // file's TLS settings.
            && (setting.is_variable() || !url.is_some_and(Setting::is_variable))
        {
            return Err(validator.invalid(
                ("database", field),
                Some(&setting.location),
                "it is for PostgreSQL, and the database is SQLite",
                "Remove it, or name a PostgreSQL database.",
            ));
        }
    }
    Ok(Database::Sqlite { path })
}

/// The names of URL parameters, as in libpq; `options[NAME]` is allowed as well.
///
/// The driver would log the values of other parameters.
const PARAMETERS: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
    "application_name",
    "statement-cache-capacity",
];
/// Alternative names of parameters that the driver accepts.
const PARAMETER_ALIASES: &[&str] = &["ssl-mode", "ssl-root-cert", "ssl-ca", "ssl-cert", "ssl-key"];

/// Returns the name and value of the first unknown parameter.
fn unknown_parameter(url: &Url) -> Option<(String, String)> {
    let is_known = |name: &str| {
        PARAMETERS.contains(&name)
            || PARAMETER_ALIASES.contains(&name)
            || (name.starts_with("options[") && name.ends_with(']'))
    };
    url.query_pairs()
        .find(|(name, _)| !is_known(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
}

/// The database that a URL names.
enum ParsedUrl {
    Sqlite(PathBuf),
    Postgres {
        /// Whether the URL sets `sslmode`.
        sslmode: bool,
    },
}

/// Parses the database's URL.
///
/// # Errors
///
/// [`Error::Setting`] if the URL is invalid or ambiguous. Apart from the name of an unknown
/// parameter, the message shows no part of the URL: by mistake, the password may be in any part.
fn parse_url(url: &Setting<Secret>, validator: &Validator<'_>) -> Result<ParsedUrl, Error> {
    let invalid =
        |problem: &str, advice: &str| validator.invalid(URL, Some(&url.location), problem, advice);
    let text = url.value.expose().trim();
    if let Some(path) = text
        .strip_prefix("sqlite://")
        .or_else(|| text.strip_prefix("sqlite:"))
    {
        let path = path.strip_suffix("?mode=rwc").unwrap_or(path);
        if path.contains(['?', '#']) {
            return Err(invalid(
                "options after the file name are not supported",
                "Write sqlite:// and the path of the file, such as sqlite://data/ciphermq.db.",
            ));
        }
        if path.is_empty() || path == ":memory:" {
            return Err(invalid(
                "messages would be lost when the server stops",
                "Name a file after sqlite://, such as sqlite://data/ciphermq.db.",
            ));
        }
        return Ok(ParsedUrl::Sqlite(PathBuf::from(path)));
    }
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(invalid(
            "it is neither sqlite:// nor postgres://",
            "Write sqlite://data/ciphermq.db, or postgres://user:password@host:5432/dbname.",
        ));
    }
    let encode = "Percent-encode special characters in user and password (@ is %40, / is %2F, : is \
                  %3A, # is %23, \
                  ? is %3F, % is %25), or remove url and write host, port, user, password and \
                  dbname.";
    let parsed = Url::parse(text)
        .map_err(|error| invalid(&format!("it is not a valid URL: {error}"), encode))?;
    // An unencoded @, / or ? in a password ends the authority early. An @ after the host is a sign
    // of that.
    if parsed.path().contains('@')
        || parsed.query().is_some_and(|query| query.contains('@'))
        || parsed.fragment().is_some()
    {
        return Err(invalid("it is ambiguous", encode));
    }
    if let Some((name, value)) = unknown_parameter(&parsed) {
        // An apparent parameter may be the rest of a password that contains an `&`.
        let is_password_before = parsed
            .query_pairs()
            .take_while(|(key, _)| *key != name)
            .any(|(key, _)| key == "password");
        let is_name = !value.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'));
        return Err(if is_password_before || !is_name {
            invalid(
                "it contains an unknown parameter",
                "Remove it, or correct its name; in a value & is %26.",
            )
        } else {
            invalid(
                &format!("the parameter `{name}` is unknown"),
                &format!("Remove it, or correct its name: {}.", PARAMETERS.join(", ")),
            )
        });
    }
    Ok(ParsedUrl::Postgres {
        sslmode: parsed
            .query_pairs()
            .any(|(key, _)| key == "sslmode" || key == "ssl-mode"),
    })
}

fn target_from_fields(
    host: Option<Setting<Text>>,
    port: Option<Setting<Quantity>>,
    user: Option<Setting<Text>>,
    password: Option<Setting<Secret>>,
    dbname: Option<Setting<Text>>,
    validator: &Validator<'_>,
) -> Result<Target, Error> {
    let text = |field, setting: Option<Setting<Text>>| {
        setting
            .map(|setting| validator.text(("database", field), &setting))
            .transpose()
    };
    let missing = |field| {
        let advice = format!("Add {field} = \"...\" to [database], or name the database by url.");
        validator.invalid(
            ("database", field),
            None,
            "it is missing, but other fields of a PostgreSQL database are set",
            advice,
        )
    };
    let port = validator.quantity::<Number, _>(
        ("database", "port"),
        port.as_ref(),
        5432,
        1..=u64::from(u16::MAX),
    )?;
    Ok(Target::Fields {
        host: text("host", host)?.unwrap_or_else(|| String::from("localhost")),
        port,
        user: text("user", user)?.ok_or_else(|| missing("user"))?,
        password: password
            .map(|setting| setting.value)
            .filter(|password| !password.expose().is_empty()),
        dbname: text("dbname", dbname)?.ok_or_else(|| missing("dbname"))?,
    })
}
