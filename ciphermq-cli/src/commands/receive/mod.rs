//! `receive`: messages into a file, each exactly once.
//!
//! ```text
//!   consumer ─► gathered lines ─► one write, one sync ─► acks ─► confirmations
//!                  ▲ meanwhile, the next ones gather │
//!                  └─────────────────────────────────┘
//! ```

mod batch;
mod busy;
mod demand;
mod gaps;
mod idle;
mod opening;
mod receiver;
mod settle;

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::{Client, ExchangeName, QueueName, RoutingKey};
use ciphermq_files::{beside, is_descriptor, resolve};
use indicatif::ProgressBar;

use self::demand::Demand;
use self::gaps::Gaps;
use self::idle::Idle;
use self::opening::open_output;
use self::receiver::{Plan, Receiver};
use crate::connection::{ConnectionArgs, ConnectionSettings, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{Sink, Target, shared, stdout};
use crate::signals::Signals;

/// Receive messages into a file, each exactly once
///
/// A line of the output:
///
/// {"message_id":"…","sender":"…","sender_verified":true,"message":…,"sent_time":"…",
/// "received_time":"…"}
///
/// The message is the JSON value if the payload is JSON, else its text, else base64 in
/// "message_base64". A line is synced to the disk before its message is acknowledged. What the
/// output holds already is not written again, nor what it held before it was moved away. What
/// cannot be opened is set aside in the quarantine file, and rejected. Into a pipe a line goes once
/// the one before it was read, and its message is acknowledged once it was read itself.
///
/// The public key of --private-key is signed and registered, the queue and the exchange are
/// declared and bound. The receiver runs until it is told to end by SIGINT (Ctrl-C) or SIGTERM, or
/// by --count or --idle-exit.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The queue to consume [default: {client id}_queue]
    #[arg(long)]
    queue: Option<QueueName>,
    /// The exchange to bind the queue to [default: ciphermq_exchange]
    #[arg(long)]
    exchange: Option<ExchangeName>,
    /// The routing key to bind the queue by [default: {client id}_key]
    #[arg(long)]
    routing_key: Option<RoutingKey>,
    /// The file to append to; - is standard output
    #[arg(
        long,
        value_name = "FILE",
        default_value = "data/received_messages.jsonl"
    )]
    output: PathBuf,
    /// Where it is kept what the output holds, to know it again after a crash [default:
    /// {OUTPUT}.ciphermq-receive]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The output was moved or lost after a receiver was killed, and cannot be put back: go on
    /// without it
    #[arg(long)]
    output_is_gone: bool,
    /// Where messages are set aside that cannot be opened [default: {OUTPUT}.quarantine.jsonl]
    #[arg(long, value_name = "FILE")]
    quarantine: Option<PathBuf>,
    /// End once so many messages have been written
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// End once no message has come for so long, while connected
    #[arg(long, value_name = "SECONDS", value_parser = crate::connection::seconds)]
    idle_exit: Option<Duration>,
    /// How many messages may be delivered and not yet acknowledged [default: 1024; into a pipe, as
    /// its reader keeps up]
    #[arg(long, value_name = "N")]
    prefetch: Option<NonZeroU32>,
    /// Also take messages that do not prove who sent them, as those of older clients:
    /// "sender_verified" is false then
    #[arg(long)]
    allow_unverified_senders: bool,
    /// Don't tell of messages that have not come although later ones have: other receivers share
    /// the queue
    #[arg(long)]
    ignore_gaps: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    private_key: PrivateKeyArgs,
}

/// What is set aside beside standard output or a device goes where the default output's would.
const DEFAULT_OUTPUT: &str = "data/received_messages.jsonl";

