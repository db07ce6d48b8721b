//! Messages from a file or standard input, one a line, in bounded memory.
//!
//! Lines end with `\n` or `\r\n`; the last one may have no ending. They need not be UTF-8. Empty
//! lines are counted and left out.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::blocks::Difference;

/// How many bytes of lines are handed over at once, if so many are at hand.
const CHUNK_BYTES: usize = 32 * 1024;
/// How many chunks may wait for a receiver's sender.
const CHUNKS: usize = 4;

/// Lines that were read together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The lines.
    pub(super) lines: Vec<Line>,
    /// Where each empty line between them ended.
    pub(super) empty: Vec<u64>,
    /// The number of the line behind them, if it was left out: somebody is still writing it.
    pub(super) unfinished: Option<u64>,
}

/// A line that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Where in the input the next line begins, in bytes.
    pub(super) end: u64,
    /// The line, without its ending.
    pub(super) text: Vec<u8>,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// How many bytes stand before it.
    pub(super) bytes: u64,
    /// How many lines they are.
    pub(super) lines: u64,
}

/// Why reading stopped before the end.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// A line that no server would take.
    #[error("line {line} is longer than {limit} bytes")]
    TooLong {
        /// Its number, from 1.
        line: u64,
        /// The most that would be taken.
        limit: usize,
    },
    /// The input is not what it was when sending began.
    #[error("line {line} was not sent: {difference}")]
    Changed {
        /// The number of the line that was being read.
        line: u64,
        /// How it differs.
        difference: Difference,
    },
    /// The input cannot be read.
    #[error("line {line} cannot be read: {source}")]
    Read {
        /// The number of the line that was being read.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// What comes from the input: lines, or why there are no more. Everybody who sends them shares it.
pub(super) type Piece = Arc<Result<Chunk, LineError>>;

/// A listener for each of so many senders.
pub(super) fn channels(count: usize) -> (Vec<mpsc::Sender<Piece>>, Vec<mpsc::Receiver<Piece>>) {
    (0..count).map(|_| mpsc::channel(CHUNKS)).unzip()
}

/// Reads `input`, which is at `start`, on a thread of its own, as reading may wait for long.
/// Everybody in `senders` gets all of it; the slowest sets the pace, and whoever does not listen
/// any more holds up nobody. A last line without an ending is left out if it `goes_on`.
///
/// The thread ends with the input, an error, or the last listener; if it waits for input then, with
/// the process.
pub(super) fn read(
    input: impl Read + Send + 'static,
    limit: usize,
    start: Start,
    goes_on: impl Fn(&[u8]) -> bool + Send + 'static,
    mut senders: Vec<mpsc::Sender<Piece>>,
) {
    std::thread::spawn(move || {
        let mut hand_on = |piece: Result<Chunk, LineError>| {
            let piece = Arc::new(piece);
            senders.retain(|sender| sender.blocking_send(piece.clone()).is_ok());
            !senders.is_empty()
        };
        let mut lines = LineReader::new(input, limit, start, goes_on);
        loop {
            match lines.chunk() {
                Ok(None) => return,
                Ok(Some(chunk)) => {
                    if !hand_on(Ok(chunk)) {
                        return;
                    }
                }
                Err((chunk, error)) => {
                    let _ = hand_on(Ok(chunk)) && hand_on(Err(error));
                    return;
                }
            }
        }
    });
}

/// Hands on messages that are at hand, each whole.
pub(super) fn hand_on(messages: Vec<String>, senders: &[mpsc::Sender<Piece>]) {
    let lines = messages.into_iter().zip(1..).map(|(message, number)| Line {
        number,
        end: number,
        text: message.into_bytes(),
    });
    let chunk: Piece = Arc::new(Ok(Chunk {
        lines: lines.collect(),
        ..Chunk::default()
    }));
    for sender in senders {
        // Nothing is in it yet, so there is room.
        let _ = sender.try_send(chunk.clone());
    }
}

struct LineReader<R, F> {
    reader: BufReader<R>,
    limit: usize,
    number: u64,
    /// Where the next line begins.
    end: u64,
    /// Whether a last line, which has no ending, is not all of it.
    goes_on: F,
    /// The last line was left out.
    is_unfinished: bool,
}

impl<R: Read, F: Fn(&[u8]) -> bool> LineReader<R, F> {
    fn new(input: R, limit: usize, start: Start, goes_on: F) -> Self {
        Self {
            reader: BufReader::with_capacity(CHUNK_BYTES, input),
            limit,
            number: start.lines,
            end: start.bytes,
            goes_on,
            is_unfinished: false,
        }
    }

    /// The lines that are at hand, at least one; `None` at the end. With an error come the lines
    /// before it.
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
                        std::mem::take(&mut self.is_unfinished).then_some(self.number);
                    return Ok((chunk != Chunk::default()).then_some(chunk));
                }
                Err(error) => return Err((chunk, error)),
            }
            // Whoever types messages must not wait for others to fill the chunk.
            if bytes >= CHUNK_BYTES || !self.reader.buffer().contains(&b'\n') {
                return Ok(Some(chunk));
            }
        }
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        self.number += 1;
        let (line, limit) = (self.number, self.limit);
        let mut text = Vec::new();
        // Room for the ending besides.
        let bounded = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(2);
        io::Read::take(&mut self.reader, bounded)
            .read_until(b'\n', &mut text)
            .map_err(|source| match Difference::of(&source) {
                Some(difference) => LineError::Changed {
                    line,
                    difference: difference.clone(),
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
        if !is_ended && (self.goes_on)(&text) {
            self.is_unfinished = true;
            return Ok(None);
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out the pieces one by one, as a pipe would.
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
        start: Start,
    ) -> LineReader<R, impl Fn(&[u8]) -> bool> {
        LineReader::new(input, limit, start, |_| false)
    }

    #[test]
    fn a_last_line_that_goes_on_is_left_out_and_one_with_an_ending_is_not() {
        for (text, expected, unfinished) in [
            (&b"one\ntwo"[..], &["one"][..], Some(2)),
            (b"one\ntwo\n", &["one", "two"], None),
            (b"two", &[], Some(1)),
            (b"", &[], None),
        ] {
            let mut lines = LineReader::new(text, 100, Start::default(), |_| true);
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

    /// All lines, how many were empty, and what ended the reading early.
    type All = (Vec<(u64, Vec<u8>)>, usize, Option<LineError>);

    fn all(input: impl Read, limit: usize) -> All {
        let mut lines = reader(input, limit, Start::default());
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
    fn endings_are_taken_off_and_nothing_else() {
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
    fn an_endless_line_is_refused_after_the_limit_and_what_stood_before_it_comes() {
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
            Start::default(),
        );
        let sizes: Vec<usize> = std::iter::from_fn(|| lines.chunk().unwrap())
            .map(|chunk| chunk.lines.len())
            .collect();
        assert_eq!(sizes, [1, 1, 2]);
    }

    #[test]
    fn every_line_tells_where_the_next_one_begins() {
        let text = b"one\r\n\n\ntwo\nthree";
        let start = Start {
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
            Start {
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
        let mut lines = reader(text.as_bytes(), 100, Start::default());
        let mut count = 0;
        while let Some(chunk) = lines.chunk().unwrap() {
            assert!(chunk.lines.len() * 16 <= CHUNK_BYTES + 16);
            count += chunk.lines.len();
        }
        assert_eq!(count, 100_000);
    }

    #[test]
    fn a_failing_disk_is_told_with_the_line() {
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
    async fn a_reader_that_nobody_listens_to_ends() {
        let (senders, mut listeners) = channels(2);
        read(io::repeat(b'\n'), 10, Start::default(), |_| false, senders);
        // One that has gone holds up nobody.
        drop(listeners.pop());
        let mut chunks = listeners.pop().unwrap();
        for _ in 0..CHUNKS * 2 {
            assert!(chunks.recv().await.is_some());
        }
        chunks.close();
        while chunks.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn everybody_gets_all_of_it_and_the_slowest_sets_the_pace() {
        let text = "0123456789abcdef\n".repeat(100_000);
        let (senders, listeners) = channels(3);
        read(
            io::Cursor::new(text),
            100,
            Start::default(),
            |_| false,
            senders,
        );
        let count = |mut listener: mpsc::Receiver<Piece>| async move {
            let mut count = 0;
            while let Some(piece) = listener.recv().await {
                count += piece.as_ref().as_ref().unwrap().lines.len();
                assert!(listener.len() <= CHUNKS);
            }
            count
        };
        let counts = futures_util::future::join_all(listeners.into_iter().map(count)).await;
        assert_eq!(counts, [100_000; 3]);
    }
}
