//! A receiver's checkpoint beside the file that is sent: what it says, whether it is of this file
//! and this way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_client::resume::{ResumableStream, StreamState};
use ciphermq_client::{Client, ClientId, RoutingKey, Timestamp};
use ciphermq_files::{fit_name, parent, resolve};

use super::Args;
use super::course::{Course, Other};
use super::lines::Start;
use super::pinned::Pinned;
use super::survey::Survey;
use crate::exit::Failure;

/// A receiver's checkpoint, opened, if there is one and it is to go on.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    begun: Option<(ResumableStream, Pinned)>,
}

/// What a receiver is to get of a file, compared with its checkpoint. Nothing is connected yet.
#[derive(Debug)]
pub(super) struct Plan {
    checkpoint: PathBuf,
    begun: Option<(ResumableStream, Course)>,
}

/// A plan that fits the way that is taken.
pub(super) enum Step {
    /// All is sent.
    Sent(ResumableStream),
    /// The stream goes on; what was appended to the file is for the next one, from there on.
    GoOn {
        stream: ResumableStream,
        then: Option<Start>,
    },
    /// A stream begins as this state says, in the place of the one before.
    Next {
        stream: ResumableStream,
        state: StreamState,
    },
    /// A first stream begins as this state says.
    Anew {
        checkpoint: PathBuf,
        state: StreamState,
    },
}

impl Checkpoint {
    /// Opens and locks the checkpoint of `receiver`, unless all is to be sent again.
    ///
    /// # Errors
    ///
    /// [`Failure`] if another sender works with it, or if it cannot be read.
    pub(super) fn open(path: PathBuf, again: bool) -> Result<Self, Failure> {
        let begun = if again {
            None
        } else {
            ResumableStream::open(&path).map_err(failure)?
        };
        let begun = match begun {
            None => None,
            Some(stream) => {
                let pinned = Pinned::read(&stream.state().input).ok_or_else(|| {
                    Failure::new(
                        format!("The checkpoint {} is not one of a file.", path.display()),
                        "An application has made it. Name another one with --checkpoint.",
                    )
                })?;
                Some((stream, pinned))
            }
        };
        Ok(Self { path, begun })
    }

    /// The places in the file that it tells of.
    pub(super) fn places(&self) -> BTreeSet<u64> {
        let places = |(stream, pinned): &(ResumableStream, Pinned)| {
            [stream.state().place.min(pinned.bytes), pinned.bytes]
        };
        self.begun.iter().flat_map(places).collect()
    }

    /// Sees whether the file is still the one that it tells of. The survey has marks at its places.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the file was changed.
    pub(super) fn compare(self, file: &Path, survey: &Survey) -> Result<Plan, Failure> {
        let Self { path, begun } = self;
        let begun = begun
            .map(
                |(stream, pinned)| match Course::of(stream.state(), &pinned, survey) {
                    Ok(course) => Ok((stream, course)),
                    Err(other) => Err(changed(other, file, &path)),
                },
            )
            .transpose()?;
        Ok(Plan {
            checkpoint: path,
            begun,
        })
    }
}

impl Plan {
    /// Where sending begins; `None` if there is nothing to send.
    pub(super) fn start(&self) -> Option<Start> {
        match &self.begun {
            None => Some(Start::default()),
            Some((_, course)) => course.start(),
        }
    }

    /// Compares the way that is taken with the checkpoint's. Nothing is written yet, but with
    /// `--again`: that all is to be sent once more is on the disk before anybody's key is asked
    /// for, so that whoever cannot be sent to now is not taken for one that has got it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it is another one, or cannot be named; if a checkpoint cannot be written.
    pub(super) fn step(
        self,
        client: &Client,
        args: &Args,
        receiver: &ClientId,
        whole: &Pinned,
    ) -> Result<Step, Failure> {
        let Self { checkpoint, begun } = self;
        let wanted = new_state(client, args, receiver, whole)?;
        if args.again {
            let stream = ResumableStream::begin_anew(&checkpoint, wanted).map_err(failure)?;
            return Ok(Step::GoOn { stream, then: None });
        }
        let Some((mut stream, course)) = begun else {
            return Ok(Step::Anew {
                checkpoint,
                state: wanted,
            });
        };
        check_way(stream.state(), &wanted, args, &checkpoint)?;
        if stream.state().server != wanted.server {
            stream.move_server(wanted.server).map_err(failure)?;
        }
        Ok(match course {
            Course::Sent => Step::Sent(stream),
            Course::GoOn { then, .. } => Step::GoOn { stream, then },
            Course::Next { at } => {
                let state = following(&stream, whole, at)?;
                Step::Next { stream, state }
            }
        })
    }
}

