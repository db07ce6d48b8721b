//! Scans an output for records, foreign lines and damage.
//!
//! An ack is sent only after everything written before it is synced, and there is one write at a
//! time. So damage by a power cut belongs to the last write, none of which was acknowledged: the
//! file is cut off at the first damaged line, and its messages are redelivered, in order. A person
//! who edits the file can damage lines that were acknowledged; whole lines after them stay. The two
//! cases differ in the contents of the line: a disk leaves zeros and bytes that are not text, an
//! editor leaves text.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};

use ciphermq_client::{ClientId, MessageId};

use super::record::{LINE_START, RecordIdentity};

/// The limit of a line's length. Lines of a receiver are shorter, because the server's longest line
/// bounds a sealed message.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// The UTF-8 byte order mark, which some editors put at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A part of every record that distinguishes its remains from a foreign line.
const RECORD_END: &str = ",\"received_time\":\"";

/// The contents of a file from some offset on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The number of new records.
    pub(super) messages: u64,
    /// The number of lines that no receiver has written; they stay.
    pub(super) foreign_lines: u64,
    /// The end offset of the last line before any damage.
    pub(super) end: u64,
    /// The damage after `end`, to be removed.
    pub(super) damage: Option<Damage>,
    /// Whether the file holds text, but no line that a receiver has written, whole or torn.
    pub(super) is_foreign: bool,
}

/// Damage to be removed from an output: everything after the scan's end except `kept`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Whole lines that stay, with their endings.
    pub(super) kept: Vec<u8>,
    /// The number of damaged lines among whole ones, as an editor leaves them, and second copies.
    pub(super) lines: u64,
    /// Whether it is only an unfinished last line.
    pub(super) is_torn_line: bool,
    /// Ids that are readable in the removed part.
    pub(super) ids: Vec<MessageId>,
}

/// The reason why a file cannot be an output.
#[derive(Debug)]
pub(super) enum ScanError {
    /// The file ends with an unfinished line that no receiver has written.
    Foreign,
    /// The file cannot be read.
    Read(io::Error),
}

/// Scans the file from `start` on, line by line. `record` is called with every record, and returns
/// whether it is new.
///
/// With `is_ours`, a receiver is known to have written the file up to `start`, and so the rest.
/// Otherwise nothing is known about the file, and text in it is left alone, even if it looks
/// damaged.
///
/// # Errors
///
/// [`ScanError`].
pub(super) fn scan(
    file: &File,
    start: u64,
    is_ours: bool,
    mut record: impl FnMut(Option<&ClientId>, &MessageId) -> bool,
) -> Result<Scan, ScanError> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    reader
        .seek(SeekFrom::Start(start))
        .map_err(ScanError::Read)?;
    let mut scanner = Scanner::new(start, is_ours);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, MAX_LINE_BYTES);
        let length = bounded
            .read_until(b'\n', &mut line)
            .map_err(ScanError::Read)?;
        let is_ended = line.last() == Some(&b'\n');
        if length == 0 {
            scanner.scan.is_foreign = scanner.has_text && !scanner.has_ours;
            return Ok(scanner.scan);
        }
        if !is_ended && line.len() as u64 >= MAX_LINE_BYTES {
            return Err(ScanError::Foreign);
        }
        if scanner.is_cut {
            scanner.cut_off(&line);
        } else {
            scanner.line(&line, is_ended, &mut record)?;
        }
    }
}

struct Scanner {
    scan: Scan,
    is_ours: bool,
    /// Whether everything from here on is cut off.
    is_cut: bool,
    /// The offset of the next line.
    offset: u64,
    /// The offset of the first of the preceding lines that are not new records, and the number of
    /// foreign lines before it. Stale disk contents can look like text.
    doubtful: Option<(u64, u64)>,
    /// Whether there was a line that is not blank.
    has_text: bool,
    /// Whether there was a line that a receiver has written, or the remains of one.
    has_ours: bool,
}

impl Scanner {
    fn new(start: u64, is_ours: bool) -> Self {
        Self {
            scan: Scan {
                end: start,
                ..Scan::default()
            },
            is_ours,
            is_cut: false,
            offset: start,
            doubtful: None,
            has_text: false,
            has_ours: false,
        }
    }

