//! The sources of messages: the command line, a file, or a stream that can be read only once.

use std::fs::{File, Metadata};
use std::io::{IsTerminal as _, Read, Seek as _, stdin};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ciphermq_files::{
    FileId, Need, advice, check_descriptor, duplicate_descriptor, is_descriptor, own_descriptor,
    resolve,
};

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
        let failed = |error: std::io::Error| {
            Failure::new(
                format!("The file {} cannot be opened: {error}.", path.display()),
                advice(&error).unwrap_or("Check its path and that you may read it."),
            )
        };
        let resolved = resolve(path).ok();
        // A path of a descriptor means another file in every run, as standard input does.
        let is_descriptor = resolved.as_deref().is_some_and(is_descriptor);
        let resumes = !args.no_checkpoint && (!args.checkpoint.is_empty() || !is_descriptor);
        let file = match resolved.as_deref().and_then(own_descriptor) {
            // What other programs have read from it is not sent.
            Some(number) if !resumes => duplicate_descriptor(number, Need::Read),
            Some(number) => check_descriptor(number, Need::Read).and_then(|()| File::open(path)),
            None => File::open(path),
        };
        let mut file = file.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let name = path.display().to_string();
        if metadata.is_dir() {
            return Err(Failure::new(
                format!("{name} is a folder, not a file of messages."),
                "Check its path, and name a file with one message per line.",
            ));
        }
        if !metadata.is_file() || is_generated(&file).map_err(failed)? {
            refuse_checkpoint(args, &name)?;
            let input = Box::new(file);
            return Ok(Self::Stream { input, name });
        }
        if resumes && matches!(args.suite, Some(ciphermq_client::Form::Older(_))) {
            // Sealed again after a crash, an older form differs, so the server would store it as
            // another message.
            return Err(Failure::new(
                format!("The file {name} cannot be sent in an older form with a checkpoint."),
                "Add --no-checkpoint: after a crash, sending the file again then creates new \
                 messages.",
            ));
        }
        let base = file.stream_position().map_err(failed)?;
        Ok(Self::File(InputFile {
            file,
            name,
            path: Some(path.to_owned()),
            base,
            resumes,
        }))
    }

    fn open_stdin(args: &Args, console: &Console) -> Result<Self, Failure> {
        let name = "standard input".to_owned();
        refuse_checkpoint(args, &name)?;
        check_descriptor(0, Need::Read).map_err(|error| {
            Failure::new(
                format!("Standard input cannot be read: {error}."),
                "Redirect it, if only from /dev/null, or name a file with --file.",
            )
        })?;
        if stdin().is_terminal() {
            console.info("Type messages, one per line, and end with Ctrl-D");
        }
        let file = stdin().as_fd().try_clone_to_owned().map(File::from);
        if let Ok(mut file) = file
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
            && !is_generated(&file).unwrap_or(false)
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
    /// Says what happened to a file that was opened at `path`, if it is no longer there.
    pub(super) fn path_change(path: &Path, opened: &Metadata) -> Option<&'static str> {
        match FileId::at(path) {
            Ok(Some(current)) if current == FileId::of(opened) => None,
            Ok(Some(_)) => Some("has been replaced by another file"),
            Ok(None) => Some("has been moved or removed"),
            Err(_) => Some("cannot be found any more"),
        }
    }
}

/// Whether a file is generated by the system when it is read, as in `/proc`: it has a length of 0
/// and yields bytes, which may be others each time.
fn is_generated(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let is_empty = || Ok::<_, std::io::Error>(file.metadata()?.len() == 0);
    // Its length is read again afterwards: it may just have got its first line.
    Ok(is_empty()? && file.read_at(&mut [0], 0)? > 0 && is_empty()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_file_is_told_from_a_replaced_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let opened = File::open(&path).unwrap().metadata().unwrap();
        let change = || InputFile::path_change(&path, &opened).unwrap_or_default();
        assert_eq!(change(), "");
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        assert!(change().contains("moved or removed"));
        std::fs::write(&path, "x").unwrap();
        assert!(change().contains("replaced"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_of_the_system_are_told_from_empty_ones() {
        assert!(is_generated(&File::open("/proc/uptime").unwrap()).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_generated(file.as_file()).unwrap());
        std::fs::write(file.path(), "x").unwrap();
        assert!(!is_generated(file.as_file()).unwrap());
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
