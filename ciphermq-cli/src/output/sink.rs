//! A file, or standard output.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_client::dedup::Recorder;
use ciphermq_client::{ClientId, MessageId};

use super::file::{Found, OutputError, OutputFile, Place};
use super::stdout;
use crate::exit::Failure;

/// Where the lines of received messages go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A file of its own: synced, locked, and read for what was processed before.
    File(OutputFile),
    /// Standard output, or what is no regular file: a pipe, a terminal, a device. Written once, never read.
    Stream(Stream),
}

/// What is written and never read.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// A named pipe or device.
    Device(std::fs::File, PathBuf),
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
    /// Opens an output; `-` is standard output.
    ///
    /// # Errors
    ///
    /// [`Failure`]: see [`OutputError`].
    pub(crate) fn open(place: Place<'_>) -> Result<(Self, Found), Failure> {
        let path = place.output;
        if path == Path::new("-") {
            return Ok((Self::Stream(Stream::Stdout), Found::default()));
        }
        let is_device = std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
        if is_device {
            let file = std::fs::OpenOptions::new()
                .append(true)
                .open(path)
                .map_err(|source| OutputError::Open {
                    path: path.to_owned(),
                    source,
                })?;
            return Ok((
                Self::Stream(Stream::Device(file, path.to_owned())),
                Found::default(),
            ));
        }
        let (file, found) = OutputFile::open(place)?;
        Ok((Self::File(file), found))
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

    /// Writes whole lines. Those in a file survive any crash afterwards, and their messages count as processed.
    ///
    /// # Errors
    ///
    /// [`SinkError`]: then none of them counts as written.
    pub(crate) fn append<'m>(
        &mut self,
        lines: &[u8],
        messages: impl IntoIterator<Item = (Option<&'m ClientId>, &'m MessageId)>,
    ) -> Result<(), SinkError> {
        let (written, path) = match self {
            Self::File(file) => {
                return file
                    .append(lines, messages)
                    .map_err(|error| SinkError::Failed(error.into()));
            }
            Self::Stream(Stream::Stdout) => (stdout::write(lines), Path::new("-")),
            Self::Stream(Stream::Device(file, path)) => {
                let lines = stdout::fit_for(file, lines);
                (file.write_all(&lines), path.as_path())
            }
        };
        written.map_err(|error| match (error.kind(), path == Path::new("-")) {
            (io::ErrorKind::BrokenPipe, _) => SinkError::ReaderGone,
            (_, true) => Failure::stdout(&error).map_or(SinkError::ReaderGone, SinkError::Failed),
            (_, false) => SinkError::Failed(
                OutputError::Write {
                    path: path.to_owned(),
                    source: error,
                }
                .into(),
            ),
        })
    }
}