pub(crate) async fn run(mut args: Args, console: Console) -> Result<Exit, Failure> {
    let target = args.target()?;
    let settings = args
        .connection
        .clone()
        .resolve(Identity::Receiver, args.private_key.clone())?;
    let keyring = settings.keyring()?;
    args.claim_files(target, &settings)?;
    let mut signals = Signals::listen()?;
    // An output that is there is looked at first; another one is made once messages can come.
    let is_there = target == Target::File && args.output.exists();
    let opened = is_there
        .then(|| open_output(&args, target, &console))
        .transpose()?;
    let client = tokio::select! {
        client = settings.connect() => client?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    let (sink, dedup) = match opened {
        Some(opened) => opened,
        None => tokio::task::block_in_place(|| open_output(&args, target, &console))?,
    };
    // In some folders two names that were free are one file, which shows now.
    args.claim_files(target, &settings)?;
    let quarantine = args.quarantine_path();
    if Target::of(&quarantine, false) == Target::Stdout {
        stdout::check()?;
    }
    shared::check(&quarantine)?;
    let recorder = dedup.clone();
    let key_id = keyring.newest().public_key().key_id();
    let demand = args.demand(&sink);
    let started = async {
        let route = Route::new(&args, &client)?;
        let mut builder = client
            .consumer(&route.queue)
            .keyring(keyring)
            .register_key(true)
            .bind(route.exchange, route.routing_key)
            .unverified_senders(args.allow_unverified_senders)
            .dedup(dedup);
        if demand.is_some() {
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
    // The consumer has a connection of its own.
    drop(client);
    super::tell_events(consumer.events(), console.clone());
    console.message(format_args!("Public key registered, key id {key_id}"));
    if let Some(registration) = consumer.registration() {
        super::tell_unrecorded(registration, &console);
    }
    console.say(format_args!(
        "Receiving from {} as {}, into {}",
        consumer.queue(),
        consumer.client_id(),
        place(&args.output)
    ));

    let console = console.with_bar(ProgressBar::new_spinner());
    if !console.bar().is_hidden() {
        console.bar().enable_steady_tick(Duration::from_millis(100));
    }
    let tells_start = matches!(sink, Sink::File(_));
    let gaps = (!args.ignore_gaps).then(|| Gaps::new(recorder, tells_start, console.clone()));
    let plan = Plan {
        quarantine: args.quarantine_path(),
        count: args.count.map(NonZeroU64::get),
        idle: args.idle_exit.map(Idle::new),
        gaps,
        demand,
    };
    let receiver = Receiver::new(plan, consumer, sink, console);
    receiver.run(&mut signals, &settings, &args.output).await
}

/// How many messages may be delivered and not acknowledged, unless told otherwise.
const PREFETCH: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);

impl Args {
    /// How the prefetch grows, if it does.
    fn demand(&self, sink: &Sink) -> Option<Demand> {
        let grows = sink.pipe().is_some() && self.prefetch.is_none();
        grows.then(|| Demand::up_to(self.prefetch().unwrap_or(PREFETCH)))
    }

    /// No more messages need be under way than are asked for: the others are free for other
    /// receivers.
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

    /// What the output is. Standard output is called `-` from now on.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage for options that would have no effect.
    fn target(&mut self) -> Result<Target, Failure> {
        let target = Target::of(&self.output, self.checkpoint.is_some());
        if target == Target::Stdout {
            self.output = "-".into();
        }
        let without_effect = [
            ("--checkpoint", self.checkpoint.is_some()),
            ("--output-is-gone", self.output_is_gone),
        ];
        let named = without_effect.iter().find(|(_, is_given)| *is_given);
        match named.filter(|_| target != Target::File) {
            None => Ok(target),
            Some((option, _)) => Err(Failure::usage(
                format!(
                    "{option} has no effect: of {} nothing is known afterwards.",
                    place(&self.output)
                ),
                format!("Name a file with --output, or leave {option} out."),
            )),
        }
    }

    /// Sees to it that the output, its checkpoint and the quarantine are no other file.
    fn claim_files(&self, target: Target, settings: &ConnectionSettings) -> Result<(), Failure> {
        let mut files = settings.own_files();
        match target {
            Target::Stdout => files.claim_stdout()?,
            Target::Stream => files.claim_for_lines("--output", &self.output)?,
            Target::File => {
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
            let output = match has_place(&self.output) {
                true => &self.output,
                false => Path::new(DEFAULT_OUTPUT),
            };
            beside(output, ".quarantine.jsonl")
        })
    }
}

/// Which messages come, by which way.
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
                "Name it yourself, with --queue and --routing-key.",
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

/// Whether there is a place beside an output: not beside standard output, another descriptor, or a
/// device.
fn has_place(output: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let is_device = std::fs::metadata(output).is_ok_and(|there| {
        let kind = there.file_type();
        kind.is_char_device() || kind.is_block_device()
    });
    let is_descriptor = || resolve(output).is_ok_and(|place| is_descriptor(&place));
    output != Path::new("-") && !is_device && !is_descriptor()
}

fn place(output: &Path) -> String {
    if output == Path::new("-") {
        "standard output".to_owned()
    } else {
        output.display().to_string()
    }
}
