//! The receiver's loop: takes messages, writes them, and acknowledges those that are written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ciphermq_client::{
    ConsumeError, Consumer, Event, Events, Message, OpenError, Unopenable, UnopenableReason,
};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::active_time::ActiveTime;
use super::adaptive_prefetch::AdaptivePrefetch;
use super::batch::{Batch, WrittenBatch};
use super::gaps::GapReporter;
use super::idle_timer::IdleTimer;
use super::output_name;
use super::repeated_losses::RepeatedLosses;
use super::set_aside::SetAsideReport;
use super::settlement::Settlement;
use crate::connection::ConnectionSettings;
use crate::console::Console;
use crate::console::rate::{RateMeter, rate};
use crate::exit::{Exit, Failure};
use crate::output::pipe::StopHandle;
use crate::output::sink::SinkError;
use crate::output::{Quarantine, Sink};
use crate::signals::Signals;

/// The reason why the receiver ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    /// `--count` messages are written.
    Count,
    /// No message has arrived for the time of `--idle-exit`.
    Idle,
    /// A signal asked the program to end.
    Signal,
    /// The reader of standard output has closed it.
    ReaderGone,
}

/// Receives messages from a consumer and writes them to a sink.
pub(super) struct Receiver {
    consumer: Consumer,
    console: Console,
    quarantine: Quarantine,
    set_aside: SetAsideReport,
    count: Option<u64>,
    idle_timer: Option<IdleTimer>,
    settlement: Settlement,
    gaps: Option<GapReporter>,
    /// Opened messages that wait for the write before them.
    pending: Batch,
    /// The output; `None` while a write is in progress.
    sink: Option<Sink>,
    writing: Option<JoinHandle<(Sink, Result<WrittenBatch, SinkError>)>>,
    /// The channel for parts of a batch that are written while the rest is still in progress.
    progress: (
        mpsc::UnboundedSender<WrittenBatch>,
        mpsc::UnboundedReceiver<WrittenBatch>,
    ),
    /// Stops a write into a pipe.
    stop: Option<StopHandle>,
    /// Standard output, if it is a pipe, to detect that its reader has closed it.
    pipe: Option<pipe::Sender>,
    adaptive_prefetch: Option<AdaptivePrefetch>,
    /// The number of messages taken from the consumer to be written.
    taken: u64,
    /// The number of written messages.
    written: u64,
    events: Events,
    is_connected: bool,
    losses: RepeatedLosses,
    checkpoint: Option<PathBuf>,
    active_time: ActiveTime,
    rate_meter: RateMeter,
}

/// The options of a [`Receiver`].
pub(super) struct ReceiverConfig {
    pub(super) quarantine: Quarantine,
    /// The checkpoint of an output file.
    pub(super) checkpoint: Option<PathBuf>,
    /// The number of messages after which it ends.
    pub(super) count: Option<u64>,
    pub(super) idle_timer: Option<IdleTimer>,
    pub(super) gaps: Option<GapReporter>,
    /// The prefetch of a pipe; `None` if the prefetch is fixed.
    pub(super) adaptive_prefetch: Option<AdaptivePrefetch>,
}

impl Receiver {
    pub(super) fn new(
        config: ReceiverConfig,
        consumer: Consumer,
        sink: Sink,
        console: Console,
    ) -> Self {
        let ReceiverConfig {
            quarantine,
            checkpoint,
            count,
            idle_timer,
            gaps,
            adaptive_prefetch,
        } = config;
        let set_aside = SetAsideReport::new(console.clone(), quarantine.path.clone());
        Self {
            stop: sink.pipe().map(|pipe| pipe.stop()),
            pipe: watchable_stdout(&sink),
            progress: mpsc::unbounded_channel(),
            adaptive_prefetch,
            gaps,
            quarantine,
            count,
            idle_timer,
            set_aside,
            settlement: Settlement::new(consumer.acker(), console.clone()),
            pending: Batch::default(),
            sink: Some(sink),
            writing: None,
            taken: 0,
            written: 0,
            events: consumer.events(),
            is_connected: true,
            losses: RepeatedLosses::new(Instant::now()),
            checkpoint,
            active_time: ActiveTime::default(),
            rate_meter: RateMeter::default(),
            consumer,
            console,
        }
    }

