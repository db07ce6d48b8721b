//! Connection options: the server and this client's identity, from flags, environment,
//! configuration file and defaults.
//!
//! A flag overrides the environment variable, the variable overrides the file that `--config`
//! names, and the file overrides the default. The defaults fit what `keygen` writes, so that the
//! README's examples need no options.
//!
//! The variables are read here rather than by clap: an empty one counts as not set, and an error
//! names the variable in place of the flag.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::text::{command_line_error, holds_key, shown};
use ciphermq_client::{Client, ClientBuilder, ClientId, Keyring, PrivateKey, Timestamp, keys};
use ciphermq_files::{Access, advice, create_folder, is_same_file, parent};
use clap::Args;
use serde::Deserialize;

use crate::console;
use crate::exit::{Exit, Failure};
use crate::file_roles::FileRoles;
use crate::value_parsers::duration;

/// The default of `--server`.
const SERVER: &str = "localhost:5672";
/// The default of `--ca`.
const CA: &str = "certs/ca.crt";
/// The default of `--private-key` for the README's receiver. That of other clients is beside their
/// certificate.
const PRIVATE_KEY: &str = "certs/receiver_private.key";
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The default identity of a command: one of the README's two clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// `certs/sender_1`
    Sender,
    /// `certs/receiver_1`
    Receiver,
}

impl Identity {
    fn certificate(self) -> &'static str {
        match self {
            Self::Sender => "certs/sender_1/client.crt",
            Self::Receiver => "certs/receiver_1/client.crt",
        }
    }
}

/// The connection options, as given on the command line.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Connection options (flag, then environment variable, then --config file, \
                         then default)"
)]
pub(crate) struct ConnectionArgs {
    /// The server [env: CIPHERMQ_SERVER] [default: localhost:5672]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// The name that the server's certificate must have [default: the host of --server]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// The certificate of the authority that issued the server's certificate [env: CIPHERMQ_CA]
    /// [default: certs/ca.crt]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// This client's certificate; its Common Name is the client id [env: CIPHERMQ_CERT] [default:
    /// that of sender_1 or receiver_1 under certs/]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The certificate's private key [env: CIPHERMQ_KEY] [default: the .key beside --cert]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The folder that records the verified keys of receivers, one small file each, so that older
    /// keys are refused later; created if it does not exist [env: CIPHERMQ_PINS] [default: the
    /// folder of --ca]
    #[arg(long, value_name = "FOLDER")]
    pins: Option<PathBuf>,
    /// The time limit for connecting [env: CIPHERMQ_CONNECT_TIMEOUT] [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    connect_timeout: Option<Duration>,
    /// The number of tries of a publish or an ack [env: CIPHERMQ_RETRIES] [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    retries: Option<u32>,
    /// The time limit for the answer to one try [env: CIPHERMQ_RETRY_TIMEOUT] [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    retry_timeout: Option<Duration>,
    /// A TOML file with these options under the same names: server = "...", ca = "...",
    /// private-key = "..." [env: CIPHERMQ_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The private keys, as given on the command line.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PrivateKeyArgs {
    /// The private key that opens messages; keys that `keygen rotate` has kept beside it are found
    /// automatically. May be repeated: the public key of the first one is registered, the others
    /// open messages sealed for older keys [env: CIPHERMQ_PRIVATE_KEY] [default:
    /// certs/receiver_private.key; with another client's --cert, the receiver_private.key beside
    /// that]
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Connection options (flag, then environment variable, then --config file, \
                        then default)"
    )]
    private_key: Vec<PathBuf>,
}

/// The client's configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    server: Option<String>,
    #[serde(alias = "server_name")]
    server_name: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    pins: Option<PathBuf>,
    #[serde(alias = "private_key")]
    private_key: Option<OneOrMore>,
    #[serde(alias = "connect_timeout")]
    connect_timeout: Option<f64>,
    retries: Option<u32>,
    #[serde(alias = "retry_timeout")]
    retry_timeout: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a path, or a list of paths, in double quotes"
)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

/// The resolved and validated connection options.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnectionSettings {
    server: String,
    server_name: Option<String>,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    /// The configuration file, if there is one.
    config: Option<PathBuf>,
    /// The folder of pins; `None` for the folder of `ca`.
    pins: Option<PathBuf>,
    /// The current private key, and older ones.
    private_keys: (PathBuf, Vec<PathBuf>),
    /// Whether no private key is named, and the default one belongs to another client.
    needs_own_private_key: bool,
    /// Whether a private key is named explicitly.
    is_private_key_named: bool,
    connect_timeout: Option<Duration>,
    retries: Option<u32>,
    retry_timeout: Option<Duration>,
}

