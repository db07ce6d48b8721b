//! A pipe that is written no faster than it is read.
//!
//! Data in a pipe that nobody has read is lost when the reader ends, so it must not count as
//! written. Linux reports the number of unread bytes in a pipe (`FIONREAD`), and a line is written
//! only once the previous one was read. So `head -1` reads one line, and at most one line remains
//! in the pipe.
//!
//! Meanwhile the pipe's capacity is reduced to one page. Then the system wakes the writer when the
//! pipe is empty, and no polling is needed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ciphermq_files::FileId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};

use super::write::write_some;

/// The size of a write that a writable pipe accepts without blocking (`PIPE_BUF` on Linux).
const CHUNK_BYTES: usize = 4096;

/// The minimum capacity of a pipe. The system rounds it up to a page.
const MIN_CAPACITY: usize = 4096;

/// The time after which `on_wait` is called.
const WAIT_NOTICE: Duration = Duration::from_millis(1);

/// The interval at which a request to stop is noticed while nobody reads.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The longest pause between polls where the system does not wake the writer.
const MAX_PAUSE: Duration = Duration::from_millis(5);

/// The time that the reader has for the line in the pipe after a request to stop.
const GRACE: Duration = Duration::from_secs(5);

/// A handle to stop the writer of a pipe. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// Requests that no further line is written. The writer still waits for a short time until the
    /// line in the pipe is read.
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The outcome of writing a line into a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The reader has read the line.
    Read,
    /// A stop was requested before the reader had read the whole line.
    Stopped,
}

/// The write end of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    file: File,
    stop: StopHandle,
    /// The original capacity; `None` if it was not changed.
    capacity: Option<usize>,
}

impl Pipe {
    /// Wraps an open file if it is a pipe.
    ///
    /// # Errors
    ///
    /// The file, if it is not a pipe.
    pub(crate) fn of(file: File) -> Result<Self, File> {
        let is_pipe = file
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_fifo());
        // Without `FIONREAD` a pipe is an ordinary stream.
        if !is_pipe || ioctl_fionread(&file).is_err() {
            return Err(file);
        }
        let capacity = shrink(&file);
        Ok(Self {
            file,
            stop: StopHandle::default(),
            capacity,
        })
    }

    /// A handle to stop a [`write`](Self::write) that waits.
    pub(crate) fn stop(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes a line, and waits until the reader has read it. `on_wait` is called if that takes
    /// longer.
    ///
    /// # Errors
    ///
    /// The system's error; [`io::ErrorKind::BrokenPipe`] if the reader has closed the pipe before
    /// it had read the whole line.
    pub(crate) fn write(&self, line: &[u8], on_wait: &mut dyn FnMut()) -> io::Result<WriteOutcome> {
        if self.stop.is_requested() {
            return Ok(WriteOutcome::Stopped);
        }
        let mut waiter = Waiter::new(self, on_wait);
        let mut rest = line;
        while !rest.is_empty() {
            match waiter.wait()? {
                WaitResult::Writable => {}
                WaitResult::TimedOut => continue,
                WaitResult::ReaderGone => return Err(io::ErrorKind::BrokenPipe.into()),
                WaitResult::Stopped => return Ok(WriteOutcome::Stopped),
            }
            let chunk = rest.get(..CHUNK_BYTES).unwrap_or(rest);
            let written = write_some(&self.file, chunk)?.unwrap_or(0);
            rest = rest.get(written..).unwrap_or_default();
        }
        let mut unread = Unread::new(&self.file)?;
        loop {
            if unread.is_read()? {
                return Ok(WriteOutcome::Read);
            }
            match waiter.wait()? {
                // Writable and not empty: the system does not wake the writer when it is empty.
                WaitResult::Writable if !unread.is_read()? => waiter.pause(),
                WaitResult::Writable | WaitResult::TimedOut => {}
                // The line may have been read before the reader closed the pipe.
                WaitResult::ReaderGone if !unread.is_read()? => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                WaitResult::ReaderGone => return Ok(WriteOutcome::Read),
                WaitResult::Stopped => return Ok(WriteOutcome::Stopped),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(capacity) = self.capacity {
            restore(&self.file, capacity);
        }
    }
}

/// The number of bytes in a pipe up to the end of the last write.
struct Unread<'a> {
    file: &'a File,
    /// All unread bytes, as last observed.
    bytes: u64,
    /// The unread bytes up to the end of the last write.
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

    /// Whether everything up to the end of the write has been read. Writes of other processes can
    /// only increase the number of unread bytes, so any decrease was read.
    fn is_read(&mut self) -> io::Result<bool> {
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

/// The result of a wait for the reader.
enum WaitResult {
    /// The pipe is writable.
    Writable,
    /// The time limit of the wait has passed.
    TimedOut,
    /// The reader has closed the pipe.
    ReaderGone,
    /// A stop was requested, and the grace period is over.
    Stopped,
}

/// Waits for the reader, in steps.
struct Waiter<'a> {
    pipe: &'a Pipe,
    start: Instant,
    on_wait: Option<&'a mut dyn FnMut()>,
    /// The time at which a request to stop was noticed.
    stop_start: Option<Instant>,
    pause: Duration,
}

impl<'a> Waiter<'a> {
    fn new(pipe: &'a Pipe, on_wait: &'a mut dyn FnMut()) -> Self {
        Self {
            pipe,
            start: Instant::now(),
            on_wait: Some(on_wait),
            stop_start: None,
            pause: Duration::from_micros(50),
        }
    }

    fn wait(&mut self) -> io::Result<WaitResult> {
        if self.start.elapsed() >= WAIT_NOTICE
            && let Some(on_wait) = self.on_wait.take()
        {
            on_wait();
        }
        if self.pipe.stop.is_requested()
            && self.stop_start.get_or_insert_with(Instant::now).elapsed() >= GRACE
        {
            return Ok(WaitResult::Stopped);
        }
        let limit = match self.on_wait {
            Some(_) => WAIT_NOTICE,
            None => STOP_CHECK,
        };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.pipe.file, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(WaitResult::TimedOut),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let events = fds.first().map_or(PollFlags::empty(), PollFd::revents);
        Ok(match events.contains(PollFlags::ERR) {
            true => WaitResult::ReaderGone,
            false => WaitResult::Writable,
        })
    }

    /// Sleeps, longer each time.
    fn pause(&mut self) {
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }
}

/// Reduces the pipe's capacity to the minimum, and returns the original one. Does nothing if
/// standard error is the same pipe.
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "only its identity is read")]
fn shrink(pipe: &File) -> Option<usize> {
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
    let capacity = rustix::pipe::fcntl_getpipe_size(pipe).ok()?;
    rustix::pipe::fcntl_setpipe_size(pipe, MIN_CAPACITY).ok()?;
    Some(capacity)
}

