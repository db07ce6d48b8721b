//! The output, and what was received before.

use ciphermq_client::dedup::Recorder;

use super::Args;
use crate::console::{Console, Messages};
use crate::exit::Failure;
use crate::output::{Sink, file};

/// Opens the output, and learns from it and its checkpoint what was processed by those before us.
pub(super) fn open_output(args: &Args, console: &Console) -> Result<(Sink, Recorder), Failure> {
    let path = args.output.as_path();
    let (sink, found) = Sink::open(file::Place {
        output: path,
        checkpoint: &args.checkpoint_path(),
        is_gone: args.output_is_gone,
    })?;
    if let Some(damaged) = &found.damaged {
        console.warn(format_args!(
            "The checkpoint of {} was damaged. It was built anew from the output, and the damaged one kept as {}. Of messages in outputs that were moved away nothing is known any more",
            path.display(),
            damaged.display(),
        ));
    }
    if let Some(bytes) = found.other_file {
        console.warn(format_args!(
            "{} is not the file of {bytes} bytes that its checkpoint tells of: that one was moved, cut or replaced. What was written into it, {}, stays processed, and is not written again",
            path.display(),
            Messages(found.known),
        ));
    }
    if found.torn_bytes > 0 {
        console.warn(format_args!(
            "{} ended with an unfinished line of an earlier receiver, {} bytes: cut off. Its message was never acknowledged and comes again",
            path.display(),
            found.torn_bytes
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
