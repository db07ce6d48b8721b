//! Publishing that resumes after a crash, under the same ids.
//!
//! ```text
//!   checkpoint ─ stream, position ─► publisher ─► server
//!       ▲                                │ outcomes
//!       └── saved now and then ── progress: everything before a position is acknowledged
//! ```
//!
//! A [`ResumableStream`] stores in a checkpoint file which stream is being published, its route,
//! its input, and the position before which everything is acknowledged. After a crash, the next
//! process opens it and publishes the rest of the same input again: the server recognises messages
//! that it already has by their ids, and stores them once.
//!
//! **One stream carries one input.** The same position must always be the same message: the server
//! treats another message with the same id as a retry, acknowledges it, and drops it. The
//! application is responsible for recognising its input: it describes the input in one line of text
//! ([`StreamState::input`]), a hash for example, and compares that when it resumes. The description
//! is in the checkpoint before anything is sent, and never changes. So a checkpoint that is
//! restored from a backup, or copied to another machine, can only reproduce the ids of the same
//! messages.
//!
//! **An input that grows** is carried by several streams, one after the other: when one is
//! [complete](ResumableStream::complete), [`begin_next`](ResumableStream::begin_next) replaces it
//! by another one, with new ids, for what follows. A process that finds the input longer than its
//! description first publishes the rest of the described part.
//!
//! ```no_run
//! use ciphermq_client::resume::{ResumableStream, StreamState};
//! # async fn run(client: ciphermq_client::Client, receiver: ciphermq_client::ClientId) -> Result<(), Box<dyn std::error::Error>> {
//! let text = std::fs::read_to_string("readings.txt")?;
//! let fingerprint = text.len().to_string(); // a real one is a hash: see examples/resume.rs
//! let mut stream = ResumableStream::open_or_create("readings.txt.stream".as_ref(), || {
//!     Ok::<_, Box<dyn std::error::Error>>(StreamState::begin(&client, &receiver, fingerprint.clone())?)
//! })?;
//! if stream.state().input != fingerprint {
//!     return Err("readings.txt was changed after a part of it was sent".into());
//! }
//! let publisher = client.publisher(&receiver).resume(&stream).on_outcome(stream.observer()).start().await?;
//! let done = usize::try_from(stream.state().acknowledged)?;
//! for line in text.lines().skip(done) {
//!     let position = publisher.position().await;
//!     publisher.submit(line).await?;
//!     stream.sent(position, position + 1);
//!     if stream.is_due() {
//!         stream.save()?;
//!     }
//! }
//! let summary = publisher.finish().await;
//! if summary.unacknowledged == 0 {
//!     stream.complete()?;
//! } else {
//!     stream.save()?;
//! }
//! # Ok(())
//! # }
//! ```

mod progress;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use state::StreamState;

use crate::checkpoint::{self, CheckpointError, CheckpointFile, Kind, Unreadable};
use crate::publisher::{Outcome, PublisherBuilder};
use parking_lot::{Mutex, MutexGuard};
use progress::Progress;

/// `ciphermq-stream 2`. Version 1 let one stream's input grow; it is read, and written as version
/// 2.
const KIND: Kind = Kind {
    name: "ciphermq-stream",
    version: 2,
};

/// The time or the number of acknowledged messages after which a checkpoint is saved. Messages that
/// it lags behind are merely sent again, and recognised by the server.
const SAVE_AFTER: Duration = Duration::from_secs(1);
const SAVE_MESSAGES: u64 = 100_000;

/// A stream with its locked checkpoint file.
#[derive(Debug)]
pub struct ResumableStream {
    file: CheckpointFile,
    state: StreamState,
    progress: Arc<Mutex<Progress>>,
    saved: Instant,
}