impl ConnectionArgs {
    /// Resolves every option.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage if a value, the configuration file or a variable cannot be used.
    pub(crate) fn resolve(
        self,
        identity: Identity,
        private_key: PrivateKeyArgs,
    ) -> Result<ConnectionSettings, Failure> {
        self.resolve_with(identity, private_key, |name| std::env::var_os(name))
    }

    fn resolve_with(
        self,
        identity: Identity,
        private_key: PrivateKeyArgs,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<ConnectionSettings, Failure> {
        // An empty variable counts as not set: container tools pass unset values as empty ones.
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let path = |name: &str, flag: Option<PathBuf>, in_file: Option<PathBuf>| {
            let paths = [flag, env(&variable(name)).map(PathBuf::from), in_file];
            checked_paths(name, paths.map(Vec::from_iter)).map(|paths| paths.into_iter().next())
        };
        let config = path("config", self.config, None)?;
        let file = match &config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let cert = path("cert", self.cert, file.cert)?;
        let cert = cert.unwrap_or_else(|| identity.certificate().into());
        let key = path("key", self.key, file.key)?;
        let key = key.unwrap_or_else(|| cert.with_extension("key"));
        let duration_in_file = |value: Option<f64>, name: &str| {
            value
                .map(|seconds| duration(&seconds.to_string()))
                .transpose()
                .map_err(|error| bad_value(name, "the configuration file", &error))
        };
        let connect_timeout = parsed(&env, "CIPHERMQ_CONNECT_TIMEOUT", duration)?;
        let retry_timeout = parsed(&env, "CIPHERMQ_RETRY_TIMEOUT", duration)?;
        let retries = parsed(&env, "CIPHERMQ_RETRIES", at_least_one)?;
        if file.retries == Some(0) {
            return Err(bad_value(
                "retries",
                "the configuration file",
                "0 is less than 1",
            ));
        }
        let in_file = match file.private_key {
            Some(OneOrMore::One(path)) => vec![path],
            Some(OneOrMore::More(paths)) if paths.is_empty() => {
                return Err(bad_value(
                    "private-key",
                    "the configuration file",
                    "the list is empty",
                ));
            }
            Some(OneOrMore::More(paths)) => paths,
            None => Vec::new(),
        };
        let in_env = env(&variable("private-key")).map(PathBuf::from);
        let layers = [private_key.private_key, Vec::from_iter(in_env), in_file];
        let mut keys = checked_paths("private-key", layers)?.into_iter();
        let newest = keys.next();
        let is_private_key_named = newest.is_some();
        let needs_own_private_key =
            newest.is_none() && !is_same_client(&cert, identity.certificate().as_ref());
        let newest = newest.unwrap_or_else(|| {
            if needs_own_private_key {
                cert.with_file_name(keys::PRIVATE_KEY_FILE)
            } else {
                PRIVATE_KEY.into()
            }
        });
        let private_keys = (newest, keys.collect());
        let settings = ConnectionSettings {
            server: self
                .server
                .or(text(&env, "CIPHERMQ_SERVER")?)
                .or(file.server)
                .unwrap_or_else(|| SERVER.to_owned()),
            server_name: self.server_name.or(file.server_name),
            ca: path("ca", self.ca, file.ca)?.unwrap_or_else(|| CA.into()),
            cert,
            key,
            config,
            pins: path("pins", self.pins, file.pins)?,
            private_keys,
            needs_own_private_key,
            is_private_key_named,
            connect_timeout: self
                .connect_timeout
                .or(connect_timeout)
                .or(duration_in_file(file.connect_timeout, "connect-timeout")?),
            retries: self.retries.or(retries).or(file.retries),
            retry_timeout: self
                .retry_timeout
                .or(retry_timeout)
                .or(duration_in_file(file.retry_timeout, "retry-timeout")?),
        };
        // Checked before files are opened and created.
        let checked = settings.builder().check_settings();
        checked.map_err(|error| Failure::from(error).with_exit(Exit::Usage))?;
        Ok(settings)
    }
}

impl ConnectionSettings {
    /// Connects to the server, and warns if the authority's certificate is out of date.
    ///
    /// # Errors
    ///
    /// [`Failure`] with the SDK's error, or if the folder of pins cannot be created.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let mut builder = self.builder();
        if let Some(folder) = &self.pins {
            create_folder(folder, Access::Private).map_err(|error| {
                Failure::new(
                    format!("The folder {} cannot be created: {error}.", shown(folder)),
                    "With --pins, choose one where you may write: the verified keys of receivers \
                     are recorded there.",
                )
            })?;
            builder = builder.pins_in(folder);
        } else if self.certificates_folder().is_dir() {
            builder = builder.pins_in(self.certificates_folder());
        }
        let client = builder.connect().await?;
        for (authority, trouble) in client.authority().out_of_date(Timestamp::now()) {
            console::warning(format_args!(
                "The certificate of the authority {} in {} {trouble}. It is trusted here all the \
                 same, because it was named; other programs (OpenSSL) refuse everything that it has \
                 issued. Check the clock; if it is right, make a new authority, and new \
                 certificates of it for the server and all clients",
                authority.subject,
                shown(&self.ca)
            ));
        }
        Ok(client)
    }

