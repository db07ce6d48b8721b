//! The lifecycle of the server: start, run, stop.

use std::sync::Arc;
use std::time::Duration;

use crate::at_rest::{AtRestCipher, KeyError};
use crate::broker::{self, Blocks, Broker, CommitDispatcher, Dispatcher, Topology};
use crate::config::{self, Config, Database};
use crate::keys::{self, KeyDirectory};
use crate::quota::Ledger;
use crate::reload::{self, Reloader};
use crate::signals::Signals;
use crate::store::writer::{self, WriterThread};
use crate::store::{self, Store};
use crate::tls::current::{Credentials, CurrentTls};
use crate::tls::ends::{self, EndReport, EndWarnings};
use crate::{listener, stop, tls};
use ciphermq_logging::Handle;
use jiff::Timestamp;

/// The reason why the server did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key that seals public keys cannot be used.
    #[error(transparent)]
    AtRestKey(#[from] KeyError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] listener::BindError),
    /// The operating system provides no thread.
    #[error(
        "cannot start the thread that writes the database: {0}\nAllow the server's user more \
         processes and open files \
         (ulimit -u, ulimit -n)."
    )]
    Thread(#[source] std::io::Error),
}

/// The certificates and the address of a server that has created no file yet.
pub struct Prepared {
    credentials: Credentials,
    bound: listener::Bound,
}

/// Reads the certificates and binds the address.
///
/// It creates no file and writes no log, so that a server that is started twice, or without its
/// certificates, leaves nothing behind. Clients cannot connect yet.
///
/// # Errors
///
/// [`Error::Tls`] and [`Error::Bind`], with what to do about it.
pub async fn prepare(config: &Config) -> Result<Prepared, Error> {
    Ok(Prepared {
        credentials: tls::load(&config.tls)?,
        bound: listener::bind(&config.server.address).await?,
    })
}

/// Checks the certificates and the at-rest key, without binding or creating anything. Returns when
/// the certificates end.
///
/// # Errors
///
/// [`Error::Tls`] and [`Error::AtRestKey`], with what to do about it.
pub fn check(config: &Config) -> Result<EndReport, Error> {
    let credentials = tls::load(&config.tls)?;
    config.encryption.key.check()?;
    Ok(ends::report(credentials.own(), Timestamp::now()))
}

/// Runs until a signal stops it, or until the database cannot be used any more.
///
/// # Errors
///
/// [`Error`], with what to do about it.
pub async fn run(
    config: Config,
    prepared: Prepared,
    logs: Handle,
    signals: Signals,
) -> Result<(), Error> {
    run_with(config, prepared, logs, signals, |store| store).await
}

