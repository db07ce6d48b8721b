//! The settings of a connection: the server's address and this client's identity.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::ClientIdFrom;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::blocking::blocking;
use crate::client::Client;
use crate::client_core::ClientCore;
use crate::connector::{Connector, Destination};
use crate::credentials::{CurrentCredentials, Pair, Pem, Source};
use crate::driver::{DriverSettings, Retry};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::keys::{Announcements, Pins, RecipientKeyCache, SIGNED_KEY_LIFETIME};
use crate::revocation::KeptLists;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 5672;

/// The shortest lifetime of signed keys.
const SHORTEST_KEY_LIFETIME: Duration = Duration::from_secs(1);

/// A builder of a connection, created by [`Client::builder`].
///
/// | setting | default |
/// |---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 10 s |
/// | [`ping_interval`](Self::ping_interval) | 10 s |
/// | [`stall_timeout`](Self::stall_timeout) | 15 minutes |
/// | [`reconnect`](Self::reconnect) | pauses from 100 ms to 10 s |
/// | [`retries`](Self::retries), [`retry_timeout`](Self::retry_timeout) | 3 attempts of 10 s |
/// | [`client_id_from`](Self::client_id_from) | the Common Name |
/// | [`signed_key_lifetime`](Self::signed_key_lifetime) | 365 days |
/// | [`key_ttl`](Self::key_ttl) | 5 minutes |
/// | [`pins_in`](Self::pins_in) | in memory |
/// | [`announcements_in`](Self::announcements_in) | in memory |
/// | [`require_lists_newer_than`](Self::require_lists_newer_than) | lists of any age, or none |
/// | [`max_reply_bytes`](Self::max_reply_bytes) | 64 MiB |
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    address: String,
    server_name: Option<String>,
    ca: Option<Pem>,
    identity: Option<Pair>,
    signing: Option<Pair>,
    client_id_from: ClientIdFrom,
    signed_key_lifetime: Duration,
    program: String,
    connect_timeout: Duration,
    key_ttl: Duration,
    pins: Option<PathBuf>,
    announcements: Option<PathBuf>,
    ping_interval: Duration,
    stall_timeout: Duration,
    backoff: Backoff,
    retry: Retry,
    max_reply_bytes: usize,
    max_list_age: Option<Duration>,
}

