//! Connection options: the server and this client's identity, from flags, environment,
//! configuration file and defaults.
//!
//! A flag overrides the environment variable, the variable overrides the file that `--config`
//! names, and the file overrides the default. The defaults fit what `keygen` writes, so that the
//! README's examples need no options.
//!
//! The variables are read here rather than by clap: an empty one counts as not set, and an error
//! names the variable in place of the flag.

mod file;
mod options;
mod private_keys;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::text::shown;
use ciphermq_client::{Client, ClientBuilder, ClientIdFrom, Keyring, Timestamp, keys};
use ciphermq_files::{Access, create_folder, parent};
use clap::Args;

use self::file::{File, OneOrMore};
use self::options::{
    at_least_one, bad_value, checked_paths, parsed, parsed_in_file, text, variable,
};
use self::private_keys::is_same_client;
use crate::console;
use crate::exit::{Exit, Failure};
use crate::file_roles::FileRoles;
use crate::value_parsers::{client_id_from, duration, lifetime};

/// The default of `--server`.
const SERVER: &str = "localhost:5672";
/// The default of `--ca`.
const CA: &str = "certs/ca.crt";
/// The default of `--private-key` for the README's receiver. That of other clients is beside their
/// certificate.
const PRIVATE_KEY: &str = "certs/receiver_private.key";

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
    /// This client's certificate, which states the client id [env: CIPHERMQ_CERT] [default: that of
    /// sender_1 or receiver_1 under certs/]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The certificate's private key [env: CIPHERMQ_KEY] [default: the .key beside --cert]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where certificates state client ids, as the server's client_id_from: common_name, dns, uri,
    /// or several with commas, of which the first that a certificate has counts [env:
    /// CIPHERMQ_CLIENT_ID_FROM] [default: common_name]
    #[arg(long, value_name = "FIELDS", value_parser = client_id_from)]
    client_id_from: Option<ClientIdFrom>,
    /// A certificate of the same client that signs its keys and what it sends, instead of --cert;
    /// it may live longer [env: CIPHERMQ_SIGNING_CERT]
    #[arg(long, value_name = "FILE")]
    signing_cert: Option<PathBuf>,
    /// The private key of --signing-cert [env: CIPHERMQ_SIGNING_KEY] [default: the .key beside
    /// --signing-cert]
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// How long senders may use the keys that this client signs, such as 90d, at most until the
    /// signing certificate ends [env: CIPHERMQ_SIGNED_KEY_LIFETIME] [default: 365d]
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    signed_key_lifetime: Option<Duration>,
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
    /// Accept certificates of other clients only while the revocation list of each authority above
    /// them was made at most this long ago, such as 24h [env: CIPHERMQ_REQUIRE_CRL_NEWER_THAN]
    /// [default: a list of any age, or none]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    require_crl_newer_than: Option<Duration>,
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

/// The options of a command that opens messages, or needs the keys that do.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReceiverArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    private_key: PrivateKeyArgs,
}

impl ReceiverArgs {
    /// Reads the private keys, then connects.
    ///
    /// # Errors
    ///
    /// [`Failure`] of [`ConnectionArgs::resolve`], [`ConnectionSettings::keyring`] and
    /// [`ConnectionSettings::connect`].
    pub(crate) async fn connect(self) -> Result<(Client, Keyring), Failure> {
        let settings = self
            .connection
            .resolve(Identity::Receiver, self.private_key)?;
        let keyring = settings.keyring()?;
        Ok((settings.connect().await?, keyring))
    }
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
    require_crl_newer_than: Option<Duration>,
    client_id_from: ClientIdFrom,
    /// The certificate that signs, and its private key.
    signing: Option<(PathBuf, PathBuf)>,
    signed_key_lifetime: Option<Duration>,
}

