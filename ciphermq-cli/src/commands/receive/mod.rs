//! `receive`: messages into a file, each exactly once.
//!
//! ```text
//!   consumer ─► pending lines ─► one write, one sync ─► acks ─► confirmations
//!                 ▲ meanwhile, the next ones collect │
//!                 └──────────────────────────────────┘
//! ```

mod active_time;
mod adaptive_prefetch;
mod batch;
mod gaps;
mod idle_timer;
mod opening;
mod receiver;
mod repeated_losses;
mod set_aside;
mod settlement;

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::dedup::Recorder;
use ciphermq_client::{Client, ExchangeName, Pattern, QueueName, RoutingKey};
use ciphermq_files::{beside, is_descriptor, resolve};
use indicatif::ProgressBar;

use self::adaptive_prefetch::AdaptivePrefetch;
use self::gaps::GapReporter;
use self::idle_timer::IdleTimer;
use self::opening::{check_descriptors, open_output, open_stream};
use self::receiver::{Receiver, ReceiverConfig};
use crate::connection::{ConnectionArgs, ConnectionSettings, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{OutputKind, Quarantine, Sink, shared, stdout};
use crate::signals::Signals;

/// Receive messages into a file, each exactly once
///
/// A line of the output:
///
/// {"message_id":"…","sender":"…","sender_verified":true,"message":…,"sent_time":"…",
/// "received_time":"…"}
///
/// The message is the JSON value if the payload is JSON, else its text, else base64 in
/// "message_base64". A line is synced to the disk before its message is acknowledged. Messages that
/// the output holds already, or held before it was moved away, are not written again. Messages that
/// cannot be opened are set aside in the quarantine file, and rejected. Into a pipe, a line is
/// written once the previous one was read, and its message is acknowledged once the line itself was
/// read.
///
/// The public key of --private-key is signed and registered, the queue and the exchange are
/// declared and bound. The receiver runs until SIGINT (Ctrl-C) or SIGTERM, until --count messages
/// are written, or until no message arrives for --idle-exit.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The queue to consume [default: {client id}_queue]
    #[arg(long)]
    queue: Option<QueueName>,
    /// The exchange to bind the queue to [default: ciphermq_exchange]
    #[arg(long)]
    exchange: Option<ExchangeName>,
    /// The routing key to bind the queue with [default: {client id}_key]
    #[arg(long)]
    routing_key: Option<RoutingKey>,
    /// The file to append to; - is standard output
    #[arg(
        long,
        value_name = "FILE",
        value_parser = crate::value_parsers::file_path(),
        value_hint = clap::ValueHint::AnyPath,
        default_value = "data/received_messages.jsonl"
    )]
    output: PathBuf,
    /// The file that records which messages the output holds, for the next run [default:
    /// {OUTPUT}.ciphermq-receive]
    #[arg(
        long,
        value_name = "FILE",
        value_parser = crate::value_parsers::file_path(),
        value_hint = clap::ValueHint::AnyPath
    )]
    checkpoint: Option<PathBuf>,
    /// Continue without the previous output: it was moved or lost after a receiver was killed, and
    /// cannot be put back
    #[arg(long)]
    output_is_gone: bool,
    /// The file for messages that cannot be opened [default: {OUTPUT}.quarantine.jsonl]
    #[arg(
        long,
        value_name = "FILE",
        value_parser = crate::value_parsers::file_path(),
        value_hint = clap::ValueHint::AnyPath
    )]
    quarantine: Option<PathBuf>,
    /// The size of the quarantine file beyond which messages that are set aside are kept by the
    /// server alone, in MiB; 0 for no limit
    #[arg(long, value_name = "MB", default_value_t = 256)]
    quarantine_max_mb: u32,
    /// End once N messages have been written
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// End once no message has arrived for this long while connected
    #[arg(long, value_name = "SECONDS", value_parser = crate::value_parsers::duration)]
    idle_exit: Option<Duration>,
    /// The maximum number of delivered and not yet acknowledged messages [default: 1024; into a
    /// pipe, as many as its reader keeps up with]
    #[arg(long, value_name = "N")]
    prefetch: Option<NonZeroU32>,
    /// Also accept messages without proof of their sender, such as those of older clients:
    /// "sender_verified" is then false
    #[arg(long)]
    allow_unverified_senders: bool,
    /// Accept only messages of senders that match the pattern, such as 'clinic-*'; * stands for any
    /// characters, ? for one. May be repeated. Messages of others are set aside
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    from: Vec<Pattern>,
    /// Also accept messages of senders whose certificate was revoked after the time at which the
    /// sender says that it sent them; whoever has stolen the certificate's key can state any time
    #[arg(long)]
    accept_before_revocation: bool,
    /// Do not report messages that have not arrived although later ones have: other receivers share
    /// the queue
    #[arg(long)]
    ignore_gaps: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    private_key: PrivateKeyArgs,
}

