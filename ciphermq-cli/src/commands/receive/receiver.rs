//! The loop: taking messages, writing them, acknowledging what is written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ciphermq_client::{
    ConsumeError, Consumer, Event, Events, Message, OpenError, UnopenableReason,
};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::batch::{Batch, Written};
use super::busy::Busy;
use super::demand::Demand;
use super::gaps::Gaps;
use super::idle::Idle;
use super::place;
use super::settle::Settling;
use crate::connection::ConnectionSettings;
use crate::console::Console;
use crate::console::pace::{Pace, rate};
use crate::exit::{Exit, Failure};
use crate::output::pipe::Stop;
use crate::output::sink::SinkError;
use crate::output::{Sink, shared};
use crate::signals::Signals;

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

/// See the module.
pub(super) struct Receiver {
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
    /// What the write that is under way has written so far.
    reports: (
        mpsc::UnboundedSender<Written>,
        mpsc::UnboundedReceiver<Written>,
    ),
    /// How a write into a pipe is asked to end.
    stop: Option<Stop>,
    /// Standard output, if it is a pipe: that its reader has gone is seen here.
    pipe: Option<pipe::Sender>,
    demand: Option<Demand>,
    /// How many messages were taken from the consumer to be written.
    taken: u64,
    /// How many of them were written.
    written: u64,
    events: Events,
    is_connected: bool,
    busy: Busy,
    pace: Pace,
}

/// What a receiver is asked to do.
pub(super) struct Plan {
    pub(super) quarantine: PathBuf,
    /// It ends after so many messages.
    pub(super) count: Option<u64>,
    pub(super) idle: Option<Idle>,
    pub(super) gaps: Option<Gaps>,
    /// How the prefetch grows, if it does.
    pub(super) demand: Option<Demand>,
}

impl Receiver {
    pub(super) fn new(plan: Plan, consumer: Consumer, sink: Sink, console: Console) -> Self {
        let Plan {
            quarantine,
            count,
            idle,
            gaps,
            demand,
        } = plan;
        Self {
            stop: sink.pipe().map(|pipe| pipe.stop()),
            pipe: watched(&sink),
            reports: mpsc::unbounded_channel(),
            demand,
            gaps,
            quarantine,
            count,
            idle,
            settling: Settling::new(consumer.acker(), console.clone()),
            gathered: Batch::default(),
            sink: Some(sink),
            writing: None,
            taken: 0,
            written: 0,
            events: consumer.events(),
            is_connected: true,
            busy: Busy::default(),
            pace: Pace::default(),
            consumer,
            console,
        }
    }

