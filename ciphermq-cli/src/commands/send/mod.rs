//! `send`: messages from a file, the command line or standard input, sealed for one receiver or
//! several.
//!
//! ```text
//!   input ──► survey (a file: hashed, compared with each receiver's checkpoint)
//!     │
//!     └─► compared with the survey again ─► lines ─┬─► recipient ─► publisher ─► ACK ─► its checkpoint
//!                                                  └─► recipient ─► ...
//! ```
//!
//! - [`input`]: where messages come from
//! - [`survey`], [`pinned`], [`blocks`]: what a file was when sending began, and that it is still
//!   that
//! - [`resume`], [`course`]: what a checkpoint says, and what is to be done then
//! - [`lines`]: messages, one a line, for everybody who sends them
//! - [`recipient`]: one receiver's session, streams and checkpoint
//! - [`report`], [`ending`]: what is told meanwhile, and at the end

mod blocks;
mod course;
mod ending;
mod form;
mod input;
mod lines;
mod pinned;
mod recipient;
mod report;
mod resume;
mod survey;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ciphermq_client::{ClientId, ExchangeName, Form, Publisher, RoutingKey, keys};
use futures_util::future::join_all;
use tokio::sync::mpsc;

use self::blocks::Compared;
use self::ending::{Ending, conclude};
use self::form::FormParser;
use self::input::{Input, InputFile};
use self::lines::{Piece, Start};
use self::recipient::{Recipient, SendContext};
use self::report::Report;
use self::resume::{Checkpoint, Plan, Step};
use self::survey::Survey;
use crate::connection::{ConnectionArgs, ConnectionSettings, Identity, PrivateKeyArgs};
use crate::console::{Console, Messages};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// Send messages, one a line, sealed for each receiver
///
/// Every line of the input is one message; lines end with \n or \r\n. Empty lines are left out and
/// counted. A line need not be UTF-8. The command ends when the server has acknowledged everything.
/// What was not acknowledged after all retries is listed on standard output, one message id a line,
/// and the exit code is 3.
///
/// A file is sent as one stream, with a checkpoint beside it: after a crash or a failure the same
/// command goes on where everything before is acknowledged, under the same ids, so that nothing
/// arrives twice. When all of it was sent the command says so and sends nothing. What was appended
/// to the file since is sent. A file that was changed is refused, and so is one that changes while
/// it is sent.
///
/// With several receivers each gets all messages, sealed for it alone, under ids of its own, and a
/// file has a checkpoint for each. One that cannot be sent to does not keep the others from getting
/// everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The client id of a receiver, which has registered its public key; may be repeated
    #[arg(long, value_name = "RECEIVER", required = true)]
    to: Vec<ClientId>,
    /// The exchange to publish to [default: ciphermq_exchange]
    #[arg(long)]
    exchange: Option<ExchangeName>,
    /// The routing key to publish by, for all receivers [default: {RECEIVER}_key]
    #[arg(long)]
    routing_key: Option<RoutingKey>,
    /// The file to read messages from, one a line; - is standard input, the default
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// Where it is kept how far the file is sent; with several receivers one for each, in their
    /// order [default: {FILE}.{RECEIVER}.ciphermq-send]
    #[arg(
        long,
        value_name = "FILE",
        requires = "file",
        conflicts_with = "message"
    )]
    checkpoint: Vec<PathBuf>,
    /// Keep no checkpoint: after a crash, sending the file again makes new messages
    #[arg(long, conflicts_with_all = ["checkpoint", "again"])]
    no_checkpoint: bool,
    /// Send all of the file as new messages, whatever was sent of it before
    #[arg(long, requires = "file", conflicts_with = "message")]
    again: bool,
    /// The server that the file began to be sent to is the same, at another address
    #[arg(long, requires = "file", conflicts_with = "message")]
    server_moved: bool,
    /// A message, whole, whatever is in it; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Vec<String>,
    /// The most messages in one batch [default: 250]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: Option<u32>,
    /// Also send to a receiver that has not signed its public key: whoever runs the server could
    /// put in one of their own, the first time. After that the key is remembered, and a change is
    /// refused
    #[arg(long, requires = "suite")]
    allow_unsigned_keys: bool,
    /// How to seal for a key that is not signed
    #[arg(long, value_name = "FORM", requires = "allow_unsigned_keys", value_parser = FormParser)]
    suite: Option<Form>,
    /// Also send if this client's certificate cannot sign, an RSA key for example: only receivers
    /// that run with --allow-unverified-senders take such messages
    #[arg(long)]
    allow_unsigned_sessions: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What is to be sent, before anything is connected.