/// The output whose quarantine file is also that of standard output and of devices.
const DEFAULT_OUTPUT: &str = "data/received_messages.jsonl";

pub(crate) async fn run(mut args: Args, console: Console) -> Result<Exit, Failure> {
    let kind = args.output_kind()?;
    let settings = args
        .connection
        .clone()
        .resolve(Identity::Receiver, args.private_key.clone())?;
    let keyring = settings.keyring()?;
    args.claim_files(kind, &settings)?;
    check_descriptors([&args.output, &args.quarantine_path()])?;
    let mut signals = Signals::listen()?;
    // An existing output is checked before connecting; a new one is created afterwards.
    let exists = kind == OutputKind::File && args.output.exists();
    let opened = exists.then(|| open_output(&args, &console)).transpose()?;
    let client = tokio::select! {
        client = settings.connect() => client?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    let (sink, dedup) = match opened {
        Some(opened) => opened,
        None if kind == OutputKind::File => {
            tokio::task::block_in_place(|| open_output(&args, &console))?
        }
        None => tokio::select! {
            sink = open_stream(&args.output, kind, &console) => (sink?, Recorder::default()),
            signal = signals.received() => return Ok(Exit::Signalled(signal)),
        },
    };
    // On a case-insensitive file system two unused names can be the same file, which shows only now
    // that they exist.
    args.claim_files(kind, &settings)?;
    let quarantine = args.quarantine_path();
    if OutputKind::of(&quarantine, false) == OutputKind::Stdout {
        stdout::check()?;
    }
    let _open_pipe = shared::check(&quarantine)?;
    let quarantine = Quarantine::new(quarantine, args.quarantine_max_mb);
    let recorder = dedup.clone();
    let key_id = keyring.newest().public_key().key_id();
    let adaptive_prefetch = args.adaptive_prefetch(&sink);
    let started = async {
        let route = Route::new(&args, &client)?;
        let mut builder = client
            .consumer(&route.queue)
            .keyring(keyring)
            .register_key(true)
            .bind(route.exchange, route.routing_key)
            .unverified_senders(args.allow_unverified_senders)
            .before_revocation(args.accept_before_revocation)
            .dedup(dedup);
        if !args.from.is_empty() {
            builder = builder.allow_senders(args.from.iter().cloned());
        }
        if adaptive_prefetch.is_some() {
            builder = builder.prefetch(NonZeroU32::MIN);
        } else if let Some(prefetch) = args.prefetch() {
            builder = builder.prefetch(prefetch);
        }
        if let Some(id) = sink.consumer_id() {
            builder = builder.id(id);
        }
        let consumer = builder.start().await?;
        let registration = consumer.registration();
        if let Some(bare) = registration.filter(|registration| registration.signed_key.is_none()) {
            console.warn(super::register_key::unsigned(&client, bare));
        }
        Ok::<_, Failure>(consumer)
    };
    let consumer = tokio::select! {
        consumer = started => consumer?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    // The consumer has its own connection.
    drop(client);
    super::events::report_events(consumer.events(), console.clone());
    console.message(format_args!("Public key registered, key id {key_id}"));
    if let Some(registration) = consumer.registration() {
        super::events::warn_unrecorded(registration, &console);
    }
    console.info(format_args!(
        "Receiving from {} as {}, into {}",
        consumer.queue(),
        consumer.client_id(),
        output_name(&args.output)
    ));

    let console = console.with_bar(ProgressBar::new_spinner());
    if !console.bar().is_hidden() {
        console.bar().enable_steady_tick(Duration::from_millis(100));
    }
    let reports_start = matches!(sink, Sink::File(_));
    let gaps =
        (!args.ignore_gaps).then(|| GapReporter::new(recorder, reports_start, console.clone()));
    let checkpoint = matches!(sink, Sink::File(_)).then(|| args.checkpoint_path());
    let config = ReceiverConfig {
        checkpoint,
        quarantine,
        count: args.count.map(NonZeroU64::get),
        idle_timer: args.idle_exit.map(IdleTimer::new),
        gaps,
        adaptive_prefetch,
    };
    let receiver = Receiver::new(config, consumer, sink, console);
    receiver.run(&mut signals, &settings, &args.output).await
}

/// The default limit of delivered and not yet acknowledged messages.
const PREFETCH: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);

impl Args {
    /// The prefetch for a pipe, unless `--prefetch` sets a fixed one.
    fn adaptive_prefetch(&self, sink: &Sink) -> Option<AdaptivePrefetch> {
        let grows = sink.pipe().is_some() && self.prefetch.is_none();
        grows.then(|| AdaptivePrefetch::up_to(self.prefetch().unwrap_or(PREFETCH)))
    }

    /// The fixed prefetch, if there is one. It does not exceed `--count`, so that the other
    /// messages are available to other receivers.
    fn prefetch(&self) -> Option<NonZeroU32> {
        let count = self
            .count
            .and_then(|count| u32::try_from(count.get()).ok())
            .and_then(NonZeroU32::new);
        match (self.prefetch, count) {
            (Some(prefetch), _) => Some(prefetch),
            (None, Some(count)) => Some(count.min(PREFETCH)),
            (None, None) => None,
        }
    }

    /// Determines the kind of output. Any name of standard output is replaced by `-`.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage for options that would have no effect.
    fn output_kind(&mut self) -> Result<OutputKind, Failure> {
        let kind = OutputKind::of(&self.output, self.checkpoint.is_some());
        if kind == OutputKind::Stdout {
            self.output = "-".into();
        }
        let without_effect = [
            ("--checkpoint", self.checkpoint.is_some()),
            ("--output-is-gone", self.output_is_gone),
        ];
        let named = without_effect.iter().find(|(_, is_given)| *is_given);
        match named.filter(|_| kind != OutputKind::File) {
            None => Ok(kind),
            Some((option, _)) => Err(Failure::usage(
                format!(
                    "{option} has no effect: what was written to {} is not known to later runs.",
                    output_name(&self.output)
                ),
                format!("Name a file with --output, or leave {option} out."),
            )),
        }
    }

    /// Checks that output, checkpoint and quarantine are different files, and none of them is in
    /// use otherwise.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage.
    fn claim_files(&self, kind: OutputKind, settings: &ConnectionSettings) -> Result<(), Failure> {
        let mut files = settings.file_roles();
        match kind {
            OutputKind::Stdout => files.claim_stdout()?,
            OutputKind::Stream => files.claim_for_lines("--output", &self.output)?,
            OutputKind::File => {
                files.claim_for_lines("--output", &self.output)?;
                files.claim("--checkpoint", &self.checkpoint_path())?;
            }
        }
        files.claim_for_lines("--quarantine", &self.quarantine_path())
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.checkpoint
            .clone()
            .unwrap_or_else(|| beside(&self.output, ".ciphermq-receive"))
    }

    fn quarantine_path(&self) -> PathBuf {
        self.quarantine.clone().unwrap_or_else(|| {
            let output = match has_folder(&self.output) {
                true => &self.output,
                false => Path::new(DEFAULT_OUTPUT),
            };
            beside(output, ".quarantine.jsonl")
        })
    }
}

/// The queue, and its binding.
struct Route {
    queue: QueueName,
    exchange: ExchangeName,
    routing_key: RoutingKey,
}

impl Route {
    fn new(args: &Args, client: &Client) -> Result<Self, Failure> {
        let unnamable = |error| {
            Failure::new(
                format!("No queue can be named after {}: {error}.", client.id()),
                "Name it with --queue and --routing-key.",
            )
        };
        let queue = args
            .queue
            .clone()
            .map_or_else(|| ciphermq_client::default_queue(client.id()), Ok);
        let exchange = args
            .exchange
            .clone()
            .unwrap_or_else(|| ciphermq_client::DEFAULT_EXCHANGE.into());
        let routing_key = args
            .routing_key
            .clone()
            .map_or_else(|| ciphermq_client::default_routing_key(client.id()), Ok);
        Ok(Self {
            queue: queue.map_err(unnamable)?,
            exchange,
            routing_key: routing_key.map_err(unnamable)?,
        })
    }
}

/// A parser of `--from`.
fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).map_err(|error| format!("{error}. {}", error.advice()))
}

/// Whether other files can be kept beside an output: not beside standard output, another descriptor
/// or a device.
fn has_folder(output: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let is_device = std::fs::metadata(output).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_char_device() || kind.is_block_device()
    });
    let is_descriptor = || resolve(output).is_ok_and(|path| is_descriptor(&path));
    output != Path::new("-") && !is_device && !is_descriptor()
}

/// The name of an output for messages.
fn output_name(output: &Path) -> String {
    if output == Path::new("-") {
        "standard output".to_owned()
    } else {
        output.display().to_string()
    }
}
