//! `send`: messages from a file, the command line or standard input, sealed for one receiver or
//! several.
//!
//! ```text
//!   input ──► file scan (hashed, compared with each receiver's checkpoint)
//!     │
//!     └─► verified against the scan ─► lines ─┬─► recipient ─► publisher ─► ACK ─► its checkpoint
//!                                             └─► recipient ─► ...
//! ```
//!
//! - [`input`]: the sources of messages
//! - [`file_scan`], [`digest`], [`verified_reader`]: the contents of a file when sending began, and
//!   the verification that they have not changed
//! - [`resume`], [`resume_plan`]: checkpoints, and what remains to be sent
//! - [`lines`]: messages, one per line, read once for all recipients
//! - [`recipient`]: one receiver's publisher, streams and checkpoint
//! - [`report`]: progress, and the summary at the end
//! - [`send_result`], [`mod@overall_result`]: the result for one receiver, and for all

mod digest;
mod file_scan;
mod form;
mod input;
mod lines;
mod overall_result;
mod recipient;
mod report;
mod resume;
mod resume_plan;
mod send_result;
mod verified_reader;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ciphermq_client::{ClientId, ExchangeName, Form, Publisher, RoutingKey, keys};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::file_scan::FileScan;
use self::form::FormParser;
use self::input::{Input, InputFile};
use self::lines::{InputPosition, SharedChunk};
use self::overall_result::{all_failed, overall_result};
use self::recipient::{Recipient, SendContext};
use self::report::Report;
use self::resume::{Checkpoint, SendPlan, StreamAction};
use self::send_result::SendResult;
use self::verified_reader::VerifiedReader;
use crate::connection::{ConnectionArgs, ConnectionSettings, Identity, PrivateKeyArgs};
use crate::console::{Console, Count};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// Send messages, one per line, sealed for each receiver
///
/// Every line of the input is one message; lines end with \n or \r\n. Empty lines are skipped and
/// counted. A line need not be UTF-8. The command ends when the server has acknowledged everything.
/// Messages that are still unacknowledged after all retries are listed on standard output, one id
/// per line, and the exit code is 3.
///
/// A file is sent as one stream, with a checkpoint beside it: after a crash or a failure the same
/// command resumes after the last acknowledged message, under the same ids, so that nothing arrives
/// twice. If everything was sent already, the command says so and sends nothing. Lines that were
/// appended to the file since then are sent. A file that was modified is refused, and so is one
/// that is modified while it is sent.
///
/// With several receivers, each gets every message, sealed for it alone, under its own ids, and a
/// file has a checkpoint for each. A receiver that cannot be sent to does not keep the others from
/// getting everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The client id of a receiver that has registered its public key; may be repeated
    #[arg(long, value_name = "RECEIVER", required = true)]
    to: Vec<ClientId>,
    /// The exchange to publish to [default: ciphermq_exchange]
    #[arg(long)]
    exchange: Option<ExchangeName>,
    /// The routing key to publish by, for all receivers [default: {RECEIVER}_key]
    #[arg(long)]
    routing_key: Option<RoutingKey>,
    /// The file to read messages from, one per line; - is standard input, the default
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// The file that records how far --file is sent; with several receivers, one for each, in the
    /// same order [default: {FILE}.{RECEIVER}.ciphermq-send]
    #[arg(
        long,
        value_name = "FILE",
        value_parser = crate::value_parsers::file_path(),
        value_hint = clap::ValueHint::AnyPath,
        requires = "file",
        conflicts_with = "message"
    )]
    checkpoint: Vec<PathBuf>,
    /// Keep no checkpoint: after a crash, sending the file again creates new messages
    #[arg(long, conflicts_with_all = ["checkpoint", "again"])]
    no_checkpoint: bool,
    /// Send the whole file as new messages, whatever was sent of it before
    #[arg(long, requires = "file", conflicts_with = "message")]
    again: bool,
    /// Accept another server address than the checkpoint's: it is the same server
    #[arg(long, requires = "file", conflicts_with = "message")]
    server_moved: bool,
    /// A message, unchanged, whatever it contains; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Vec<String>,
    /// The maximum number of messages in one batch [default: 250]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: Option<u32>,
    /// Also send to a receiver that has not signed its public key: when the key is first used,
    /// whoever runs the server could substitute their own. Afterwards the key is remembered, and a
    /// change is refused
    #[arg(long, requires = "suite")]
    allow_unsigned_keys: bool,
    /// The form to seal in for a key that is not signed
    #[arg(long, value_name = "FORM", requires = "allow_unsigned_keys", value_parser = FormParser)]
    suite: Option<Form>,
    /// Also send if this client's certificate cannot sign, for example one with an RSA key: only
    /// receivers that run with --allow-unverified-senders accept such messages
    #[arg(long)]
    allow_unsigned_sessions: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The opened input and a plan for each receiver, prepared before anything is connected.
