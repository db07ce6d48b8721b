//! `send`: messages from a file, the command line or standard input, sealed for one receiver.

mod lines;
mod pinned;
mod report;
mod resume;

use std::fs::File;
use std::io::{IsTerminal as _, Read, Seek as _, SeekFrom, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::resume::ResumableStream;
use ciphermq_client::{
    BatchLimits, Client, ClientId, ExchangeName, Form, MessageId, Publisher, RoutingKey, StreamId, Suite,
    keys,
};
use tokio::sync::mpsc;

use self::lines::{Chunk, Line, LineError, Start};
use self::report::Report;
use self::resume::{Begun, Plan};
use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs, Settings};
use crate::console::{Console, Messages};
use crate::exit::{Exit, Failure, Signal};
use crate::output::Payload;
use crate::signals::Signals;

/// Send messages, one a line, sealed for one receiver
///
/// Every line of the input is one message; lines end with \n or \r\n. Empty lines are left out and counted. A line need
/// not be UTF-8. The command ends when the server has acknowledged everything. What was not acknowledged after all
/// retries is listed on standard output, one message id a line, and the exit code is 3.
///
/// A file is sent as one stream, with a checkpoint beside it: after a crash or a failure the same command goes on where
/// everything before is acknowledged, under the same ids, so that nothing arrives twice. When all of it was sent the
/// command says so and sends nothing. What was appended to the file since is sent. A file that was changed is refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The client id of the receiver, which has registered its public key
    #[arg(long, value_name = "RECEIVER")]
    to: ClientId,
    /// The exchange to publish to [default: ciphermq_exchange]
    #[arg(long)]
    exchange: Option<ExchangeName>,
    /// The routing key to publish by [default: {RECEIVER}_key]
    #[arg(long)]
    routing_key: Option<RoutingKey>,
    /// The file to read messages from, one a line; - is standard input, the default
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// Where it is kept how far the file is sent [default: {FILE}.{RECEIVER}.ciphermq-send]
    #[arg(long, value_name = "FILE", requires = "file")]
    checkpoint: Option<PathBuf>,
    /// Keep no checkpoint: after a crash, sending the file again makes new messages
    #[arg(long, conflicts_with_all = ["checkpoint", "again"])]
    no_checkpoint: bool,
    /// Send all of the file as new messages, whatever was sent of it before
    #[arg(long, requires = "file")]
    again: bool,
    /// The server that the file began to be sent to is the same, at another address
    #[arg(long, requires = "file")]
    server_moved: bool,
    /// A message, whole, whatever is in it; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Vec<String>,
    /// The most messages in one batch [default: 250]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: Option<u32>,
    /// Also send to a receiver that has not signed its public key: whoever runs the server could put in one of their
    /// own, the first time. After that the key is remembered, and a change is refused
    #[arg(long, requires = "suite")]
    allow_unsigned_keys: bool,
    /// How to seal for a key that is not signed: LEGACY-A, LEGACY-B or LEGACY-C for the older generations of clients,
    /// X25519-AES256GCM for others
    #[arg(long, value_name = "FORM", requires = "allow_unsigned_keys", value_parser = unsigned_form)]
    suite: Option<Form>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Where messages come from.
enum Source {
    Messages(Vec<String>),
    Input {
        input: Box<dyn Read + Send>,
        name: String,
        bytes: Option<u64>,
    },
    /// A file that goes on after a crash.
    Resumable {
        file: File,
        name: String,
        plan: Box<Plan>,
    },
}

/// What sending works with.
struct Sending {
    publisher: Publisher,
    /// Where it is kept how far the file is sent.
    stream: Option<ResumableStream>,
    report: Report,
    signals: Signals,
}