    /// A builder with all settings except the folder of pins.
    fn builder(&self) -> ClientBuilder {
        let mut builder = Client::builder(&self.server)
            .program(concat!("ciphermq-cli ", env!("CARGO_PKG_VERSION")))
            .ca_file(&self.ca)
            .identity_files(&self.cert, &self.key)
            .announcements_in(self.keys_folder());
        if let Some(name) = &self.server_name {
            builder = builder.server_name(name);
        }
        if let Some(timeout) = self.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(retries) = self.retries {
            builder = builder.retries(retries);
        }
        if let Some(timeout) = self.retry_timeout {
            builder = builder.retry_timeout(timeout);
        }
        builder
    }

    /// Reads the private keys. The first one is the current one; the X-Wing key beside it, and
    /// older keys that `keygen rotate` has kept there, belong to it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if a file cannot be read, is not private, or holds no key; or if the key was not
    /// named explicitly and belongs to another client.
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        let (newest, older) = &self.private_keys;
        if self.needs_own_private_key && !newest.exists() {
            return Err(self.no_private_key(newest));
        }
        let keyring = keys::read_keyring(newest).map_err(key_file_failure)?;
        self.check_owner(&keyring)?;
        older.iter().try_fold(keyring, |keyring, path| {
            let key = read_private_key(path)?;
            self.check_older(path, &key);
            Ok(keyring.with_older(key))
        })
    }

    /// The files that these settings name, and the keys, certificates and pins beside them, which
    /// must not be overwritten.
    pub(crate) fn file_roles(&self) -> FileRoles {
        let mut files = FileRoles::default();
        files.add("the certificate of the authority", &self.ca);
        files.add("this client's certificate", &self.cert);
        files.add("this client's private key", &self.key);
        let (newest, older) = &self.private_keys;
        for path in std::iter::once(newest).chain(older) {
            files.add("a private key that opens messages", path);
        }
        if let Some(path) = &self.config {
            files.add("the configuration file", path);
        }
        let mut folders = vec![
            self.certificates_folder(),
            parent(&self.cert),
            parent(newest),
        ];
        folders.extend(self.pins.as_deref());
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            files.add_keys_in(folder);
        }
        files
    }

    /// The folder of the private keys, and of the records of their announcements.
    fn keys_folder(&self) -> &Path {
        parent(&self.private_keys.0)
    }

    /// Refuses another client's private key: clients that share a private key can read each other's
    /// messages. Only warns if the key was named explicitly, or is this client's as well.
    fn check_owner(&self, keyring: &Keyring) -> Result<(), Failure> {
        let (newest, _) = &self.private_keys;
        let Some(client) = keys::client_id_of(&self.cert) else {
            return Ok(());
        };
        let private_key = shown(newest);
        let (others, is_own) = self.other_owners(&client, keyring);
        let may_share = is_own || self.is_private_key_named;
        match others {
            None => Ok(()),
            Some(Others::Clients(owners)) if may_share => {
                warn_shared(newest, &owners);
                Ok(())
            }
            Some(Others::Clients(owners)) => Err(Failure::new(
                format!(
                    "The private key {private_key} belongs to {}, and the certificate {} to the \
                     client {client}: each of them could read what is sent to the others.",
                    named(&owners),
                    shown(&self.cert)
                ),
                format!(
                    "Make a key for {client} in a folder of its own: ciphermq-cli keygen --out \
                     FOLDER, and name it: --private-key FOLDER/{}. To share the key on purpose, \
                     name it: --private-key {private_key}",
                    keys::PRIVATE_KEY_FILE
                ),
            )),
            Some(Others::Unreadable(record)) => {
                let doubt = format!(
                    "The private key {private_key} may be another client's: the record {} of what \
                     that has announced cannot be read",
                    shown(&record)
                );
                if may_share {
                    console::warning(doubt);
                    return Ok(());
                }
                Err(Failure::new(
                    format!("{doubt}."),
                    format!(
                        "Restore the record, or remove it if that client no longer exists. If the \
                         key is {client}'s, name it: --private-key {private_key}"
                    ),
                ))
            }
        }
    }

    /// The other owners of the private key, as far as the local files show, and whether this client
    /// is one of them, too.
    ///
    /// Whoever shares a key announces it, so this client's own record shows only that it has used
    /// the key, and hides no other owner.
    fn other_owners(&self, client: &ClientId, keyring: &Keyring) -> (Option<Others>, bool) {
        let (newest, _) = &self.private_keys;
        let default_cert = Path::new(Identity::Receiver.certificate());
        let mut owners = keys::announced_by(self.keys_folder(), keyring);
        let mut is_own = owners.remove(client);
        if is_same_file(newest, PRIVATE_KEY.as_ref()) {
            match keys::client_id_of(default_cert) {
                // The owner of the default key is known without an announcement.
                Some(owner) if owner != *client => {
                    owners.insert(owner);
                }
                // A second certificate confirms the owner: the default one was not replaced by
                // another client's.
                Some(_) if !is_same_file(&self.cert, default_cert) => is_own = true,
                _ => {}
            }
        }
        let others = if owners.is_empty() {
            keys::unreadable_announcement(self.keys_folder(), client).map(Others::Unreadable)
        } else {
            Some(Others::Clients(owners))
        };
        (others, is_own)
    }

    /// Warns if an older private key, which is always named, is another client's.
    fn check_older(&self, path: &Path, key: &PrivateKey) {
        let Some(client) = keys::client_id_of(&self.cert) else {
            return;
        };
        let mut owners = keys::announced_by(parent(path), &Keyring::new(key.clone()));
        owners.remove(&client);
        if !owners.is_empty() {
            warn_shared(path, &owners);
        }
    }

    /// The error if this client has no private key. Another client's is not used instead, because
    /// clients that share a private key can read each other's messages.
    fn no_private_key(&self, expected: &Path) -> Failure {
        let identity = Client::builder(&self.server)
            .ca_file(&self.ca)
            .identity_files(&self.cert, &self.key);
        // The certificate names the client, so its errors are reported first.
        if let Err(error) = identity.check_identity() {
            return error.into();
        }
        let folder = expected
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        Failure::new(
            format!(
                "There is no private key for the client of {}: {} does not exist.",
                shown(&self.cert),
                shown(expected)
            ),
            format!(
                "Make one: ciphermq-cli keygen --out {}\nIf another file is this client's, name it \
                 with --private-key. {PRIVATE_KEY} is not used by default, because it is another \
                 client's.",
                shown(folder.unwrap_or(Path::new(".")))
            ),
        )
    }

    /// The folder of the certificates, and of the records of receivers' public keys.
    pub(crate) fn certificates_folder(&self) -> &Path {
        parent(&self.ca)
    }
}

