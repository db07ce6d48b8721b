//! What stands in an output: records, other people's lines, and damage.
//!
//! An ack leaves only after everything written before it is synced, and there is one write at a
//! time. So what a power cut has damaged belongs to the last write, none of which was acknowledged:
//! it is cut off from the first damaged line on, comes again, and stands in order. A person who
//! edits the file can damage lines that were acknowledged, and whole lines behind them: those stay.
//! The two are told apart by what stands in the line: a disk leaves zeros and bytes that are no
//! text, an editor leaves text.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};

use ciphermq_client::{ClientId, MessageId};

use super::record::{Processed, START};

/// No line that we wrote is longer: a sealed message is bounded by the server's longest line.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// Some editors put it at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// By this, somewhere in it, the rest of a record is told from a line of somebody else's.
const RECORD_END: &str = ",\"received_time\":\"";

/// What a file holds from some place on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Records that were not known yet.
    pub(super) messages: u64,
    /// Lines that are none of ours, and stay.
    pub(super) other_lines: u64,
    /// Where the last line ends that is in its place.
    pub(super) end: u64,
    /// What must not stay behind it.
    pub(super) damage: Option<Damage>,
    /// There is text, and no line in it that a receiver has written, whole or torn.
    pub(super) is_foreign: bool,
}

/// What must be taken out of an output: all behind the scan's end, but for what is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Whole lines that stay, with their endings.
    pub(super) kept: Vec<u8>,
    /// Damaged lines among whole ones, as an editor leaves them, and second copies.
    pub(super) lines: u64,
    /// It is an unfinished last line and nothing else.
    pub(super) is_torn_line: bool,
    /// Ids that can be read in what is taken out.
    pub(super) ids: Vec<MessageId>,
}

/// Why a file cannot be an output.
#[derive(Debug)]
pub(super) enum ScanError {
    /// It ends with an unfinished line that is none of ours.
    Foreign,
    /// It cannot be read.
    Read(io::Error),
}

/// Reads the file from `start` on, a line at a time. `note` is given every record, and says whether
/// it is a new one.
///
/// With `is_ours`, a receiver has written what stands before `start`, and so what follows.
/// Otherwise nothing is known of the file: text in it is left alone, however damaged it looks.
pub(super) fn scan(
    file: &File,
    start: u64,
    is_ours: bool,
    mut note: impl FnMut(Option<&ClientId>, &MessageId) -> bool,
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
            scanner.line(&line, is_ended, &mut note)?;
        }
    }
}

