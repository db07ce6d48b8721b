//! Sending to one receiver: its session, its streams, its checkpoint.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::resume::{ResumableStream, StreamState};
use ciphermq_client::{BatchLimits, Client, ClientId, Outcome, Publisher, StreamId};
use tokio::sync::mpsc;

use super::Args;
use super::ending::{Counts, Ending, Stop};
use super::lines::{Chunk, Line, Piece, Start};
use super::pinned::Pinned;
use super::report::Report;
use super::resume::{self, Step};
use crate::exit::Failure;
use crate::output::Payload;
use crate::signals::Signals;

/// What may be sent and not settled, to all receivers together: messages and bytes.
const WINDOW: (usize, usize) = (16_384, 16 * 1024 * 1024);

/// What all recipients share.
pub(super) struct SendContext {
    pub(super) client: Client,
    pub(super) args: Args,
    /// The file that is sent, if it is one.
    pub(super) whole: Option<Pinned>,
    pub(super) report: Mutex<Report>,
    /// What people call the input, if its messages are lines of one.
    pub(super) input: Option<String>,
    /// How many there are.
    pub(super) recipients: usize,
}

/// A receiver to whom sending has begun.
pub(super) struct Recipient {
    shared: Arc<SendContext>,
    number: usize,
    receiver: ClientId,
    publisher: Publisher,
    stream: Option<Stream>,
    start: Start,
    counts: Counts,
    /// The number of the last line, if it was left out.
    unfinished: Option<u64>,
}

/// A stream with its checkpoint.
struct Stream {
    stream: ResumableStream,
    /// How much of the file it carries.
    end: u64,
    /// Where the next one begins.
    then: Option<Start>,
}