struct SendJob {
    source: Source,
    /// A plan for each receiver; `None` if no checkpoint is kept.
    plans: Vec<Result<Option<SendPlan>, Failure>>,
}

/// An opened input.
enum Source {
    Messages(Vec<String>),
    File(InputFile, FileScan),
    Stream(Box<dyn Read + Send>, String),
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    args.check()?;
    let settings = args
        .connection
        .clone()
        .resolve(Identity::Sender, PrivateKeyArgs::default())?;
    let SendJob { source, plans } =
        tokio::task::block_in_place(|| SendJob::prepare(&args, &settings, &console))?;
    if plans.iter().all(Result::is_err) {
        let failures = plans.into_iter().filter_map(Result::err);
        return all_failed(args.to.iter().cloned().zip(failures));
    }
    let mut signals = Signals::listen()?;
    let client = tokio::select! {
        client = settings.connect() => client?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    super::events::report_events(client.events(), console.clone());

    let report = Report::new(
        console.clone(),
        &args.to,
        source.bytes_to_send(&plans),
        source.resumes(),
    );
    let shared = Arc::new(SendContext {
        client,
        file_digest: source.scan().map(|scan| scan.digest.clone()),
        report: Mutex::new(report),
        input_name: source.name(),
        recipient_count: args.to.len(),
        args,
    });
    let recipients = tokio::select! {
        recipients = begin_all(&shared, plans, source.base(), &settings, &console) => recipients,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };

    let started = Instant::now();
    let path_change = source.path_check();
    let (senders, listeners) = lines::channels(recipients.len());
    let starts = recipients.iter().flatten().map(Recipient::start);
    let start = starts.min_by_key(|start| start.bytes);
    if let Some(start) = start {
        source.read(shared.client.server().limits.max_line_bytes, start, senders);
    }
    let sending = recipients
        .into_iter()
        .zip(listeners)
        .map(|(recipient, chunks)| {
            let signals = signals.clone();
            async {
                match recipient {
                    // A task for each, so that several cores seal.
                    Ok(recipient) => tokio::spawn(recipient.send(chunks, signals))
                        .await
                        .unwrap_or_else(|error| {
                            let what = format!("The sending task failed: {error}.");
                            SendResult::failed(Failure::plain(what))
                        }),
                    Err(result) => result,
                }
            }
        });
    let results: Vec<SendResult> = tokio::select! {
        biased;
        results = join_all(sending) => results,
        never = std::future::poll_fn(|cx| shared.report().poll(cx)) => match never {},
    };
    shared.report().drain();
    shared.client.close().await;

    let report = shared.report();
    if start.is_some() {
        report.summary(&results, started.elapsed());
    }
    if let Some(what) = path_change() {
        console.info(format_args!(
            "{} {what}: what was sent are its contents when sending began",
            shared.input_name.as_deref().unwrap_or_default()
        ));
    }
    if let Some(line) = results.iter().find_map(|result| result.unfinished) {
        report_unfinished(line, &shared, &report, &console);
    }
    let results = shared.args.to.iter().cloned().zip(results).collect();
    overall_result(
        results,
        &report,
        shared.input_name.as_deref().unwrap_or_default(),
        &console,
    )
}

/// Reports a last line that was skipped because it was still being written.
fn report_unfinished(line: u64, shared: &SendContext, report: &Report, console: &Console) {
    let name = shared.input_name.as_deref().unwrap_or_default();
    let what = format!("Line {line} of {name} is still being written, and was left out");
    if report.can_resume() {
        console.info(format_args!(
            "{what}: the same command sends it once it is complete"
        ));
    } else {
        console.warn(what);
    }
}

impl Args {
    /// Checks the arguments that clap cannot check.
    fn check(&self) -> Result<(), Failure> {
        let mut receivers = BTreeSet::new();
        if let Some(twice) = self.to.iter().find(|receiver| !receivers.insert(*receiver)) {
            return Err(Failure::usage(
                format!("The receiver {twice} is named twice: it would get every message twice."),
                "Name every receiver once.",
            ));
        }
        let (count, wanted) = (self.checkpoint.len(), self.to.len());
        if count == 0 {
            return Ok(());
        }
        let mut files: BTreeSet<&PathBuf> = BTreeSet::new();
        let twice = self.checkpoint.iter().find(|file| !files.insert(*file));
        let problem = if let Some(twice) = twice {
            format!(
                "--checkpoint names the file {} twice: each receiver needs one of its own.",
                twice.display()
            )
        } else if count != wanted {
            let files = if count == 1 { "file" } else { "files" };
            match wanted {
                1 => format!("There is 1 receiver, and --checkpoint names {count} {files}."),
                _ => {
                    format!("There are {wanted} receivers, and --checkpoint names {count} {files}.")
                }
            }
        } else {
            return Ok(());
        };
        Err(Failure::usage(
            problem,
            "Name as many files as receivers, in the same order, each once. Or leave --checkpoint \
             out: then each receiver has its own beside the file that is sent.",
        ))
    }
}

impl SendJob {
    /// Opens the input and the checkpoints, reads a file once, and compares it with each
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the input cannot be read, or if a checkpoint would overwrite another file
    /// that is in use. Other errors of one receiver's checkpoint are in its plan.
    fn prepare(
        args: &Args,
        settings: &ConnectionSettings,
        console: &Console,
    ) -> Result<Self, Failure> {
        let mut file = match Input::open(args, console)? {
            Input::Messages(messages) => {
                return Ok(Self::unplanned(Source::Messages(messages), args));
            }
            Input::Stream { input, name } => {
                return Ok(Self::unplanned(Source::Stream(input, name), args));
            }
            Input::File(file) => file,
        };
        let path = file.path.clone().filter(|_| file.resumes);
        let mut checkpoints = Vec::new();
        if let Some(path) = &path {
            let paths = checkpoint_paths(path, args);
            let mut files = settings.file_roles();
            files.add("the file that is to be sent", path);
            paths
                .iter()
                .try_for_each(|path| files.claim("--checkpoint", path))?;
            checkpoints.extend(
                paths
                    .into_iter()
                    .map(|path| Checkpoint::open(path, args.again)),
            );
        }
        let places = checkpoints
            .iter()
            .flatten()
            .flat_map(Checkpoint::places)
            .collect();
        let scan = FileScan::read(&mut file.file, file.base, &places).map_err(|error| {
            Failure::new(
                format!("The file {} cannot be read: {error}.", file.name),
                "Check that it is a file that you may read.",
            )
        })?;
        let Some(path) = path else {
            return Ok(Self::unplanned(Source::File(file, scan), args));
        };
        let plan =
            |checkpoint: Result<Checkpoint, Failure>| checkpoint?.compare(&path, &scan).map(Some);
        let plans = checkpoints.into_iter().map(plan).collect();
        Ok(Self {
            source: Source::File(file, scan),
            plans,
        })
    }

