//! `receive`: messages into a file, each exactly once.
//!
//! ```text
//!   consumer ─► gathered lines ─► one write, one sync ─► acks ─► confirmations
//!                  ▲ meanwhile, the next ones gather │
//!                  └─────────────────────────────────┘
//! ```

mod batch;
mod gaps;
mod settle;

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciphermq_client::dedup::Recorder;
use ciphermq_client::{
    Client, ConsumeError, Consumer, Event, Events, ExchangeName, Message, OpenError, QueueName, RoutingKey,
    UnopenableReason,
};
use indicatif::ProgressBar;
use tokio::task::JoinHandle;

use self::batch::{Batch, Written};
use self::gaps::Gaps;
use self::settle::Settling;
use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::{Console, Grouped, Messages};
use crate::exit::{Exit, Failure};
use crate::output::sink::SinkError;
use crate::output::{Sink, file};
use crate::signals::Signals;

/// Receive messages into a file, each exactly once
///
/// A line of the output:
///
/// {"message_id":"…","sender":"…","sender_verified":true,"message":…,"sent_time":"…","received_time":"…"}
///
/// The message is the JSON value if the payload is JSON, else its text, else base64 in "message_base64". A line is
/// synced to the disk before its message is acknowledged. What the output holds already is not written again, nor what
/// it held before it was moved away. What cannot be opened is set aside in the quarantine file, and rejected.
///
/// The public key of --private-key is signed and registered, the queue and the exchange are declared and bound. The receiver
/// runs until it is told to end by SIGINT (Ctrl-C) or SIGTERM, or by --count or --idle-exit.
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
    #[arg(long, value_name = "FILE", default_value = "data/received_messages.jsonl")]
    output: PathBuf,
    /// Where it is kept what the output holds, to know it again after a crash [default: {OUTPUT}.ciphermq-receive]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The output was moved or lost after a receiver was killed, and cannot be put back: go on without it
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
    /// How many messages may be delivered and not yet acknowledged [default: 1024]
    #[arg(long, value_name = "N")]
    prefetch: Option<NonZeroU32>,
    /// Also take messages that do not prove who sent them, as those of older clients: "sender_verified" is false then
    #[arg(long)]
    allow_unverified_senders: bool,
    /// Don't tell of messages that have not come although later ones have: other receivers share the queue
    #[arg(long)]
    ignore_gaps: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    private_key: PrivateKeyArgs,
}

/// What is set aside beside standard output goes where the default output's would.
const DEFAULT_OUTPUT: &str = "data/received_messages.jsonl";

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let settings = args
        .connection
        .clone()
        .resolve(Identity::Receiver, args.private_key.clone())?;
    let keyring = settings.keyring()?;
    let (sink, dedup) = open_output(&args, &console)?;
    let recorder = dedup.clone();
    let mut signals = Signals::listen()?;
    let key_id = keyring.newest().public_key().key_id();
    let started = async {
        let client = settings.connect().await?;
        let route = Route::new(&args, &client)?;
        let mut builder = client
            .consumer(&route.queue)
            .keyring(keyring)
            .register_key(true)
            .bind(route.exchange, route.routing_key)
            .unverified_senders(args.allow_unverified_senders)
            .dedup(dedup);
        if let Some(prefetch) = args.prefetch() {
            builder = builder.prefetch(prefetch);
        }
        if let Some(id) = sink.consumer_id() {
            builder = builder.id(id);
        }
        Ok::<_, Failure>(builder.start().await?)
    };
    let consumer = tokio::select! {
        consumer = started => consumer?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    super::tell_events(consumer.events(), console.clone());
    console.message(format_args!("Public key registered, key id {key_id}"));
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
    let receiver = Receiver {
        gaps,
        quarantine: args.quarantine_path(),
        count: args.count.map(NonZeroU64::get),
        idle: args.idle_exit.map(Idle::new),
        settling: Settling::new(consumer.acker(), console.clone()),
        gathered: Batch::default(),
        sink: Some(sink),
        writing: None,
        taken: 0,
        written: 0,
        events: consumer.events(),
        is_connected: true,
        busy: None,
        consumer,
        console,
    };
    receiver.run(&mut signals, &settings, &args.output).await
}