#[cfg(target_os = "linux")]
fn restore(pipe: &File, capacity: usize) {
    // If this fails, the pipe is only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, capacity);
}

#[cfg(not(target_os = "linux"))]
fn shrink(_: &File) -> Option<usize> {
    None
}

#[cfg(not(target_os = "linux"))]
fn restore(_: &File, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
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

    /// Writes a line in another thread. Returns a receiver of `on_wait`, and the thread.
    fn write_in_thread(
        pipe: Pipe,
        line: Vec<u8>,
    ) -> (
        mpsc::Receiver<()>,
        std::thread::JoinHandle<io::Result<WriteOutcome>>,
    ) {
        let (sender, waiting) = mpsc::channel();
        let writing =
            std::thread::spawn(move || pipe.write(&line, &mut || sender.send(()).unwrap()));
        (waiting, writing)
    }

    #[test]
    fn a_write_ends_once_the_whole_line_was_read() {
        let (reader, pipe) = pipe();
        let (waiting, writing) = write_in_thread(pipe, b"a line\n".to_vec());
        assert_eq!(read(&reader, 6), b"a line");
        waiting.recv().unwrap();
        assert!(!writing.is_finished(), "its end is still in the pipe");
        assert_eq!(read(&reader, 1), b"\n");
        assert_eq!(writing.join().unwrap().unwrap(), WriteOutcome::Read);
    }

    #[test]
    fn a_write_fails_if_the_reader_ends_without_reading_the_line() {
        let (reader, pipe) = pipe();
        let (waiting, writing) = write_in_thread(pipe, b"a line\n".to_vec());
        waiting.recv().unwrap();
        drop(reader);
        let error = writing.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_line_that_is_longer_than_the_pipe_is_written_in_pieces() {
        let (mut reader, pipe) = pipe();
        let line = [&vec![b'x'; 1_000_000][..], b"\n"].concat();
        let (_waiting, writing) = write_in_thread(pipe, line.clone());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes == line);
        assert_eq!(writing.join().unwrap().unwrap(), WriteOutcome::Read);
    }

    #[test]
    fn writes_of_other_processes_do_not_delay_the_result() {
        let (reader, pipe) = pipe();
        (&pipe.file).write_all(b"a line\n").unwrap();
        let mut unread = Unread::new(&pipe.file).unwrap();
        (&pipe.file).write_all(b"another\n").unwrap();
        assert!(!unread.is_read().unwrap());
        read(&reader, 6);
        assert!(!unread.is_read().unwrap());
        read(&reader, 1);
        assert!(unread.is_read().unwrap());
    }

    #[test]
    fn nothing_is_written_after_a_request_to_stop() {
        let (_reader, pipe) = pipe();
        pipe.stop().request();
        assert_eq!(
            pipe.write(b"a line\n", &mut || {}).unwrap(),
            WriteOutcome::Stopped
        );
        assert_eq!(ioctl_fionread(&pipe.file).unwrap(), 0);
    }

    #[test]
    fn a_dropped_pipe_gets_its_capacity_back() {
        let (reader, pipe) = pipe();
        let capacity = pipe.capacity.unwrap();
        assert!(rustix::pipe::fcntl_getpipe_size(&reader).unwrap() < capacity);
        drop(pipe);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&reader).unwrap(), capacity);
    }

    #[test]
    fn files_and_devices_are_not_pipes() {
        assert!(Pipe::of(tempfile::tempfile().unwrap()).is_err());
        assert!(Pipe::of(File::open("/dev/null").unwrap()).is_err());
    }
}
