//! Sending a file as one stream that goes on after a crash: the checkpoint beside the file.

use std::fs::File;
use std::path::{Path, PathBuf};

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_client::resume::{ResumableStream, StreamState};
use ciphermq_client::{Client, ClientId, ExchangeName, RoutingKey, Timestamp};

use super::Args;
use super::lines::Start;
use super::pinned::{Compared, Pinned};
use crate::exit::Failure;

/// A file that is to be sent, compared with its checkpoint. Nothing is connected yet.
#[derive(Debug)]
pub(super) struct Plan {
    checkpoint: PathBuf,
    /// The stream that was begun, if there is one and it is to go on.
    begun: Option<ResumableStream>,
    /// The file as it is.
    now: Pinned,
    /// Where sending begins.
    pub(super) start: Start,
}

/// A stream that can be sent.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) stream: ResumableStream,
    /// Everything of the file was sent, and is acknowledged.
    pub(super) is_sent: bool,
}

impl Plan {
    /// How much is still to be sent.
    pub(super) fn bytes_left(&self) -> u64 {
        self.now.bytes.saturating_sub(self.start.bytes)
    }

    /// Opens the checkpoint, if there is one, and sees whether the file is still the one that it tells of.
    ///
    /// # Errors
    ///
    /// [`Failure`] if another sender works with it, if it cannot be read, or if the file was changed.
    pub(super) fn make(path: &Path, file: &mut File, args: &Args) -> Result<Self, Failure> {
        let checkpoint = args
            .checkpoint
            .clone()
            .unwrap_or_else(|| default_checkpoint(path, &args.to));
        let unreadable = |error: std::io::Error| {
            Failure::new(
                format!("The file {} cannot be read: {error}.", path.display()),
                "Check that it is a file that you may read.",
            )
        };
        let begun = if args.again {
            None
        } else {
            ResumableStream::open(&checkpoint).map_err(failure)?
        };
        let Some(stream) = begun else {
            return Ok(Self {
                checkpoint,
                begun: None,
                now: Pinned::of(file).map_err(unreadable)?,
                start: Start::default(),
            });
        };
        let state = stream.state();
        let pinned = Pinned::read(&state.input).ok_or_else(|| {
            Failure::new(
                format!("The checkpoint {} is not one of a file.", checkpoint.display()),
                "An application has made it. Name another one with --checkpoint.",
            )
        })?;
        let what = match pinned.compare(file, state.place).map_err(unreadable)? {
            Compared::Same { now, start } => {
                return Ok(Self {
                    checkpoint,
                    begun: Some(stream),
                    now,
                    start,
                });
            }
            Compared::Shorter => "has fewer bytes than it had",
            Compared::Changed => "is not what it was",
            Compared::LastLineGoesOn => "goes on in a line of which the beginning was sent",
        };
        Err(Failure::new(
            format!(
                "{} {what} when a part of it was sent: other messages would get the ids of those that were sent, and be lost.",
                path.display(),
            ),
            format!(
                "Put the old file back and send the rest of it, or send what is new as a file of its own.\nWith --again all of it is sent as new messages, those that were sent already too.\nThe checkpoint is {}.",
                checkpoint.display()
            ),
        ))
    }

    /// Begins the stream, or goes on with it; the checkpoint is on the disk before this returns.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the checkpoint is of another way, or cannot be written.
    pub(super) fn begin(self, client: &Client, args: &Args) -> Result<Begun, Failure> {
        let Self {
            checkpoint,
            begun,
            now,
            ..
        } = self;
        let wanted = new_state(client, args, &now)?;
        let Some(mut stream) = begun else {
            let stream = if args.again {
                ResumableStream::begin_anew(&checkpoint, wanted)
            } else {
                ResumableStream::open_or_create(&checkpoint, || Ok::<_, CheckpointError>(wanted))
            };
            return Ok(Begun {
                stream: stream.map_err(failure)?,
                is_sent: false,
            });
        };
        check_way(stream.state(), &wanted, args, &checkpoint)?;
        let is_sent = stream.state().complete && stream.state().input == wanted.input;
        if stream.state().server != wanted.server {
            stream.move_server(wanted.server).map_err(failure)?;
        }
        if stream.state().input != wanted.input {
            stream.describe_input(wanted.input).map_err(failure)?;
        }
        Ok(Begun { stream, is_sent })
    }
}