impl Args {
    /// No more messages need be under way than are asked for: the others are free for other receivers.
    fn prefetch(&self) -> Option<NonZeroU32> {
        let default = NonZeroU32::MIN.saturating_add(1023);
        let count = self
            .count
            .and_then(|count| u32::try_from(count.get()).ok())
            .and_then(NonZeroU32::new);
        match (self.prefetch, count) {
            (Some(prefetch), _) => Some(prefetch),
            (None, Some(count)) => Some(count.min(default)),
            (None, None) => None,
        }
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.checkpoint.clone().unwrap_or_else(|| {
            let mut name = self.output.as_os_str().to_owned();
            name.push(".ciphermq-receive");
            name.into()
        })
    }

    fn quarantine_path(&self) -> PathBuf {
        self.quarantine.clone().unwrap_or_else(|| {
            let beside = if self.output == Path::new("-") {
                Path::new(DEFAULT_OUTPUT)
            } else {
                &self.output
            };
            let mut name = beside.as_os_str().to_owned();
            name.push(".quarantine.jsonl");
            name.into()
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
            .map_or_else(|| ExchangeName::new(ciphermq_client::DEFAULT_EXCHANGE), Ok);
        let routing_key = args
            .routing_key
            .clone()
            .map_or_else(|| ciphermq_client::default_routing_key(client.id()), Ok);
        Ok(Self {
            queue: queue.map_err(unnamable)?,
            exchange: exchange.map_err(unnamable)?,
            routing_key: routing_key.map_err(unnamable)?,
        })
    }
}

/// Opens the output, and learns from it and its checkpoint what was processed by those before us.
fn open_output(args: &Args, console: &Console) -> Result<(Sink, Recorder), Failure> {
    let path = args.output.as_path();
    let (sink, found) = Sink::open(file::Place {
        output: path,
        checkpoint: &args.checkpoint_path(),
        is_gone: args.output_is_gone,
    })?;
    if let Some(damaged) = &found.damaged {
        console.warn(format_args!(
            "The checkpoint of {} was damaged. It was built anew from the output, and the damaged one kept as {}. Of messages in outputs that were moved away nothing is known any more",
            path.display(),
            damaged.display(),
        ));
    }
    if let Some(bytes) = found.other_file {
        console.warn(format_args!(
            "{} is not the file of {bytes} bytes that its checkpoint tells of: that one was moved, cut or replaced. What was written into it, {}, stays processed, and is not written again",
            path.display(),
            Messages(found.known),
        ));
    }
    if found.torn_bytes > 0 {
        console.warn(format_args!(
            "{} ended with an unfinished line of an earlier receiver, {} bytes: cut off. Its message was never acknowledged and comes again",
            path.display(),
            found.torn_bytes
        ));
    }
    if found.other_lines > 0 {
        console.warn(format_args!(
            "{} holds lines that are no received messages; they stay: {}",
            path.display(),
            found.other_lines
        ));
    }
    let recorder = sink.recorder();
    if recorder.messages() > 0 && found.other_file.is_none() {
        console.say(format_args!(
            "{} holds {} already",
            path.display(),
            Messages(recorder.messages())
        ));
    }
    if found.messages > 0 {
        console.message(format_args!(
            "{} of them were read from its end, the others are known from the checkpoint",
            Grouped(found.messages)
        ));
    }
    Ok((sink, recorder))
}

fn place(output: &Path) -> String {
    if output == Path::new("-") {
        "standard output".to_owned()
    } else {
        output.display().to_string()
    }
}

/// Why the receiver ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All that was asked for is written.
    Count,
    /// Nothing came for long enough.
    Idle,
    /// A signal came.
    Signal,
    /// Nobody reads standard output any more.
    ReaderGone,
}

/// When nothing has come for long enough.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    since: tokio::time::Instant,
    /// Duplicates that are left out are signs of life, too.
    duplicates: u64,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: tokio::time::Instant::now(),
            duplicates: 0,
        }
    }

    fn restart(&mut self) {
        self.since = tokio::time::Instant::now();
    }

    async fn over(idle: Option<&Self>) {
        match idle {
            Some(idle) => tokio::time::sleep_until(idle.since + idle.limit).await,
            None => std::future::pending().await,
        }
    }
}

struct Receiver {
    consumer: Consumer,
    console: Console,
    quarantine: PathBuf,
    count: Option<u64>,
    idle: Option<Idle>,
    settling: Settling,
    gaps: Option<Gaps>,
    /// What was opened and waits for the write before it.
    gathered: Batch,
    /// Away while a write is under way.
    sink: Option<Sink>,
    writing: Option<JoinHandle<(Sink, Result<Written, SinkError>)>>,
    /// How many messages were taken from the consumer to be written.
    taken: u64,
    /// How many of them were written.
    written: u64,
    events: Events,
    is_connected: bool,
    /// From the first message taken to the last one written.
    busy: Option<(Instant, Instant)>,
}

