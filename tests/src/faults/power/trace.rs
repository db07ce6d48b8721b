//! What a program asks of its file systems, as `strace` records it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// System calls that change files or names, or make them durable. A `?` admits that a machine does
/// not have the call.
const CALLS: &str = "trace=?open,openat,?creat,write,pwrite64,writev,pwritev,pwritev2,lseek,\
                     ?truncate,ftruncate,fallocate,?rename,?renameat,renameat2,?link,linkat,\
                     ?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,fsync,fdatasync,\
                     sync,syncfs,copy_file_range,sendfile,splice,mmap,?io_uring_setup";

/// Calls that copy inside of the system, which would not show the data: without them, programs read
/// and write.
const NO_COPIES: &str = "inject=copy_file_range,sendfile,splice:error=ENOSYS";

/// The wrapper command that records a program's calls into `log`.
///
/// Each sync is delayed before it begins. A program that does not wait for one then gives its
/// answer long before the sync ends.
///
/// With `kill_at`, the program is killed instead at the sync of this number, counted separately for
/// each thread, before that has any effect.
pub fn command(log: &Path, delay: Duration, kill_at: Option<u32>) -> Vec<String> {
    let log = log.display().to_string();
    let effect = match kill_at {
        None => format!("delay_enter={}", delay.as_micros()),
        Some(number) => format!("signal=KILL:when={number}"),
    };
    let inject = format!("inject=fsync,fdatasync:{effect}");
    [
        "strace", "-D", "-f", "-y", "-q", "-ttt", "-T", "-xx", "-s", "67108864", "-o", &log, "-e",
        CALLS, "-e", &inject, "-e", NO_COPIES, "--",
    ]
    .map(str::to_owned)
    .into()
}

/// A call, and when it began and ended, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When the program made the call.
    pub start: u64,
    /// When the call had returned.
    pub end: u64,
    /// What the call did.
    pub call: Call,
}

/// The effect of a call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A file was opened, and created if it was missing.
    Open {
        /// Number of the descriptor.
        descriptor: u32,
        /// The file.
        path: PathBuf,
        /// Whether it is created if it is missing.
        creates: bool,
        /// Whether its content is removed.
        truncates: bool,
        /// Whether every write goes to its end.
        appends: bool,
    },
    /// The descriptor's position was set.
    Seek {
        /// Number of the descriptor.
        descriptor: u32,
        /// The new position.
        position: u64,
    },
    /// Bytes were written.
    Write {
        /// Number of the descriptor.
        descriptor: u32,
        /// The file.
        path: PathBuf,
        /// Where, or `None` for the descriptor's own position.
        offset: Option<u64>,
        /// The bytes.
        data: Vec<u8>,
    },
    /// The length was set; with `grows` only if it was less.
    Length {
        /// The file.
        path: PathBuf,
        /// The new length.
        length: u64,
        /// Whether a longer file keeps its length.
        grows: bool,
    },
    /// A name was replaced by another one.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
    },
    /// A file got another name.
    Link {
        /// The existing name.
        from: PathBuf,
        /// The additional name.
        to: PathBuf,
    },
    /// A file or folder lost a name.
    Unlink(PathBuf),
    /// A folder was created.
    CreateFolder(PathBuf),
    /// A file or folder was synced.
    Sync(PathBuf),
    /// All file systems were synced.
    SyncAll,
    /// A call that the model of the disk does not know.
    Unknown(PathBuf, String),
}

/// Parses a log. Calls that failed, or have no effect on files, are left out.
///
/// # Panics
///
/// If a line has an unknown form, or the clock was set back.
pub fn parse(text: &str, working: &Path) -> Vec<Event> {
    let mut parser = Parser {
        working,
        begun: Vec::new(),
        events: Vec::new(),
        now: 0,
    };
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let next = lines.get(index + 1).and_then(|line| time_of(line));
        parser.line(line, next.unwrap_or(u64::MAX));
    }
    // A killed program leaves calls that never returned. They are left out: that none of them has
    // changed anything is seen when the record is compared with the real files.
    parser.events
}

