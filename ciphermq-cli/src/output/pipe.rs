//! A pipe that is written no faster than it is read.
//!
//! What was written into a pipe and not read is lost with the reader's end, so it must not count as
//! written. Linux tells how many bytes in a pipe are unread (`FIONREAD`): a line is put in once the
//! one before it was taken out. So `head -1` takes one line, and what stays in the pipe is one line
//! at most.
//!
//! While it is written the pipe has room for one page only: then the system wakes the writer when
//! it is empty, and nobody need look again and again.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ciphermq_files::FileId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};

/// So much is written into a pipe with room without waiting (POSIX's `PIPE_BUF`, on Linux).
const CHUNK_BYTES: usize = 4096;

/// The least room that a pipe can have. The system makes it a page.
const LEAST_ROOM: usize = 4096;

/// So long nothing need be told of what was taken so far.
const SHORT: Duration = Duration::from_millis(1);

/// So often a signal is looked for while nobody reads.
const LOOK: Duration = Duration::from_millis(100);

/// Where the system does not wake the writer, it looks again after pauses up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// After a signal, the line that is in the pipe may be taken for so long.
const GRACE: Duration = Duration::from_secs(5);

/// Asks the writer of a pipe to end. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// No further line is written; the one in the pipe is waited for a little.
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// The reader has it.
    Taken,
    /// The end was asked for before the reader had all of it.
    Stopped,
}

/// The end of a pipe that is written to.
#[derive(Debug)]
pub(crate) struct Pipe {
    file: File,
    stop: Stop,
    /// How much room it had; nothing if that was not changed.
    room: Option<usize>,
}

impl Pipe {
    /// Takes an open file, if it is a pipe; otherwise gives it back.
    pub(crate) fn of(file: File) -> Result<Self, File> {
        let is_pipe = file
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_fifo());
        // Where the system cannot tell what is unread, nothing is gained.
        if !is_pipe || ioctl_fionread(&file).is_err() {
            return Err(file);
        }
        let room = narrow(&file);
        Ok(Self {
            file,
            stop: Stop::default(),
            room,
        })
    }

    /// What ends a [`put`](Self::put) that waits.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes a line, and waits until the reader has taken it. `waits` is called once that takes
    /// longer.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::BrokenPipe`] when the reader has gone without taking
    /// all of it.
    pub(crate) fn put(&self, line: &[u8], waits: &mut dyn FnMut()) -> io::Result<Put> {
        if self.stop.is_asked() {
            return Ok(Put::Stopped);
        }
        let mut waiting = Waiting::new(self, waits);
        let mut rest = line;
        while !rest.is_empty() {
            match waiting.wait()? {
                State::Room => {}
                State::Unchanged => continue,
                State::ReaderGone => return Err(io::ErrorKind::BrokenPipe.into()),
                State::Stopped => return Ok(Put::Stopped),
            }
            let chunk = rest.get(..CHUNK_BYTES).unwrap_or(rest);
            match (&self.file).write(chunk) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut unread = Unread::new(&self.file)?;
        loop {
            if unread.is_taken()? {
                return Ok(Put::Taken);
            }
            match waiting.wait()? {
                // Either it is empty, or the system does not wake us when it is.
                State::Room if !unread.is_taken()? => waiting.pause(),
                State::Room | State::Unchanged => {}
                // What was taken before it went was taken.
                State::ReaderGone if !unread.is_taken()? => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                State::ReaderGone => return Ok(Put::Taken),
                State::Stopped => return Ok(Put::Stopped),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(room) = self.room {
            widen(&self.file, room);
        }
    }
}

/// How much of a pipe must be read before what was written into it last has been.
struct Unread<'a> {
    file: &'a File,
    bytes: u64,
    before_end: u64,
}

impl<'a> Unread<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let bytes = ioctl_fionread(file)?;
        Ok(Self {
            file,
            bytes,
            before_end: bytes,
        })
    }

    /// Looks again. What others write into the pipe meanwhile only adds to what is unread, so what
    /// that has become less by was read.
    fn is_taken(&mut self) -> io::Result<bool> {
        let now = ioctl_fionread(self.file)?;
        self.before_end = match now {
            0 => 0,
            _ => self
                .before_end
                .saturating_sub(self.bytes.saturating_sub(now)),
        };
        self.bytes = now;
        Ok(self.before_end == 0)
    }
}

/// What has come of waiting.
enum State {
    /// Something can be written.
    Room,
    /// Nothing, for a while.
    Unchanged,
    /// Nobody reads any more.
    ReaderGone,
    /// The end was asked for, and nobody has read for long enough.
    Stopped,
}

/// Waiting for the reader, in steps.
struct Waiting<'a> {
    pipe: &'a Pipe,
    began: Instant,
    waits: Option<&'a mut dyn FnMut()>,
    stopping: Option<Instant>,
    pause: Duration,
}

impl<'a> Waiting<'a> {
    fn new(pipe: &'a Pipe, waits: &'a mut dyn FnMut()) -> Self {
        Self {
            pipe,
            began: Instant::now(),
            waits: Some(waits),
            stopping: None,
            pause: Duration::from_micros(50),
        }
    }

