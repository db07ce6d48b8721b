//! `send`: messages from a file, the command line or standard input, sealed for one receiver.

mod lines;
mod report;

use std::fs::File;
use std::io::{IsTerminal as _, Read, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::{BatchLimits, Client, ClientId, ExchangeName, Publisher, RoutingKey, keys};
use tokio::sync::mpsc;

use self::lines::{Chunk, LineError};
use self::report::Report;
use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs, Settings};
use crate::console::Console;
use crate::exit::{Exit, Failure, Signal};
use crate::output::Payload;
use crate::signals::Signals;

/// Sends messages, sealed for one receiver, and waits until the server has acknowledged them.
///
/// Every line of the input is one message; lines end with \n or \r\n. Empty lines are left out and counted. A line
/// need not be UTF-8. Whatever was not acknowledged after all retries is listed on standard output, one message
/// id a line, and the exit code is 3.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The client id of the receiver, which has registered its public key
    #[arg(long, value_name = "RECEIVER")]
    to: ClientId,
    /// The exchange to publish to [default: ciphermq_exchange]
    #[arg(long)]
    exchange: Option<ExchangeName>,
    /// The routing key to publish by [default: <RECEIVER>_key]
    #[arg(long)]
    routing_key: Option<RoutingKey>,
    /// The file to read messages from, one a line; - is standard input, the default
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// A message, whole, whatever is in it; may be repeated
    #[arg(long, value_name = "TEXT")]
    message: Vec<String>,
    /// The most messages in one batch [default: 250]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: Option<u32>,
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
    let source = open(&args, &console)?;
    let mut signals = Signals::listen()?;
    let client = tokio::select! {
        client = settings.connect() => client?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    super::tell_events(client.events(), console.clone());

    let (mut report, observer) = Report::new(console.clone(), source.bytes());
    let mut builder = client.publisher(&args.to).on_outcome(observer);
    if let Some(exchange) = args.exchange {
        builder = builder.exchange(exchange);
    }
    if let Some(routing_key) = args.routing_key {
        builder = builder.routing_key(routing_key);
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
    let stop = send_all(&publisher, source, &client, &mut report, &mut signals).await?;
    let summary = report.until(publisher.finish()).await?;
    report.drain()?;
    client.close().await;
    report.summary(&summary, started.elapsed());
    match stop {
        _ if summary.unacknowledged > 0 => {
            if let Some(Stop::Input(failure)) = stop {
                console.warn(failure);
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
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            let bytes = metadata.is_file().then_some(metadata.len());
            Ok(Source::Input {
                input: Box::new(file),
                name: path.display().to_string(),
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

/// Sends everything; says what stopped it early, if anything did.
async fn send_all(
    publisher: &Publisher,
    source: Source,
    client: &Client,
    report: &mut Report,
    signals: &mut Signals,
) -> Result<Option<Stop>, Failure> {
    let (input, name) = match source {
        Source::Messages(messages) => {
            for message in messages {
                if let Some(stop) = send(publisher, message.as_bytes(), report, signals, || {
                    "The message".to_owned()
                })
                .await?
                {
                    return Ok(Some(stop));
                }
            }
            return Ok(None);
        }
        Source::Input { input, name, .. } => (input, name),
    };
    // Sealing only adds to it, so nothing longer could be sent.
    let limit = client.server().limits.max_line_bytes;
    let mut chunks = lines::read(input, limit);
    loop {
        let chunk = tokio::select! {
            signal = signals.received() => return Ok(Some(Stop::Signal(signal))),
            chunk = report.until(chunks.recv()) => chunk?,
        };
        let chunk = match chunk {
            None => return Ok(None),
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Ok(Some(Stop::Input(line_failure(&error, &name)))),
        };
        let Chunk { lines, empty } = chunk;
        report.empty_lines(empty);
        for (number, line) in lines {
            let place = || format!("Line {number} of {name}");
            if let Some(stop) = send(publisher, &line, report, signals, place).await? {
                return Ok(Some(stop));
            }
        }
    }
}

/// Sends one message, and reports meanwhile what became of others.
async fn send(
    publisher: &Publisher,
    payload: &[u8],
    report: &mut Report,
    signals: &mut Signals,
    place: impl Fn() -> String,
) -> Result<Option<Stop>, Failure> {
    if report.drain()? {
        return Ok(Some(Stop::Refused));
    }
    let content_type = Payload::of(payload).content_type();
    let sealed = ciphermq_client::Payload::bytes(payload).content_type(content_type);
    let sent = tokio::select! {
        biased;
        sent = report.until(publisher.submit(sealed)) => sent?,
        signal = signals.received() => return Ok(Some(Stop::Signal(signal))),
    };
    match sent {
        Ok(message_id) => {
            report.sent(&message_id, publisher.receiver(), payload);
            Ok(None)
        }
        Err(error) => Ok(Some(Stop::Input(unsent(&error, &place())))),
    }
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
        "Public key of {receiver} received, key id {}",
        key.key_id()
    ));
    let folder = settings.certificates_folder();
    let Ok(path) = keys::record_path(folder, receiver) else {
        return;
    };
    // A client named `receiver` would overwrite what `keygen` has made here.
    if path.file_name().is_some_and(|name| name == keys::PUBLIC_KEY_FILE) {
        return;
    }
    if let Err(error) = std::fs::write(&path, key.to_base64() + "\n") {
        console.message(format_args!(
            "No record of the key was kept in {}: {error}",
            path.display()
        ));
    }
}

/// How often the progress bar moves.
const PROGRESS: Duration = Duration::from_millis(100);

/// What the driver's observer tells the reporter of.
type Settled = mpsc::UnboundedReceiver<(ciphermq_client::MessageId, Option<PublishError>)>;