    fn unplanned(source: Source, args: &Args) -> Self {
        Self {
            source,
            plans: args.to.iter().map(|_| Ok(None)).collect(),
        }
    }
}

/// The paths of the receivers' checkpoints for a file.
fn checkpoint_paths(path: &Path, args: &Args) -> Vec<PathBuf> {
    let named = args.checkpoint.iter().cloned().map(Some);
    let named = named.chain(std::iter::repeat(None));
    let path_of = |(receiver, named): (&ClientId, Option<PathBuf>)| {
        named.unwrap_or_else(|| resume::default_checkpoint(path, receiver))
    };
    args.to.iter().zip(named).map(path_of).collect()
}

impl Source {
    /// The position at which the input begins: standard input may have been read in part already.
    fn base(&self) -> InputPosition {
        let bytes = self.scan().map_or(0, |scan| scan.blocks.range().start);
        InputPosition { bytes, lines: 0 }
    }

    fn scan(&self) -> Option<&FileScan> {
        match self {
            Self::File(_, scan) => Some(scan),
            Self::Messages(_) | Self::Stream(..) => None,
        }
    }

    /// The name of an input that is read, for messages.
    fn name(&self) -> Option<String> {
        match self {
            Self::Messages(_) => None,
            Self::File(file, _) => Some(file.name.clone()),
            Self::Stream(_, name) => Some(name.clone()),
        }
    }

    /// Whether the same command, run again, resumes under the same ids.
    fn resumes(&self) -> bool {
        matches!(self, Self::File(file, _) if file.resumes)
    }

    /// The number of bytes to send to all receivers together, if it is known.
    fn bytes_to_send(&self, plans: &[Result<Option<SendPlan>, Failure>]) -> Option<u64> {
        let range = self.scan()?.blocks.range();
        let left = |plan: &Option<SendPlan>| match plan {
            Some(plan) => plan.start().map_or(0, |start| range.end - start.bytes),
            None => range.end - range.start,
        };
        Some(plans.iter().flatten().map(left).sum())
    }

    /// Returns a check of the input's path that says what happened to the file, if it is not there
    /// any more.
    fn path_check(&self) -> impl Fn() -> Option<&'static str> + use<> {
        let opened = match self {
            Self::File(file, _) => file.path.clone().zip(file.file.metadata().ok()),
            Self::Messages(_) | Self::Stream(..) => None,
        };
        move || {
            let (path, metadata) = opened.as_ref()?;
            InputFile::path_change(path, metadata)
        }
    }

