//! `[database]`: SQLite by default, PostgreSQL by `url` or by host, port, user, password and
//! dbname.
//!
//! Nothing here knows SQL or a database driver: the store makes its connections from what stands
//! here.

use std::{fmt, path::PathBuf};

use url::Url;

use super::{
    Error, Secret,
    file::{self, Quantity, Setting, Text},
    quantity::Number,
    validate::{Check, Name},
};

const URL: Name = ("database", "url");

/// Which database keeps the messages. `Display` shows it without its password, for logs.
#[derive(Debug, Clone)]
pub enum Database {
    /// An SQLite database in this file, made if it is not there.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A database on a PostgreSQL server.
    Postgres(Postgres),
}

/// How to reach a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The server, the database in it, and who asks.
    pub target: Target,
    /// Whether TLS is used. `None`: as the URL says, and otherwise [`SslMode::Prefer`].
    pub sslmode: Option<SslMode>,
    /// The authority that the server's certificate is verified against, PEM.
    pub sslrootcert: Option<PathBuf>,
}

/// A PostgreSQL server, a database in it, and who asks.
#[derive(Debug, Clone)]
pub enum Target {
    /// A `postgres://` or `postgresql://` URL, known to parse, with its password if it has one.
    Url(Secret),
    /// The same in fields, so that a password needs no percent-encoding.
    Fields {
        /// Host name, address, or the folder of a Unix socket.
        host: String,
        /// TCP port, or the number in the Unix socket's name.
        port: u16,
        /// The role that connects.
        user: String,
        /// Its password. `None`: the server asks for none, or it stands in a password file.
        password: Option<Secret>,
        /// The database's name.
        dbname: String,
    },
}

/// TLS to PostgreSQL, with libpq's names and meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server offers it.
    Prefer,
    /// Always; the certificate is not verified.
    Require,
    /// Always; the certificate must come from the authority.
    VerifyCa,
    /// Always; and it must be made out to the host.
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
                    // Rebuilt from the parts that hold no secret; the query may hold one.
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