    fn line(
        &mut self,
        line: &[u8],
        is_ended: bool,
        record: &mut impl FnMut(Option<&ClientId>, &MessageId) -> bool,
    ) -> Result<(), ScanError> {
        let text = match self.offset {
            0 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            _ => line,
        };
        let was_ours = self.is_ours || self.scan.messages > 0;
        let line_start = self.offset;
        self.offset += line.len() as u64;
        let kind = Line::of(text);
        self.has_text |= !text.trim_ascii().is_empty();
        self.has_ours |= kind.is_ours(text, is_ended);
        match kind {
            Line::Record(sender, message_id) if record(sender.as_ref(), &message_id) => {
                self.scan.messages += 1;
                self.doubtful = None;
                self.keep(line, is_ended);
            }
            Line::Record(..) => {
                self.doubt(line_start);
                // No receiver writes a message twice: this is stale disk contents, or was pasted by
                // somebody.
                match self.is_ours {
                    true => self.scan.damage.get_or_insert_default().lines += 1,
                    false => self.keep(line, is_ended),
                }
            }
            Line::Fragment if !is_ended && (was_ours || is_beginning(text)) => self.torn(text),
            Line::Garbage
                if !is_ended && self.doubtful.is_none() && (was_ours || is_zeroed(text)) =>
            {
                self.torn(text);
            }
            Line::Garbage if was_ours => {
                // If nothing is known about the file, whole lines before the damage stay: they may
                // be the only copies of their messages.
                if let (None, Some((from, foreign_lines)), true) =
                    (&self.scan.damage, self.doubtful, self.is_ours)
                {
                    self.scan.end = from;
                    self.scan.foreign_lines = foreign_lines;
                }
                self.damage(text);
                self.is_cut = true;
            }
            Line::Other | Line::Fragment | Line::Garbage if !is_ended => {
                return Err(ScanError::Foreign);
            }
            Line::Fragment if self.is_ours => {
                self.doubt(line_start);
                let lines = readable_ids(text).count().max(1) as u64;
                self.damage(text).lines += lines;
            }
            Line::Other | Line::Fragment | Line::Garbage => {
                self.doubt(line_start);
                self.scan.foreign_lines += 1;
                self.keep(line, is_ended);
            }
        }
        Ok(())
    }

    /// Handles an unfinished last line. An editor that ends lines with `\r` alone joins many lines
    /// into one.
    fn torn(&mut self, text: &[u8]) {
        let is_alone = self.scan.damage.is_none();
        let lines = readable_ids(text).count() as u64;
        let damage = self.damage(text);
        match lines {
            0 | 1 => damage.is_torn_line = is_alone,
            _ => damage.lines += lines,
        }
        self.is_cut = true;
    }

    /// Handles a line after the offset at which the file is cut off.
    fn cut_off(&mut self, line: &[u8]) {
        let kind = Line::of(line);
        self.has_ours |= kind.is_ours(line, true);
        match kind {
            // A whole record that was known is a copy of an earlier one.
            Line::Record(..) if self.is_ours => {}
            Line::Record(_, message_id) => {
                self.scan
                    .damage
                    .get_or_insert_default()
                    .ids
                    .push(message_id);
            }
            Line::Other | Line::Fragment | Line::Garbage => {
                self.damage(line);
            }
        }
    }

    /// Records the offset of a doubtful line, unless the one before it is doubtful, too.
    fn doubt(&mut self, offset: u64) {
        let foreign_lines = self.scan.foreign_lines;
        self.doubtful.get_or_insert((offset, foreign_lines));
    }

    fn keep(&mut self, line: &[u8], is_ended: bool) {
        match &mut self.scan.damage {
            None => self.scan.end = self.offset,
            Some(damage) => {
                damage.kept.extend_from_slice(line);
                if !is_ended {
                    damage.kept.push(b'\n');
                }
            }
        }
    }

    fn damage(&mut self, text: &[u8]) -> &mut Damage {
        let damage = self.scan.damage.get_or_insert_default();
        damage.ids.extend(readable_ids(text));
        damage
    }
}

