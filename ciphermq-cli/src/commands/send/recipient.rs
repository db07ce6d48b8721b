//! Sending to one receiver: its publisher, its streams, its checkpoint.

use std::sync::{Arc, OnceLock};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::resume::{ResumableStream, StreamState};
use ciphermq_client::{BatchLimits, Client, ClientId, Outcome, Publisher, StreamId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use super::Args;
use super::digest::FileDigest;
use super::lines::{Chunk, InputPosition, Line, SharedChunk};
use super::report::Report;
use super::resume::{self, StreamAction};
use super::send_result::{Counts, SendResult, StopReason};
use crate::exit::Failure;
use crate::output::Payload;
use crate::signals::Signals;

/// The limit of sent and not yet settled messages and bytes, for all receivers together.
const WINDOW: (usize, usize) = (16_384, 16 * 1024 * 1024);

/// The state that all recipients share.
pub(super) struct SendContext {
    pub(super) client: Client,
    pub(super) args: Args,
    /// Length and hash of the input, if it is a file.
    pub(super) file_digest: Option<FileDigest>,
    pub(super) report: Mutex<Report>,
    /// The input's name for messages, if its messages are lines.
    pub(super) input_name: Option<String>,
    pub(super) recipient_count: usize,
}

/// A receiver to whom sending has begun.
pub(super) struct Recipient {
    shared: Arc<SendContext>,
    number: usize,
    receiver: ClientId,
    publisher: Publisher,
    stream: Option<CheckpointedStream>,
    start: InputPosition,
    counts: Counts,
    /// The number of the last line, if it was skipped.
    unfinished: Option<u64>,
}

/// A stream with its checkpoint.
struct CheckpointedStream {
    stream: ResumableStream,
    /// The offset in the file at which the stream ends.
    end: u64,
    /// The position in the file at which the next stream begins, if there is one.
    next_stream_at: Option<InputPosition>,
}

/// A stream's observer of outcomes. It is set before anything is sent.
type StreamObserver = Arc<OnceLock<Box<dyn Fn(Outcome<'_>) + Send + Sync>>>;

impl SendContext {
    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock()
    }

    /// Starts a publisher to a receiver, for the stream of `state`, or else for a new one.
    async fn publisher(
        &self,
        number: usize,
        receiver: &ClientId,
        state: Option<&StreamState>,
    ) -> Result<(Publisher, StreamObserver), PublishError> {
        let args = &self.args;
        let mut builder = self.client.publisher(receiver);
        let count = self.recipient_count.max(1);
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
        let stream_observer = StreamObserver::default();
        let (of_stream, of_report) = (stream_observer.clone(), self.report().observer(number));
        let publisher = builder.on_outcome(move |outcome| {
            if let Some(of_stream) = of_stream.get() {
                of_stream(outcome);
            }
            of_report(outcome);
        });
        Ok((publisher.start().await?, stream_observer))
    }
}

impl Recipient {
    /// Begins to send to a receiver.
    ///
    /// Except with `--again`, the checkpoint is written only once the receiver's key is known, so
    /// that it pins no file of which nothing can be sent. It is on the disk before the first
    /// message is sent.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the receiver's key cannot be obtained, or the checkpoint cannot be written.
    pub(super) async fn begin(
        shared: Arc<SendContext>,
        number: usize,
        receiver: ClientId,
        action: Option<StreamAction>,
        start: InputPosition,
    ) -> Result<Self, Failure> {
        let state = action.as_ref().map(StreamAction::state);
        let (publisher, observer) = shared.publisher(number, &receiver, state).await?;
        let begin =
            |action| tokio::task::block_in_place(|| CheckpointedStream::begin(action, &observer));
        let stream = action.map(begin).transpose()?;
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

    /// The position in the input at which this receiver's messages begin.
    pub(super) fn start(&self) -> InputPosition {
        self.start
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The stream with its checkpoint, if one is kept.
    pub(super) fn checkpoint(&self) -> Option<&ResumableStream> {
        self.stream.as_ref().map(|stream| &stream.stream)
    }

    /// Sends all lines, and waits until every message is settled.
    pub(super) async fn send(
        mut self,
        mut chunks: mpsc::Receiver<SharedChunk>,
        mut signals: Signals,
    ) -> SendResult {
        let mut stop = self.send_lines(&mut chunks, &mut signals).await;
        // Settling takes time, and must not hold up the other receivers.
        drop(chunks);
        let summary = self.publisher.finish().await;
        self.counts.add(&summary);
        if let Some(CheckpointedStream { stream, .. }) = &mut self.stream {
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
                && !matches!(stop, Some(StopReason::Failed(_)))
            {
                stop = Some(StopReason::Failed(resume::failure(error)));
            }
        }
        SendResult {
            counts: self.counts,
            stop,
            unfinished: self.unfinished,
        }
    }

    /// Sends all lines. Returns the reason if it stops before the end of the input.
    async fn send_lines(
        &mut self,
        chunks: &mut mpsc::Receiver<SharedChunk>,
        signals: &mut Signals,
    ) -> Option<StopReason> {
        loop {
            let chunk = tokio::select! {
                signal = signals.received() => return Some(StopReason::Signal(signal)),
                chunk = chunks.recv() => chunk?,
            };
            let Ok(Chunk {
                lines,
                empty,
                unfinished,
            }) = chunk.as_ref()
            else {
                return Some(StopReason::Input(chunk));
            };
            self.unfinished = *unfinished;
            let begin = self.start.bytes;
            let empty = empty.iter().filter(|end| **end > begin).count();
            let empty = u64::try_from(empty).unwrap_or_default();
            self.shared.report().add_empty_lines(self.number, empty);
            for line in lines.iter().filter(|line| line.end > begin) {
                let next_stream_at = self
                    .stream
                    .as_ref()
                    .and_then(|stream| stream.next_stream_at);
                if next_stream_at.is_some_and(|position| line.end > position.bytes)
                    && let Some(stop) = self.next_stream().await
                {
                    return Some(stop);
                }
                if let Some(stop) = self.send_line(line, signals).await {
                    return Some(stop);
                }
            }
        }
    }

    /// Reports the messages that are settled by now, then sends one more.
    async fn send_line(&mut self, line: &Line, signals: &mut Signals) -> Option<StopReason> {
        {
            let mut report = self.shared.report();
            report.drain();
            if let Some(failure) = report.listing_failure() {
                return Some(StopReason::Unlisted(failure.clone()));
            }
            if report.must_stop(self.number) {
                return Some(StopReason::Refused);
            }
        }
        let payload = line.text.as_slice();
        let content_type = Payload::of(payload).content_type();
        let sealed = ciphermq_client::Payload::bytes(payload).content_type(content_type);
        let sent = tokio::select! {
            biased;
            sent = self.publisher.submit(sealed) => sent,
            signal = signals.received() => return Some(StopReason::Signal(signal)),
        };
        let message_id = match sent {
            Ok(message_id) => message_id,
            Err(error) => return Some(StopReason::Failed(self.unsent_failure(&error, line))),
        };
        self.shared.report().sent(self.number, &message_id, payload);
        let recorded = match (&mut self.stream, StreamId::split(&message_id)) {
            (Some(stream), Some((_, position))) => stream.record_sent(position, line.end),
            _ => Ok(()),
        };
        recorded.err().map(StopReason::Failed)
    }

    /// Waits until the whole stream is acknowledged, then begins the next one, for the lines that
    /// were appended to the file. Returns the reason if it cannot.
    async fn next_stream(&mut self) -> Option<StopReason> {
        let (Some(stream), Some(file)) = (&mut self.stream, &self.shared.file_digest) else {
            return None;
        };
        if self.publisher.flush().await.is_err() {
            return Some(StopReason::Refused);
        }
        let next = match tokio::task::block_in_place(|| stream.complete(file)) {
            Ok(next) => next,
            Err(failure) => return Some(StopReason::Failed(failure)),
        };
        let started = self
            .shared
            .publisher(self.number, &self.receiver, Some(&next))
            .await;
        let (publisher, observer) = match started {
            Ok(started) => started,
            Err(error) => return Some(StopReason::Failed(error.into())),
        };
        let summary = std::mem::replace(&mut self.publisher, publisher)
            .finish()
            .await;
        self.counts.add(&summary);
        let begun = tokio::task::block_in_place(|| stream.begin_next(next, &observer));
        begun.err().map(StopReason::Failed)
    }

    fn unsent_failure(&self, error: &PublishError, line: &Line) -> Failure {
        let place = match &self.shared.input_name {
            Some(input) => format!("Line {} of {input}", line.number),
            None => "The message".to_owned(),
        };
        let advice = match (error.kind(), error.advice()) {
            (PublishErrorKind::TooLarge, advice) => {
                format!(
                    "Everything before it was sent, nothing after it.\n{}",
                    advice.unwrap_or("Send it in smaller parts.")
                )
            }
            (_, Some(advice)) => advice.to_owned(),
            (_, None) => "Everything before it was sent, nothing after it.".to_owned(),
        };
        Failure::new(format!("{place} was not sent: {error}"), advice)
    }
}

impl CheckpointedStream {
    fn begin(action: StreamAction, observer: &StreamObserver) -> Result<Self, Failure> {
        let (stream, next_stream_at) = action.begin()?;
        // Nothing else sets it.
        let _ = observer.set(Box::new(stream.observer()));
        let end = FileDigest::parse(&stream.state().input).map_or(u64::MAX, |pinned| pinned.bytes);
        Ok(Self {
            stream,
            end,
            next_stream_at,
        })
    }

    /// Records that a line was sent that ends at the offset `end`, and saves the checkpoint if that
    /// is due.
    fn record_sent(&mut self, position: u64, end: u64) -> Result<(), Failure> {
        // The ending of the last line may have been appended later.
        self.stream.sent(position, end.min(self.end));
        if self.stream.is_due() {
            tokio::task::block_in_place(|| self.stream.save()).map_err(resume::failure)?;
        }
        Ok(())
    }

    /// Saves that the stream is complete, and returns the state of the next one. All messages must
    /// be acknowledged.
    fn complete(&mut self, file: &FileDigest) -> Result<StreamState, Failure> {
        self.stream.complete().map_err(resume::failure)?;
        resume::next_state(&self.stream, file, self.next_stream_at.unwrap_or_default())
    }

    /// Replaces the stream in its checkpoint by the next one.
    fn begin_next(&mut self, next: StreamState, observer: &StreamObserver) -> Result<(), Failure> {
        resume::begin_next(&mut self.stream, next)?;
        let _ = observer.set(Box::new(self.stream.observer()));
        self.end = u64::MAX;
        self.next_stream_at = None;
        Ok(())
    }
}
