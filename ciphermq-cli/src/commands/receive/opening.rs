//! Opens the output, and reports its state.

use std::path::Path;
use std::time::Duration;

use ciphermq_client::MessageId;
use ciphermq_client::dedup::Recorder;
use ciphermq_files::{Need, check_descriptor, own_descriptor, resolve};

use super::Args;
use crate::console::{Console, Count};
use crate::exit::Failure;
use crate::output::OutputError;
use crate::output::file::{OutputFile, OutputLocation, RemovedDamage};
use crate::output::{OutputKind, Sink, stdout};

/// The maximum number of ids in one line.
const MAX_IDS: usize = 100;

/// The time after which a named pipe without a reader is reported.
const PIPE_NOTICE: Duration = Duration::from_millis(200);

/// Checks that outputs that are descriptors of this process can be written, before anything else is
/// done: the output, and the quarantine, which is otherwise written only when it is needed.
///
/// # Errors
///
/// [`Failure`] if one is closed, or open for reading only.
pub(super) fn check_descriptors([output, quarantine]: [&Path; 2]) -> Result<(), Failure> {
    let check = |path: &Path| {
        let resolved = resolve(path).ok();
        match resolved.as_deref().and_then(own_descriptor) {
            Some(number) => check_descriptor(number, Need::Write),
            None => Ok(()),
        }
    };
    if OutputKind::of(output, false) == OutputKind::Stdout {
        stdout::check()?;
    }
    check(output).map_err(|source| OutputError::Open {
        path: output.to_owned(),
        source,
    })?;
    check(quarantine).map_err(|source| OutputError::Quarantine {
        path: quarantine.to_owned(),
        source,
    })?;
    Ok(())
}

/// Opens standard output, or another stream. A named pipe is opened once it has a reader. Cancel
/// safe.
///
/// # Errors
///
/// [`Failure`] if the stream cannot be opened.
pub(super) async fn open_stream(
    path: &Path,
    kind: OutputKind,
    console: &Console,
) -> Result<Sink, Failure> {
    let owned = (kind != OutputKind::Stdout).then(|| path.to_owned());
    // On a thread that can be abandoned: only a reader ends the opening of a pipe.
    let mut opening = tokio::task::spawn_blocking(move || Sink::open_stream(owned.as_deref()));
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = tokio::time::sleep(PIPE_NOTICE) => {
            console.info(format_args!("Waiting for a reader of the pipe {}", path.display()));
            opening.await
        }
    };
    opened.map_err(|error| Failure::plain(format!("The output was not opened: {error}.")))?
}

/// Opens an output file, and learns from it and its checkpoint which messages earlier receivers
/// have processed.
///
/// # Errors
///
/// [`Failure`] if the output or its checkpoint cannot be used.
pub(super) fn open_output(args: &Args, console: &Console) -> Result<(Sink, Recorder), Failure> {
    let path = args.output.as_path();
    let location = OutputLocation {
        output: path,
        checkpoint: &args.checkpoint_path(),
        is_gone: args.output_is_gone,
    };
    let (file, report) = OutputFile::open(location)?;
    if let Some(damaged) = &report.damaged_checkpoint {
        console.warn(format_args!(
            "The checkpoint of {} was damaged. It was rebuilt from the output, and the damaged one \
             was kept as {}. Messages in outputs that were moved away are no longer known",
            path.display(),
            damaged.display(),
        ));
    }
    if let Some(bytes) = report.other_file_bytes {
        console.warn(format_args!(
            "{} is not the file of {} that its checkpoint describes: that one was moved, truncated \
             or replaced. What was written into it, {}, stays processed, and is not written again",
            path.display(),
            Count::bytes(bytes),
            Count::messages(report.known),
        ));
    }
    if let Some(removed) = &report.removed {
        report_removed(path, removed, console);
    }
    if report.added_line_ending {
        console.info(format_args!(
            "The last line of {} had no line ending, which was added",
            path.display()
        ));
    }
    if report.foreign_lines > 0 {
        console.warn(format_args!(
            "{} holds lines that are not received messages; they stay: {}",
            path.display(),
            report.foreign_lines
        ));
    }
    let recorder = file.recorder();
    if recorder.messages() > 0 && report.other_file_bytes.is_none() {
        console.info(format_args!(
            "{} holds {} already",
            path.display(),
            Count::messages(recorder.messages())
        ));
    }
    if report.messages > 0 {
        let messages = Count::messages(report.messages);
        console.message(format_args!(
            "{} {} read from the end of {}; the checkpoint knows the others",
            messages,
            messages.verb("was", "were"),
            path.display()
        ));
    }
    Ok((Sink::File(file), recorder))
}

/// Reports the damage that was removed from an output.
fn report_removed(path: &Path, removed: &RemovedDamage, console: &Console) {
    let (path, aside) = (path.display(), removed.kept_in.display());
    let bytes = Count::bytes(removed.bytes);
    if removed.is_torn_line {
        console.warn(format_args!(
            "{path} ended with an unfinished line of an earlier receiver, {bytes}: cut off, and \
             kept in {aside}"
        ));
    } else if removed.lines > 0 {
        console.warn(format_args!(
            "{path} held lines that are damaged, or second copies, since a receiver wrote it: {}. \
             They were removed, {bytes}, and everything from the first of them on is kept in \
             {aside} as it was. Whole lines stay",
            removed.lines
        ));
    } else {
        console.warn(format_args!(
            "The end of {path} was damaged, as by a loss of power: {bytes} {} cut off, and kept in \
             {aside}. Messages that a loss of power can damage were not acknowledged, and come \
             again. If somebody has edited the file, restore what is missing from {aside} by hand",
            bytes.verb("was", "were")
        ));
    }
    match &removed.processed[..] {
        [] if removed.is_torn_line => {
            console.info("Its message was never acknowledged and comes again");
        }
        [] => {}
        processed => console.warn(format_args!(
            "These messages were acknowledged before, and do not come again: restore what is left \
             of them from {aside} by hand: {}",
            listed(processed)
        )),
    }
}

/// Lists ids in one line, and the number of further ones.
fn listed(ids: &[MessageId]) -> String {
    let named: Vec<&str> = ids.iter().take(MAX_IDS).map(AsRef::as_ref).collect();
    let named = named.join(", ");
    match ids.len().saturating_sub(MAX_IDS) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}