    /// Receives until there is a reason to end, then writes and settles what was received.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the output fails, if the connection is closed for good, or if
    /// acknowledgements stay unconfirmed.
    pub(super) async fn run(
        mut self,
        signals: &mut Signals,
        settings: &ConnectionSettings,
        output: &Path,
    ) -> Result<Exit, Failure> {
        let end = match self.receive(signals).await {
            Ok(end) => self
                .finish(end, signals)
                .await
                .map(|gone| gone.unwrap_or(end)),
            Err(failure) => Err(failure),
        };
        let Self {
            consumer,
            console,
            mut settlement,
            written,
            count,
            active_time,
            sink,
            gaps,
            set_aside,
            ..
        } = self;
        if let Some(sink) = sink {
            // Without a last checkpoint the next receiver reads more of the file: not an error.
            let closed = tokio::task::spawn_blocking(|| sink.close()).await;
            if let Ok(Err(error)) = closed {
                console.warn(format_args!(
                    "{error}. Nothing is lost: the next receiver reads the output instead"
                ));
            }
        }
        settlement.complete().await;
        let duplicates = consumer.duplicates();
        consumer.close().await;
        let unconfirmed = settlement.retry_acks(settings).await;

        console.bar().finish_and_clear();
        let missing = match gaps.map_or(0, |gaps| gaps.finish()) {
            0 => String::new(),
            missing => format!(", {missing} missing"),
        };
        let left_to_server = set_aside.finish();
        let (elapsed, rate) = (
            active_time.time().as_secs_f64(),
            rate(written, active_time.time()),
        );
        console.info(format_args!(
            "{written} received, {} confirmed, {duplicates} duplicates left out, {} set \
             aside{left_to_server}{missing} in {elapsed:.3} s ({rate:.0}/s), into {}",
            settlement.confirmed(),
            settlement.set_aside(),
            output_name(output),
        ));
        let end = end?;
        if let Some(failure) = settlement.failure(&unconfirmed) {
            return Err(failure);
        }
        match (end, count) {
            (EndReason::Idle, Some(count)) if written < count => Ok(Exit::Less),
            _ => Ok(Exit::Done),
        }
    }

    /// Receives until there is a reason to end. Pending messages may remain, not yet written.
    async fn receive(&mut self, signals: &mut Signals) -> Result<EndReason, Failure> {
        loop {
            self.write_pending();
            if self.is_count_taken() && self.pending.is_empty() && self.writing.is_none() {
                return Ok(EndReason::Count);
            }
            let takes_more =
                !self.is_count_taken() && !self.pending.is_full() && !self.settlement.is_full();
            let has_nothing_to_write = self.pending.is_empty() && self.writing.is_none();
            let is_idle = self.is_connected && has_nothing_to_write;
            tokio::select! {
                item = self.consumer.next(), if takes_more => self.take_available(item)?,
                written = joined(&mut self.writing), if self.writing.is_some() => {
                    if let Some(end) = self.write_ended(written?)? {
                        return Ok(end);
                    }
                }
                Some(written) = self.progress.1.recv() => self.settle(written),
                () = reader_gone(self.pipe.as_ref()), if has_nothing_to_write => {
                    return Ok(EndReason::ReaderGone);
                }
                () = self.settlement.next(), if !self.settlement.is_empty() => {}
                () = IdleTimer::expired(self.idle_timer.as_ref()), if is_idle => {
                    if self.confirm_idle() {
                        return Ok(EndReason::Idle);
                    }
                }
                () = due(&mut self.gaps) => {
                    if let Some(gaps) = &mut self.gaps {
                        gaps.check();
                    }
                }
                Some(event) = self.events.next() => self.handle_event(&event),
                _ = signals.received() => return Ok(EndReason::Signal),
            }
        }
    }

