//! Opens the output, and reports its state.

use std::path::Path;

use ciphermq_client::MessageId;
use ciphermq_client::dedup::Recorder;

use super::Args;
use crate::console::{Bytes, Console, Messages};
use crate::exit::Failure;
use crate::output::file::RemovedDamage;
use crate::output::{OutputKind, Sink, file};

/// The maximum number of ids in one line.
const MAX_IDS: usize = 100;

/// Opens the output, and learns from it and its checkpoint which messages earlier receivers have
/// processed.
///
/// # Errors
///
/// [`Failure`] if the output or its checkpoint cannot be used.
pub(super) fn open_output(
    args: &Args,
    kind: OutputKind,
    console: &Console,
) -> Result<(Sink, Recorder), Failure> {
    let path = args.output.as_path();
    let location = file::OutputLocation {
        output: path,
        checkpoint: &args.checkpoint_path(),
        is_gone: args.output_is_gone,
    };
    let (sink, report) = Sink::open(kind, location)?;
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
            Bytes(bytes),
            Messages(report.known),
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
    let recorder = sink.recorder();
    if recorder.messages() > 0 && report.other_file_bytes.is_none() {
        console.info(format_args!(
            "{} holds {} already",
            path.display(),
            Messages(recorder.messages())
        ));
    }
    if report.messages > 0 {
        console.message(format_args!(
            "{} of them were read from its end, the others are known from the checkpoint",
            report.messages
        ));
    }
    Ok((sink, recorder))
}

/// Reports the damage that was removed from an output.
fn report_removed(path: &Path, removed: &RemovedDamage, console: &Console) {
    let (path, aside) = (path.display(), removed.kept_in.display());
    let bytes = Bytes(removed.bytes);
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