/// Other clients that a private key belongs to.
enum Others {
    /// These clients.
    Clients(BTreeSet<ClientId>),
    /// Perhaps a client whose record cannot be read.
    Unreadable(PathBuf),
}

fn warn_shared(private_key: &Path, owners: &BTreeSet<ClientId>) {
    console::warning(format_args!(
        "The private key {} is also that of {}: each of them can read what is sent to the others",
        shown(private_key),
        named(owners)
    ));
}

/// Names clients in a sentence.
fn named(clients: &BTreeSet<ClientId>) -> String {
    let names: Vec<&str> = clients.iter().map(AsRef::as_ref).collect();
    match names.len() {
        1 => format!("the client {}", names.concat()),
        _ => format!("the clients {}", names.join(", ")),
    }
}

/// Whether two files are certificates of the same client: the same path, or the same Common Name.
fn is_same_client(one: &Path, other: &Path) -> bool {
    if one == other {
        return true;
    }
    let client = keys::client_id_of(one);
    client.is_some() && client == keys::client_id_of(other)
}

fn read_private_key(path: &Path) -> Result<PrivateKey, Failure> {
    keys::read_private(path).map_err(key_file_failure)
}

/// Converts an error of a key file, with its advice.
pub(crate) fn key_file_failure(error: keys::KeyFileError) -> Failure {
    Failure::new(sentence(&error.to_string()), sentence(&error.advice()))
}

