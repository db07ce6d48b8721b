//! The destination of received messages: a file, or a stream.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use ciphermq_client::{ClientId, MessageId};
use ciphermq_files::{Need, advice, duplicate_descriptor, own_descriptor, resolve, sync_data};

use super::error::OutputError;
use super::file::OutputFile;
use super::pipe::{Pipe, WriteOutcome};
use super::stdout;
use super::write::write_all;
use crate::exit::Failure;

/// The destination of received messages.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A regular file: synced, locked, and read to learn which messages were processed before.
    File(OutputFile),
    /// Standard output, a pipe, a terminal or a device: only written.
    Stream(Stream),
}

/// An output that is only written.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: StreamKind,
    /// The path; `None` for standard output.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum StreamKind {
    /// A pipe: written line by line, no faster than it is read.
    Pipe(Pipe),
    /// Anything else: data counts as written once the system has accepted it. A file that standard
    /// output leads to is synced.
    Other(File),
}

/// The reason why lines were not written.
#[derive(Debug)]
pub(crate) enum SinkError {
    /// The reader has closed the pipe: not an error, but nothing more can be written.
    ReaderGone,
    /// The write failed.
    Failed(Failure),
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::new(format!("{error}."), error.advice())
    }
}

impl Sink {
    /// Opens a pipe, a terminal, a device or a descriptor; standard output if there is no path.
    ///
    /// Blocks while a named pipe has no reader.
    ///
    /// # Errors
    ///
    /// [`Failure`]: see [`OutputError::Open`].
    pub(crate) fn open_stream(path: Option<&Path>) -> Result<Self, Failure> {
        let stream = match path {
            None => Stream::stdout()?,
            Some(path) => Stream::open(path)?,
        };
        Ok(Self::Stream(stream))
    }

    /// The consumer's id across runs. Streams have none: several receivers may write to them.
    pub(crate) fn consumer_id(&self) -> Option<&str> {
        match self {
            Self::File(file) => Some(file.consumer_id()),
            Self::Stream(_) => None,
        }
    }

    /// The pipe, if the sink is one.
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        match self {
            Self::File(_) => None,
            Self::Stream(stream) => stream.pipe(),
        }
    }

    /// Whether the sink is standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.path.is_none())
    }

    /// Closes the sink.
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

    /// Appends whole lines. In a file they survive any crash afterwards, and their messages count
    /// as processed.
    ///
    /// # Errors
    ///
    /// [`SinkError`]: then none of the lines counts as written.
    pub(crate) fn append<'m>(
        &mut self,
        lines: &[u8],
        messages: impl IntoIterator<Item = (Option<&'m ClientId>, &'m MessageId)>,
    ) -> Result<(), SinkError> {
        match self {
            Self::File(file) => file
                .append(lines, messages)
                .map_err(|error| SinkError::Failed(error.into())),
            Self::Stream(stream) => stream.write(lines, &mut || {}).map(|_| ()),
        }
    }
}

impl Stream {
    /// Opens standard output.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it is closed, or if the process has too many open files.
    pub(crate) fn stdout() -> Result<Self, Failure> {
        stdout::check()?;
        let file = stdout::file().map_err(|error| {
            let what = format!("Standard output cannot be opened: {error}.");
            Failure::new(
                what,
                advice(&error).unwrap_or("Check where it is redirected to."),
            )
        })?;
        Ok(Self::new(file, None))
    }

    /// Opens a pipe, a terminal, a device or a descriptor.
    fn open(path: &Path) -> Result<Self, OutputError> {
        let file = match resolve(path).ok().as_deref().and_then(own_descriptor) {
            Some(number) => duplicate_descriptor(number, Need::Write),
            None => OpenOptions::new().append(true).open(path),
        };
        let file = file.map_err(|source| OutputError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(file, Some(path.to_owned())))
    }

    fn new(file: File, path: Option<PathBuf>) -> Self {
        let kind = match Pipe::of(file) {
            Ok(pipe) => StreamKind::Pipe(pipe),
            Err(file) => StreamKind::Other(file),
        };
        Self { kind, path }
    }

    /// The pipe, if the stream is one.
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        match &self.kind {
            StreamKind::Pipe(pipe) => Some(pipe),
            StreamKind::Other(_) => None,
        }
    }

    /// Writes whole lines. Into a pipe it writes a single line, and returns once the reader has
    /// read it; `on_wait` is called if that takes longer.
    ///
    /// # Errors
    ///
    /// [`SinkError`].
    pub(crate) fn write(
        &mut self,
        lines: &[u8],
        on_wait: &mut dyn FnMut(),
    ) -> Result<WriteOutcome, SinkError> {
        let written = match &mut self.kind {
            StreamKind::Pipe(pipe) => pipe.write(lines, on_wait),
            StreamKind::Other(file) if self.path.is_none() && file.is_terminal() => {
                stdout::write(lines).map(|()| WriteOutcome::Read)
            }
            StreamKind::Other(file) => write_all(file, &stdout::escaped_for(file, lines))
                .and_then(|()| sync_data(file))
                .map(|()| WriteOutcome::Read),
        };
        written.map_err(|error| match &self.path {
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