impl ResumableStream {
    /// Opens and locks the checkpoint; `None` if there is none. An empty file, as `mktemp`
    /// creates it, counts as none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn open(path: &Path) -> Result<Option<Self>, CheckpointError> {
        match CheckpointFile::open(path)? {
            Some((file, content)) if !content.is_empty() => Self::read(file, &content).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads the stream of an open checkpoint.
    fn read(file: CheckpointFile, content: &[u8]) -> Result<Self, CheckpointError> {
        let state = checkpoint::decode_version(KIND, content)
            .and_then(|(version, lines)| StreamState::read(version, lines))
            .map_err(|reason| CheckpointError::Unreadable {
                path: file.path().to_owned(),
                reason,
            })?;
        Ok(Self::new(file, state))
    }

    /// Opens and locks the checkpoint, or creates one with the state that `begin` returns. A new
    /// one is synced before this returns.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`], or what `begin` fails with.
    pub fn open_or_create<E: From<CheckpointError>>(
        path: &Path,
        begin: impl FnOnce() -> Result<StreamState, E>,
    ) -> Result<Self, E> {
        if let Some((file, content)) = CheckpointFile::open(path)? {
            if !content.is_empty() {
                return Ok(Self::read(file, &content)?);
            }
            return Ok(Self::start_in(file, begin()?)?);
        }
        let state = begin()?;
        match CheckpointFile::create(path, &checkpoint::encode(KIND, &state.write()))? {
            Some(file) => Ok(Self::new(file, state)),
            // Another process created it first and uses it.
            None => Err(CheckpointError::Locked(path.to_owned()).into()),
        }
    }

    /// Starts another stream in the checkpoint's place, even if that cannot be read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; `Unreadable` only if the file is not a stream's checkpoint, intact or
    /// damaged. It is left unchanged then.
    pub fn begin_anew(path: &Path, state: StreamState) -> Result<Self, CheckpointError> {
        match CheckpointFile::open(path)? {
            Some((_, there)) if !KIND.recognises(&there) => Err(CheckpointError::Unreadable {
                path: path.to_owned(),
                reason: Unreadable::OtherKind(KIND.name),
            }),
            Some((file, _)) => Self::start_in(file, state),
            None => Self::open_or_create(path, || Ok(state)),
        }
    }

    /// Starts a stream in an existing file, whose content is replaced.
    fn start_in(mut file: CheckpointFile, state: StreamState) -> Result<Self, CheckpointError> {
        file.replace(&checkpoint::encode(KIND, &state.write()))?;
        Ok(Self::new(file, state))
    }

    fn new(file: CheckpointFile, state: StreamState) -> Self {
        Self {
            file,
            progress: Arc::new(Mutex::new(Progress::of(&state))),
            state,
            saved: Instant::now(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    /// Returns the content of the checkpoint.
    #[must_use]
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Returns the path of the checkpoint.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Marks a complete stream as incomplete again, and saves that: more of the input is going to
    /// be sent.
    ///
    /// # Errors
    ///
    /// As [`ResumableStream::save`].
    pub fn reopen(&mut self) -> Result<(), CheckpointError> {
        self.state.complete = false;
        self.save()
    }

    /// Replaces the complete stream by the one that [follows](StreamState::following) it: for what
    /// was added to the input.
    ///
    /// It is synced before this returns, and none of it may be sent before. Afterwards it needs a
    /// publisher and an [observer](Self::observer) of its own.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Incomplete` if this stream is not completely acknowledged, or if
    /// `next` has its ids; `Write`, `Replaced`, `Removed`. This stream remains then.
    pub fn begin_next(&mut self, next: StreamState) -> Result<(), CheckpointError> {
        if !self.state.complete || next.stream == self.state.stream {
            return Err(CheckpointError::Incomplete(self.path().to_owned()));
        }
        self.file
            .replace(&checkpoint::encode(KIND, &next.write()))?;
        self.progress = Arc::new(Mutex::new(Progress::of(&next)));
        self.state = next;
        self.saved = Instant::now();
        Ok(())
    }

    /// Records a new address of the same server.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Replaced`, `Removed`.
    pub fn move_server(&mut self, server: impl Into<String>) -> Result<(), CheckpointError> {
        self.state.server = server.into();
        self.save()
    }

    /// Returns a callback for [`on_outcome`](crate::PublisherBuilder::on_outcome) that tracks
    /// acknowledgements.
    pub fn observer(&self) -> impl Fn(Outcome<'_>) + Send + Sync + 'static {
        let progress = self.progress.clone();
        move |outcome| {
            progress
                .lock()
                .settled(outcome.message_id, outcome.result.is_ok());
        }
    }

    /// Notes that the message at `position` was sent, and that the next one begins at `place` of
    /// the input. Call it in the order of positions.
    pub fn sent(&self, position: u64, place: u64) {
        self.progress().sent(position, place);
    }

    /// Whether the checkpoint should be [saved](Self::save): a second after the last time, or after
    /// 100,000 messages, and only if more is acknowledged than it says.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let news = self
            .progress()
            .acknowledged()
            .0
            .saturating_sub(self.state.acknowledged);
        news >= SAVE_MESSAGES || (news > 0 && self.saved.elapsed() >= SAVE_AFTER)
    }

    /// Saves the acknowledged position. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Replaced`, `Removed`. The last checkpoint remains: messages
    /// that it lags behind are sent again, and recognised by the server.
    pub fn save(&mut self) -> Result<(), CheckpointError> {
        (self.state.acknowledged, self.state.place) = self.progress().acknowledged();
        self.saved = Instant::now();
        self.file
            .replace(&checkpoint::encode(KIND, &self.state.write()))
    }

    /// Saves that the whole input is acknowledged.
    ///
    /// # Errors
    ///
    /// As [`ResumableStream::save`].
    pub fn complete(&mut self) -> Result<(), CheckpointError> {
        self.state.complete = true;
        self.save()
    }
}

impl PublisherBuilder {
    /// Resumes a stream after its acknowledged part: sets its stream, position and route. Its
    /// [observer](ResumableStream::observer) must be called by [`on_outcome`](Self::on_outcome).
    #[must_use]
    pub fn resume(self, stream: &ResumableStream) -> Self {
        let state = stream.state();
        self.stream(state.stream)
            .start_at(state.acknowledged)
            .exchange(state.exchange.clone())
            .routing_key(state.routing_key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn state() -> StreamState {
        state::tests::state()
    }

    fn settle(stream: &ResumableStream, position: u64) {
        let message_id = stream.state().stream.message_id(position).unwrap();
        stream.observer()(Outcome {
            message_id: &message_id,
            result: Ok(()),
        });
    }

    #[test]
    fn resumes_at_the_first_unacknowledged_position() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.stream");
        assert!(ResumableStream::open(&path).unwrap().is_none());
        let mut stream =
            ResumableStream::open_or_create::<CheckpointError>(&path, || Ok(state())).unwrap();
        for position in 0..5 {
            stream.sent(position, (position + 1) * 10);
        }
        for position in [0, 1, 3] {
            settle(&stream, position);
        }
        stream.save().unwrap();
        assert!(matches!(
            ResumableStream::open(&path),
            Err(CheckpointError::Locked(_))
        ));
        drop(stream);
        let mut stream = ResumableStream::open(&path).unwrap().unwrap();
        assert_eq!((stream.state().acknowledged, stream.state().place), (2, 20));
        for position in 2..5 {
            stream.sent(position, (position + 1) * 10);
            settle(&stream, position);
        }
        stream.complete().unwrap();
        drop(stream);
        let mut stream = ResumableStream::open(&path).unwrap().unwrap();
        let state = stream.state().clone();
        assert_eq!(
            (state.acknowledged, state.place, state.complete),
            (5, 50, true)
        );
        stream.reopen().unwrap();
        drop(stream);
        let stream = ResumableStream::open(&path).unwrap().unwrap();
        let state = stream.state().clone();
        assert_eq!(
            (state.acknowledged, state.place, state.complete),
            (5, 50, false)
        );
        assert_eq!(stream.state().stream, self::state().stream);
    }

    #[test]
    fn an_empty_file_is_no_checkpoint_and_becomes_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.stream");
        fs::write(&path, "").unwrap();
        assert!(ResumableStream::open(&path).unwrap().is_none());
        let stream =
            ResumableStream::open_or_create::<CheckpointError>(&path, || Ok(state())).unwrap();
        assert!(matches!(
            ResumableStream::open(&path),
            Err(CheckpointError::Locked(_))
        ));
        drop(stream);
        let stream = ResumableStream::open(&path).unwrap().unwrap();
        assert_eq!(stream.state(), &state());
    }

    #[test]
    fn the_next_stream_begins_when_the_first_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.stream");
        let mut stream =
            ResumableStream::open_or_create::<CheckpointError>(&path, || Ok(state())).unwrap();
        stream.sent(0, 10);
        settle(&stream, 0);
        let refused = |stream: &mut ResumableStream, next| {
            matches!(stream.begin_next(next), Err(CheckpointError::Incomplete(_)))
        };
        let next = stream.state().following("longer", 10).unwrap();
        assert!(refused(&mut stream, next));
        stream.complete().unwrap();
        let same = stream.state().clone();
        assert!(refused(&mut stream, same));
        let next = stream.state().following("longer", 11).unwrap();
        let late = stream.observer();
        stream.begin_next(next.clone()).unwrap();
        drop(stream);

        let stream = ResumableStream::open(&path).unwrap().unwrap();
        assert_eq!(stream.state(), &next);
        assert_eq!((next.earlier, next.begins, next.place), (1, 11, 11));
        // Outcomes of the first stream do not concern this one.
        stream.sent(0, 20);
        late(Outcome {
            message_id: &state().stream.message_id(0).unwrap(),
            result: Ok(()),
        });
        assert_eq!(stream.progress().acknowledged(), (0, 11));
        settle(&stream, 0);
        assert_eq!(stream.progress().acknowledged(), (1, 20));
    }

    #[test]
    fn a_checkpoint_of_version_1_is_opened_and_written_as_version_2() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        // As earlier versions wrote it; the checksum is from `sha256sum`.
        let old = "ciphermq-stream 1\nstream 01992a3b-4c5d-8fff-bfff-ff0000000000\nsender \
                   sender_1\nreceiver receiver_1\n\
             exchange e\nrouting-key k\nserver localhost:5672\ninput 1401440 abc\nacknowledged 17 \
                   1360\ncomplete no\n\
             sha256 958be72eb90655334635d31424ef0e747f74b2fba4c533179918ca5bac9c38d7\n";
        fs::write(&path, old).unwrap();
        let mut stream = ResumableStream::open(&path).unwrap().unwrap();
        let expected = StreamState {
            acknowledged: 17,
            place: 1360,
            ..state()
        };
        assert_eq!(stream.state(), &expected);
        stream.save().unwrap();
        drop(stream);
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("ciphermq-stream 2\n")
        );
        let stream = ResumableStream::open(&path).unwrap().unwrap();
        assert_eq!(stream.state(), &expected);
    }

    #[test]
    fn every_damaged_checkpoint_is_refused_and_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        drop(ResumableStream::begin_anew(&path, state()).unwrap());
        let whole = fs::read(&path).unwrap();
        let is_refused = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            matches!(
                ResumableStream::open(&path),
                Err(CheckpointError::Unreadable {
                    reason: Unreadable::Damaged,
                    ..
                })
            )
        };
        assert!((1..whole.len()).all(|end| is_refused(&whole[..end])));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x41;
            assert!(is_refused(&flipped), "{at}");
        }
        let stream = ResumableStream::begin_anew(&path, state()).unwrap();
        assert_eq!(stream.state(), &state());
    }
}