/// What ended the reading before the input's end.
enum Stop {
    /// A line, or the input itself, cannot be read or sent.
    Input(Failure),
    /// Something that would befall all that follow.
    Refused,
    Signal(Signal),
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let settings = args
        .connection
        .clone()
        .resolve(Identity::Sender, PrivateKeyArgs::default())?;
    let mut source = tokio::task::block_in_place(|| open(&args, &console))?;
    let mut signals = Signals::listen()?;
    let client = tokio::select! {
        client = settings.connect() => client?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    super::tell_events(client.events(), console.clone());

    let (mut report, observer) = Report::new(console.clone(), source.bytes());
    let mut builder = client.publisher(&args.to);
    if let Some(form) = args.suite {
        builder = builder.allow_unsigned_key(form);
    }
    let mut stream = None;
    let mut start = Start::default();
    if let Source::Resumable { mut file, name, plan } = source {
        start = plan.start;
        let left = plan.bytes_left();
        file.seek(SeekFrom::Start(start.bytes)).map_err(|error| {
            Failure::new(
                format!("The file {name} cannot be read: {error}."),
                "Check that it is a file that you may read.",
            )
        })?;
        let begun = tokio::task::block_in_place(|| plan.begin(&client, &args))?;
        if begun.is_sent {
            say_sent(&begun, &name, &console);
            client.close().await;
            return Ok(Exit::Done);
        }
        say_going_on(&begun, &name, &console);
        builder = builder.resume(&begun.stream);
        let progress = begun.stream.observer();
        builder = builder.on_outcome(move |outcome| {
            progress(outcome);
            observer(outcome);
        });
        report.resumes();
        stream = Some(begun.stream);
        // No more than the checkpoint describes: what is appended meanwhile is for the next time.
        source = Source::Input {
            input: Box::new(file.take(left)),
            name,
            bytes: Some(left),
        };
    } else {
        builder = builder.on_outcome(observer);
        if let Some(exchange) = args.exchange {
            builder = builder.exchange(exchange);
        }
        if let Some(routing_key) = args.routing_key {
            builder = builder.routing_key(routing_key);
        }
    }
    if let Some(messages) = args.batch_size {
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        builder = builder.batch(BatchLimits {
            messages,
            ..BatchLimits::default()
        });
    }
    let publisher = builder.start().await?;
    record_key(&publisher, &settings, &console).await;

    let started = Instant::now();
    let mut sending = Sending {
        publisher,
        stream,
        report,
        signals,
    };
    let stop = sending.all(source, start, &client).await?;
    let Sending {
        publisher,
        stream,
        mut report,
        ..
    } = sending;
    let summary = report.until(publisher.finish()).await?;
    report.drain()?;
    if let Some(mut stream) = stream {
        let is_all = summary.unacknowledged == 0 && stop.is_none();
        tokio::task::block_in_place(|| if is_all { stream.complete() } else { stream.save() })
            .map_err(resume::failure)?;
    }
    client.close().await;
    report.summary(&summary, started.elapsed());
    match stop {
        _ if summary.unacknowledged > 0 => {
            if let Some(Stop::Input(failure)) = stop {
                console.warn(failure.in_one_line());
            }
            Err(report.failure(summary.unacknowledged))
        }
        Some(Stop::Input(failure)) => Err(failure),
        Some(Stop::Signal(signal)) => Ok(Exit::Signalled(signal)),
        Some(Stop::Refused) | None => Ok(Exit::Done),
    }
}

impl Source {
    /// How much there is, if that is known.
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Messages(_) => None,
            Self::Input { bytes, .. } => *bytes,
            Self::Resumable { plan, .. } => Some(plan.bytes_left()),
        }
    }
}

/// Opens what messages come from, before anything is connected: a mistyped name costs nobody anything.
fn open(args: &Args, console: &Console) -> Result<Source, Failure> {
    if !args.message.is_empty() {
        return Ok(Source::Messages(args.message.clone()));
    }
    match args.file.as_deref() {
        Some(path) if path != Path::new("-") => {
            let failed = |error| {
                Failure::new(
                    format!("The file {} cannot be opened: {error}.", path.display()),
                    "Check its path and that you may read it.",
                )
            };
            let mut file = File::open(path).map_err(failed)?;
            let name = path.display().to_string();
            let is_file = file.metadata().map_err(failed)?.is_file();
            if is_file && !args.no_checkpoint && matches!(args.suite, Some(Form::Older(_))) {
                // Sealed a second time after a crash, an older form is another message to the server.
                return Err(Failure::new(
                    format!(
                        "The file {} cannot be sent in an older form with a checkpoint.",
                        path.display()
                    ),
                    "Add --no-checkpoint: after a crash, sending the file again makes new messages then.",
                ));
            }
            if is_file && !args.no_checkpoint {
                let plan = Box::new(Plan::make(path, &mut file, args)?);
                return Ok(Source::Resumable { file, name, plan });
            }
            // What is no file cannot be read twice, so it cannot be gone on with.
            let bytes = file
                .metadata()
                .ok()
                .filter(|_| is_file)
                .map(|metadata| metadata.len());
            Ok(Source::Input {
                input: Box::new(file),
                name,
                bytes,
            })
        }
        _ => {
            if stdin().is_terminal() {
                console.say("Type messages, one a line, and end with Ctrl-D");
            }
            Ok(Source::Input {
                input: Box::new(stdin()),
                name: "standard input".to_owned(),
                bytes: None,
            })
        }
    }
}

impl Sending {
    /// Sends everything; says what stopped it early, if anything did.
    async fn all(&mut self, source: Source, start: Start, client: &Client) -> Result<Option<Stop>, Failure> {
        let (input, name) = match source {
            Source::Messages(messages) => {
                for message in messages {
                    let sent = self.one(message.as_bytes(), || "The message".to_owned()).await?;
                    if let Err(stop) = sent {
                        return Ok(Some(stop));
                    }
                }
                return Ok(None);
            }
            Source::Input { input, name, .. } => (input, name),
            Source::Resumable { file, name, .. } => (Box::new(file) as Box<dyn Read + Send>, name),
        };
        // Sealing only adds to it, so nothing longer could be sent.
        let limit = client.server().limits.max_line_bytes;
        let mut chunks = lines::read(input, limit, start);
        loop {
            let chunk = tokio::select! {
                signal = self.signals.received() => return Ok(Some(Stop::Signal(signal))),
                chunk = self.report.until(chunks.recv()) => chunk?,
            };
            let chunk = match chunk {
                None => return Ok(None),
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Ok(Some(Stop::Input(line_failure(&error, &name)))),
            };
            let Chunk { lines, empty } = chunk;
            self.report.empty_lines(empty);
            for Line { number, end, text } in lines {
                match self.one(&text, || format!("Line {number} of {name}")).await? {
                    Ok(message_id) => self.note(&message_id, end)?,
                    Err(stop) => return Ok(Some(stop)),
                }
            }
        }
    }