impl Receiver {
    async fn run(
        mut self,
        signals: &mut Signals,
        settings: &crate::connection::Settings,
        output: &Path,
    ) -> Result<Exit, Failure> {
        let end = match self.receive(signals).await {
            // What is opened is written still: it would only have to be opened again.
            Ok(end) => self.finish().await.map(|gone| gone.unwrap_or(end)),
            Err(failure) => Err(failure),
        };
        let Self {
            consumer,
            console,
            mut settling,
            written,
            count,
            busy,
            sink,
            gaps,
            ..
        } = self;
        if let Some(sink) = sink {
            // Without it the next receiver reads more of the file: no reason to fail.
            let closed = tokio::task::spawn_blocking(|| sink.close()).await;
            if let Ok(Err(error)) = closed {
                console.warn(format_args!(
                    "{error}. Nothing is lost: the next receiver reads the output instead"
                ));
            }
        }
        settling.all().await;
        let duplicates = consumer.duplicates();
        consumer.close().await;
        let unconfirmed = settling.ack_once_more(settings).await;

        console.bar().finish_and_clear();
        let missing = match gaps.map_or(0, |gaps| gaps.finish()) {
            0 => String::new(),
            missing => format!(", {} missing", Grouped(missing)),
        };
        let elapsed = busy.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = if elapsed > 0.0 {
            written as f64 / elapsed
        } else {
            0.0
        };
        console.say(format_args!(
            "{written} received, {} confirmed, {duplicates} duplicates left out, {} set aside{missing} in {elapsed:.3} s ({rate:.0}/s), into {}",
            settling.confirmed(),
            settling.rejected(),
            place(output),
        ));
        let end = end?;
        if let Some(failure) = settling.failure(&unconfirmed) {
            return Err(failure);
        }
        match (end, count) {
            (End::Idle, Some(count)) if written < count => Ok(Exit::Less),
            _ => Ok(Exit::Done),
        }
    }

    /// Receives until there is a reason to end. What was gathered and not written may be left over.
    async fn receive(&mut self, signals: &mut Signals) -> Result<End, Failure> {
        loop {
            self.write_gathered();
            if self.is_count_taken() && self.gathered.is_empty() && self.writing.is_none() {
                return Ok(End::Count);
            }
            let takes_more = !self.is_count_taken() && !self.gathered.is_full();
            let is_quiet = self.is_connected && self.gathered.is_empty() && self.writing.is_none();
            tokio::select! {
                item = self.consumer.next(), if takes_more => self.take_all(item)?,
                written = joined(&mut self.writing), if self.writing.is_some() => {
                    if let Some(end) = self.settle(written?)? {
                        return Ok(end);
                    }
                }
                () = self.settling.next(), if !self.settling.is_empty() => {}
                () = Idle::over(self.idle.as_ref()), if is_quiet => {
                    if self.is_idle() {
                        return Ok(End::Idle);
                    }
                }
                () = due(&mut self.gaps) => {
                    if let Some(gaps) = &mut self.gaps {
                        gaps.look();
                    }
                }
                Some(event) = self.events.next() => self.note(&event),
                _ = signals.received() => return Ok(End::Signal),
            }
        }
    }

    fn is_count_taken(&self) -> bool {
        self.count.is_some_and(|count| self.taken >= count)
    }

    /// Takes a message, and with it those that are at hand.
    fn take_all(&mut self, item: Option<Result<Message, ConsumeError>>) -> Result<(), Failure> {
        let Some(item) = item else {
            return Err(Failure::new(
                "The connection was closed for good.",
                "See the server's log, then run the receiver again.",
            ));
        };
        let mut item = Some(item);
        while let Some(one) = item.take() {
            self.take(one);
            if !self.is_count_taken() && !self.gathered.is_full() {
                item = self.consumer.try_next();
            }
        }
        Ok(())
    }

