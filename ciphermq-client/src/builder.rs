//! How to reach the server, and who this client is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::connector::{Connector, Destination, OwnCertificate, Pem, tls};
use crate::driver::{DriverSettings, Retry};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::keys::{Announcements, Pins, RecipientKeyCache};

/// The port that is taken when an address names none.
pub const DEFAULT_PORT: u16 = 5672;

/// Gathers what a connection needs. Made by [`Client::builder`].
///
/// | setting | default |
/// |---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 10 s |
/// | [`ping_interval`](Self::ping_interval) | 10 s |
/// | [`stall_timeout`](Self::stall_timeout) | 15 minutes |
/// | [`reconnect`](Self::reconnect) | pauses from 100 ms to 10 s |
/// | [`retries`](Self::retries), [`retry_timeout`](Self::retry_timeout) | 3 tries of 10 s |
/// | [`key_ttl`](Self::key_ttl) | 5 minutes |
/// | [`pins_in`](Self::pins_in) | in memory |
/// | [`announcements_in`](Self::announcements_in) | in memory |
/// | [`max_reply_bytes`](Self::max_reply_bytes) | 64 MiB |
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    address: String,
    server_name: Option<String>,
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
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
}

impl ClientBuilder {
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            server_name: None,
            ca: None,
            identity: None,
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
        }
    }

    /// The certificate authority that must have issued the server's certificate: a PEM file.
    /// Required.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self {
            ca: Some(Pem::File(path.into())),
            ..self
        }
    }

    /// The same, as the PEM text itself.
    #[must_use]
    pub fn ca_pem(self, pem: impl Into<Vec<u8>>) -> Self {
        Self {
            ca: Some(Pem::Text(Zeroizing::new(pem.into()))),
            ..self
        }
    }

    /// This client's certificate, with its chain, and the private key: PEM files. Required.
    #[must_use]
    pub fn identity_files(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            identity: Some((Pem::File(certificate.into()), Pem::File(key.into()))),
            ..self
        }
    }

    /// The same, as the PEM texts themselves.
    #[must_use]
    pub fn identity_pem(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self {
            identity: Some((
                Pem::Text(Zeroizing::new(certificate.into())),
                Pem::Text(Zeroizing::new(key.into())),
            )),
            ..self
        }
    }

    /// The name that the server's certificate must be for. By default it is the address's host.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self {
            server_name: Some(name.into()),
            ..self
        }
    }

    /// What the server's log calls this program: a name and a version.
    #[must_use]
    pub fn program(self, program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            ..self
        }
    }

    /// How long connecting may take, from the TCP handshake to the server's first reply.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self {
            connect_timeout: timeout,
            ..self
        }
    }

    /// After how much of its own silence the client sends a ping. A connection on which nothing at
    /// all has come for this long and one [`retry_timeout`](Self::retry_timeout) more is given up.
    /// The server takes back what it has delivered after its `redelivery_timeout` of silence (30 s
    /// by default): stay well below it.
    #[must_use]
    pub fn ping_interval(self, interval: Duration) -> Self {
        Self {
            ping_interval: interval,
            ..self
        }
    }

    /// How long a connection may be silent while an ack on it has no answer. The server never drops
    /// an ack that it has read, but lets it wait for its database, however long that is away; and
    /// as replies come in order, nothing else can come meanwhile, no answer to a ping either. A
    /// connection that stalls like this is up: a peer or a network that is really gone is noticed
    /// by TCP (keepalive and user time-out, about 30 s). This limit is for what TCP cannot see,
    /// such as a proxy whose other half is dead.
    ///
    /// While a publish or a request has no answer, a connection may be silent for the server's
    /// `storage_wait` and one [`retry_timeout`](Self::retry_timeout), if that is longer than the
    /// limit without.
    #[must_use]
    pub fn stall_timeout(self, timeout: Duration) -> Self {
        Self {
            stall_timeout: timeout,
            ..self
        }
    }

    /// The pauses between tries to connect again after a loss.
    #[must_use]
    pub fn reconnect(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// How many times a command is tried, at least 1, before it fails.
    #[must_use]
    pub fn retries(self, tries: u32) -> Self {
        Self {
            retry: Retry {
                tries: tries.max(1),
                ..self.retry
            },
            ..self
        }
    }

    /// How long one try may go without an answer, with a connection or without one.
    #[must_use]
    pub fn retry_timeout(self, timeout: Duration) -> Self {
        Self {
            retry: Retry {
                timeout,
                ..self.retry
            },
            ..self
        }
    }

    /// How long a receiver's public key is believed before the server is asked again.
    #[must_use]
    pub fn key_ttl(self, ttl: Duration) -> Self {
        Self {
            key_ttl: ttl,
            ..self
        }
    }

    /// Where it is remembered which keys of receivers were believed, a small file each: an older
    /// signed key, or an unsigned one after a signed one, is then refused after a restart, too.
    /// Default: remembered in memory, as long as the client lives. The folder must exist.
    #[must_use]
    pub fn pins_in(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            pins: Some(folder.into()),
            ..self
        }
    }

    /// Where it is remembered what this client has announced of its own keys,
    /// `<client>_announced.json`, for its owner alone: each new signed key is then above all that
    /// it ever signed, whatever the server's database and the clock say. Beside its private keys is
    /// a good place. Default: remembered in memory, as long as the client lives. The folder must
    /// exist.
    #[must_use]
    pub fn announcements_in(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            announcements: Some(folder.into()),
            ..self
        }
    }

    /// The longest line that is taken from the server, in bytes: a bound on the memory that a
    /// server can make this client spend on one message.
    #[must_use]
    pub fn max_reply_bytes(self, bytes: usize) -> Self {
        Self {
            max_reply_bytes: bytes,
            ..self
        }
    }

    /// Checks what can be checked without looking at a file or at the network: the address, the
    /// server's name, durations. [`connect`](Self::connect) does the same first of all.
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
        Destination::parse(&self.address, self.server_name.as_deref(), DEFAULT_PORT)
    }

    /// Whether the server would let this client in, as far as the client's files tell: reads them,
    /// and asks nobody. [`ClientBuilder::connect`] need not be asked so first.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], with what to do: files that cannot be read or do not fit, a certificate
    /// that has expired or was not issued by this authority.
    pub fn check_identity(&self) -> Result<(), ConnectError> {
        let ca = self.ca.as_ref().ok_or_else(no_authority)?;
        let (certificate, key) = self.identity.as_ref().ok_or_else(no_certificate)?;
        let credentials = tls::credentials(ca, certificate, key)?;
        match credentials
            .authority
            .flaw(&credentials.chain, Timestamp::now())
        {
            None => Ok(()),
            Some(flaw) => Err(ConnectError::new(
                ConnectErrorKind::CertificateRefused,
                format!("The server would refuse this client's certificate: it {flaw}."),
            )
            .advise(flaw.advice())),
        }
    }

    /// Connects. Trouble with the first connection is reported at once; later losses mend
    /// themselves.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], with what to do: files that cannot be read or do not fit, no server, a
    /// certificate that one side refuses, a server that speaks something else.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let destination = self.check()?;
        let ca = self.ca.ok_or_else(no_authority)?;
        let (certificate, key) = self.identity.ok_or_else(no_certificate)?;
        // Certificates are few and small, but a file may stand on a disk that is far away.
        let credentials =
            tokio::task::spawn_blocking(move || tls::credentials(&ca, &certificate, &key))
                .await
                .map_err(|error| {
                    ConnectError::new(ConnectErrorKind::Closed, error.to_string())
                })??;
        let own = OwnCertificate {
            chain: credentials.chain,
            authority: credentials.authority.clone(),
            client_id: credentials.client_id,
        };
        let connector = Connector::new(
            destination,
            Arc::new(credentials.tls),
            own,
            self.connect_timeout,
        );
        let settings = DriverSettings {
            retry: self.retry,
            ping_interval: self.ping_interval,
            stall_timeout: self.stall_timeout,
            backoff: self.backoff,
            max_reply_bytes: self.max_reply_bytes,
            program: self.program,
        };
        let keys =
            RecipientKeyCache::new(credentials.authority, Pins::new(self.pins), self.key_ttl);
        let identity = credentials.identity.map(Arc::new);
        let announcements = Announcements::new(self.announcements);
        Client::start(Arc::new(connector), settings, identity, keys, announcements).await
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