struct Work {
    source: Source,
    /// For each receiver what it is to get; nothing if no checkpoint is kept.
    plans: Vec<Result<Option<Plan>, Failure>>,
}

/// What messages are read from.
enum Source {
    Messages(Vec<String>),
    File(InputFile, Survey),
    Stream(Box<dyn Read + Send>, String),
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    args.check()?;
    let settings = args
        .connection
        .clone()
        .resolve(Identity::Sender, PrivateKeyArgs::default())?;
    let Work { source, plans } =
        tokio::task::block_in_place(|| Work::prepare(&args, &settings, &console))?;
    if plans.iter().all(Result::is_err) {
        let failures = plans.into_iter().filter_map(Result::err);
        return ending::refused(args.to.iter().cloned().zip(failures));
    }
    let mut signals = Signals::listen()?;
    let client = tokio::select! {
        client = settings.connect() => client?,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };
    super::tell_events(client.events(), console.clone());

    let report = Report::new(
        console.clone(),
        &args.to,
        source.bytes_to_send(&plans),
        source.resumes(),
    );
    let shared = Arc::new(SendContext {
        client,
        whole: source.survey().map(|survey| survey.whole.clone()),
        report: Mutex::new(report),
        input: source.name(),
        recipients: args.to.len(),
        args,
    });
    let begun = tokio::select! {
        begun = begin_all(&shared, plans, source.base(), &settings, &console) => begun,
        signal = signals.received() => return Ok(Exit::Signalled(signal)),
    };

    let started = Instant::now();
    let replaced = source.replaced();
    let (senders, listeners) = lines::channels(begun.len());
    let starts = begun.iter().flatten().map(Recipient::start);
    let start = starts.min_by_key(|start| start.bytes);
    if let Some(start) = start {
        source.read(shared.client.server().limits.max_line_bytes, start, senders);
    }
    let sending = begun.into_iter().zip(listeners).map(|(begun, pieces)| {
        let signals = signals.clone();
        async {
            match begun {
                // A task for each, as sealing takes time.
                Ok(recipient) => tokio::spawn(recipient.send(pieces, signals))
                    .await
                    .unwrap_or_else(|error| {
                        Err(Failure::plain(format!("Sending has ended: {error}.")))
                    }),
                Err(ending) => Ok(ending),
            }
        }
    });
    let endings: Result<Vec<Ending>, Failure> = tokio::select! {
        biased;
        endings = join_all(sending) => endings.into_iter().collect(),
        failure = std::future::poll_fn(|cx| shared.report().poll(cx)) => Err(failure),
    };
    let endings = endings?;
    shared.report().drain()?;
    shared.client.close().await;

    let report = shared.report();
    if start.is_some() {
        report.summary(&endings, started.elapsed());
    }
    if replaced() {
        console.say(format_args!(
            "{} is another file by now: what was sent is what it was when sending began",
            shared.input.as_deref().unwrap_or_default()
        ));
    }
    if let Some(line) = endings.iter().find_map(|ending| ending.unfinished) {
        tell_unfinished(line, &shared, &report, &console);
    }
    let endings = shared.args.to.iter().cloned().zip(endings).collect();
    conclude(
        endings,
        &report,
        shared.input.as_deref().unwrap_or_default(),
        &console,
    )
}

/// A line that somebody is still writing is no message yet.
fn tell_unfinished(line: u64, shared: &SendContext, report: &Report, console: &Console) {
    let name = shared.input.as_deref().unwrap_or_default();
    let what = format!("Line {line} of {name} is still being written, and was left out");
    if report.can_resume() {
        console.say(format_args!(
            "{what}: the same command sends it once it is whole"
        ));
    } else {
        console.warn(what);
    }
}

