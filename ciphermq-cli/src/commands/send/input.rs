//! The sources of messages: the command line, a file, or a stream that can be read only once.

use std::fs::{File, Metadata};
use std::io::{IsTerminal as _, Read, Seek as _, stdin};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::Args;
use super::file_scan::ending_length;
use crate::console::Console;
use crate::exit::Failure;

/// A source of messages.
pub(super) enum Input {
    /// Messages on the command line.
    Messages(Vec<String>),
    /// A regular file: it is read twice, so that changes in between are detected.
    File(InputFile),
    /// A pipe, a terminal or a device: it is read once, to its end.
    Stream {
        input: Box<dyn Read + Send>,
        name: String,
    },
}

/// An opened regular file.
#[derive(Debug)]
pub(super) struct InputFile {
    pub(super) file: File,
    /// The name for messages.
    pub(super) name: String,
    /// The path; `None` for standard input.
    pub(super) path: Option<PathBuf>,
    /// The offset at which reading begins: other programs may have read a part of standard input.
    pub(super) base: u64,
    /// Whether checkpoints are kept for the file.
    pub(super) resumes: bool,
}

impl Input {
    /// Opens the input that the arguments name. Called before connecting, so that a mistyped path
    /// fails early.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the input cannot be opened, or if options do not apply to it.
    pub(super) fn open(args: &Args, console: &Console) -> Result<Self, Failure> {
        if !args.message.is_empty() {
            return Ok(Self::Messages(args.message.clone()));
        }
        match args.file.as_deref() {
            Some(path) if path != Path::new("-") => Self::open_file(path, args),
            _ => Self::open_stdin(args, console),
        }
    }

    fn open_file(path: &Path, args: &Args) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::new(
                format!("The file {} cannot be opened: {error}.", path.display()),
                "Check its path and that you may read it.",
            )
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let name = path.display().to_string();
        if metadata.is_dir() {
            return Err(Failure::new(
                format!("{name} is a folder, not a file of messages."),
                "Check its path, and name a file with one message per line.",
            ));
        }
        if !metadata.is_file() {
            refuse_checkpoint(args, &name)?;
            let input = Box::new(file);
            return Ok(Self::Stream { input, name });
        }
        // A path of a descriptor means another file in every run, as standard input does.
        let resumes = !args.no_checkpoint && (!args.checkpoint.is_empty() || !is_descriptor(path));
        if resumes && matches!(args.suite, Some(ciphermq_client::Form::Older(_))) {
            // Sealed again after a crash, an older form differs, so the server would store it as
            // another message.
            return Err(Failure::new(
                format!("The file {name} cannot be sent in an older form with a checkpoint."),
                "Add --no-checkpoint: after a crash, sending the file again then creates new \
                 messages.",
            ));
        }
        Ok(Self::File(InputFile {
            file,
            name,
            path: Some(path.to_owned()),
            base: 0,
            resumes,
        }))
    }

    fn open_stdin(args: &Args, console: &Console) -> Result<Self, Failure> {
        let name = "standard input".to_owned();
        refuse_checkpoint(args, &name)?;
        if stdin().is_terminal() {
            console.info("Type messages, one per line, and end with Ctrl-D");
        }
        let file = stdin().as_fd().try_clone_to_owned().map(File::from);
        if let Ok(mut file) = file
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
            && let Ok(base) = file.stream_position()
        {
            return Ok(Self::File(InputFile {
                file,
                name,
                path: None,
                base,
                resumes: false,
            }));
        }
        let input = Box::new(stdin());
        Ok(Self::Stream { input, name })
    }
}

impl InputFile {
    /// Whether `path` leads to another file than the one that was opened.
    pub(super) fn is_replaced(path: &Path, opened: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let current = std::fs::metadata(path);
        !current.is_ok_and(|current| (current.dev(), current.ino()) == (opened.dev(), opened.ino()))
    }
}

/// Whether the last line of a file, which ended at `end` when sending began, has been extended
/// since, and so was incomplete. A line that only got its ending was complete.
pub(super) fn is_last_line_unfinished(file: &File, end: u64, line: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut after = [0; 2];
    let read = file.read_at(&mut after, end).unwrap_or(0);
    let after = after.get(..read).unwrap_or_default();
    ending_length(line.last().copied(), after).is_none()
}

/// Refuses `--checkpoint` for an input that can be read only once, which cannot be resumed.
fn refuse_checkpoint(args: &Args, name: &str) -> Result<(), Failure> {
    if args.checkpoint.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(
        format!("No checkpoint can be kept for {name}: it can be read only once."),
        "Write the messages into a file and send that with --file, or leave --checkpoint out.",
    ))
}

/// Whether a path leads through one of this process's descriptors: `/dev/stdin`, `/dev/fd/3`,
/// `/proc/self/fd/3`.
fn is_descriptor(path: &Path) -> bool {
    let folders = ["/proc/self/fd", "/dev/fd"].map(|folder| Path::new(folder).canonicalize().ok());
    let mut path = path.to_owned();
    for _ in 0..40 {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok();
        if folder.is_some() && folders.contains(&folder) {
            return true;
        }
        match (path.read_link(), folder) {
            (Ok(target), Some(folder)) => path = folder.join(target),
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn descriptors_are_recognised_however_they_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let open = File::open(&file).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(format!("/dev/fd/{number}"), &link).unwrap();
        for path in [
            format!("/dev/fd/{number}"),
            format!("/proc/self/fd/{number}"),
            format!("/proc/{}/fd/{number}", std::process::id()),
            "/dev/stdin".to_owned(),
            link.display().to_string(),
        ] {
            assert!(is_descriptor(Path::new(&path)), "{path}");
        }
        let link = folder.path().join("other");
        std::os::unix::fs::symlink("file", &link).unwrap();
        for path in [&file, &link, &folder.path().join("nowhere"), Path::new("x")] {
            assert!(!is_descriptor(path), "{}", path.display());
        }
    }

    #[test]
    fn a_file_that_replaces_another_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let opened = File::open(&path).unwrap().metadata().unwrap();
        assert!(!InputFile::is_replaced(&path, &opened));
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        assert!(InputFile::is_replaced(&path, &opened));
        std::fs::write(&path, "x").unwrap();
        assert!(InputFile::is_replaced(&path, &opened));
    }

    #[test]
    fn a_last_line_is_unfinished_if_anything_but_its_ending_follows() {
        use std::io::Write as _;
        for (line, after, expected) in [
            ("a", "", false),
            ("a", "\n", false),
            ("a", "\nb", false),
            ("a", "\r\nb", false),
            ("a", "b", true),
            ("a", "\r", true),
            ("a", "\rb", true),
            ("a\r", "", false),
            ("a\r", "\n", true),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(format!("{line}{after}").as_bytes()).unwrap();
            let end = u64::try_from(line.len()).unwrap();
            assert_eq!(
                is_last_line_unfinished(&file, end, line.as_bytes()),
                expected,
                "{line:?} {after:?}"
            );
        }
    }
}