/// A line, classified by its content.
enum Line {
    /// A received message: its sender, if verified, and its id.
    Record(Option<ClientId>, MessageId),
    /// Foreign text.
    Other,
    /// Text that is a part of a record.
    Fragment,
    /// Bytes that are not text: neither programs nor people write them, but a failing disk leaves
    /// them.
    Garbage,
}

impl Line {
    /// Whether a receiver has written the line, or the remains of it. Many files begin like a
    /// record, with a brace: that is sufficient only for a torn line.
    fn is_ours(&self, text: &[u8], is_ended: bool) -> bool {
        match self {
            Self::Record(..) => true,
            Self::Fragment => !is_ended || is_long_fragment(text),
            Self::Garbage => (!is_ended && is_zeroed(text)) || is_long_fragment(text),
            Self::Other => false,
        }
    }

    fn of(line: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(line) else {
            return Self::Garbage;
        };
        // Checked first: a whole record stays, whatever characters its sender has put into it.
        match parse_record(text) {
            Some((sender, message_id)) => Self::Record(sender, message_id),
            None if text.bytes().any(is_control) => Self::Garbage,
            None if is_beginning(line.trim_ascii_end()) || text.contains(RECORD_END) => {
                Self::Fragment
            }
            None => Self::Other,
        }
    }
}

/// Whether a byte is a control character that occurs neither in JSON, which escapes it, nor in
/// typed text. DEL is not one of them: JSON does not escape it.
fn is_control(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')
}

fn parse_record(line: &str) -> Option<(Option<ClientId>, MessageId)> {
    let line: RecordIdentity<'_> = serde_json::from_str(line).ok()?;
    let sender = line
        .sender
        .filter(|_| line.sender_verified)
        .map(|sender| ClientId::new(&sender))
        .transpose()
        .ok()?;
    Some((sender, MessageId::new(&line.message_id).ok()?))
}

/// Whether a line can be the beginning of a record, in which a crash of the machine may have left
/// zeros instead of bytes that were not yet on the disk.
fn is_beginning(line: &[u8]) -> bool {
    !line.is_empty()
        && line
            .iter()
            .zip(LINE_START)
            .all(|(byte, start)| byte == start || *byte == 0)
}

/// Whether a line holds more of a record than a foreign line would by chance.
fn is_long_fragment(line: &[u8]) -> bool {
    let end = RECORD_END.as_bytes();
    line.starts_with(LINE_START) || line.windows(end.len()).any(|part| part == end)
}

/// Whether a file holds a line that this program has written, whole or torn, or nothing but white
/// space.
///
/// # Errors
///
/// The system's error if the file cannot be read.
pub(super) fn has_recognised_line(file: &File) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    reader.seek(SeekFrom::Start(0))?;
    let (mut line, mut has_text, mut is_first) = (Vec::new(), false, true);
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, MAX_LINE_BYTES);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(!has_text);
        }
        let text = match std::mem::take(&mut is_first) {
            true => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line),
            false => &line,
        };
        let is_torn = !text.ends_with(b"\n") && is_beginning(text);
        if text.starts_with(LINE_START) || is_torn {
            return Ok(true);
        }
        has_text |= !text.trim_ascii().is_empty();
    }
}

/// Whether a line is the beginning of a record, possibly empty, followed by zeros.
fn is_zeroed(line: &[u8]) -> bool {
    is_beginning(line)
        && line
            .iter()
            .skip_while(|&&byte| byte != 0)
            .all(|&byte| byte == 0)
}

/// The ids at the beginnings of damaged lines. A `\r` separates lines here, too: records never
/// contain one.
fn readable_ids(line: &[u8]) -> impl Iterator<Item = MessageId> {
    line.split(|&byte| byte == b'\r').filter_map(|line| {
        let rest = line.strip_prefix(LINE_START)?;
        let end = rest.iter().position(|&byte| byte == b'"')?;
        let id = std::str::from_utf8(rest.get(..end)?).ok()?;
        MessageId::new(id).ok()
    })
}
