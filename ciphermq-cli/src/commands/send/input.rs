//! Where messages come from: the command line, a file, or what can be read once only.

use std::fs::{File, Metadata};
use std::io::{IsTerminal as _, Read, Seek as _, stdin};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::Args;
use super::survey::ending;
use crate::console::Console;
use crate::exit::Failure;

/// Where messages come from.
pub(super) enum Input {
    /// The command line.
    Messages(Vec<String>),
    /// A regular file: it can be read twice, so that what changes meanwhile is noticed.
    File(InputFile),
    /// A pipe, a terminal, a device: it is read once, to its end.
    Stream {
        input: Box<dyn Read + Send>,
        name: String,
    },
}

/// A regular file, opened.
#[derive(Debug)]
pub(super) struct InputFile {
    pub(super) file: File,
    /// What people call it.
    pub(super) name: String,
    /// Where it stands, if it was named.
    pub(super) path: Option<PathBuf>,
    /// Where reading begins: standard input may have been read in part by others.
    pub(super) base: u64,
    /// Whether checkpoints are kept for it.
    pub(super) resumes: bool,
}

impl Input {
    /// Opens it, before anything is connected: a mistyped name costs nobody anything.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be opened, or cannot be sent the way that is asked for.
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
                format!("{name} is a folder, and no file of messages."),
                "Check its path, and name a file with one message a line.",
            ));
        }
        if !metadata.is_file() {
            refuse_checkpoint(args, &name)?;
            let input = Box::new(file);
            return Ok(Self::Stream { input, name });
        }
        // What a descriptor leads to is this run's own, as standard input is.
        let resumes = !args.no_checkpoint && (!args.checkpoint.is_empty() || !is_descriptor(path));
        if resumes && matches!(args.suite, Some(ciphermq_client::Form::Older(_))) {
            // Sealed a second time after a crash, an older form is another message to the server.
            return Err(Failure::new(
                format!("The file {name} cannot be sent in an older form with a checkpoint."),
                "Add --no-checkpoint: after a crash, sending the file again makes new messages \
                 then.",
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
            console.say("Type messages, one a line, and end with Ctrl-D");
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
    /// Whether another file stands at its path by now.
    pub(super) fn is_replaced(path: &Path, opened: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let there = std::fs::metadata(path);
        !there.is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()))
    }
}

/// Whether the last line of a file, which ended at `end` when sending began, has grown since, so
/// that it was in the middle of being written. If it only got its ending it was whole.
pub(super) fn goes_on(file: &File, end: u64, line: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut after = [0; 2];
    let read = file.read_at(&mut after, end).unwrap_or(0);
    let after = after.get(..read).unwrap_or_default();
    ending(line.last().copied(), after).is_none()
}

/// What cannot be read twice cannot be gone on with: a checkpoint that is asked for would not be
/// kept.
fn refuse_checkpoint(args: &Args, name: &str) -> Result<(), Failure> {
    if args.checkpoint.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(
        format!("No checkpoint can be kept for {name}: it can be read once only."),
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
    fn a_file_that_takes_the_place_of_another_is_told_from_it() {
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
    fn a_last_line_goes_on_if_anything_but_its_ending_follows() {
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
                goes_on(&file, end, line.as_bytes()),
                expected,
                "{line:?} {after:?}"
            );
        }
    }
}