    /// Receives until there is a reason to end, and ends in good order.
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
            missing => format!(", {missing} missing"),
        };
        let (elapsed, rate) = (busy.time().as_secs_f64(), rate(written, busy.time()));
        console.say(format_args!(
            "{written} received, {} confirmed, {duplicates} duplicates left out, {} set \
             aside{missing} in {elapsed:.3} s ({rate:.0}/s), into {}",
            settling.confirmed(),
            settling.set_aside(),
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
            let takes_more =
                !self.is_count_taken() && !self.gathered.is_full() && !self.settling.is_full();
            let is_resting = self.gathered.is_empty() && self.writing.is_none();
            let is_quiet = self.is_connected && is_resting;
            tokio::select! {
                item = self.consumer.next(), if takes_more => self.take_all(item)?,
                written = joined(&mut self.writing), if self.writing.is_some() => {
                    if let Some(end) = self.settle(written?)? {
                        return Ok(end);
                    }
                }
                Some(written) = self.reports.1.recv() => self.note_written(written),
                () = reader_gone(self.pipe.as_ref()), if is_resting => return Ok(End::ReaderGone),
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
                let works = self.writing.is_some() || !self.gathered.is_empty();
                self.busy.came(Instant::now(), works);
                self.tell_opened(&message);
                if let Some(gaps) = &mut self.gaps {
                    gaps.saw(&message);
                }
                self.gathered.push(message);
            }
            Err(ConsumeError::Unopenable(unopenable)) => self.gathered.push_unopenable(unopenable),
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
            let (quarantine, reports) = (self.quarantine.clone(), self.reports.0.clone());
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let report = |written| {
                    // We hold the other end ourselves.
                    let _ = reports.send(written);
                };
                let written = batch.write(
                    &mut sink,
                    |lines| shared::append(&quarantine, lines),
                    report,
                );
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
        while let Ok(written) = self.reports.1.try_recv() {
            self.note_written(written);
        }
        match written {
            Ok(written) => {
                self.note_written(written);
                Ok(None)
            }
            Err(SinkError::ReaderGone) => Ok(Some(End::ReaderGone)),
            Err(SinkError::Failed(failure)) => Err(failure),
        }
    }

    fn note_written(&mut self, written: Written) {
        let messages = written.messages.len();
        if messages > 0 {
            self.written += u64::try_from(messages).unwrap_or(u64::MAX);
            let now = Instant::now();
            self.busy.wrote(now);
            let per_second = self.pace.per_second(now, self.written);
            self.console
                .bar()
                .set_message(format!("{} received, {per_second:.0}/s", self.written));
        }
        for unopenable in &written.unopenable {
            self.console.warn(format_args!(
                "Message {} cannot be opened: {}. It is set aside in {}{}",
                unopenable.message_id(),
                unopenable.reason,
                self.quarantine.display(),
                what_to_do(&unopenable.reason)
            ));
        }
        self.settling.begin(written);
        let more = self
            .demand
            .as_mut()
            .and_then(|demand| demand.note(messages));
        if let Some(prefetch) = more {
            let changed = self.consumer.set_prefetch(prefetch);
            // If it is not changed now, it is with the next connection.
            tokio::spawn(async move { changed.await.is_ok() });
        }
    }

    /// Ends the write that is under way, and writes what was gathered meanwhile: it would only have
    /// to be opened again. After a signal nothing more goes into a pipe: its reader may take as
    /// long as it likes.
    async fn finish(&mut self, end: End, signals: &mut Signals) -> Result<Option<End>, Failure> {
        let mut is_stopped = end == End::Signal;
        loop {
            if let Some(stop) = &self.stop
                && is_stopped
            {
                stop.ask();
            }
            if self.writing.is_none() {
                self.write_gathered();
            }
            if self.writing.is_none() {
                return Ok(None);
            }
            tokio::select! {
                written = joined(&mut self.writing) => {
                    if let Some(end) = self.settle(written?)? {
                        return Ok(Some(end));
                    }
                }
                Some(written) = self.reports.1.recv() => self.note_written(written),
                _ = signals.received(), if !is_stopped => is_stopped = true,
            }
        }
    }

    fn is_idle(&mut self) -> bool {
        let duplicates = self.consumer.duplicates();
        self.idle
            .as_mut()
            .is_some_and(|idle| idle.is_over(duplicates))
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

/// Standard output, to be watched for the end of its reader, if it is a pipe. A named pipe's
/// readers may come and go.
fn watched(sink: &Sink) -> Option<pipe::Sender> {
    let pipe = sink.pipe().filter(|_| sink.is_stdout())?;
    let file = pipe.file().try_clone().ok()?;
    // Unchecked, as it must go on waiting when it is written: others may have the same descriptor.
    // It is only looked at.
    pipe::Sender::from_file_unchecked(file).ok()
}

/// Returns when nobody reads the pipe any more; never if there is none to watch.
async fn reader_gone(pipe: Option<&pipe::Sender>) {
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    if pipe.ready(Interest::ERROR).await.is_err() {
        // It cannot be told: writing will.
        std::future::pending::<()>().await;
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
            ". If such senders are to be believed, run the receiver with \
             --allow-unverified-senders and have it sent again"
        }
        UnopenableReason::Sealed(OpenError::NoPrivateKey(_)) => {
            ". If you have that key, name its file with --private-key and have the message sent \
             again"
        }
        UnopenableReason::Sealed(OpenError::Sender(_)) | UnopenableReason::NoCertificate { .. } => {
            ". Have the sender send it again with a certificate of the authority that this \
             receiver trusts"
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
    joined.map_err(|error| {
        Failure::plain(format!(
            "The thread that writes the output has failed: {error}."
        ))
    })
}