/// Returns what was being synced when the program was killed, before that had any effect.
pub fn unfinished_sync(text: &str) -> Option<PathBuf> {
    let mut syncs = text.lines().rev().filter(|line| !line.contains(") = 0"));
    let (_, arguments) = syncs.find_map(|line| {
        let (_, call) = line.split_once("sync(")?;
        call.split_once('<')
    })?;
    Some(decoded(arguments.split('>').next()?))
}

struct Parser<'a> {
    working: &'a Path,
    /// Calls that have not returned: thread, time, text.
    begun: Vec<(&'a str, u64, String)>,
    events: Vec<Event>,
    now: u64,
}

impl<'a> Parser<'a> {
    /// Parses a line: `1234 1700000000.123456 fsync(3</folder/file>) = 0 <0.000123>`. `next` is the
    /// time of the next one.
    fn line(&mut self, line: &'a str, next: u64) {
        let Some((thread, rest)) = line.split_once(' ') else {
            return;
        };
        let (Some(time), Some((_, text))) = (time_of(line), rest.trim_start().split_once(' '))
        else {
            panic!("this line of strace has no time: {line:.200}");
        };
        assert!(time >= self.now, "the clock was set back at {line:.200}");
        self.now = time;
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            self.begun.push((thread, time, begun.to_owned()));
            return;
        }
        let (start, text) = match text.strip_prefix("<... ") {
            Some(resumed) => {
                let at = self.begun.iter().position(|(of, ..)| *of == thread);
                let (_, start, begun) = self.begun.remove(at.expect("a call that has begun"));
                let (_, rest) = resumed.split_once("resumed>").expect("its end");
                (start, begun + rest)
            }
            None => (time, text.to_owned()),
        };
        // Process ends and signals.
        if text.starts_with("+++") || text.starts_with("---") {
            return;
        }
        let (text, duration) = match text.rsplit_once(" <") {
            Some((text, duration)) => (text, duration.trim_end_matches('>').parse().unwrap_or(0.0)),
            None => (text.as_str(), 0.0),
        };
        let Some((call, result)) = text.rsplit_once(" = ") else {
            panic!("this call has no result: {line:.200}");
        };
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        let (name, arguments) = call.split_once('(').expect("arguments");
        let arguments = arguments.trim_end().trim_end_matches(')');
        // Whatever follows from the call's end is after it, and so is the next line.
        let duration = Duration::from_secs_f64(duration).as_micros();
        let end = (start + u64::try_from(duration).expect("a short time"))
            .max(time)
            .min(next);
        if let Some(call) = self.call(name, arguments, result) {
            self.events.push(Event { start, end, call });
        }
    }

    fn call(&self, name: &str, arguments: &str, result: &str) -> Option<Call> {
        let fields = fields(arguments);
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        let number = |index: usize| field(index).parse::<u64>().unwrap_or_default();
        let path = |index: usize| descriptor(field(index)).map(|(_, path)| path);
        let at = |index: usize| self.path(field(index), field(index + 1));
        let plain = |index: usize| self.path("AT_FDCWD", field(index));
        let call = match name {
            "open" => opened(field(1), result, plain(0))?,
            "creat" => opened("O_CREAT|O_TRUNC", result, plain(0))?,
            "openat" => opened(field(2), result, at(0))?,
            "lseek" => Call::Seek {
                descriptor: descriptor(field(0))?.0,
                position: result.parse().ok()?,
            },
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => {
                let (number_of, path) = descriptor(field(0))?;
                // Abbreviated data, of sockets and pipes, is not needed.
                let mut data = bytes(field(1));
                let written: usize = result.split(' ').next()?.parse().ok()?;
                data.truncate(written);
                Call::Write {
                    descriptor: number_of,
                    path,
                    offset: name.starts_with('p').then(|| number(3)),
                    data,
                }
            }
            "ftruncate" => Call::Length {
                path: path(0)?,
                length: number(1),
                grows: false,
            },
            "truncate" => Call::Length {
                path: plain(0),
                length: number(1),
                grows: false,
            },
            "fallocate" if field(1) == "0" => Call::Length {
                path: path(0)?,
                length: number(2) + number(3),
                grows: true,
            },
            "rename" => Call::Rename {
                from: plain(0),
                to: plain(1),
            },
            "renameat" | "renameat2" => Call::Rename {
                from: at(0),
                to: at(2),
            },
            "link" => Call::Link {
                from: plain(0),
                to: plain(1),
            },
            "linkat" => Call::Link {
                from: at(0),
                to: at(2),
            },
            "unlink" | "rmdir" => Call::Unlink(plain(0)),
            "unlinkat" => Call::Unlink(at(0)),
            "mkdir" => Call::CreateFolder(plain(0)),
            "mkdirat" => Call::CreateFolder(at(0)),
            "fsync" | "fdatasync" => Call::Sync(path(0)?),
            "sync" | "syncfs" => Call::SyncAll,
            "mmap" => {
                let writes = field(2).contains("PROT_WRITE") && field(3).contains("MAP_SHARED");
                let mapped = path(4).filter(|_| writes)?;
                // SQLite's index of its log: memory that its processes share, and made anew from
                // the log.
                if mapped.to_string_lossy().ends_with("-shm") {
                    return None;
                }
                Call::Unknown(mapped, name.to_owned())
            }
            "copy_file_range" | "splice" => Call::Unknown(path(2)?, name.to_owned()),
            "io_uring_setup" => Call::Unknown(self.working.to_owned(), name.to_owned()),
            "symlink" => Call::Unknown(plain(1), name.to_owned()),
            "symlinkat" => Call::Unknown(at(1), name.to_owned()),
            _ => Call::Unknown(path(0)?, name.to_owned()),
        };
        Some(call)
    }

    /// Returns the path of a name in a folder: `AT_FDCWD</folder>, "name"`.
    fn path(&self, folder: &str, name: &str) -> PathBuf {
        let folder = match folder.split_once('<') {
            Some((_, folder)) => decoded(folder.trim_end_matches('>')),
            None => self.working.to_owned(),
        };
        folder.join(decoded(name.trim_matches('"')))
    }
}