/// `<file>.<receiver>.ciphermq-send`: one for every receiver that the file is sent to. What can stand in no file's name
/// is percent-encoded.
fn default_checkpoint(path: &Path, receiver: &ClientId) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    for byte in receiver.as_str().bytes() {
        if byte.is_ascii() && !matches!(byte, b'/' | b'%') {
            name.push(char::from(byte).to_string());
        } else {
            name.push(format!("%{byte:02X}"));
        }
    }
    name.push(".ciphermq-send");
    name.into()
}

fn new_state(client: &Client, args: &Args, now: &Pinned) -> Result<StreamState, Failure> {
    let unnamable = |error| {
        Failure::new(
            format!("No route can be named after {}: {error}.", args.to),
            "Name it yourself, with --routing-key.",
        )
    };
    let exchange = args
        .exchange
        .clone()
        .map_or_else(|| ExchangeName::new(ciphermq_client::DEFAULT_EXCHANGE), Ok);
    let routing_key: Result<RoutingKey, _> = args
        .routing_key
        .clone()
        .map_or_else(|| ciphermq_client::default_routing_key(&args.to), Ok);
    Ok(StreamState {
        stream: ciphermq_client::start_stream(Timestamp::now())
            .map_err(|error| Failure::plain(format!("No stream can be begun: {error}.")))?,
        sender: client.id().clone(),
        receiver: args.to.clone(),
        exchange: exchange.map_err(unnamable)?,
        routing_key: routing_key.map_err(unnamable)?,
        server: client.server_address(),
        input: now.to_string(),
        acknowledged: 0,
        place: 0,
        complete: false,
    })
}

/// What was acknowledged, was so for this sender, this receiver, this route and this server.
fn check_way(
    there: &StreamState,
    wanted: &StreamState,
    args: &Args,
    checkpoint: &Path,
) -> Result<(), Failure> {
    let differences = [
        ("the sender", there.sender.as_str(), wanted.sender.as_str()),
        ("the receiver", there.receiver.as_str(), wanted.receiver.as_str()),
        ("the exchange", there.exchange.as_str(), wanted.exchange.as_str()),
        (
            "the routing key",
            there.routing_key.as_str(),
            wanted.routing_key.as_str(),
        ),
        ("the server", &there.server, &wanted.server),
    ];
    let difference = differences
        .into_iter()
        .find(|(what, old, new)| old != new && !(args.server_moved && *what == "the server"));
    let Some((what, old, new)) = difference else {
        return Ok(());
    };
    let moved = if what == "the server" {
        "\nIf it is the same server, at another address now: --server-moved."
    } else {
        ""
    };
    Err(Failure::new(
        format!(
            "The file was sent, or began to be sent, another way: {what} was {old}, now it is {new}. The checkpoint {} says so.",
            checkpoint.display()
        ),
        format!(
            "To send it this way, too, give it another checkpoint with --checkpoint FILE.\nTo send all of it once more as new messages: --again.{moved}"
        ),
    ))
}

/// A checkpoint's error, as the command line's user can mend it.
pub(super) fn failure(error: CheckpointError) -> Failure {
    let advice = match &error {
        CheckpointError::Open { .. } | CheckpointError::Write { .. } => {
            "Name a place that you may write to with --checkpoint FILE.\nOr send without one, with --no-checkpoint: then nothing is known after a crash, and sending the file again makes new messages."
        }
        CheckpointError::Locked(_) => {
            "Another sender is sending this file: wait for its end.\nTo send it to somewhere else at the same time, name another checkpoint with --checkpoint FILE."
        }
        CheckpointError::Unreadable {
            reason: Unreadable::Damaged | Unreadable::Line(_),
            ..
        } => {
            "Put back a copy of it, if there is one. Without it nobody knows which messages of the file were sent, and under which ids.\nWith --again all of it is sent as new messages, those that were sent already too."
        }
        other => other.advice(),
    };
    Failure::new(format!("{error}."), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_receiver_has_a_checkpoint_of_its_own_beside_the_file() {
        let name = |receiver: &str| {
            default_checkpoint(Path::new("data/f.jsonl"), &ClientId::new(receiver).unwrap())
                .display()
                .to_string()
        };
        assert_eq!(name("receiver_1"), "data/f.jsonl.receiver_1.ciphermq-send");
        assert_eq!(name("../a%b"), "data/f.jsonl...%2Fa%25b.ciphermq-send");
        assert_eq!(name("Zü"), "data/f.jsonl.Z%C3%BC.ciphermq-send");
    }
}
