//! A log file that is rotated by time and by size, whichever comes first.
//!
//! The current file keeps its configured name. A full one, or one whose hour or day is over, is
//! renamed to `server_info.log.2025-09-08-07` (hourly) or `server_info.log.2025-09-08` (daily), in
//! UTC; when there are several of one hour or day the later ones end in `.1`, `.2` and so on.
//! Without rotation by time they are `server_info.log.1`, `.2` ... Numbers grow with time, and no
//! file is ever overwritten. `retention` removes the oldest ones, and `room` ends a log before it
//! takes the reserve of its disk.
//!
//! A link to a file on another disk stays, and the file that it leads to is renamed there. A file
//! that is not a regular one, or that another process holds open for us, as `/dev/stdout`, is
//! written and never renamed.
//!
//! Why not a library: the available ones rotate by time or by size but not by both, or rename the
//! current file, or panic when a folder cannot be created.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    time::Duration,
};

use ciphermq_files::{
    Access, Need, create_folder, duplicate_descriptor, is_descriptor, open_named_pipe,
    own_descriptor, parent, resolve, sync_parent,
};
use jiff::Timestamp;

use super::{
    line::{self, Clock},
    retention::Retention,
    room::{Room, Verdict},
    rotated_name,
    spool::{Failure, Output},
};
use crate::settings::{Reserve, Rotation};

/// How long to wait after a failed rotation. Meanwhile the file grows.
const RETRY_SECONDS: u64 = 60;

/// A log file. It is opened by the first write, or by [`Output::open`].
pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    max_bytes: Option<u64>,
    /// The level in the lines that the log writes about itself.
    level: &'static str,
    clock: Clock,
    open: Option<Open>,
    /// The second before which there is no rotation, as the last one failed.
    retry_after: u64,
    complaint: Option<String>,
    retention: Retention,
    reserve: Option<Reserve>,
}

struct Open {
    file: File,
    /// The file that the path leads to.
    place: PathBuf,
    /// Whether the file can be renamed.
    rotates: bool,
    bytes: u64,
    /// The hour or day of the lines in it.
    period: u64,
    /// Device and inode.
    identity: (u64, u64),
    /// The space that is left to others; `None` if that is on another disk.
    room: Option<Room>,
}

impl RotatingFile {
    /// Creates a log file of at most `max_bytes` bytes, unless a single line is longer.
    pub(super) fn new(
        path: PathBuf,
        rotation: Rotation,
        max_bytes: Option<u64>,
        level: &'static str,
        clock: Clock,
    ) -> Self {
        Self {
            path,
            rotation,
            max_bytes,
            level,
            clock,
            open: None,
            retry_after: 0,
            complaint: None,
            retention: Retention::default(),
            reserve: None,
        }
    }