/// Converts a library's lower-case text to a sentence. Paths and commands stay as they are.
pub(crate) fn sentence(text: &str) -> String {
    let mut sentence = text.to_owned();
    let first_word = text.split(' ').next().unwrap_or_default();
    if !first_word.contains(['/', '.', '_'])
        && let Some(first) = sentence.get_mut(..1)
    {
        first.make_ascii_uppercase();
    }
    if !text.starts_with("run: ") && !sentence.ends_with(['.', '!', '?', ':', '`']) {
        sentence.push('.');
    }
    sentence
}

impl File {
    fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &io::Error| {
            if error.kind() == io::ErrorKind::IsADirectory {
                return Failure::usage(
                    format!("The configuration file {} is a folder.", shown(path)),
                    "Name the file in it.",
                );
            }
            Failure::usage(
                format!(
                    "The configuration file {} cannot be read: {error}.",
                    shown(path)
                ),
                advice(error).unwrap_or("Check its path and that it is a readable text file."),
            )
        };
        let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_CONFIG_BYTES), &mut text)
            .map_err(|error| unreadable(&error))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.bytes()
                    .take(span.start)
                    .filter(|&byte| byte == b'\n')
                    .count()
                    + 1
            });
            Failure::usage(
                format!(
                    "The configuration file {}, line {line}: {}.",
                    shown(path),
                    in_plain_words(error.message())
                ),
                "It may have the connection options of `ciphermq-cli`, named like the flags: server, \
                 server-name, ca, cert, key, pins, private-key, connect-timeout, retries, \
                 retry-timeout.",
            )
        })
    }
}

/// The environment variable of an option.
fn variable(option: &str) -> String {
    format!("CIPHERMQ_{}", option.replace('-', "_").to_uppercase())
}

/// Returns the paths of the first source that has any: flags, environment, configuration file.
///
/// # Errors
///
/// [`Failure`] of usage if one of them is empty, or is a key instead of its path.
fn checked_paths(option: &str, sources: [Vec<PathBuf>; 3]) -> Result<Vec<PathBuf>, Failure> {
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

fn text(env: &impl Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, Failure> {
    let text = env(name).map(OsString::into_string).transpose();
    text.map_err(|_| bad_value(name, "the environment", "it is not UTF-8"))
}

fn parsed<T>(
    env: &impl Fn(&str) -> Option<OsString>,
    name: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    text(env, name)?
        .map(|value| parse(&value))
        .transpose()
        .map_err(|error| bad_value(name, "the environment", &error))
}

fn bad_value(name: &str, place: &str, error: &str) -> Failure {
    Failure::usage(
        format!("{name} in {place} cannot be used: {error}."),
        "Correct it, or give the option as a flag.",
    )
}

fn at_least_one(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("`{}` is not {RETRIES}", shown(text)))
}

/// The values of `retries`.
const RETRIES: &str = "a whole number from 1 to 4294967295";

/// Puts an error of the TOML parser, which is written for programmers, in plain words. It leaves
/// the value out, which may be secret.
fn in_plain_words(message: &str) -> String {
    let is_of_value = message.starts_with("invalid type") || message.starts_with("invalid value");
    let expected = message.strip_prefix("expected ").or_else(|| {
        message
            .rsplit_once(", expected ")
            .map(|(_, expected)| expected)
    });
    match expected {
        Some(expected) if is_of_value || message.starts_with("expected ") => {
            let expected = match expected {
                "u32" => RETRIES,
                "f64" => "a number of seconds",
                "path string" => "a path in double quotes",
                "a string" => "text in double quotes",
                other => other,
            };
            format!("the value must be {expected}")
        }
        _ => command_line_error(message),
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