    fn is_count_taken(&self) -> bool {
        self.count.is_some_and(|count| self.taken >= count)
    }

    /// Takes a message, and all others that are available without waiting.
    fn take_available(
        &mut self,
        item: Option<Result<Message, ConsumeError>>,
    ) -> Result<(), Failure> {
        let Some(item) = item else {
            return Err(Failure::new(
                "The connection was closed for good.",
                "See the server's log, then run the receiver again.",
            ));
        };
        let mut item = Some(item);
        while let Some(one) = item.take() {
            if let Err(ConsumeError::Ended(reason)) = one {
                return Err(reason.into());
            }
            self.take(one);
            if !self.is_count_taken() && !self.pending.is_full() {
                item = self.consumer.try_next();
            }
        }
        Ok(())
    }

    fn take(&mut self, item: Result<Message, ConsumeError>) {
        if let Some(timer) = &mut self.idle_timer
            && !is_of_other_sender(&item)
        {
            timer.restart();
        }
        match item {
            Ok(message) => {
                self.taken += 1;
                let is_busy = self.writing.is_some() || !self.pending.is_empty();
                self.active_time.message_received(Instant::now(), is_busy);
                self.report_opened(&message);
                if let Some(gaps) = &mut self.gaps {
                    gaps.observe(&message);
                }
                self.pending.push(message);
            }
            Err(ConsumeError::Unopenable(unopenable)) => self.pending.push_unopenable(unopenable),
            Err(error) => self.console.warn(error),
        }
    }

    fn report_opened(&self, message: &Message) {
        let id = message.message_id();
        if self.console.shows_payloads() {
            let text = String::from_utf8_lossy(message.payload());
            self.console
                .message(format_args!("Decrypted message {id}: {text}"));
        } else {
            self.console.message(format_args!("Decrypted message {id}"));
        }
    }

    /// Begins to write the pending messages, unless a write is in progress.
    fn write_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Some(mut sink) = self.sink.take() {
            let batch = std::mem::take(&mut self.pending);
            let (quarantine, progress) = (self.quarantine.clone(), self.progress.0.clone());
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let report = |written| {
                    // The receiving end is a field of `self`.
                    let _ = progress.send(written);
                };
                let written = batch.write(
                    &mut sink,
                    |lines, ends| quarantine.append(lines, ends),
                    report,
                );
                (sink, written)
            }));
        }
    }

    /// Takes the sink back after a write, and settles what was written.
    fn write_ended(
        &mut self,
        (sink, written): (Sink, Result<WrittenBatch, SinkError>),
    ) -> Result<Option<EndReason>, Failure> {
        self.sink = Some(sink);
        while let Ok(written) = self.progress.1.try_recv() {
            self.settle(written);
        }
        match written {
            Ok(written) => {
                self.settle(written);
                Ok(None)
            }
            Err(SinkError::ReaderGone) => Ok(Some(EndReason::ReaderGone)),
            Err(SinkError::Failed(failure)) => Err(failure),
        }
    }

    /// Reports written messages, and acknowledges or rejects them.
    fn settle(&mut self, written: WrittenBatch) {
        let messages = written.messages.len();
        if messages > 0 {
            self.written += u64::try_from(messages).unwrap_or(u64::MAX);
            let now = Instant::now();
            self.active_time.messages_written(now);
            let per_second = self.rate_meter.per_second(now, self.written);
            self.console
                .bar()
                .set_message(format!("{} received, {per_second:.0}/s", self.written));
        }
        for (index, unopenable) in written.unopenable.iter().enumerate() {
            self.set_aside
                .record(unopenable, index < written.quarantined);
        }
        self.settlement.begin(written);
        let larger = self
            .adaptive_prefetch
            .as_mut()
            .and_then(|prefetch| prefetch.record_read(messages));
        if let Some(prefetch) = larger {
            let changed = self.consumer.set_prefetch(prefetch);
            // If this fails, the prefetch changes with the next connection.
            tokio::spawn(async move { changed.await.is_ok() });
        }
    }

    /// Waits for the write in progress, and writes the pending messages, so that they need not be
    /// delivered again. After a signal nothing more is written into a pipe, because its reader may
    /// take any time.
    async fn finish(
        &mut self,
        end: EndReason,
        signals: &mut Signals,
    ) -> Result<Option<EndReason>, Failure> {
        let mut is_stopped = end == EndReason::Signal;
        loop {
            if let Some(stop) = &self.stop
                && is_stopped
            {
                stop.request();
            }
            if self.writing.is_none() {
                self.write_pending();
            }
            if self.writing.is_none() {
                return Ok(None);
            }
            tokio::select! {
                written = joined(&mut self.writing) => {
                    if let Some(end) = self.write_ended(written?)? {
                        return Ok(Some(end));
                    }
                }
                Some(written) = self.progress.1.recv() => self.settle(written),
                _ = signals.received(), if !is_stopped => is_stopped = true,
            }
        }
    }

    fn confirm_idle(&mut self) -> bool {
        let duplicates = self.consumer.duplicates();
        self.idle_timer
            .as_mut()
            .is_some_and(|timer| timer.confirm_expired(duplicates))
    }

    /// Restarts the idle timer when the connection is lost or restored: time without a connection
    /// does not count.
    fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Connected => {
                self.is_connected = true;
                self.losses.connected(Instant::now());
            }
            Event::Disconnected { .. } => {
                self.is_connected = false;
                self.report_repeated_losses();
            }
            _ => return,
        }
        if let Some(timer) = &mut self.idle_timer {
            timer.restart();
        }
    }

    /// Names the likely cause if connections are lost again and again.
    fn report_repeated_losses(&mut self) {
        let is_due = self.losses.lost(Instant::now());
        if let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| is_due) {
            self.console.warn(format_args!(
                "The connection is lost again and again. If the server runs, another receiver has \
                 a copy of the checkpoint {}, and each takes the other's place: end one of them, \
                 or begin a new output and checkpoint for it",
                checkpoint.display()
            ));
        }
    }
}