/// Runs like [`run`], with a store that `between` may replace: fault tests insert one that breaks
/// its promises, to check that they detect it.
///
/// # Errors
///
/// [`Error`], with what to do about it.
pub async fn run_with(
    config: Config,
    prepared: Prepared,
    logs: Handle,
    mut signals: Signals,
    between: impl FnOnce(Store) -> Store,
) -> Result<(), Error> {
    for warning in &config.warnings {
        tracing::warn!(target: config::WARNINGS, "{warning}");
    }
    let started_with = config.clone();
    let Prepared { credentials, bound } = prepared;
    let tls = Arc::new(CurrentTls::new(credentials));
    let end_warnings = EndWarnings::new(tls.subscribe());
    let record = config.encryption.adoption_record();
    let older_rows = config.encryption.older_rows;
    let at_rest_cipher =
        AtRestCipher::new(config.encryption.key.load()?, config.encryption.algorithm);
    let limits = config.limits;

    tracing::info!("Opening the database: {}", config.database);
    let thread = WriterThread::start().map_err(Error::Thread)?;
    let settings = store_settings(config.database, limits.disk_reserve);
    let opening = thread.runtime().spawn({
        let at_rest_cipher = at_rest_cipher.clone();
        async move {
            let mut store = store::open(&settings).await?;
            keys::adopt(&mut store, &at_rest_cipher, &record, older_rows).await?;
            Ok(store)
        }
    });
    // A database may take long to answer, or to be adopted.
    let mut reload_later = false;
    let opened = tokio::select! {
        opened = opening => opened,
        () = signals.stop(&logs, || reload_later = true) => return Ok(()),
    };
    let store = between(opened.unwrap_or_else(|panic| Err(writer_failed(&panic)))?);
    // Much may wait: a stop need not wait for the count.
    let held = tokio::select! {
        held = store.reader.held() => held?,
        () = signals.stop(&logs, || reload_later = true) => return Ok(()),
    };
    let ledger = Arc::new(Ledger::new(config.quotas, held));
    let topology = Arc::new(Topology::new(store.reader.topology().await?));
    let blocks = Blocks::new(store.reader.blocked_clients().await?);
    let reader = Arc::clone(&store.reader);
    let dispatcher = Dispatcher::new(&limits, topology, blocks, reader);
    let observer = Arc::new(CommitDispatcher::new(
        Arc::clone(&dispatcher),
        Arc::clone(&ledger),
        logs.messages(),
    ));
    let settings = writer::WriterSettings {
        max_pending_bytes: limits.max_pending_bytes,
        metadata_retention: limits.metadata_retention,
        close_timeout: limits.shutdown_timeout,
        ..writer::WriterSettings::default()
    };
    let (writer, mut writing) =
        writer::spawn(thread.runtime(), store.committer, observer, settings);
    let keys = KeyDirectory::new(at_rest_cipher, Arc::clone(&store.reader), writer.clone());
    let (shutdown_timeout, reader) = (limits.shutdown_timeout, Arc::clone(&store.reader));
    let (reloads, requests) = reload::channel();
    let broker = Broker::new(broker::Parts {
        limits,
        authorization: config.authorization,
        ledger,
        dispatcher,
        writer: writer.clone(),
        reader: store.reader,
        keys,
        tls: Arc::clone(&tls),
        reloads: reloads.clone(),
    });

    let credentials = tls.subscribe();
    let mut reloader = Reloader::new(started_with, Arc::clone(&broker), tls, logs.clone());
    if reload_later {
        // It is logged.
        let _ = reloader.reload().await;
    }
    let reloading = tokio::spawn(reloader.run(requests));

    let listener = bound.listen()?;
    let address = listener.local_addr().map_or_else(
        |_| config.server.address.clone(),
        |address| address.to_string(),
    );
    let (stopper, stop) = stop::channel();
    let sweeper = tokio::spawn(Arc::clone(&broker).sweep());
    let repeated = broker.repeated().clone();
    let counter = tokio::spawn(repeated.clone().run());
    let end_warnings = tokio::spawn(end_warnings.run());
    let mut listening = tokio::spawn(listener::run(listener, credentials, broker, stop));
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "CipherMQ is listening on \
        {address}");

    let ended = tokio::select! {
        () = signals.stop(&logs, || reloads.request()) => None,
        ended = &mut writing => Some(ended),
    };
    tracing::info!("Stopping");
    // Every command that was read is answered; then the writer ends, which the answers depend on.
    let deadline = tokio::time::Instant::now() + shutdown_timeout;
    stopper.stop();
    if tokio::time::timeout_at(deadline, &mut listening)
        .await
        .is_err()
    {
        tracing::warn!("Some connections did not end in time");
        listening.abort();
    }
    reloading.abort();
    sweeper.abort();
    counter.abort();
    end_warnings.abort();
    repeated.log_all();
    writer.shutdown(deadline.max(tokio::time::Instant::now() + LAST_COMMIT));
    let ended = match ended {
        Some(ended) => ended,
        None => writing.await,
    };
    reader.close().await;
    // The panic has been logged already; what was not acknowledged is still the senders'.
    let result = ended.unwrap_or_else(|panic| Err(writer_failed(&panic)));
    if result.is_ok() {
        tracing::info!("Stopped");
    }
    result.map_err(Into::into)
}

fn writer_failed(panic: &tokio::task::JoinError) -> store::Error {
    store::Error::Unusable(format!(
        "the database writer failed: {panic}\nPlease report it."
    ))
}

/// The time for the last commit, even if the connections have used up the shutdown's time limit.
const LAST_COMMIT: Duration = Duration::from_secs(1);

fn store_settings(database: Database, disk_reserve: u64) -> store::DatabaseSettings {
    match database {
        Database::Sqlite { path } => store::DatabaseSettings::Sqlite { path, disk_reserve },
        Database::Postgres(postgres) => store::DatabaseSettings::Postgres(postgres),
    }
}

/// Raises the limit of open files to the highest value that the system permits, one for each
/// connection.
pub fn raise_file_limit() {
    listener::raise_limit();
}
