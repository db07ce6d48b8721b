//! A file, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_client::dedup::Recorder;
use ciphermq_client::{ClientId, MessageId};
use ciphermq_files::sync_data;

use super::file::{Found, OutputError, OutputFile, Place};
use super::pipe::{Pipe, Put};
use super::{Target, stdout};
use crate::exit::Failure;

/// Where the lines of received messages go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A file of its own: synced, locked, and read for what was processed before.
    File(OutputFile),
    /// Standard output, or what is no regular file: a pipe, a terminal, a device. Written once,
    /// never read.
    Stream(Stream),
}

/// What is written and never read.
#[derive(Debug)]
pub(crate) struct Stream {
    way: Way,
    /// Nothing for standard output.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Way {
    /// Written a line at a time, as fast as it is read.
    Pipe(Pipe),
    /// Anything else: what the system has taken is written. A file that standard output leads to is
    /// synced.
    Other(File),
}

/// Why lines were not written.
#[derive(Debug)]
pub(crate) enum SinkError {
    /// Whoever read standard output has had enough. No error, but nothing more can be written.
    ReaderGone,
    /// Anything else.
    Failed(Failure),
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::new(format!("{error}."), error.advice())
    }
}

impl Sink {
    /// Opens an output, which is this.
    ///
    /// # Errors
    ///
    /// [`Failure`]: see [`OutputError`].
    pub(crate) fn open(target: Target, place: Place<'_>) -> Result<(Self, Found), Failure> {
        let stream = match target {
            Target::Stdout => Stream::stdout()?,
            Target::Stream => Stream::open(place.output)?,
            Target::File => {
                let (file, found) = OutputFile::open(place)?;
                return Ok((Self::File(file), found));
            }
        };
        Ok((Self::Stream(stream), Found::default()))
    }

    /// What was processed before, for a consumer. Of what is not a file nothing is known.
    pub(crate) fn recorder(&self) -> Recorder {
        match self {
            Self::File(file) => file.recorder(),
            Self::Stream(_) => Recorder::default(),
        }
    }

    /// What the consumer is called beyond this process. Streams may come and go side by side.
    pub(crate) fn consumer_id(&self) -> Option<&str> {
        match self {
            Self::File(file) => Some(file.consumer_id()),
            Self::Stream(_) => None,
        }
    }

    /// The pipe that it is, if it is one.
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        match self {
            Self::File(_) => None,
            Self::Stream(stream) => stream.pipe(),
        }
    }

    /// Whether it is standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.path.is_none())
    }

    /// Nothing more is written.
    ///
    /// # Errors
    ///
    /// [`OutputError`]: see [`OutputFile::close`].
    pub(crate) fn close(self) -> Result<(), OutputError> {
        match self {
            Self::File(file) => file.close(),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Writes whole lines. Those in a file survive any crash afterwards, and their messages count
    /// as processed.
    ///
    /// # Errors
    ///
    /// [`SinkError`]: then none of them counts as written.
    pub(crate) fn append<'m>(
        &mut self,
        lines: &[u8],
        messages: impl IntoIterator<Item = (Option<&'m ClientId>, &'m MessageId)>,
    ) -> Result<(), SinkError> {
        match self {
            Self::File(file) => file
                .append(lines, messages)
                .map_err(|error| SinkError::Failed(error.into())),
            Self::Stream(stream) => stream.put(lines, &mut || {}).map(|_| ()),
        }
    }
}

impl Stream {
    /// Standard output.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it is closed, or the system has no further descriptor for it.
    pub(crate) fn stdout() -> Result<Self, Failure> {
        stdout::check()?;
        let file = stdout::file().map_err(|error| {
            let what = format!("Standard output cannot be opened: {error}.");
            Failure::new(
                what,
                "Let fewer programs run, or raise the limit of open files.",
            )
        })?;
        Ok(Self::new(file, None))
    }

    /// What a path leads to that is no file of its own.
    fn open(path: &Path) -> Result<Self, OutputError> {
        let file = OpenOptions::new().append(true).open(path);
        let file = file.map_err(|source| OutputError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(file, Some(path.to_owned())))
    }

    fn new(file: File, path: Option<PathBuf>) -> Self {
        let way = match Pipe::of(file) {
            Ok(pipe) => Way::Pipe(pipe),
            Err(file) => Way::Other(file),
        };
        Self { way, path }
    }

    /// The pipe that it is, if it is one.
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        match &self.way {
            Way::Pipe(pipe) => Some(pipe),
            Way::Other(_) => None,
        }
    }

    /// Writes a line, or whole lines where it is no pipe. In a pipe the reader has taken it
    /// afterwards; `waits` is called once that takes longer.
    ///
    /// # Errors
    ///
    /// [`SinkError`].
    pub(crate) fn put(&mut self, lines: &[u8], waits: &mut dyn FnMut()) -> Result<Put, SinkError> {
        let put = match &mut self.way {
            Way::Pipe(pipe) => pipe.put(lines, waits),
            Way::Other(file) if self.path.is_none() && file.is_terminal() => {
                stdout::write(lines).map(|()| Put::Taken)
            }
            Way::Other(file) => write_all(file, &stdout::fit_for(file, lines))
                .and_then(|()| sync_data(file))
                .map(|()| Put::Taken),
        };
        put.map_err(|error| match &self.path {
            _ if error.kind() == io::ErrorKind::BrokenPipe => SinkError::ReaderGone,
            None => Failure::stdout(&error).map_or(SinkError::ReaderGone, SinkError::Failed),
            Some(path) => SinkError::Failed(
                OutputError::Write {
                    path: path.clone(),
                    source: error,
                }
                .into(),
            ),
        })
    }
}

/// Writes all of it, also where somebody else has made the descriptor one that does not wait.
fn write_all(mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};

    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&file, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