    fn wait(&mut self) -> io::Result<State> {
        if self.began.elapsed() >= SHORT
            && let Some(waits) = self.waits.take()
        {
            waits();
        }
        if self.pipe.stop.is_asked()
            && self.stopping.get_or_insert_with(Instant::now).elapsed() >= GRACE
        {
            return Ok(State::Stopped);
        }
        let limit = if self.waits.is_some() { SHORT } else { LOOK };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.pipe.file, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(State::Unchanged),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let events = fds.first().map_or(PollFlags::empty(), PollFd::revents);
        Ok(match events.contains(PollFlags::ERR) {
            true => State::ReaderGone,
            false => State::Room,
        })
    }

    /// A pause, longer each time.
    fn pause(&mut self) {
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a write that failed can be tried again: others may use the pipe without waiting.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Leaves the pipe the least room, unless what is said on standard error goes through it, too. How
/// much it had.
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "only asked what it is")]
fn narrow(pipe: &File) -> Option<usize> {
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .ok()
        .map(File::from)?;
    let [pipe_id, stderr_id] =
        [pipe.metadata().ok()?, stderr.metadata().ok()?].map(|file| FileId::of(&file));
    if pipe_id == stderr_id {
        return None;
    }
    let room = rustix::pipe::fcntl_getpipe_size(pipe).ok()?;
    rustix::pipe::fcntl_setpipe_size(pipe, LEAST_ROOM).ok()?;
    Some(room)
}

#[cfg(target_os = "linux")]
fn widen(pipe: &File, room: usize) {
    // Nothing is lost without it but time.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, room);
}

#[cfg(not(target_os = "linux"))]
fn narrow(_: &File) -> Option<usize> {
    None
}

#[cfg(not(target_os = "linux"))]
fn widen(_: &File, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;

    fn pipe() -> (File, Pipe) {
        let (reader, writer) = io::pipe().unwrap();
        let [reader, writer] = [OwnedFd::from(reader), OwnedFd::from(writer)].map(File::from);
        (reader, Pipe::of(writer).unwrap())
    }

    fn read(mut reader: &File, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Puts a line in another thread; how that ended.
    fn putting(
        pipe: Pipe,
        line: Vec<u8>,
    ) -> (mpsc::Receiver<()>, std::thread::JoinHandle<io::Result<Put>>) {
        let (waits, waiting) = mpsc::channel();
        let putting = std::thread::spawn(move || pipe.put(&line, &mut || waits.send(()).unwrap()));
        (waiting, putting)
    }

    #[test]
    fn a_line_is_taken_once_all_of_it_was_read() {
        let (reader, pipe) = pipe();
        let (waiting, putting) = putting(pipe, b"a line\n".to_vec());
        assert_eq!(read(&reader, 6), b"a line");
        waiting.recv().unwrap();
        assert!(!putting.is_finished(), "its end is still in the pipe");
        assert_eq!(read(&reader, 1), b"\n");
        assert_eq!(putting.join().unwrap().unwrap(), Put::Taken);
    }

    #[test]
    fn a_reader_that_goes_has_taken_what_it_has_read_and_nothing_else() {
        let (reader, pipe) = pipe();
        let (waiting, putting) = putting(pipe, b"a line\n".to_vec());
        waiting.recv().unwrap();
        drop(reader);
        let error = putting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_line_that_is_longer_than_the_pipe_is_taken_in_pieces() {
        let (mut reader, pipe) = pipe();
        let line = [&vec![b'x'; 1_000_000][..], b"\n"].concat();
        let (_waiting, putting) = putting(pipe, line.clone());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes == line);
        assert_eq!(putting.join().unwrap().unwrap(), Put::Taken);
    }

    #[test]
    fn what_others_write_into_the_pipe_holds_nothing_up() {
        let (reader, pipe) = pipe();
        (&pipe.file).write_all(b"a line\n").unwrap();
        let mut unread = Unread::new(&pipe.file).unwrap();
        (&pipe.file).write_all(b"another\n").unwrap();
        assert!(!unread.is_taken().unwrap());
        read(&reader, 6);
        assert!(!unread.is_taken().unwrap());
        read(&reader, 1);
        assert!(unread.is_taken().unwrap());
    }

    #[test]
    fn asked_to_stop_it_writes_nothing_more() {
        let (_reader, pipe) = pipe();
        pipe.stop().ask();
        assert_eq!(pipe.put(b"a line\n", &mut || {}).unwrap(), Put::Stopped);
        assert_eq!(ioctl_fionread(&pipe.file).unwrap(), 0);
    }

    #[test]
    fn a_pipe_gets_its_room_back() {
        let (reader, pipe) = pipe();
        let room = pipe.room.unwrap();
        assert!(rustix::pipe::fcntl_getpipe_size(&reader).unwrap() < room);
        drop(pipe);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&reader).unwrap(), room);
    }

    #[test]
    fn files_and_devices_are_no_pipes() {
        assert!(Pipe::of(tempfile::tempfile().unwrap()).is_err());
        assert!(Pipe::of(File::open("/dev/null").unwrap()).is_err());
    }
}