struct Scanner {
    scan: Scan,
    is_ours: bool,
    /// Nothing more is kept: what follows is cut off.
    is_cut: bool,
    /// Where the next line begins.
    place: u64,
    /// Where the lines began that are no new records and lead up to here, and how many of others'
    /// there were before. What a disk held before can look like text.
    doubtful: Option<(u64, u64)>,
    /// A line that is not blank was seen.
    has_text: bool,
    /// A line that a receiver has written was seen, or what is left of one.
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
            place: start,
            doubtful: None,
            has_text: false,
            has_ours: false,
        }
    }

    fn line(
        &mut self,
        line: &[u8],
        is_ended: bool,
        note: &mut impl FnMut(Option<&ClientId>, &MessageId) -> bool,
    ) -> Result<(), ScanError> {
        let text = match self.place {
            0 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            _ => line,
        };
        let was_ours = self.is_ours || self.scan.messages > 0;
        let begins = self.place;
        self.place += line.len() as u64;
        let kind = Line::of(text);
        self.has_text |= !text.trim_ascii().is_empty();
        self.has_ours |= kind.is_ours(text, is_ended);
        match kind {
            Line::Record(sender, message_id) if note(sender.as_ref(), &message_id) => {
                self.scan.messages += 1;
                self.doubtful = None;
                self.keep(line, is_ended);
            }
            Line::Record(..) => {
                self.doubt(begins);
                // No receiver writes a message twice: it is what the disk held before, or what
                // somebody has pasted.
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
                // Where nothing is known of the file, whole lines before it stay: they may be the
                // only ones of their messages.
                if let (None, Some((from, other_lines)), true) =
                    (&self.scan.damage, self.doubtful, self.is_ours)
                {
                    self.scan.end = from;
                    self.scan.other_lines = other_lines;
                }
                self.damage(text);
                self.is_cut = true;
            }
            Line::Other | Line::Fragment | Line::Garbage if !is_ended => {
                return Err(ScanError::Foreign);
            }
            Line::Fragment if self.is_ours => {
                self.doubt(begins);
                let lines = readable_ids(text).count().max(1) as u64;
                self.damage(text).lines += lines;
            }
            Line::Other | Line::Fragment | Line::Garbage => {
                self.doubt(begins);
                self.scan.other_lines += 1;
                self.keep(line, is_ended);
            }
        }
        Ok(())
    }

    /// The last line, which is unfinished. An editor that ends lines with `\r` alone makes one of
    /// many.
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

    /// A line behind the place from which on everything is cut off.
    fn cut_off(&mut self, line: &[u8]) {
        let kind = Line::of(line);
        self.has_ours |= kind.is_ours(line, true);
        match kind {
            // A whole one that was known is a copy of what stands further up.
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

    fn doubt(&mut self, place: u64) {
        let other_lines = self.scan.other_lines;
        self.doubtful.get_or_insert((place, other_lines));
    }

    fn keep(&mut self, line: &[u8], is_ended: bool) {
        match &mut self.scan.damage {
            None => self.scan.end = self.place,
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

/// What a line is.
enum Line {
    /// A received message; who has sent it, if that is verified.
    Record(Option<ClientId>, MessageId),
    /// A text that is none of ours.
    Other,
    /// A text that is a part of a record.
    Fragment,
    /// No text: no program and no person writes that, but disks leave it.
    Garbage,
}

impl Line {
    /// Whether a receiver has written it, or what is left of it. Many files begin as a record does,
    /// by a brace: that is enough only where it was torn.
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
        // First of all: what is whole stays, whatever characters its sender has put into it.
        match record(text) {
            Some((sender, message_id)) => Self::Record(sender, message_id),
            None if text.bytes().any(is_no_text) => Self::Garbage,
            None if is_beginning(line.trim_ascii_end()) || text.contains(RECORD_END) => {
                Self::Fragment
            }
            None => Self::Other,
        }
    }
}

/// Whether a byte stands in no text: JSON escapes these, and people don't type them. DEL is none of
/// them: JSON leaves it as it is.
fn is_no_text(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')
}

fn record(line: &str) -> Option<(Option<ClientId>, MessageId)> {
    let line: Processed<'_> = serde_json::from_str(line).ok()?;
    let sender = line
        .sender
        .filter(|_| line.sender_verified)
        .map(|sender| ClientId::new(&sender))
        .transpose()
        .ok()?;
    Some((sender, MessageId::new(&line.message_id).ok()?))
}

/// Whether a line can be the beginning of one of ours, where a crash of the machine has left zeros
/// in place of what was not yet on the disk.
fn is_beginning(line: &[u8]) -> bool {
    !line.is_empty()
        && line
            .iter()
            .zip(START)
            .all(|(byte, start)| byte == start || *byte == 0)
}

/// Whether a line holds more of one of ours than others have by chance.
fn is_long_fragment(line: &[u8]) -> bool {
    let end = RECORD_END.as_bytes();
    line.starts_with(START) || line.windows(end.len()).any(|part| part == end)
}

/// Whether a file that lines are appended to holds one that this program has written, whole or
/// torn, or nothing but white space.
pub(super) fn has_line_of_ours(file: &File) -> io::Result<bool> {
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
        if text.starts_with(START) || is_torn {
            return Ok(true);
        }
        has_text |= !text.trim_ascii().is_empty();
    }
}

/// Whether a line is the beginning of one of ours, or nothing, and then zeros.
fn is_zeroed(line: &[u8]) -> bool {
    is_beginning(line)
        && line
            .iter()
            .skip_while(|&&byte| byte != 0)
            .all(|&byte| byte == 0)
}

/// The ids with which damaged lines begin. In one that is torn apart at each `\r` there can be
/// many: none stands in a line as we write it.
fn readable_ids(line: &[u8]) -> impl Iterator<Item = MessageId> {
    line.split(|&byte| byte == b'\r').filter_map(|line| {
        let rest = line.strip_prefix(START)?;
        let end = rest.iter().position(|&byte| byte == b'"')?;
        let id = std::str::from_utf8(rest.get(..end)?).ok()?;
        MessageId::new(id).ok()
    })
}