impl Step {
    /// The state of the stream that is going to be sent.
    pub(super) fn state(&self) -> &StreamState {
        match self {
            Self::Sent(stream) | Self::GoOn { stream, .. } => stream.state(),
            Self::Next { state, .. } | Self::Anew { state, .. } => state,
        }
    }

    /// Writes the checkpoint, if it is to change: it is on the disk before this returns. Returns
    /// the stream, and where the next one begins.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be written.
    pub(super) fn begin(self) -> Result<(ResumableStream, Option<Start>), Failure> {
        Ok(match self {
            Self::Sent(stream) => (stream, None),
            Self::GoOn { mut stream, then } => {
                // It was called complete by mistake.
                if stream.state().complete {
                    stream.reopen().map_err(failure)?;
                }
                (stream, then)
            }
            Self::Next { mut stream, state } => {
                begin_next(&mut stream, state)?;
                (stream, None)
            }
            Self::Anew { checkpoint, state } => {
                let begin = || Ok::<_, CheckpointError>(state);
                let stream = ResumableStream::open_or_create(&checkpoint, begin);
                (stream.map_err(failure)?, None)
            }
        })
    }
}

/// The stream after this one: from `at` to the end of the file.
///
/// # Errors
///
/// [`Failure`] if there is no randomness for it.
pub(super) fn following(
    stream: &ResumableStream,
    whole: &Pinned,
    at: Start,
) -> Result<StreamState, Failure> {
    Ok(stream.state().following(whole.to_string(), at.bytes)?)
}

/// Ends a stream that has carried all that it can, and puts the next one into its checkpoint.
///
/// # Errors
///
/// [`Failure`] if it cannot be written.
pub(super) fn begin_next(stream: &mut ResumableStream, next: StreamState) -> Result<(), Failure> {
    if !stream.state().complete {
        stream.complete().map_err(failure)?;
    }
    stream.begin_next(next).map_err(failure)
}

fn changed(other: Other, file: &Path, checkpoint: &Path) -> Failure {
    let what = match other {
        Other::Shorter => "has fewer bytes than it had",
        Other::Changed => "is not what it was",
        Other::LastLineGoesOn => "goes on in a line of which the beginning was sent",
    };
    Failure::new(
        format!(
            "{} {what} when a part of it was sent: other messages would get the ids of those that \
             were sent, and be lost.",
            file.display(),
        ),
        format!(
            "Put the old file back and send the rest of it, or send what is new as a file of its \
             own.\nWith --again all of it is sent as new messages, those that were sent already \
             too.\nThe checkpoint is {}.",
            checkpoint.display()
        ),
    )
}

/// `<file>.<receiver>.ciphermq-send`: one for every receiver that the file is sent to. What can
/// stand in no file's name is percent-encoded, and the end of a name that is too long for the file
/// system is a hash.
///
/// A link and the file that it leads to have one, beside the file. Versions before put it beside
/// the link: one that is there goes on.
pub(super) fn default_checkpoint(path: &Path, receiver: &ClientId) -> PathBuf {
    let there = checkpoint_beside(path, receiver);
    let is_link = path.is_symlink() && !there.exists();
    match resolve(path) {
        Ok(target) if is_link => checkpoint_beside(&target, receiver),
        _ => there,
    }
}