impl Args {
    /// Checks what the command line alone can tell.
    fn check(&self) -> Result<(), Failure> {
        let mut receivers = BTreeSet::new();
        if let Some(twice) = self.to.iter().find(|receiver| !receivers.insert(*receiver)) {
            return Err(Failure::usage(
                format!("The receiver {twice} is named twice: it would get every message twice."),
                "Name every receiver once.",
            ));
        }
        let checkpoints: BTreeSet<&PathBuf> = self.checkpoint.iter().collect();
        let (count, wanted) = (self.checkpoint.len(), self.to.len());
        if count > 0 && (count != wanted || checkpoints.len() != wanted) {
            return Err(Failure::usage(
                format!(
                    "There are {wanted} receivers, and --checkpoint names {} files.",
                    checkpoints.len()
                ),
                "Name as many files as receivers, in the same order, each once. Or leave \
                 --checkpoint out: then each has its own beside the file that is sent.",
            ));
        }
        Ok(())
    }
}

impl Work {
    /// Opens the input and the checkpoints, reads a file once, and compares it with each
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the input cannot be read, or if a checkpoint would be written over another
    /// file that is in use. What else is wrong with one receiver's checkpoint is for its plan.
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
            let mut files = settings.own_files();
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
        let survey = Survey::of(&mut file.file, file.base, &places).map_err(|error| {
            Failure::new(
                format!("The file {} cannot be read: {error}.", file.name),
                "Check that it is a file that you may read.",
            )
        })?;
        let Some(path) = path else {
            return Ok(Self::unplanned(Source::File(file, survey), args));
        };
        let plan =
            |checkpoint: Result<Checkpoint, Failure>| checkpoint?.compare(&path, &survey).map(Some);
        let plans = checkpoints.into_iter().map(plan).collect();
        Ok(Self {
            source: Source::File(file, survey),
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

/// Where every receiver's checkpoint for a file is.
fn checkpoint_paths(path: &Path, args: &Args) -> Vec<PathBuf> {
    let named = args.checkpoint.iter().cloned().map(Some);
    let named = named.chain(std::iter::repeat(None));
    let place = |(receiver, named): (&ClientId, Option<PathBuf>)| {
        named.unwrap_or_else(|| resume::default_checkpoint(path, receiver))
    };
    args.to.iter().zip(named).map(place).collect()
}

impl Source {
    /// Where in the input reading begins.
    fn base(&self) -> Start {
        let bytes = self
            .survey()
            .map_or(0, |survey| survey.blocks.range().start);
        Start { bytes, lines: 0 }
    }

    fn survey(&self) -> Option<&Survey> {
        match self {
            Self::File(_, survey) => Some(survey),
            Self::Messages(_) | Self::Stream(..) => None,
        }
    }

    /// What people call it, if it is read.
    fn name(&self) -> Option<String> {
        match self {
            Self::Messages(_) => None,
            Self::File(file, _) => Some(file.name.clone()),
            Self::Stream(_, name) => Some(name.clone()),
        }
    }

    /// Whether the same command goes on under the same ids.
    fn resumes(&self) -> bool {
        matches!(self, Self::File(file, _) if file.resumes)
    }

    /// How much is to be sent to all together, if that is known.
    fn bytes_to_send(&self, plans: &[Result<Option<Plan>, Failure>]) -> Option<u64> {
        let range = self.survey()?.blocks.range();
        let left = |plan: &Option<Plan>| match plan {
            Some(plan) => plan.start().map_or(0, |start| range.end - start.bytes),
            None => range.end - range.start,
        };
        Some(plans.iter().flatten().map(left).sum())
    }

    /// Tells whether another file has taken the place of this one.
    fn replaced(&self) -> impl Fn() -> bool + use<> {
        let opened = match self {
            Self::File(
                InputFile {
                    file,
                    path: Some(path),
                    ..
                },
                _,
            ) => file
                .metadata()
                .ok()
                .map(|metadata| (path.clone(), metadata)),
            _ => None,
        };
        move || {
            let replaced = |(path, metadata): &(PathBuf, _)| InputFile::is_replaced(path, metadata);
            opened.as_ref().is_some_and(replaced)
        }
    }

    /// Reads it from `start` on, for everybody in `senders`.
    fn read(self, limit: usize, start: Start, senders: Vec<mpsc::Sender<Piece>>) {
        match self {
            Self::Messages(messages) => lines::hand_on(messages, &senders),
            Self::File(file, survey) => {
                let end = survey.blocks.range().end;
                let again = file.file.try_clone();
                let goes_on = move |line: &[u8]| {
                    again
                        .as_ref()
                        .is_ok_and(|file| input::goes_on(file, end, line))
                };
                let input = Compared::new(file.file, survey.blocks, start.bytes);
                lines::read(input, limit, start, goes_on, senders);
            }
            Self::Stream(input, _) => lines::read(input, limit, start, |_| false, senders),
        }
    }
}

/// Begins to send to each receiver; those to whom nothing is sent have their ending already.
async fn begin_all(
    shared: &Arc<SendContext>,
    plans: Vec<Result<Option<Plan>, Failure>>,
    base: Start,
    settings: &ConnectionSettings,
    console: &Console,
) -> Vec<Result<Recipient, Ending>> {
    // All of them before the first key is asked for: see `Plan::step`.
    let steps: Vec<_> = shared
        .args
        .to
        .iter()
        .zip(plans)
        .map(|(receiver, plan)| step(shared, receiver, plan?, base))
        .collect();
    let mut all = Vec::new();
    for (number, (receiver, step)) in shared.args.to.iter().zip(steps).enumerate() {
        let begun = match step {
            Ok((start, step)) => begin(shared, number, receiver, step, start, console).await,
            Err(failure) => Err(Ending::failed(failure)),
        };
        if let Ok(recipient) = &begun {
            record_key(recipient.publisher(), settings, console).await;
        }
        all.push(begun);
    }
    all
}

/// What is to be done for a receiver, and where reading begins for it.
fn step(
    shared: &SendContext,
    receiver: &ClientId,
    plan: Option<Plan>,
    base: Start,
) -> Result<(Start, Option<Step>), Failure> {
    let start = plan.as_ref().and_then(Plan::start).unwrap_or(base);
    let (Some(plan), Some(whole)) = (plan, &shared.whole) else {
        return Ok((start, None));
    };
    let step =
        tokio::task::block_in_place(|| plan.step(&shared.client, &shared.args, receiver, whole))?;
    Ok((start, Some(step)))
}

async fn begin(
    shared: &Arc<SendContext>,
    number: usize,
    receiver: &ClientId,
    step: Option<Step>,
    start: Start,
    console: &Console,
) -> Result<Recipient, Ending> {
    let name = shared.input.as_deref().unwrap_or_default();
    if let Some(Step::Sent(stream)) = &step {
        let state = stream.state();
        console.say(format_args!(
            "{name} was already sent to {receiver}: {}, all acknowledged. --again sends it once \
             more, as new messages",
            Messages(state.earlier + state.acknowledged),
        ));
        return Err(Ending::default());
    }
    let recipient = Recipient::begin(shared.clone(), number, receiver.clone(), step, start)
        .await
        .map_err(Ending::failed)?;
    if let Some(stream) = recipient.checkpoint() {
        let state = stream.state();
        let acknowledged = state.earlier + state.acknowledged;
        let whom = match shared.recipients {
            1 => String::new(),
            _ => format!(" for {receiver}"),
        };
        if acknowledged > 0 {
            console.say(format_args!(
                "Going on with {name}{whom}: acknowledged of it: {}",
                Messages(acknowledged),
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

/// Keeps a record of the key that was used, `<receiver>_public.key` beside the certificates. It is
/// a record only: the server is asked anew by every process.
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
        Ok(Err(error)) => console.message(format_args!("No record of the key was kept: {error}")),
    }
}