impl ClientBuilder {
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            server_name: None,
            ca: None,
            identity: None,
            signing: None,
            client_id_from: ClientIdFrom::default(),
            signed_key_lifetime: SIGNED_KEY_LIFETIME,
            program: concat!("ciphermq-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            key_ttl: Duration::from_secs(5 * 60),
            pins: None,
            announcements: None,
            ping_interval: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(15 * 60),
            backoff: Backoff::default(),
            retry: Retry::default(),
            max_reply_bytes: 64 * 1024 * 1024,
            max_list_age: None,
        }
    }

    /// Sets the file of the certificate authority that must have issued the server's certificate,
    /// in PEM. Required.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(path.into()));
        self
    }

    /// Sets the certificate authority as PEM text instead of a file.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Pem::Text(Zeroizing::new(pem.into())));
        self
    }

    /// Sets the files of this client's certificate, with its chain, and of its private key, in PEM.
    /// Required.
    ///
    /// They are read again when they have changed, and so is the authority's: the connection then
    /// moves to the new certificate ([`Client::reload_certificates`]).
    #[must_use]
    pub fn identity_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some(Pair::in_files(certificate, key));
        self
    }

    /// Sets this client's certificate and private key as PEM texts instead of files.
    #[must_use]
    pub fn identity_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some(Pair::in_texts(certificate, key));
        self
    }

    /// Sets the files of a certificate that signs, and of its private key, in PEM, instead of the
    /// one that connects.
    ///
    /// It signs this client's keys and the sessions of what it sends, which count for as long as
    /// this certificate: so it may live longer than one that connects. The same authority must have
    /// issued it for the same client. The files are read again when they have changed.
    #[must_use]
    pub fn signing_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.signing = Some(Pair::in_files(certificate, key));
        self
    }

    /// Sets the certificate that signs and its private key as PEM texts instead of files.
    #[must_use]
    pub fn signing_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.signing = Some(Pair::in_texts(certificate, key));
        self
    }

    /// Sets the fields of certificates that hold client ids, this client's and all others'. They
    /// must be those of the server's configuration. Default: the Common Name.
    #[must_use]
    pub fn client_id_from(mut self, from: ClientIdFrom) -> Self {
        self.client_id_from = from;
        self
    }

    /// Sets how long senders may use the keys that this client signs, at most until the signing
    /// certificate ends; at least a second. Default: 365 days.
    ///
    /// They are signed again when half of it is over. A receiver that is away for longer cannot be
    /// sent to.
    #[must_use]
    pub fn signed_key_lifetime(mut self, lifetime: Duration) -> Self {
        self.signed_key_lifetime = lifetime;
        self
    }

    /// Sets the name that the server's certificate must be valid for. Default: the host of the
    /// address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets the name and version by which the server's log identifies this program.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Self {
        self.program = program.into();
        self
    }

    /// Limits the time for connecting, from the TCP handshake to the server's first reply.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the time without outgoing traffic after which the client sends a ping.
    ///
    /// A connection on which nothing has arrived for this long plus one
    /// [`retry_timeout`](Self::retry_timeout) is given up. The server takes deliveries back after
    /// its `redelivery_timeout` of silence (30 s by default): stay well below it.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Limits the time for which a connection may be silent while an ack on it is unanswered.
    ///
    /// The server never drops an ack that it has read, but lets it wait for its database, for as
    /// long as that is down; and as replies come in order, nothing else can arrive meanwhile, not
    /// even the reply to a ping. A connection that stalls like this is alive: TCP detects a peer or
    /// a network that is really gone (keepalive and user time-out, about 30 s). This limit is for
    /// what TCP cannot see, such as a proxy whose other half is dead.
    ///
    /// While a publish or a request is unanswered, a connection may be silent for the server's
    /// `storage_wait` plus one [`retry_timeout`](Self::retry_timeout), if that is longer than the
    /// usual limit.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Sets the pauses between attempts to reconnect after a loss.
    #[must_use]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the number of attempts, at least 1, after which a command fails.
    #[must_use]
    pub fn retries(mut self, attempts: u32) -> Self {
        self.retry.attempts = attempts.max(1);
        self
    }

    /// Sets the time after which an attempt without an answer ends, with or without a connection.
    #[must_use]
    pub fn retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry.timeout = timeout;
        self
    }

    /// Sets the time for which a receiver's public key is trusted before the server is asked again.
    #[must_use]
    pub fn key_ttl(mut self, ttl: Duration) -> Self {
        self.key_ttl = ttl;
        self
    }

    /// Sets the folder in which the accepted keys of receivers are pinned, one small file per
    /// receiver.
    ///
    /// An older signed key, or an unsigned one after a signed one, is then refused after a restart,
    /// too. So is a revocation list with a lower number than one that was seen before; the last
    /// ones are kept there. The folder must exist. Default: pins in memory, for the client's
    /// lifetime.
    #[must_use]
    pub fn pins_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.pins = Some(folder.into());
        self
    }

    /// Sets the folder in which this client records its own key announcements, as
    /// `<client>_announced.json`, readable by its owner alone.
    ///
    /// Each new signed key then has a higher epoch than every earlier one, whatever the server's
    /// database and the clock say. The folder of its private keys is a good place. The folder must
    /// exist. Default: in memory, for the client's lifetime.
    #[must_use]
    pub fn announcements_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.announcements = Some(folder.into());
        self
    }

    /// Requires a revocation list of every authority that was made at most this long ago.
    ///
    /// A server can withhold new lists. With this setting, connecting, publishing and consuming
    /// fail with `OldRevocationList` then. If the list is one of an intermediate authority above
    /// another client only, publishing to that client fails, and its messages wait
    /// ([`Event::MessagesWait`](crate::Event::MessagesWait)). Default: lists of any age, or none.
    #[must_use]
    pub fn require_lists_newer_than(mut self, age: Duration) -> Self {
        self.max_list_age = Some(age);
        self
    }

    /// Limits the length of a line from the server, in bytes: a bound on the memory that a server
    /// can make this client spend on one message.
    #[must_use]
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.max_reply_bytes = bytes;
        self
    }

    /// Checks the address, the server's name and the durations, without reading a file or using the
    /// network. [`connect`](Self::connect) makes the same checks first.
    ///
    /// # Errors
    ///
    /// [`ConnectErrorKind::BadSetting`], with what to do.
    pub fn check_settings(&self) -> Result<(), ConnectError> {
        self.check().map(drop)
    }

    fn check(&self) -> Result<Destination, ConnectError> {
        if self.ping_interval.is_zero()
            || self.retry.timeout.is_zero()
            || self.connect_timeout.is_zero()
        {
            return Err(ConnectError::new(
                ConnectErrorKind::BadSetting,
                "A time-out or interval of zero was set.",
            )
            .advise("Set durations longer than zero."));
        }
        if self.signed_key_lifetime < SHORTEST_KEY_LIFETIME {
            return Err(ConnectError::new(
                ConnectErrorKind::BadSetting,
                "Signed keys would have ended before anybody could use them.",
            )
            .advise("Set a signed_key_lifetime of at least a second; days are usual."));
        }
        Destination::parse(&self.address, self.server_name.as_deref(), DEFAULT_PORT)
    }

    /// Reads this client's files and checks whether the server would accept them, without
    /// connecting. [`ClientBuilder::connect`] makes the same checks.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], with what to do: files that cannot be read or do not fit, a certificate
    /// that has expired or was not issued by this authority.
    pub fn check_identity(&self) -> Result<(), ConnectError> {
        let credentials = self.source()?.load()?;
        match credentials.flaw(Timestamp::now()) {
            None => Ok(()),
            Some(flaw) => Err(credentials.refused(&flaw)),
        }
    }

    fn source(&self) -> Result<Source, ConnectError> {
        let ca = self.ca.clone().ok_or_else(no_authority)?;
        Ok(Source {
            ca,
            identity: self.identity.clone().ok_or_else(no_certificate)?,
            signing: self.signing.clone(),
            client_id_from: self.client_id_from,
        })
    }

    /// Connects. An error of the first connection is returned at once; later losses are repaired by
    /// reconnecting.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], with what to do: files that cannot be read or do not fit, no server, a
    /// certificate that one side refuses, a server that speaks something else.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let destination = self.check()?;
        let source = self.source()?;
        let max_list_age = self.max_list_age;
        let kept_lists = KeptLists::new(self.pins.clone());
        // Certificates are few and small, but a file may be on a slow disk.
        let credentials =
            blocking(move || CurrentCredentials::load(source, kept_lists, max_list_age)).await?;
        let connector = Connector::new(destination, Arc::new(credentials), self.connect_timeout);
        let settings = DriverSettings {
            retry: self.retry,
            ping_interval: self.ping_interval,
            stall_timeout: self.stall_timeout,
            backoff: self.backoff,
            max_reply_bytes: self.max_reply_bytes,
            program: self.program,
        };
        let keys = RecipientKeyCache::new(Pins::new(self.pins), self.key_ttl);
        let announcements = Announcements::new(self.announcements, self.signed_key_lifetime);
        ClientCore::connect(Arc::new(connector), settings, keys, announcements)
            .await
            .map(Client::new)
    }
}

impl Client {
    /// Creates a builder of a connection to `host:port`. The default port is 5672.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address)
    }
}

fn bad(what: &str, advice: &str) -> ConnectError {
    ConnectError::new(ConnectErrorKind::BadSetting, what).advise(advice)
}

fn no_authority() -> ConnectError {
    bad(
        "No certificate authority was given.",
        "Name the CA's certificate, ca.crt, with `ca_file`.",
    )
}

fn no_certificate() -> ConnectError {
    bad(
        "No client certificate was given.",
        "Name this client's certificate and private key with `identity_files`.",
    )
}