fn opened(flags: &str, result: &str, path: PathBuf) -> Option<Call> {
    Some(Call::Open {
        descriptor: result.split('<').next()?.trim().parse().ok()?,
        path,
        creates: flags.contains("O_CREAT"),
        truncates: flags.contains("O_TRUNC"),
        appends: flags.contains("O_APPEND"),
    })
}

/// Returns the time of a line in microseconds.
fn time_of(line: &str) -> Option<u64> {
    let (seconds, micros) = line.split_whitespace().nth(1)?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// Returns the number and the path of a descriptor of a file or folder: `3</folder/name>`.
fn descriptor(text: &str) -> Option<(u32, PathBuf)> {
    let (number, path) = text.split_once('<')?;
    let path = decoded(path.strip_suffix('>')?);
    Some((number.parse().ok()?, path)).filter(|(_, path)| path.is_absolute())
}

/// Splits arguments at commas that are outside of strings, paths and brackets.
fn fields(text: &str) -> Vec<&str> {
    let (mut fields, mut begin, mut depth, mut is_quoted) = (Vec::new(), 0, 0i32, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                fields.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    fields.push(text[begin..].trim());
    fields
}

/// Returns the bytes of all strings, as in `"\x61"` or `[{iov_base="\x61", iov_len=1}, ...]`.
fn bytes(text: &str) -> Vec<u8> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .flat_map(unescape)
        .collect()
}

fn decoded(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(unescape(text)).into()
}

/// Decodes `\x61\x62`; text that is not in this form stays as it is.
fn unescape(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    let digits: String = text.split("\\x").collect();
    hex::decode(&digits).unwrap_or_else(|_| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests;
