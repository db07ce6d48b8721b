//! Publishing that goes on after a crash, under the same ids.
//!
//! ```text
//!   checkpoint ─ stream, position ─► publisher ─► server
//!       ▲                                │ outcomes
//!       └── saved now and then ── progress: everything before a position is acknowledged
//! ```
//!
//! A [`ResumableStream`] keeps in a checkpoint file which stream is being published, where it goes, what the input
//! was, and how far everything is acknowledged. A process that was killed opens it and publishes the rest of the same
//! input again: what the server had already, though nobody knew, it recognises by the id, and keeps once. So the
//! same position must always be the same message. How the input is recognised is the application's business: it
//! describes it in one line of text ([`StreamState::input`]), and compares that when it goes on. A description must
//! stand in the checkpoint before anything of what it describes is sent.
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use state::StreamState;

use crate::checkpoint::{self, CheckpointError, CheckpointFile, Kind};
use crate::publisher::Outcome;
use progress::Progress;

/// `ciphermq-stream 1`.
const KIND: Kind = Kind {
    name: "ciphermq-stream",
    version: 1,
};

/// When a checkpoint is saved: after so long, if anything came to be acknowledged, or after so many messages. What it
/// lags behind is only sent again, and recognised.
const SAVE_AFTER: Duration = Duration::from_secs(1);
const SAVE_MESSAGES: u64 = 100_000;

/// A stream with its checkpoint file, locked.
#[derive(Debug)]
pub struct ResumableStream {
    file: CheckpointFile,
    state: StreamState,
    progress: Arc<Mutex<Progress>>,
    saved: Instant,
}

impl ResumableStream {
    /// Opens and locks the checkpoint; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn open(path: &Path) -> Result<Option<Self>, CheckpointError> {
        let Some((file, content)) = CheckpointFile::open(path)? else {
            return Ok(None);
        };
        let state = checkpoint::decode(KIND, &content)
            .and_then(StreamState::read)
            .map_err(|reason| CheckpointError::Unreadable {
                path: path.to_owned(),
                reason,
            })?;
        Ok(Some(Self::new(file, state)))
    }

    /// The same, and if there is none makes one of the state that `begin` gives. It is synced before this returns.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`], or what `begin` fails with.
    pub fn open_or_create<E: From<CheckpointError>>(
        path: &Path,
        begin: impl FnOnce() -> Result<StreamState, E>,
    ) -> Result<Self, E> {
        if let Some(stream) = Self::open(path)? {
            return Ok(stream);
        }
        let state = begin()?;
        match CheckpointFile::create(path, &checkpoint::encode(KIND, &state.write()))? {
            Some(file) => Ok(Self::new(file, state)),
            // Somebody was faster, and works with it.
            None => Err(CheckpointError::Locked(path.to_owned()).into()),
        }
    }

    /// Begins another stream in the checkpoint's place, whatever stands there, even if it cannot be read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`], but not `Unreadable`.
    pub fn begin_anew(path: &Path, state: StreamState) -> Result<Self, CheckpointError> {
        let content = checkpoint::encode(KIND, &state.write());
        match CheckpointFile::open(path)? {
            Some((mut file, _)) => {
                file.replace(&content)?;
                Ok(Self::new(file, state))
            }
            None => Self::open_or_create(path, || Ok(state)),
        }
    }

    fn new(file: CheckpointFile, state: StreamState) -> Self {
        let progress = Progress::new(state.stream, state.acknowledged, state.place);
        Self {
            file,
            state,
            progress: Arc::new(Mutex::new(progress)),
            saved: Instant::now(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands in the checkpoint.
    #[must_use]
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Where the checkpoint stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The input has grown: describes it anew, and syncs that, before anything of what is new is sent. The stream is no
    /// longer complete.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Moved`.
    pub fn describe_input(&mut self, input: impl Into<String>) -> Result<(), CheckpointError> {
        self.state.input = input.into();
        self.state.complete = false;
        self.save()
    }

    /// The same server is reached at another address now.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Moved`.
    pub fn move_server(&mut self, server: impl Into<String>) -> Result<(), CheckpointError> {
        self.state.server = server.into();
        self.save()
    }

    /// For [`on_outcome`](crate::PublisherBuilder::on_outcome): learns what was acknowledged.
    pub fn observer(&self) -> impl Fn(Outcome<'_>) + Send + Sync + 'static {
        let progress = self.progress.clone();
        move |outcome| {
            progress
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .settled(outcome.message_id, outcome.result.is_ok());
        }
    }

    /// The message at `position` was handed to the publisher, and what follows it begins at `place` of the input.
    /// To be called in the order of positions.
    pub fn sent(&self, position: u64, place: u64) {
        self.progress().sent(position, place);
    }

    /// Whether the checkpoint should be [saved](Self::save): a second after the last time, or after 100,000 messages, and
    /// only if more is acknowledged than it says.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let news = self
            .progress()
            .acknowledged()
            .0
            .saturating_sub(self.state.acknowledged);
        news >= SAVE_MESSAGES || (news > 0 && self.saved.elapsed() >= SAVE_AFTER)
    }

    /// Saves how far everything is acknowledged. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Moved`. The last checkpoint stands: what it lags behind is sent again, and
    /// recognised.
    pub fn save(&mut self) -> Result<(), CheckpointError> {
        (self.state.acknowledged, self.state.place) = self.progress().acknowledged();
        self.saved = Instant::now();
        self.file.replace(&checkpoint::encode(KIND, &self.state.write()))
    }

    /// Everything of the input is acknowledged: saves that.
    ///
    /// # Errors
    ///
    /// As [`ResumableStream::save`].
    pub fn complete(&mut self) -> Result<(), CheckpointError> {
        self.state.complete = true;
        self.save()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Unreadable;
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
    fn goes_on_where_everything_before_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.stream");
        assert!(ResumableStream::open(&path).unwrap().is_none());
        let mut stream = ResumableStream::open_or_create::<CheckpointError>(&path, || Ok(state())).unwrap();
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
        assert_eq!((state.acknowledged, state.place, state.complete), (5, 50, true));
        stream.describe_input("longer").unwrap();
        drop(stream);
        let stream = ResumableStream::open(&path).unwrap().unwrap();
        assert_eq!(
            (stream.state().complete, stream.state().input.as_str()),
            (false, "longer")
        );
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_refused_and_can_be_begun_anew() {
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
        assert!((0..whole.len()).all(|end| is_refused(&whole[..end])));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x41;
            assert!(is_refused(&flipped), "{at}");
        }
        let stream = ResumableStream::begin_anew(&path, state()).unwrap();
        assert_eq!(stream.state(), &state());
    }
}