impl ConnectionArgs {
    /// Connects as this client, without the private key that opens messages.
    ///
    /// # Errors
    ///
    /// [`Failure`] of [`resolve`](Self::resolve) and of [`ConnectionSettings::connect`].
    pub(crate) async fn connect(self, identity: Identity) -> Result<Client, Failure> {
        let settings = self.resolve(identity, PrivateKeyArgs::default())?;
        settings.connect().await
    }

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
        let max_list_age = parsed(&env, "CIPHERMQ_REQUIRE_CRL_NEWER_THAN", duration)?;
        let list_age_in_file = file.require_crl_newer_than;
        let max_list_age_in_file =
            parsed_in_file(list_age_in_file, "require-crl-newer-than", duration)?;
        let signed_key_lifetime = parsed(&env, "CIPHERMQ_SIGNED_KEY_LIFETIME", lifetime)?;
        let lifetime_in_file = file.signed_key_lifetime;
        let lifetime_in_file = parsed_in_file(lifetime_in_file, "signed-key-lifetime", lifetime)?;
        let from = parsed(&env, "CIPHERMQ_CLIENT_ID_FROM", client_id_from)?;
        let from_in_file = file.client_id_from.map(|fields| fields.joined());
        let from_in_file = parsed_in_file(from_in_file, "client-id-from", client_id_from)?;
        let from = self.client_id_from.or(from).or(from_in_file);
        let from = from.unwrap_or_default();
        let signing_cert = path("signing-cert", self.signing_cert, file.signing_cert)?;
        let signing_key = path("signing-key", self.signing_key, file.signing_key)?;
        let signing = match (signing_cert, signing_key) {
            (Some(cert), key) => {
                let key = key.unwrap_or_else(|| cert.with_extension("key"));
                Some((cert, key))
            }
            (None, Some(_)) => {
                return Err(Failure::usage(
                    "There is a --signing-key, and no --signing-cert.",
                    "Name the certificate that it belongs to, or leave it out.",
                ));
            }
            (None, None) => None,
        };
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
            newest.is_none() && !is_same_client(&cert, identity.certificate().as_ref(), from);
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
            require_crl_newer_than: self
                .require_crl_newer_than
                .or(max_list_age)
                .or(max_list_age_in_file),
            client_id_from: from,
            signing,
            signed_key_lifetime: self
                .signed_key_lifetime
                .or(signed_key_lifetime)
                .or(lifetime_in_file),
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
        for end in client.certificate_ends() {
            if let Some(trouble) = end.trouble(Timestamp::now()) {
                console::warning(format_args!("{trouble}. {}", end.advice()));
            }
        }
        Ok(client)
    }

    /// A builder with all settings except the folder of pins.
    fn builder(&self) -> ClientBuilder {
        let mut builder = Client::builder(&self.server)
            .program(concat!("ciphermq-cli ", env!("CARGO_PKG_VERSION")))
            .ca_file(&self.ca)
            .identity_files(&self.cert, &self.key)
            .client_id_from(self.client_id_from)
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
        if let Some((cert, key)) = &self.signing {
            builder = builder.signing_files(cert, key);
        }
        if let Some(lifetime) = self.signed_key_lifetime {
            builder = builder.signed_key_lifetime(lifetime);
        }
        if let Some(age) = self.require_crl_newer_than {
            builder = builder.require_lists_newer_than(age);
        }
        builder
    }

    /// The files that these settings name, and the keys, certificates and pins beside them, which
    /// must not be overwritten.
    pub(crate) fn file_roles(&self) -> FileRoles {
        let mut files = FileRoles::default();
        files.add("the certificate of the authority", &self.ca);
        files.add("this client's certificate", &self.cert);
        files.add("this client's private key", &self.key);
        if let Some((cert, key)) = &self.signing {
            files.add("the certificate that signs", cert);
            files.add("the private key of the certificate that signs", key);
        }
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

    /// The folder of the certificates, and of the records of receivers' public keys.
    pub(crate) fn certificates_folder(&self) -> &Path {
        parent(&self.ca)
    }
}

#[cfg(test)]
mod tests;