/// Standard output, if it is a pipe, to watch for the end of its reader. A named pipe is not
/// watched: its readers may change.
fn watchable_stdout(sink: &Sink) -> Option<pipe::Sender> {
    let pipe = sink.pipe().filter(|_| sink.is_stdout())?;
    let file = pipe.file().try_clone().ok()?;
    // Unchecked, because the descriptor must stay in blocking mode: other programs may share it. It
    // is only polled for its state.
    pipe::Sender::from_file_unchecked(file).ok()
}

/// Completes when the pipe's reader has closed it; never if there is no pipe.
async fn reader_gone(pipe: Option<&pipe::Sender>) {
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    if pipe.ready(Interest::ERROR).await.is_err() {
        // The state is unknown; the next write will detect it.
        std::future::pending::<()>().await;
    }
}

/// Completes when the next check for gaps is due; never if they are ignored.
async fn due(gaps: &mut Option<GapReporter>) {
    match gaps {
        Some(gaps) => gaps.due().await,
        None => std::future::pending().await,
    }
}

/// Whether an item is a message of a sender that is not admitted: such senders must not decide how
/// long the receiver runs.
fn is_of_other_sender(item: &Result<Message, ConsumeError>) -> bool {
    let Err(ConsumeError::Unopenable(Unopenable { reason, .. })) = item else {
        return false;
    };
    matches!(
        reason,
        UnopenableReason::Sealed(OpenError::OtherSender(_) | OpenError::NoSender)
    )
}

/// Waits for the write in progress; forever if there is none. Cancel safe: the write continues.
async fn joined<T>(writing: &mut Option<JoinHandle<T>>) -> Result<T, Failure> {
    let Some(handle) = writing.as_mut() else {
        return std::future::pending().await;
    };
    let joined = handle.await;
    *writing = None;
    joined.map_err(|error| {
        Failure::plain(format!(
            "The thread that writes the output failed: {error}."
        ))
    })
}