    fn take(&mut self, item: Result<Message, ConsumeError>) {
        if let Some(idle) = &mut self.idle {
            idle.restart();
        }
        match item {
            Ok(message) => {
                self.taken += 1;
                self.busy.get_or_insert_with(|| (Instant::now(), Instant::now()));
                self.tell_opened(&message);
                if let Some(gaps) = &mut self.gaps {
                    gaps.saw(&message);
                }
                self.gathered.push(message);
            }
            Err(ConsumeError::Unopenable(unopenable)) => {
                self.console.warn(format_args!(
                    "Message {} cannot be opened: {}. It is set aside in {}{}",
                    unopenable.message_id(),
                    unopenable.reason,
                    self.quarantine.display(),
                    what_to_do(&unopenable.reason)
                ));
                self.gathered.push_unopenable(unopenable);
            }
            Err(error) => self.console.warn(error),
        }
    }

    fn tell_opened(&self, message: &Message) {
        let id = message.message_id();
        if self.console.tells_payloads() {
            let text = String::from_utf8_lossy(message.payload());
            self.console
                .message(format_args!("Decrypted message {id}: {text}"));
        } else {
            self.console.message(format_args!("Decrypted message {id}"));
        }
    }

    /// Begins to write what was gathered, unless a write is under way.
    fn write_gathered(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        if let Some(mut sink) = self.sink.take() {
            let batch = std::mem::take(&mut self.gathered);
            let quarantine = self.quarantine.clone();
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let written = batch.write(&mut sink, |lines| file::append_shared(&quarantine, lines));
                (sink, written)
            }));
        }
    }

    /// Acks what was written.
    fn settle(
        &mut self,
        (sink, written): (Sink, Result<Written, SinkError>),
    ) -> Result<Option<End>, Failure> {
        self.sink = Some(sink);
        match written {
            Ok(written) => {
                self.written += u64::try_from(written.messages.len()).unwrap_or(u64::MAX);
                if let Some((_, last)) = &mut self.busy {
                    *last = Instant::now();
                }
                self.console
                    .bar()
                    .set_message(format!("{} received", Grouped(self.written)));
                self.settling.begin(written);
                Ok(None)
            }
            Err(SinkError::ReaderGone) => Ok(Some(End::ReaderGone)),
            Err(SinkError::Failed(failure)) => Err(failure),
        }
    }

    /// Ends the write that is under way, and writes what was gathered meanwhile.
    async fn finish(&mut self) -> Result<Option<End>, Failure> {
        loop {
            if self.writing.is_none() {
                self.write_gathered();
            }
            if self.writing.is_none() {
                return Ok(None);
            }
            let written = joined(&mut self.writing).await?;
            if let Some(end) = self.settle(written)? {
                return Ok(Some(end));
            }
        }
    }

    fn is_idle(&mut self) -> bool {
        let duplicates = self.consumer.duplicates();
        match &mut self.idle {
            Some(idle) if idle.duplicates != duplicates => {
                idle.duplicates = duplicates;
                idle.restart();
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Without a connection nothing can come, so that is no idleness.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Connected => self.is_connected = true,
            Event::Disconnected { .. } => self.is_connected = false,
            _ => return,
        }
        if let Some(idle) = &mut self.idle {
            idle.restart();
        }
    }
}

/// When to look for gaps; never, if they are not to be told.
async fn due(gaps: &mut Option<Gaps>) {
    match gaps {
        Some(gaps) => gaps.due().await,
        None => std::future::pending().await,
    }
}

/// What a person can do about messages of this kind.
fn what_to_do(reason: &UnopenableReason) -> &'static str {
    match reason {
        UnopenableReason::Sealed(OpenError::OlderClient | OpenError::UnsignedSession) => {
            ". If such senders are to be believed, run the receiver with --allow-unverified-senders and have it sent again"
        }
        UnopenableReason::Sealed(OpenError::NoPrivateKey(_)) => {
            ". If you have that key, name its file with --private-key and have the message sent again"
        }
        UnopenableReason::Sealed(OpenError::Sender(_)) | UnopenableReason::NoCertificate { .. } => {
            ". Have the sender send it again with a certificate of the authority that this receiver trusts"
        }
        _ => "",
    }
}

/// The end of the write that is under way. Safe to cancel: it stays under way then.
async fn joined<T>(writing: &mut Option<JoinHandle<T>>) -> Result<T, Failure> {
    let Some(handle) = writing.as_mut() else {
        return std::future::pending().await;
    };
    let joined = handle.await;
    *writing = None;
    joined.map_err(|error| Failure::plain(format!("The thread that writes the output has failed: {error}.")))
}
