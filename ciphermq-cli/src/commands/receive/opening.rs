//! The output, and what was received before.

use std::path::Path;

use ciphermq_client::MessageId;
use ciphermq_client::dedup::Recorder;

use super::Args;
use crate::console::{Bytes, Console, Messages};
use crate::exit::Failure;
use crate::output::file::TakenOut;
use crate::output::{Sink, Target, file};

/// So many ids are named in one line.
const NAMED: usize = 100;

/// Opens the output, and learns from it and its checkpoint what was processed by those before us.
pub(super) fn open_output(
    args: &Args,
    target: Target,
    console: &Console,
) -> Result<(Sink, Recorder), Failure> {
    let path = args.output.as_path();
    let place = file::Place {
        output: path,
        checkpoint: &args.checkpoint_path(),
        is_gone: args.output_is_gone,
    };
    let (sink, found) = Sink::open(target, place)?;
    if let Some(damaged) = &found.damaged {
        console.warn(format_args!(
            "The checkpoint of {} was damaged. It was built anew from the output, and the damaged \
             one kept as {}. Of messages in outputs that were moved away nothing is known any more",
            path.display(),
            damaged.display(),
        ));
    }
    if let Some(bytes) = found.other_file {
        console.warn(format_args!(
            "{} is not the file of {} that its checkpoint tells of: that one was moved, cut or \
             replaced. What was written into it, {}, stays processed, and is not written again",
            path.display(),
            Bytes(bytes),
            Messages(found.known),
        ));
    }
    if let Some(taken_out) = &found.taken_out {
        tell_taken_out(path, taken_out, console);
    }
    if found.is_ended_now {
        console.say(format_args!(
            "The last line of {} had no line ending, which was added",
            path.display()
        ));
    }
    if found.other_lines > 0 {
        console.warn(format_args!(
            "{} holds lines that are no received messages; they stay: {}",
            path.display(),
            found.other_lines
        ));
    }
    let recorder = sink.recorder();
    if recorder.messages() > 0 && found.other_file.is_none() {
        console.say(format_args!(
            "{} holds {} already",
            path.display(),
            Messages(recorder.messages())
        ));
    }
    if found.messages > 0 {
        console.message(format_args!(
            "{} of them were read from its end, the others are known from the checkpoint",
            found.messages
        ));
    }
    Ok((sink, recorder))
}

/// What was damaged in an output, and where it is now.
fn tell_taken_out(path: &Path, taken_out: &TakenOut, console: &Console) {
    let (path, aside) = (path.display(), taken_out.aside.display());
    let bytes = Bytes(taken_out.bytes);
    if taken_out.is_torn_line {
        console.warn(format_args!(
            "{path} ended with an unfinished line of an earlier receiver, {bytes}: cut off, and \
             kept in {aside}"
        ));
    } else if taken_out.lines > 0 {
        console.warn(format_args!(
            "{path} held lines that are damaged, or second copies, since a receiver wrote it: {}. \
             They were taken out, {bytes}, and what followed the first of them is kept in {aside} \
             as it was. Whole lines stay",
            taken_out.lines
        ));
    } else {
        console.warn(format_args!(
            "{path} was damaged in what was written last, as by a loss of power: {bytes} {} cut \
             off, and kept in {aside}. What a loss of power can damage was not acknowledged, and \
             comes again. If somebody has edited the file, what is missing must be put back from \
             {aside} by hand",
            bytes.verb("was", "were")
        ));
    }
    match &taken_out.processed[..] {
        [] if taken_out.is_torn_line => {
            console.say("Its message was never acknowledged and comes again");
        }
        [] => {}
        processed => console.warn(format_args!(
            "These were acknowledged before and do not come again: put what is left of them back \
             from {aside} by hand: {}",
            listed(processed)
        )),
    }
}

/// Ids in one line, and how many more there are.
fn listed(ids: &[MessageId]) -> String {
    let named: Vec<&str> = ids.iter().take(NAMED).map(AsRef::as_ref).collect();
    let named = named.join(", ");
    match ids.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}