fn checkpoint_beside(path: &Path, receiver: &ClientId) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    for byte in receiver.as_str().bytes() {
        if byte.is_ascii() && !matches!(byte, b'/' | b'%') {
            name.push(char::from(byte).to_string());
        } else {
            name.push(format!("%{byte:02X}"));
        }
    }
    path.with_file_name(fit_name(parent(path), name, ".ciphermq-send"))
}

fn new_state(
    client: &Client,
    args: &Args,
    receiver: &ClientId,
    whole: &Pinned,
) -> Result<StreamState, Failure> {
    let unnamable = |error| {
        Failure::new(
            format!("No route can be named after {receiver}: {error}."),
            "Name it yourself, with --routing-key.",
        )
    };
    let exchange = args
        .exchange
        .clone()
        .unwrap_or_else(|| ciphermq_client::DEFAULT_EXCHANGE.into());
    let routing_key: Result<RoutingKey, _> = args
        .routing_key
        .clone()
        .map_or_else(|| ciphermq_client::default_routing_key(receiver), Ok);
    Ok(StreamState {
        stream: ciphermq_client::start_stream(Timestamp::now())
            .map_err(|error| Failure::plain(format!("No stream can be begun: {error}.")))?,
        sender: client.id().clone(),
        receiver: receiver.clone(),
        exchange,
        routing_key: routing_key.map_err(unnamable)?,
        server: client.server_address(),
        input: whole.to_string(),
        earlier: 0,
        begins: 0,
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
        (
            "the receiver",
            there.receiver.as_str(),
            wanted.receiver.as_str(),
        ),
        (
            "the exchange",
            there.exchange.as_str(),
            wanted.exchange.as_str(),
        ),
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
            "The file was sent, or began to be sent, another way: {what} was {old}, now it is \
             {new}. The checkpoint {} says so.",
            checkpoint.display()
        ),
        format!(
            "To send it this way, too, give it another checkpoint with --checkpoint FILE.\nTo send \
             all of it once more as new messages: --again.{moved}"
        ),
    ))
}

/// A checkpoint's error, as the command line's user can mend it.
pub(super) fn failure(error: CheckpointError) -> Failure {
    let advice = match &error {
        CheckpointError::Open { .. } | CheckpointError::Write { .. } => {
            "Name a place that you may write to with --checkpoint FILE.\nOr send without one, with \
             --no-checkpoint: then nothing is known after a crash, and sending the file again \
             makes new messages."
        }
        CheckpointError::Locked(_) => {
            "Another sender is sending this file: wait for its end.\nTo send it to somewhere else \
             at the same time, name another checkpoint with --checkpoint FILE."
        }
        CheckpointError::Unreadable {
            reason: Unreadable::Damaged | Unreadable::Line(_),
            ..
        } => {
            "Put back a copy of it, if there is one. Without it nobody knows which messages of the \
             file were sent, and under which ids.\nWith --again all of it is sent as new messages, \
             those that were sent already too."
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
        let (one, other) = (name(&"x".repeat(254)), name(&"x".repeat(255)));
        assert!(
            one.len() <= "data/".len() + 255 && one.ends_with(".ciphermq-send") && one != other
        );
    }

    #[test]
    fn a_link_and_its_file_share_a_checkpoint_unless_the_link_has_one_from_before() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("disk")).unwrap();
        std::fs::write(root.join("disk/file"), "").unwrap();
        std::os::unix::fs::symlink("disk/file", root.join("link")).unwrap();
        std::os::unix::fs::symlink("link", root.join("further")).unwrap();
        let receiver = ClientId::new("r").unwrap();
        let checkpoint = |name: &str| default_checkpoint(&root.join(name), &receiver);
        let shared = root.join("disk/file.r.ciphermq-send");
        for name in ["disk/file", "link", "further"] {
            assert_eq!(checkpoint(name), shared, "{name}");
        }
        let old = root.join("link.r.ciphermq-send");
        std::fs::write(&old, "").unwrap();
        assert_eq!((checkpoint("link"), checkpoint("further")), (old, shared));
    }
}