    /// Sends one message, and reports meanwhile what became of others.
    async fn one(
        &mut self,
        payload: &[u8],
        place: impl Fn() -> String,
    ) -> Result<Result<MessageId, Stop>, Failure> {
        let Self {
            publisher,
            report,
            signals,
            ..
        } = self;
        if report.drain()? {
            return Ok(Err(Stop::Refused));
        }
        let content_type = Payload::of(payload).content_type();
        let sealed = ciphermq_client::Payload::bytes(payload).content_type(content_type);
        let sent = tokio::select! {
            biased;
            sent = report.until(publisher.submit(sealed)) => sent?,
            signal = signals.received() => return Ok(Err(Stop::Signal(signal))),
        };
        Ok(match sent {
            Ok(message_id) => {
                report.sent(&message_id, publisher.receiver(), payload);
                Ok(message_id)
            }
            Err(error) => Err(Stop::Input(unsent(&error, &place()))),
        })
    }

    /// A line was sent, and the next one begins at `end`: now and then the checkpoint is saved.
    fn note(&mut self, message_id: &MessageId, end: u64) -> Result<(), Failure> {
        let (Some(stream), Some((_, position))) = (&mut self.stream, StreamId::split(message_id)) else {
            return Ok(());
        };
        stream.sent(position, end);
        if stream.is_due() {
            tokio::task::block_in_place(|| stream.save()).map_err(resume::failure)?;
        }
        Ok(())
    }
}

/// Only X25519 keys are ever unsigned: X-Wing keys stand in signed keys alone.
fn unsigned_form(text: &str) -> Result<Form, String> {
    match text.parse() {
        Ok(Form::Suite(Suite::XWingAes256Gcm)) => {
            Err("keys for this suite are always signed: leave --allow-unsigned-keys out".to_owned())
        }
        Ok(form) => Ok(form),
        Err(_) => Err("it is LEGACY-A, LEGACY-B, LEGACY-C or X25519-AES256GCM".to_owned()),
    }
}

fn say_sent(begun: &Begun, name: &str, console: &Console) {
    let state = begun.stream.state();
    console.say(format_args!(
        "{name} was already sent to {}: {}, all acknowledged. --again sends it once more, as new messages",
        state.receiver,
        Messages(state.acknowledged),
    ));
}

fn say_going_on(begun: &Begun, name: &str, console: &Console) {
    let state = begun.stream.state();
    if state.acknowledged > 0 {
        console.say(format_args!(
            "Going on with {name}: acknowledged of it: {}",
            Messages(state.acknowledged),
        ));
    }
    console.message(format_args!(
        "Stream {}, its checkpoint is {}",
        state.stream,
        begun.stream.path().display()
    ));
}

fn unsent(error: &PublishError, place: &str) -> Failure {
    let advice = match (error.kind(), error.advice()) {
        (PublishErrorKind::TooLarge, advice) => {
            format!(
                "What stood before it was sent, what follows was not.\n{}",
                advice.unwrap_or("Send it in smaller parts.")
            )
        }
        (_, Some(advice)) => advice.to_owned(),
        (_, None) => "What stood before it was sent, what follows was not.".to_owned(),
    };
    Failure::new(format!("{place} was not sent: {error}"), advice)
}

fn line_failure(error: &LineError, name: &str) -> Failure {
    let advice = match error {
        LineError::TooLong { .. } => {
            "The server takes no longer ones: is it a file of messages, one a line?\nWhat stood before it was sent, what follows was not."
        }
        LineError::Read { .. } => {
            "Check that it is a file that you may read. What stood before was sent, what follows was not."
        }
    };
    Failure::new(format!("Of {name}, {error}."), advice)
}

/// Keeps a record of the key that was used, `<receiver>_public.key` beside the certificates. It is a record
/// only: the server is asked anew by every process.
async fn record_key(publisher: &Publisher, settings: &Settings, console: &Console) {
    let (key, receiver) = (publisher.receiver_key().await, publisher.receiver());
    console.message(format_args!(
        "Public key of {receiver} received, key id {}, suite {}",
        key.key_id(),
        key.suite()
    ));
    match keys::write_record(settings.certificates_folder(), receiver, &key) {
        Ok(_) | Err(keys::RecordError::Unfit(_)) => {}
        Err(error) => console.message(format_args!("No record of the key was kept: {error}")),
    }
}

/// How often the progress bar moves.
const PROGRESS: Duration = Duration::from_millis(100);

/// What the driver's observer tells the reporter of.
type Settled = mpsc::UnboundedReceiver<(ciphermq_client::MessageId, Option<PublishError>)>;