/// Learns what is acknowledged. It is set before anything is sent.
type Progress = Arc<OnceLock<Box<dyn Fn(Outcome<'_>) + Send + Sync>>>;

impl SendContext {
    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A publisher to a receiver, for a new stream or the one that a state tells of.
    async fn publisher(
        &self,
        number: usize,
        receiver: &ClientId,
        state: Option<&StreamState>,
    ) -> Result<(Publisher, Progress), PublishError> {
        let args = &self.args;
        let mut builder = self.client.publisher(receiver);
        let count = self.recipients.max(1);
        builder = builder.window(
            (WINDOW.0 / count).max(64),
            (WINDOW.1 / count).max(256 * 1024),
        );
        if let Some(form) = args.suite {
            builder = builder.allow_unsigned_key(form);
        }
        if args.allow_unsigned_sessions {
            builder = builder.allow_unsigned_sessions();
        }
        if let Some(messages) = args.batch_size {
            let messages = usize::try_from(messages).unwrap_or(usize::MAX);
            builder = builder.batch(BatchLimits {
                messages,
                ..BatchLimits::default()
            });
        }
        match state {
            Some(state) => {
                builder = builder
                    .stream(state.stream)
                    .start_at(state.acknowledged)
                    .exchange(state.exchange.clone())
                    .routing_key(state.routing_key.clone());
            }
            None => {
                if let Some(exchange) = &args.exchange {
                    builder = builder.exchange(exchange.clone());
                }
                if let Some(routing_key) = &args.routing_key {
                    builder = builder.routing_key(routing_key.clone());
                }
            }
        }
        let progress = Progress::default();
        let (told, observer) = (progress.clone(), self.report().observer(number));
        let publisher = builder.on_outcome(move |outcome| {
            if let Some(progress) = told.get() {
                progress(outcome);
            }
            observer(outcome);
        });
        Ok((publisher.start().await?, progress))
    }
}

impl Recipient {
    /// Begins to send to a receiver. The checkpoint is written when the receiver's key is had, so
    /// that nothing is pinned of which nothing can be sent, unless all was asked for once more; it
    /// is on the disk before anything is sent.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the receiver's key cannot be had, or the checkpoint cannot be written.
    pub(super) async fn begin(
        shared: Arc<SendContext>,
        number: usize,
        receiver: ClientId,
        step: Option<Step>,
        start: Start,
    ) -> Result<Self, Failure> {
        let state = step.as_ref().map(Step::state);
        let (publisher, progress) = shared.publisher(number, &receiver, state).await?;
        let stream = step
            .map(|step| tokio::task::block_in_place(|| Stream::begin(step, &progress)))
            .transpose()?;
        Ok(Self {
            shared,
            number,
            receiver,
            publisher,
            stream,
            start,
            counts: Counts::default(),
            unfinished: None,
        })
    }

    /// Where in the input its messages begin.
    pub(super) fn start(&self) -> Start {
        self.start
    }

    /// The publisher, to look at.
    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The stream and its checkpoint, if there is one.
    pub(super) fn checkpoint(&self) -> Option<&ResumableStream> {
        self.stream.as_ref().map(|stream| &stream.stream)
    }

    /// Sends everything, and settles it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if what is told cannot be written, or a checkpoint cannot.
    pub(super) async fn send(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        mut signals: Signals,
    ) -> Result<Ending, Failure> {
        let mut stop = self.all(&mut pieces, &mut signals).await?;
        // What is settled now takes its time, and nobody need wait for it.
        drop(pieces);
        let summary = self.publisher.finish().await;
        self.counts.add(&summary);
        if let Some(Stream { stream, .. }) = &mut self.stream {
            let is_all =
                self.counts.unacknowledged == 0 && stop.is_none() && self.unfinished.is_none();
            let saved = tokio::task::block_in_place(|| {
                if is_all {
                    stream.complete()
                } else {
                    stream.save()
                }
            });
            if let Err(error) = saved
                && !matches!(stop, Some(Stop::Failed(_)))
            {
                stop = Some(Stop::Failed(resume::failure(error)));
            }
        }
        Ok(Ending {
            counts: self.counts,
            stop,
            unfinished: self.unfinished,
        })
    }

    /// Sends everything; says what stopped it early, if anything did.
    async fn all(
        &mut self,
        pieces: &mut mpsc::Receiver<Piece>,
        signals: &mut Signals,
    ) -> Result<Option<Stop>, Failure> {
        loop {
            let piece = tokio::select! {
                signal = signals.received() => return Ok(Some(Stop::Signal(signal))),
                piece = pieces.recv() => piece,
            };
            let Some(piece) = piece else {
                return Ok(None);
            };
            let Ok(Chunk {
                lines,
                empty,
                unfinished,
            }) = piece.as_ref()
            else {
                return Ok(Some(Stop::Input(piece)));
            };
            self.unfinished = *unfinished;
            let begin = self.start.bytes;
            let empty = empty.iter().filter(|end| **end > begin).count();
            let empty = u64::try_from(empty).unwrap_or_default();
            self.shared.report().empty_lines(self.number, empty);
            for line in lines.iter().filter(|line| line.end > begin) {
                let then = self.stream.as_ref().and_then(|stream| stream.then);
                if then.is_some_and(|then| line.end > then.bytes)
                    && let Some(stop) = self.next_stream().await?
                {
                    return Ok(Some(stop));
                }
                if let Some(stop) = self.one(line, signals).await? {
                    return Ok(Some(stop));
                }
            }
        }
    }

    /// Sends one message, and tells before what became of others.
    async fn one(&mut self, line: &Line, signals: &mut Signals) -> Result<Option<Stop>, Failure> {
        {
            let mut report = self.shared.report();
            report.drain()?;
            if report.must_stop(self.number) {
                return Ok(Some(Stop::Refused));
            }
        }
        let payload = line.text.as_slice();
        let content_type = Payload::of(payload).content_type();
        let sealed = ciphermq_client::Payload::bytes(payload).content_type(content_type);
        let sent = tokio::select! {
            biased;
            sent = self.publisher.submit(sealed) => sent,
            signal = signals.received() => return Ok(Some(Stop::Signal(signal))),
        };
        let message_id = match sent {
            Ok(message_id) => message_id,
            Err(error) => return Ok(Some(Stop::Failed(self.unsent(&error, line)))),
        };
        self.shared.report().sent(self.number, &message_id, payload);
        let noted = match (&mut self.stream, StreamId::split(&message_id)) {
            (Some(stream), Some((_, position))) => stream.note(position, line.end),
            _ => Ok(()),
        };
        Ok(noted.err().map(Stop::Failed))
    }

    /// Everything of the stream is sent: when all of it is acknowledged the next one takes its
    /// place, for what was appended to the file. Says what keeps it from that.
    async fn next_stream(&mut self) -> Result<Option<Stop>, Failure> {
        let (Some(stream), Some(whole)) = (&mut self.stream, &self.shared.whole) else {
            return Ok(None);
        };
        if self.publisher.flush().await.is_err() {
            return Ok(Some(Stop::Refused));
        }
        let next = match tokio::task::block_in_place(|| stream.following(whole)) {
            Ok(next) => next,
            Err(failure) => return Ok(Some(Stop::Failed(failure))),
        };
        let started = self
            .shared
            .publisher(self.number, &self.receiver, Some(&next))
            .await;
        let (publisher, progress) = match started {
            Ok(started) => started,
            Err(error) => return Ok(Some(Stop::Failed(error.into()))),
        };
        let summary = std::mem::replace(&mut self.publisher, publisher)
            .finish()
            .await;
        self.counts.add(&summary);
        let begun = tokio::task::block_in_place(|| stream.next(next, &progress));
        Ok(begun.err().map(Stop::Failed))
    }

    fn unsent(&self, error: &PublishError, line: &Line) -> Failure {
        let place = match &self.shared.input {
            Some(input) => format!("Line {} of {input}", line.number),
            None => "The message".to_owned(),
        };
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
}

impl Stream {
    fn begin(step: Step, progress: &Progress) -> Result<Self, Failure> {
        let (stream, then) = step.begin()?;
        // Nobody else sets it.
        let _ = progress.set(Box::new(stream.observer()));
        let end = Pinned::read(&stream.state().input).map_or(u64::MAX, |pinned| pinned.bytes);
        Ok(Self { stream, end, then })
    }

    /// A line was sent, and the next one begins at `end`: now and then the checkpoint is saved.
    fn note(&mut self, position: u64, end: u64) -> Result<(), Failure> {
        // The ending of the last line may have been appended later.
        self.stream.sent(position, end.min(self.end));
        if self.stream.is_due() {
            tokio::task::block_in_place(|| self.stream.save()).map_err(resume::failure)?;
        }
        Ok(())
    }

    /// The stream that follows this one, whose messages are all acknowledged: that is saved first.
    fn following(&mut self, whole: &Pinned) -> Result<StreamState, Failure> {
        self.stream.complete().map_err(resume::failure)?;
        resume::following(&self.stream, whole, self.then.unwrap_or_default())
    }

    /// Puts the stream that follows into the checkpoint.
    fn next(&mut self, next: StreamState, progress: &Progress) -> Result<(), Failure> {
        resume::begin_next(&mut self.stream, next)?;
        let _ = progress.set(Box::new(self.stream.observer()));
        self.end = u64::MAX;
        self.then = None;
        Ok(())
    }
}