    /// Reads the input from `start` on and sends its lines to each of `senders`.
    fn read(self, limit: usize, start: InputPosition, senders: Vec<mpsc::Sender<SharedChunk>>) {
        match self {
            Self::Messages(messages) => lines::broadcast_messages(messages, &senders),
            Self::File(file, scan) => {
                let end = scan.blocks.range().end;
                let second_handle = file.file.try_clone();
                let is_unfinished = move |line: &[u8]| {
                    second_handle
                        .as_ref()
                        .is_ok_and(|file| input::is_last_line_unfinished(file, end, line))
                };
                let input = VerifiedReader::new(file.file, scan.blocks, start.bytes);
                lines::read(input, limit, start, is_unfinished, senders);
            }
            Self::Stream(input, _) => lines::read(input, limit, start, |_| false, senders),
        }
    }
}

/// Begins to send to each receiver. Receivers to whom nothing is sent have their result already.
async fn begin_all(
    shared: &Arc<SendContext>,
    plans: Vec<Result<Option<SendPlan>, Failure>>,
    base: InputPosition,
    settings: &ConnectionSettings,
    console: &Console,
) -> Vec<Result<Recipient, SendResult>> {
    // All of them before the first key is requested: see `SendPlan::action`.
    let actions: Vec<_> = shared
        .args
        .to
        .iter()
        .zip(plans)
        .map(|(receiver, plan)| plan_action(shared, receiver, plan?, base))
        .collect();
    let mut recipients = Vec::new();
    for (number, (receiver, action)) in shared.args.to.iter().zip(actions).enumerate() {
        let recipient = match action {
            Ok((start, action)) => begin(shared, number, receiver, action, start, console).await,
            Err(failure) => Err(SendResult::failed(failure)),
        };
        if let Ok(recipient) = &recipient {
            record_key(recipient.publisher(), settings, console).await;
        }
        recipients.push(recipient);
    }
    recipients
}

/// Determines the action for a receiver, and the position at which reading begins for it.
fn plan_action(
    shared: &SendContext,
    receiver: &ClientId,
    plan: Option<SendPlan>,
    base: InputPosition,
) -> Result<(InputPosition, Option<StreamAction>), Failure> {
    let start = plan.as_ref().and_then(SendPlan::start).unwrap_or(base);
    let (Some(plan), Some(digest)) = (plan, &shared.file_digest) else {
        return Ok((start, None));
    };
    let action = tokio::task::block_in_place(|| {
        plan.action(&shared.client, &shared.args, receiver, digest)
    })?;
    Ok((start, Some(action)))
}

async fn begin(
    shared: &Arc<SendContext>,
    number: usize,
    receiver: &ClientId,
    action: Option<StreamAction>,
    start: InputPosition,
    console: &Console,
) -> Result<Recipient, SendResult> {
    let name = shared.input_name.as_deref().unwrap_or_default();
    if let Some(StreamAction::AlreadySent(stream)) = &action {
        let state = stream.state();
        console.info(format_args!(
            "{name} was already sent to {receiver}: {}, all acknowledged. --again sends it once \
             more, as new messages",
            Count::messages(state.earlier + state.acknowledged),
        ));
        return Err(SendResult::default());
    }
    let recipient = Recipient::begin(shared.clone(), number, receiver.clone(), action, start)
        .await
        .map_err(SendResult::failed)?;
    if let Some(stream) = recipient.checkpoint() {
        let state = stream.state();
        let acknowledged = state.earlier + state.acknowledged;
        let whom = match shared.recipient_count {
            1 => String::new(),
            _ => format!(" for {receiver}"),
        };
        if acknowledged > 0 {
            console.info(format_args!(
                "Resuming {name}{whom}: {} acknowledged already",
                Count::messages(acknowledged),
            ));
        }
        console.message(format_args!(
            "Stream {}{whom}, its checkpoint is {}",
            state.stream,
            stream.path().display()
        ));
    }
    Ok(recipient)
}

/// Records the key that is used in `<receiver>_public.key` beside the certificates. The record is
/// for people: every process requests the key from the server.
async fn record_key(publisher: &Publisher, settings: &ConnectionSettings, console: &Console) {
    let (key, receiver) = (publisher.receiver_key().await, publisher.receiver());
    console.message(format_args!(
        "Public key of {receiver} received, key id {}, suite {}",
        key.key_id(),
        key.suite()
    ));
    let (folder, receiver) = (settings.certificates_folder().to_owned(), receiver.clone());
    let written =
        tokio::task::spawn_blocking(move || keys::write_record(&folder, &receiver, &key)).await;
    match written {
        Ok(Ok(_) | Err(keys::RecordError::Unfit(_))) | Err(_) => {}
        Ok(Err(error)) => console.message(format_args!("The key was not recorded: {error}")),
    }
}