/// Decides between SQLite and PostgreSQL, and checks that one of them is described, and completely.
pub(super) fn validate(section: file::Database, check: &Check<'_>) -> Result<Database, Error> {
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
    let field = [
        host.as_ref().map(|setting| ("host", &setting.place)),
        port.as_ref().map(|setting| ("port", &setting.place)),
        user.as_ref().map(|setting| ("user", &setting.place)),
        password
            .as_ref()
            .map(|setting| ("password", &setting.place)),
        dbname.as_ref().map(|setting| ("dbname", &setting.place)),
    ]
    .into_iter()
    .flatten()
    .next();

    if let (Some(url), Some((field, place))) = (&url, field) {
        let both = if url.is_variable() {
            "the variable that sets url"
        } else {
            "url"
        };
        return Err(check.wrong(
            ("database", field),
            Some(place),
            format!("it contradicts {both}: the database is named twice"),
            "Keep either url, or host, port, user, password and dbname.",
        ));
    }

    let target = match (&url, field) {
        (None, None) => {
            return sqlite_only(
                None,
                PathBuf::from("data/ciphermq.db"),
                &sslmode,
                &sslrootcert,
                check,
            );
        }
        (Some(url), _) => match kind(url, check)? {
            Kind::Sqlite(path) => {
                return sqlite_only(Some(url), path, &sslmode, &sslrootcert, check);
            }
            Kind::Postgres { sslmode: true } if sslmode.is_some() => {
                return Err(check.wrong(
                    ("database", "sslmode"),
                    sslmode.as_ref().map(|setting| &setting.place),
                    "the url says sslmode too",
                    "Keep one of the two.",
                ));
            }
            Kind::Postgres { .. } => Target::Url(url.value.clone()),
        },
        (None, Some(_)) => fields(host, port, user, password, dbname, check)?,
    };

    let in_url = matches!(target, Target::Url(_));
    let mode = sslmode
        .as_ref()
        .map(|setting| {
            check.choice(
                ("database", "sslmode"),
                Some(setting),
                SslMode::Prefer,
                ssl_mode,
                SSL_MODES,
            )
        })
        .transpose()?;
    let root = sslrootcert
        .as_ref()
        .map(|setting| check.path(("database", "sslrootcert"), Some(setting), ""))
        .transpose()?;
    // Whoever names an authority believes that it is asked. In a URL's own sslmode only the driver
    // looks.
    let verifies =
        matches!(mode, Some(SslMode::VerifyCa | SslMode::VerifyFull)) || (in_url && mode.is_none());
    if root.is_some() && !verifies {
        return Err(check.wrong(
            ("database", "sslrootcert"),
            sslrootcert.as_ref().map(|setting| &setting.place),
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

fn ssl_mode(text: &str) -> Option<SslMode> {
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

/// SQLite, unless somebody asked for TLS to it: a security setting is never ignored in silence.
fn sqlite_only(
    url: Option<&Setting<Secret>>,
    path: PathBuf,
    sslmode: &Option<Setting<Text>>,
    sslrootcert: &Option<Setting<Text>>,
    check: &Check<'_>,
) -> Result<Database, Error> {
    for (field, setting) in [("sslmode", sslmode), ("sslrootcert", sslrootcert)] {
        if let Some(setting) = setting
            // A variable that moves to SQLite what the file has on PostgreSQL leaves the file's TLS
            // behind.
            && (setting.is_variable() || !url.is_some_and(Setting::is_variable))
        {
            return Err(check.wrong(
                ("database", field),
                Some(&setting.place),
                "it is for PostgreSQL, and the database is SQLite",
                "Remove it, or name a PostgreSQL database.",
            ));
        }
    }
    Ok(Database::Sqlite { path })
}

/// What may follow the `?` of a URL, as in libpq; and `options[NAME]`. The driver knows no others,
/// and would log their values.
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
/// Other spellings of them that the driver takes.
const OTHER_SPELLINGS: &[&str] = &["ssl-mode", "ssl-root-cert", "ssl-ca", "ssl-cert", "ssl-key"];

/// The first parameter that is not known, and its value.
fn unknown_parameter(url: &Url) -> Option<(String, String)> {
    let is_known = |name: &str| {
        PARAMETERS.contains(&name)
            || OTHER_SPELLINGS.contains(&name)
            || (name.starts_with("options[") && name.ends_with(']'))
    };
    url.query_pairs()
        .find(|(name, _)| !is_known(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
}

enum Kind {
    Sqlite(PathBuf),
    /// Whether the URL says `sslmode` itself.
    Postgres {
        sslmode: bool,
    },
}

/// Reads the URL. No error shows any part of it, since a mistake may have put the password
/// anywhere.
fn kind(url: &Setting<Secret>, check: &Check<'_>) -> Result<Kind, Error> {
    let wrong = |problem: &str, advice: &str| check.wrong(URL, Some(&url.place), problem, advice);
    let text = url.value.expose().trim();
    if let Some(path) = text
        .strip_prefix("sqlite://")
        .or_else(|| text.strip_prefix("sqlite:"))
    {
        let path = path.strip_suffix("?mode=rwc").unwrap_or(path);
        if path.contains(['?', '#']) {
            return Err(wrong(
                "options after the file's name are not supported",
                "Write sqlite:// and the path of the file, such as sqlite://data/ciphermq.db.",
            ));
        }
        if path.is_empty() || path == ":memory:" {
            return Err(wrong(
                "messages would not outlive the server",
                "Name a file after sqlite://, such as sqlite://data/ciphermq.db.",
            ));
        }
        return Ok(Kind::Sqlite(PathBuf::from(path)));
    }
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(wrong(
            "it is neither sqlite:// nor postgres://",
            "Write sqlite://data/ciphermq.db, or postgres://user:password@host:5432/dbname.",
        ));
    }
    let encode = "Percent-encode special characters in user and password (@ is %40, / is %2F, : is \
                  %3A, # is %23, \
                  ? is %3F, % is %25), or remove url and write host, port, user, password and \
                  dbname.";
    let parsed =
        Url::parse(text).map_err(|error| wrong(&format!("it is no URL: {error}"), encode))?;
    // An unencoded @, / or ? in a password cuts the URL elsewhere than meant. What follows the host
    // never holds an @ then unless that happened.
    if parsed.path().contains('@')
        || parsed.query().is_some_and(|query| query.contains('@'))
        || parsed.fragment().is_some()
    {
        return Err(wrong("it cannot be read for certain", encode));
    }
    if let Some((name, value)) = unknown_parameter(&parsed) {
        // What looks like a parameter may be the end of a password with an `&` in it.
        let is_password_before = parsed
            .query_pairs()
            .take_while(|(key, _)| *key != name)
            .any(|(key, _)| key == "password");
        let is_name = !value.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'));
        return Err(if is_password_before || !is_name {
            wrong(
                "there is a parameter in it that is not known",
                "Remove it, or correct its name; in a value & is %26.",
            )
        } else {
            wrong(
                &format!("there is no parameter `{name}`"),
                &format!("Remove it, or correct its name: {}.", PARAMETERS.join(", ")),
            )
        });
    }
    Ok(Kind::Postgres {
        sslmode: parsed
            .query_pairs()
            .any(|(key, _)| key == "sslmode" || key == "ssl-mode"),
    })
}

fn fields(
    host: Option<Setting<Text>>,
    port: Option<Setting<Quantity>>,
    user: Option<Setting<Text>>,
    password: Option<Setting<Secret>>,
    dbname: Option<Setting<Text>>,
    check: &Check<'_>,
) -> Result<Target, Error> {
    let text = |field, setting: Option<Setting<Text>>| {
        setting
            .map(|setting| check.text(("database", field), &setting))
            .transpose()
    };
    let missing = |field| {
        let advice = format!("Add {field} = \"...\" to [database], or name the database by url.");
        check.wrong(
            ("database", field),
            None,
            "it is missing, and other fields of a PostgreSQL database are there",
            advice,
        )
    };
    let port = check.quantity::<Number, _>(
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