    /// Removes old files beyond these limits.
    pub(super) fn retaining(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Leaves this space to others.
    pub(super) fn leaving(mut self, reserve: Option<Reserve>) -> Self {
        self.reserve = reserve;
        self
    }

    /// Removes old files beyond the limits, as far as that is possible.
    fn remove_old(&mut self) {
        // Where the server begins no new files, numbered ones are those of a tool.
        let dated = self.rotation != Rotation::Never;
        let has_old = dated || self.max_bytes.is_some();
        let open = self.open.as_ref();
        let Some(open) = open.filter(|open| open.rotates && has_old) else {
            return;
        };
        // The current file may grow to its limit until the next look.
        let current = self.max_bytes.unwrap_or(0).max(open.bytes);
        if let Err(error) = self.retention.apply(&open.place, dated, current) {
            self.complaint = Some(format!(
                "cannot remove old files of {}: {error}; they are kept",
                self.path.display()
            ));
        }
    }

    /// Returns the number of the hour or day that a second is in.
    fn period(&self, second: u64) -> u64 {
        match self.rotation {
            Rotation::Hourly => second / 3_600,
            Rotation::Daily => second / 86_400,
            Rotation::Never => 0,
        }
    }

    /// Returns the hour or day as it stands in the name of a file with its lines: after a full
    /// stop, or empty.
    fn date(&self, period: u64) -> String {
        let (seconds, format) = match self.rotation {
            Rotation::Hourly => (3_600, "%Y-%m-%d-%H"),
            Rotation::Daily => (86_400, "%Y-%m-%d"),
            Rotation::Never => return String::new(),
        };
        let start = i64::try_from(period.saturating_mul(seconds)).ok();
        let start = start
            .and_then(|second| Timestamp::from_second(second).ok())
            .unwrap_or(Timestamp::MAX);
        format!(".{}", start.strftime(format))
    }

    /// Returns the open file, reopened if its name leads to another file by now: somebody may have
    /// moved or removed it, and would wonder where the lines go.
    fn opened(&mut self, second: u64) -> io::Result<&mut Open> {
        let found = fs::metadata(&self.path).ok();
        let same = self
            .open
            .take()
            .zip(found)
            .filter(|(open, found)| (found.dev(), found.ino()) == open.identity);
        let open = match same {
            // Its length is read anew as well: the file may have been copied away and truncated.
            Some((open, found)) => Open {
                bytes: found.len(),
                ..open
            },
            None => self.open_new(second)?,
        };
        Ok(self.open.insert(open))
    }

    fn open_new(&self, second: u64) -> io::Result<Open> {
        let place = resolve(&self.path)?;
        if let Some(number) = own_descriptor(&place) {
            // Others may write to it as well: opened once more, it would have an offset of its
            // own, and they would overwrite the log.
            let file = duplicate_descriptor(number, Need::Write)?;
            return self.unrotated(file, place, second);
        }
        // Without a reader what is written would be lost.
        if let Some(pipe) = open_named_pipe(&place)? {
            return self.unrotated(pipe, place, second);
        }
        // Not readable for everybody: it holds client names and addresses.
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(0o640);
        if !is_descriptor(&place) {
            create_folder(parent(&place), Access::Public)?;
            options.create(true).custom_flags(libc::O_NOFOLLOW);
        }
        let mut file = options.open(&place)?;
        let room = self
            .reserve
            .as_ref()
            .and_then(|reserve| Room::new(reserve, parent(&place)));
        let rotates = file.metadata()?.is_file() && !is_descriptor(&place);
        if rotates {
            sync_parent(&place)?;
        }
        let metadata = file.metadata()?;
        let mut bytes = metadata.len();
        let mut period = self.period(second);
        if bytes > 0 {
            // A file of an earlier run: its last line was written when it was last changed.
            period = self.period(u64::try_from(metadata.mtime()).unwrap_or(0));
            // A killed server may have left half a line, which the next one must not continue.
            let mut last = [0];
            file.read_exact_at(&mut last, bytes - 1)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok(Open {
            file,
            place,
            rotates,
            bytes,
            period,
            identity: (metadata.dev(), metadata.ino()),
            room: room.filter(|_| rotates),
        })
    }

    /// Returns an open descriptor, such as `/dev/stdout`, or pipe, which is never renamed.
    fn unrotated(&self, file: File, place: PathBuf, second: u64) -> io::Result<Open> {
        let metadata = file.metadata()?;
        Ok(Open {
            file,
            place,
            rotates: false,
            bytes: metadata.len(),
            period: self.period(second),
            identity: (metadata.dev(), metadata.ino()),
            room: None,
        })
    }

    /// Renames the file and starts a new one. If that fails, the old one is continued, and a
    /// complaint is recorded.
    fn rotate(&mut self, second: u64) -> io::Result<()> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let renamed = rotated_name::next_free(&open.place, &self.date(open.period))
            .and_then(|name| fs::rename(&open.place, name));
        match renamed {
            Ok(()) => {
                self.open = None;
                self.retry_after = 0;
                self.open = Some(self.open_new(second)?);
                self.remove_old();
            }
            Err(error) => {
                self.retry_after = second + RETRY_SECONDS;
                self.complaint = Some(format!(
                    "cannot rotate {}: {error}; it grows until that is possible",
                    self.path.display()
                ));
            }
        }
        Ok(())
    }
}

impl Output for RotatingFile {
    fn open(&mut self) -> io::Result<()> {
        let second = (self.clock)().as_secs();
        self.opened(second)?;
        self.remove_old();
        Ok(())
    }

    fn write(&mut self, time: Duration, lines: &[u8]) -> Result<(), Failure> {
        let mut written = 0;
        self.write_from(time.as_secs(), lines, &mut written)
            .map_err(|source| Failure { written, source })
    }

    fn write_lost(&mut self, count: u64) -> io::Result<()> {
        let now = (self.clock)();
        let line = line::lost_line(now, self.level, count);
        self.write(now, line.as_bytes())
            .map_err(|failure| failure.source)
    }

    fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    fn name(&self) -> String {
        format!("the log file {}", self.path.display())
    }
}

impl RotatingFile {
    /// Writes lines of one hour, and counts in `written` what is safely in the file.
    fn write_from(&mut self, second: u64, lines: &[u8], written: &mut usize) -> io::Result<()> {
        let period = self.period(second);
        let may_rotate = second >= self.retry_after || self.retry_after > second + RETRY_SECONDS;
        let max_bytes = self.max_bytes;
        let level = self.level;
        let open = self.opened(second)?;
        open.check_room(second, level, lines.len())?;
        let may_rotate = may_rotate && open.rotates;
        let mut max_bytes = if may_rotate { max_bytes } else { None };
        if open.bytes == 0 {
            open.period = period;
        }
        // Threads race to the buffer, so a line of the hour before may come a moment late: it stays
        // with those of the hour after. Any other change, a clock set back included, starts a new
        // file.
        let late = period + 1 == open.period;
        if open.period != period && !late && may_rotate {
            self.rotate(second)?;
        }
        while let Some(rest) = lines.get(*written..).filter(|rest| !rest.is_empty()) {
            let open = self.opened(second)?;
            let room = max_bytes.map(|max| max.saturating_sub(open.bytes));
            let take = fitting_length(rest, room, open.bytes == 0);
            if take == 0 {
                self.rotate(second)?;
                if self.retry_after > second {
                    // It could not be rotated: better a file that is too large than lost lines.
                    max_bytes = None;
                }
                continue;
            }
            let part = rest.get(..take).unwrap_or_default();
            match append(open, part) {
                Ok(count) => *written += count,
                Err(PartialWrite { count, source }) => {
                    *written += count;
                    return Err(source);
                }
            }
        }
        Ok(())
    }
}

impl Open {
    /// Refuses lines that would take the reserve of the disk, after a last line that says so.
    fn check_room(&mut self, second: u64, level: &str, bytes: usize) -> io::Result<()> {
        let Some(room) = &mut self.room else {
            return Ok(());
        };
        match room.verdict(parent(&self.place), bytes) {
            Verdict::Write => Ok(()),
            Verdict::LastLine => {
                let line = room.last_line(Duration::from_secs(second), level);
                let error = room.error();
                append(self, line.as_bytes()).map_err(|failed| failed.source)?;
                Err(error)
            }
            Verdict::Stopped => Err(room.error()),
        }
    }
}

/// Returns the number of bytes of `lines` that fit into a file with this room: whole lines, and at
/// least one if it is empty.
fn fitting_length(lines: &[u8], room: Option<u64>, empty: bool) -> usize {
    let room = room.map_or(usize::MAX, |room| {
        usize::try_from(room).unwrap_or(usize::MAX)
    });
    if lines.len() <= room {
        return lines.len();
    }
    let whole = lines
        .get(..room)
        .and_then(|start| start.iter().rposition(|&byte| byte == b'\n'));
    match whole {
        Some(end) => end + 1,
        None if empty => lines
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(lines.len(), |end| end + 1),
        None => 0,
    }
}

/// An append that ended early: `count` bytes, whole lines, are in the file.
struct PartialWrite {
    count: usize,
    source: io::Error,
}

/// Appends lines. Half a line, as a full disk leaves it, is removed again.
fn append(open: &mut Open, lines: &[u8]) -> Result<usize, PartialWrite> {
    let mut done = 0;
    while let Some(rest) = lines.get(done..).filter(|rest| !rest.is_empty()) {
        let outcome = match open.file.write(rest) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(count) => done += count,
            Err(source) => {
                let begun = lines.get(..done).unwrap_or_default();
                let whole = begun
                    .iter()
                    .rposition(|&byte| byte == b'\n')
                    .map_or(0, |end| end + 1);
                open.bytes += whole as u64;
                // Others may have written to a descriptor meanwhile.
                if whole < done && open.rotates {
                    // If even this fails, the next line starts behind the half one, and one line is
                    // garbled.
                    let _ = open.file.set_len(open.bytes);
                }
                return Err(PartialWrite {
                    count: whole,
                    source,
                });
            }
        }
    }
    open.bytes += done as u64;
    Ok(done)
}

#[cfg(test)]
mod tests;
