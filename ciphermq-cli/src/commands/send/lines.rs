//! Messages from a file or standard input, one per line, in bounded memory.
//!
//! Lines end with `\n` or `\r\n`; the last one may have no ending. They need not be UTF-8. Empty
//! lines are counted and skipped.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::verified_reader::InputChange;

/// The size at which a chunk is complete.
const CHUNK_BYTES: usize = 32 * 1024;
/// The number of chunks that may be queued for each recipient.
const MAX_QUEUED_CHUNKS: usize = 4;

/// Lines that were read together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) lines: Vec<Line>,
    /// The end offset of each empty line between them.
    pub(super) empty: Vec<u64>,
    /// The number of the line after them, if it was skipped because it is still being written.
    pub(super) unfinished: Option<u64>,
}

/// A line that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The line's number, from 1.
    pub(super) number: u64,
    /// The offset in the input at which the next line begins, in bytes.
    pub(super) end: u64,
    /// The line, without its ending.
    pub(super) text: Vec<u8>,
}

/// A position in the input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InputPosition {
    /// The number of bytes before it.
    pub(super) bytes: u64,
    /// The number of lines before it.
    pub(super) lines: u64,
}

/// The reason why reading stopped before the end.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// A line is longer than the server accepts.
    #[error("line {line} is longer than {limit} bytes")]
    TooLong {
        /// The line's number, from 1.
        line: u64,
        /// The longest line that is accepted, in bytes, without its ending.
        limit: usize,
    },
    /// The input is not what it was when sending began.
    #[error("line {line} was not sent: {change}")]
    Changed {
        /// The number of the line that was being read.
        line: u64,
        /// The change that was detected.
        change: InputChange,
    },
    /// The input cannot be read.
    #[error("line {line} cannot be read: {source}")]
    Read {
        /// The number of the line that was being read.
        line: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// Lines of the input, or the reason why there are no more, shared by all recipients.
pub(super) type SharedChunk = Arc<Result<Chunk, LineError>>;

/// Creates `count` bounded channels, one for each recipient.
pub(super) fn channels(
    count: usize,
) -> (
    Vec<mpsc::Sender<SharedChunk>>,
    Vec<mpsc::Receiver<SharedChunk>>,
) {
    (0..count).map(|_| mpsc::channel(MAX_QUEUED_CHUNKS)).unzip()
}

/// Reads `input`, which is at `start`, on a separate thread, because reading may block for long.
///
/// Each of `senders` gets all of it. The slowest recipient sets the pace; one that has closed its
/// channel does not hold up the others. A last line without an ending is skipped if `is_unfinished`
/// says so.
///
/// The thread ends at the end of the input, at an error, or when all channels are closed. While it
/// is blocked on input it does not notice the latter, and ends with the process.
pub(super) fn read(
    input: impl Read + Send + 'static,
    limit: usize,
    start: InputPosition,
    is_unfinished: impl Fn(&[u8]) -> bool + Send + 'static,
    mut senders: Vec<mpsc::Sender<SharedChunk>>,
) {
    std::thread::spawn(move || {
        let mut broadcast = |chunk: Result<Chunk, LineError>| {
            let chunk = Arc::new(chunk);
            senders.retain(|sender| sender.blocking_send(chunk.clone()).is_ok());
            !senders.is_empty()
        };
        let mut lines = LineReader::new(input, limit, start, is_unfinished);
        loop {
            match lines.chunk() {
                Ok(None) => return,
                Ok(Some(chunk)) => {
                    if !broadcast(Ok(chunk)) {
                        return;
                    }
                }
                Err((chunk, error)) => {
                    let _ = broadcast(Ok(chunk)) && broadcast(Err(error));
                    return;
                }
            }
        }
    });
}

/// Sends complete messages to each of `senders`, whose channels must be empty.
pub(super) fn broadcast_messages(messages: Vec<String>, senders: &[mpsc::Sender<SharedChunk>]) {
    let lines = messages.into_iter().zip(1..).map(|(message, number)| Line {
        number,
        end: number,
        text: message.into_bytes(),
    });
    let chunk: SharedChunk = Arc::new(Ok(Chunk {
        lines: lines.collect(),
        ..Chunk::default()
    }));
    for sender in senders {
        // The channel is empty, so there is room.
        let _ = sender.try_send(chunk.clone());
    }
}

struct LineReader<R, F> {
    reader: BufReader<R>,
    limit: usize,
    number: u64,
    /// The offset at which the next line begins.
    end: u64,
    /// Whether a last line without an ending is still being written.
    is_unfinished: F,
    /// Whether the last line was skipped.
    has_skipped_last: bool,
}

impl<R: Read, F: Fn(&[u8]) -> bool> LineReader<R, F> {
    fn new(input: R, limit: usize, start: InputPosition, is_unfinished: F) -> Self {
        Self {
            reader: BufReader::with_capacity(CHUNK_BYTES, input),
            limit,
            number: start.lines,
            end: start.bytes,
            is_unfinished,
            has_skipped_last: false,
        }
    }

    /// Reads the next lines: at least one, and as many as are available without blocking, up to the
    /// chunk's size. `None` at the end.
    ///
    /// # Errors
    ///
    /// [`LineError`], with the lines before it.
    fn chunk(&mut self) -> Result<Option<Chunk>, (Chunk, LineError)> {
        let (mut chunk, mut bytes) = (Chunk::default(), 0);
        loop {
            match self.line() {
                Ok(Some(line)) if line.is_empty() => chunk.empty.push(self.end),
                Ok(Some(line)) => {
                    bytes += line.len();
                    chunk.lines.push(Line {
                        number: self.number,
                        end: self.end,
                        text: line,
                    });
                }
                Ok(None) => {
                    chunk.unfinished =
                        std::mem::take(&mut self.has_skipped_last).then_some(self.number);
                    return Ok((chunk != Chunk::default()).then_some(chunk));
                }
                Err(error) => return Err((chunk, error)),
            }
            // A line that somebody typed must not wait until a chunk is full.
            if bytes >= CHUNK_BYTES || !self.reader.buffer().contains(&b'\n') {
                return Ok(Some(chunk));
            }
        }
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        self.number += 1;
        let (line, limit) = (self.number, self.limit);
        let mut text = Vec::new();
        // The line ending takes up to two more bytes.
        let bounded = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(2);
        io::Read::take(&mut self.reader, bounded)
            .read_until(b'\n', &mut text)
            .map_err(|source| match InputChange::of(&source) {
                Some(change) => LineError::Changed {
                    line,
                    change: change.clone(),
                },
                None => LineError::Read { line, source },
            })?;
        if text.is_empty() {
            return Ok(None);
        }
        self.end += u64::try_from(text.len()).unwrap_or(u64::MAX);
        let is_ended = text.ends_with(b"\n");
        if is_ended {
            text.pop();
            if text.ends_with(b"\r") {
                text.pop();
            }
        }
        if text.len() > limit {
            return Err(LineError::TooLong { line, limit });
        }
        if !is_ended && (self.is_unfinished)(&text) {
            self.has_skipped_last = true;
            return Ok(None);
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns one piece per call, as a pipe does.
    struct Pieces(std::collections::VecDeque<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.pop_front() else {
                return Ok(0);
            };
            out[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn reader<R: Read>(
        input: R,
        limit: usize,
        start: InputPosition,
    ) -> LineReader<R, impl Fn(&[u8]) -> bool> {
        LineReader::new(input, limit, start, |_| false)
    }

    #[test]
    fn an_unfinished_last_line_is_skipped_and_one_with_an_ending_is_not() {
        for (text, expected, unfinished) in [
            (&b"one\ntwo"[..], &["one"][..], Some(2)),
            (b"one\ntwo\n", &["one", "two"], None),
            (b"two", &[], Some(1)),
            (b"", &[], None),
        ] {
            let mut lines = LineReader::new(text, 100, InputPosition::default(), |_| true);
            let (mut texts, mut left_out) = (Vec::new(), None);
            while let Some(chunk) = lines.chunk().unwrap() {
                texts.extend(chunk.lines.into_iter().map(|line| line.text));
                left_out = left_out.or(chunk.unfinished);
            }
            assert_eq!((left_out, texts.len()), (unfinished, expected.len()));
            assert!(
                texts
                    .iter()
                    .zip(expected)
                    .all(|(text, expected)| text == expected.as_bytes())
            );
        }
    }

    /// All lines with their numbers, the number of empty ones, and the error that ended reading.
    type All = (Vec<(u64, Vec<u8>)>, usize, Option<LineError>);

    fn all(input: impl Read, limit: usize) -> All {
        let mut lines = reader(input, limit, InputPosition::default());
        let (mut out, mut empty) = (Vec::new(), 0);
        loop {
            match lines.chunk() {
                Ok(None) => return (out, empty, None),
                Ok(Some(chunk)) => {
                    out.extend(chunk.lines.into_iter().map(|line| (line.number, line.text)));
                    empty += chunk.empty.len();
                }
                Err((chunk, error)) => {
                    out.extend(chunk.lines.into_iter().map(|line| (line.number, line.text)));
                    return (out, empty + chunk.empty.len(), Some(error));
                }
            }
        }
    }

    #[test]
    fn only_line_endings_are_removed() {
        let (lines, empty, error) = all(&b"a\n b \r\n\n\r\n\xff\x00\r\r\nlast"[..], 100);
        let texts: Vec<_> = lines
            .iter()
            .map(|(number, line)| (*number, line.as_slice()))
            .collect();
        assert_eq!(
            texts,
            [
                (1, &b"a"[..]),
                (2, b" b "),
                (5, b"\xff\x00\r"),
                (6, b"last")
            ]
        );
        assert_eq!(empty, 2);
        assert!(error.is_none());
    }

    #[test]
    fn an_endless_line_is_refused_at_the_limit_and_the_lines_before_it_are_returned() {
        let endless = b"one\ntwo\n".chain(io::repeat(b'x'));
        let (lines, _, error) = all(endless, 1000);
        assert_eq!(lines.len(), 2);
        assert!(
            matches!(
                error,
                Some(LineError::TooLong {
                    line: 3,
                    limit: 1000
                })
            ),
            "{error:?}"
        );
    }

    #[test]
    fn the_limit_counts_the_line_without_its_ending() {
        for ending in ["", "\n", "\r\n"] {
            let fits = "x".repeat(10) + ending;
            assert_eq!(all(fits.as_bytes(), 10).0.len(), 1, "{ending:?}");
            let too_long = "x".repeat(11) + ending;
            assert!(
                matches!(
                    all(too_long.as_bytes(), 10).2,
                    Some(LineError::TooLong { line: 1, .. })
                ),
                "{ending:?}"
            );
        }
    }

    #[test]
    fn a_line_that_is_complete_does_not_wait_for_the_next() {
        let mut lines = reader(
            Pieces([&b"one\ntw"[..], b"o\n", b"three\nfour\n"].into()),
            100,
            InputPosition::default(),
        );
        let sizes: Vec<usize> = std::iter::from_fn(|| lines.chunk().unwrap())
            .map(|chunk| chunk.lines.len())
            .collect();
        assert_eq!(sizes, [1, 1, 2]);
    }

    #[test]
    fn every_line_has_the_offset_of_the_next_one() {
        let text = b"one\r\n\n\ntwo\nthree";
        let start = InputPosition {
            bytes: 100,
            lines: 7,
        };
        let chunk = reader(&text[..], 100, start).chunk().unwrap().unwrap();
        let ends: Vec<_> = chunk
            .lines
            .iter()
            .map(|line| (line.number, line.end))
            .collect();
        assert_eq!(ends, [(8, 105), (11, 111)]);
        assert_eq!(chunk.empty, [106, 107]);
        let mut lines = reader(
            &text[11..],
            100,
            InputPosition {
                bytes: 111,
                lines: 11,
            },
        );
        let last = lines.chunk().unwrap().unwrap().lines.remove(0);
        assert_eq!(
            (last.number, last.end, last.text),
            (12, 116, b"three".to_vec())
        );
    }

    #[test]
    fn many_lines_come_in_chunks_of_bounded_size() {
        let text = "0123456789abcdef\n".repeat(100_000);
        let mut lines = reader(text.as_bytes(), 100, InputPosition::default());
        let mut count = 0;
        while let Some(chunk) = lines.chunk().unwrap() {
            assert!(chunk.lines.len() * 16 <= CHUNK_BYTES + 16);
            count += chunk.lines.len();
        }
        assert_eq!(count, 100_000);
    }

    #[test]
    fn a_read_error_is_reported_with_its_line() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::IsADirectory.into())
            }
        }
        let (lines, _, error) = all(b"one\n".chain(Failing), 100);
        assert_eq!(lines.len(), 1);
        assert!(matches!(error, Some(LineError::Read { line: 2, .. })));
    }

    #[tokio::test]
    async fn reading_ends_when_all_channels_are_closed() {
        let (senders, mut listeners) = channels(2);
        read(
            io::repeat(b'\n'),
            10,
            InputPosition::default(),
            |_| false,
            senders,
        );
        // A closed channel does not hold up the others.
        drop(listeners.pop());
        let mut chunks = listeners.pop().unwrap();
        for _ in 0..MAX_QUEUED_CHUNKS * 2 {
            assert!(chunks.recv().await.is_some());
        }
        chunks.close();
        while chunks.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn every_recipient_gets_all_lines_and_the_slowest_sets_the_pace() {
        let text = "0123456789abcdef\n".repeat(100_000);
        let (senders, listeners) = channels(3);
        read(
            io::Cursor::new(text),
            100,
            InputPosition::default(),
            |_| false,
            senders,
        );
        let count = |mut listener: mpsc::Receiver<SharedChunk>| async move {
            let mut count = 0;
            while let Some(chunk) = listener.recv().await {
                count += chunk.as_ref().as_ref().unwrap().lines.len();
                assert!(listener.len() <= MAX_QUEUED_CHUNKS);
            }
            count
        };
        let counts = futures_util::future::join_all(listeners.into_iter().map(count)).await;
        assert_eq!(counts, [100_000; 3]);
    }
}
