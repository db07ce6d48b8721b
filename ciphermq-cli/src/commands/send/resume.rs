//! A receiver's checkpoint for a file, compared with the file and with the destination.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_client::resume::{ResumableStream, StreamState};
use ciphermq_client::{Client, ClientId, RoutingKey, Timestamp};
use ciphermq_files::{advice, fit_name, parent, resolve};

use super::Args;
use super::digest::FileDigest;
use super::file_scan::FileScan;
use super::lines::InputPosition;
use super::resume_plan::{Mismatch, ResumePlan};
use crate::exit::Failure;

/// A receiver's checkpoint, opened if it exists and sending is to resume from it.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    existing: Option<(ResumableStream, FileDigest)>,
}

/// The plan for one receiver, as its checkpoint and the file determine it. It is made before
/// anything is connected.
#[derive(Debug)]
pub(super) struct SendPlan {
    checkpoint: PathBuf,
    existing: Option<(ResumableStream, ResumePlan)>,
}

/// The action for a receiver's stream, once the plan is checked against the destination.
pub(super) enum StreamAction {
    /// Nothing: everything is sent.
    AlreadySent(ResumableStream),
    /// Continue the stream. Lines from `next_stream_at` on were appended later, and belong to the
    /// next stream.
    Continue {
        stream: ResumableStream,
        next_stream_at: Option<InputPosition>,
    },
    /// Begin a stream with this state, in place of the previous one.
    NextStream {
        stream: ResumableStream,
        state: StreamState,
    },
    /// Begin the first stream, with this state.
    FirstStream {
        checkpoint: PathBuf,
        state: StreamState,
    },
}

impl Checkpoint {
    /// Opens and locks the checkpoint at `path`, unless everything is to be sent again.
    ///
    /// # Errors
    ///
    /// [`Failure`] if another sender holds its lock, or if it cannot be read.
    pub(super) fn open(path: PathBuf, again: bool) -> Result<Self, Failure> {
        let stream = if again {
            None
        } else {
            ResumableStream::open(&path).map_err(failure)?
        };
        let existing = match stream {
            None => None,
            Some(stream) => {
                let pinned = FileDigest::parse(&stream.state().input).ok_or_else(|| {
                    Failure::new(
                        format!(
                            "The checkpoint {} does not belong to a file.",
                            path.display()
                        ),
                        "An application created it. Name another one with --checkpoint.",
                    )
                })?;
                Some((stream, pinned))
            }
        };
        Ok(Self { path, existing })
    }

    /// The offsets in the file that [`compare`](Self::compare) needs prefixes for.
    pub(super) fn places(&self) -> BTreeSet<u64> {
        let places = |(stream, pinned): &(ResumableStream, FileDigest)| {
            [stream.state().place.min(pinned.bytes), pinned.bytes]
        };
        self.existing.iter().flat_map(places).collect()
    }

    /// Compares the file with the one that the checkpoint describes. `scan` must have prefixes at
    /// the checkpoint's [`places`](Self::places).
    ///
    /// # Errors
    ///
    /// [`Failure`] if the file was modified.
    pub(super) fn compare(self, file: &Path, scan: &FileScan) -> Result<SendPlan, Failure> {
        let Self { path, existing } = self;
        let existing = existing
            .map(
                |(stream, pinned)| match ResumePlan::compare(stream.state(), &pinned, scan) {
                    Ok(plan) => Ok((stream, plan)),
                    Err(mismatch) => Err(modified(mismatch, file, &path)),
                },
            )
            .transpose()?;
        Ok(SendPlan {
            checkpoint: path,
            existing,
        })
    }
}

impl SendPlan {
    /// The position at which sending begins; `None` if there is nothing to send.
    pub(super) fn start(&self) -> Option<InputPosition> {
        match &self.existing {
            None => Some(InputPosition::default()),
            Some((_, plan)) => plan.start(),
        }
    }

    /// Compares the destination with the checkpoint's, and determines what to do.
    ///
    /// Writes nothing, except with `--again`: the new checkpoint is on the disk before any
    /// receiver's key is requested. Otherwise, a receiver that cannot be sent to now would count as
    /// one that has everything.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the destination differs from the checkpoint's or cannot be named, or if the
    /// checkpoint cannot be written.
    pub(super) fn action(
        self,
        client: &Client,
        args: &Args,
        receiver: &ClientId,
        file: &FileDigest,
    ) -> Result<StreamAction, Failure> {
        let Self {
            checkpoint,
            existing,
        } = self;
        let wanted = new_state(client, args, receiver, file)?;
        if args.again {
            let stream = ResumableStream::begin_anew(&checkpoint, wanted).map_err(failure)?;
            return Ok(StreamAction::Continue {
                stream,
                next_stream_at: None,
            });
        }
        let Some((mut stream, plan)) = existing else {
            return Ok(StreamAction::FirstStream {
                checkpoint,
                state: wanted,
            });
        };
        check_destination(stream.state(), &wanted, args, &checkpoint)?;
        if stream.state().server != wanted.server {
            stream.move_server(wanted.server).map_err(failure)?;
        }
        Ok(match plan {
            ResumePlan::Complete => StreamAction::AlreadySent(stream),
            ResumePlan::Continue { next_stream_at, .. } => StreamAction::Continue {
                stream,
                next_stream_at,
            },
            ResumePlan::NextStream { from } => {
                let state = next_state(&stream, file, from)?;
                StreamAction::NextStream { stream, state }
            }
        })
    }
}

impl StreamAction {
    /// The state of the stream to send.
    pub(super) fn state(&self) -> &StreamState {
        match self {
            Self::AlreadySent(stream) | Self::Continue { stream, .. } => stream.state(),
            Self::NextStream { state, .. } | Self::FirstStream { state, .. } => state,
        }
    }

    /// Writes and syncs the checkpoint if it changes. Returns the stream, and the position at which
    /// the next one begins.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the checkpoint cannot be written.
    pub(super) fn begin(self) -> Result<(ResumableStream, Option<InputPosition>), Failure> {
        Ok(match self {
            Self::AlreadySent(stream) => (stream, None),
            Self::Continue {
                mut stream,
                next_stream_at,
            } => {
                // An earlier version marked it complete by mistake.
                if stream.state().complete {
                    stream.reopen().map_err(failure)?;
                }
                (stream, next_stream_at)
            }
            Self::NextStream { mut stream, state } => {
                begin_next(&mut stream, state)?;
                (stream, None)
            }
            Self::FirstStream { checkpoint, state } => {
                let begin = || Ok::<_, CheckpointError>(state);
                let stream = ResumableStream::open_or_create(&checkpoint, begin);
                (stream.map_err(failure)?, None)
            }
        })
    }
}

/// Creates the state of the stream after `stream`: from `start` to the end of the file.
///
/// # Errors
///
/// [`Failure`] if the system provides no randomness for its id.
pub(super) fn next_state(
    stream: &ResumableStream,
    file: &FileDigest,
    start: InputPosition,
) -> Result<StreamState, Failure> {
    Ok(stream.state().following(file.to_string(), start.bytes)?)
}

/// Completes a stream, and replaces it in its checkpoint by the next one.
///
/// # Errors
///
/// [`Failure`] if the checkpoint cannot be written.
pub(super) fn begin_next(stream: &mut ResumableStream, next: StreamState) -> Result<(), Failure> {
    if !stream.state().complete {
        stream.complete().map_err(failure)?;
    }
    stream.begin_next(next).map_err(failure)
}

fn modified(mismatch: Mismatch, file: &Path, checkpoint: &Path) -> Failure {
    let what = match mismatch {
        Mismatch::Truncated => "has fewer bytes than when a part of it was sent",
        Mismatch::Modified => "has changed since a part of it was sent",
        Mismatch::LastLineExtended => "extends a line whose beginning was sent as a message",
    };
    Failure::new(
        format!(
            "{} {what}: other messages would get the ids of those that were sent, and be lost.",
            file.display(),
        ),
        format!(
            "Put the old file back and send the rest of it, or send the new content as a separate \
             file.\nIf the old file was renamed, and this is a new one (rotation): {}. Then this \
             command sends the new file, and the old one resumes under its new name.\nWith --again \
             the whole file is sent as new messages, including those that were sent already.\nThe \
             checkpoint is {}.",
            after_rotation(file, checkpoint),
            checkpoint.display()
        ),
    )
}

/// Returns the advice about the checkpoint of a file that was renamed.
fn after_rotation(file: &Path, checkpoint: &Path) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    match name(checkpoint).strip_prefix(&name(file)) {
        Some(ending) => format!("rename its checkpoint with it, to <its new name>{ending}"),
        None => {
            "name another --checkpoint for the new file, and keep this one for the old".to_owned()
        }
    }
}

/// Returns the default path of a receiver's checkpoint: `<file>.<receiver>.ciphermq-send`.
///
/// Characters that a file name cannot have are percent-encoded, and a name that is too long for the
/// file system ends with a hash.
///
/// A link shares the checkpoint of its target, beside the target. Earlier versions put it beside
/// the link: an existing one there remains in use.
pub(super) fn default_checkpoint(path: &Path, receiver: &ClientId) -> PathBuf {
    let beside_path = checkpoint_beside(path, receiver);
    let is_link = path.is_symlink() && !beside_path.exists();
    match resolve(path) {
        Ok(target) if is_link => checkpoint_beside(&target, receiver),
        _ => beside_path,
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
    file: &FileDigest,
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
            .map_err(|error| Failure::plain(format!("A stream cannot be started: {error}.")))?,
        sender: client.id().clone(),
        receiver: receiver.clone(),
        exchange,
        routing_key: routing_key.map_err(unnamable)?,
        server: client.server_address(),
        input: file.to_string(),
        earlier: 0,
        begins: 0,
        acknowledged: 0,
        place: 0,
        complete: false,
    })
}

/// Checks that the checkpoint's acknowledgements are for this sender, receiver, route and server.
fn check_destination(
    existing: &StreamState,
    wanted: &StreamState,
    args: &Args,
    checkpoint: &Path,
) -> Result<(), Failure> {
    let differences = [
        (
            "the sender",
            existing.sender.as_str(),
            wanted.sender.as_str(),
        ),
        (
            "the receiver",
            existing.receiver.as_str(),
            wanted.receiver.as_str(),
        ),
        (
            "the exchange",
            existing.exchange.as_str(),
            wanted.exchange.as_str(),
        ),
        (
            "the routing key",
            existing.routing_key.as_str(),
            wanted.routing_key.as_str(),
        ),
        ("the server", &existing.server, &wanted.server),
    ];
    let difference = differences
        .into_iter()
        .find(|(what, old, new)| old != new && !(args.server_moved && *what == "the server"));
    let Some((what, old, new)) = difference else {
        return Ok(());
    };
    let moved = if what == "the server" {
        "\nIf it is the same server at another address: --server-moved."
    } else {
        ""
    };
    Err(Failure::new(
        format!(
            "According to the checkpoint {}, the file was sent, at least in part, to another \
             destination: {what} was {old}, and is {new} now.",
            checkpoint.display()
        ),
        format!(
            "To send it to this destination as well, use another checkpoint: --checkpoint \
             FILE.\nTo send the whole file again as new messages: --again.{moved}"
        ),
    ))
}

/// Converts a checkpoint's error, with advice in terms of the command line.
pub(super) fn failure(error: CheckpointError) -> Failure {
    let advice = match &error {
        CheckpointError::Open { source, .. } | CheckpointError::Write { source, .. } => {
            let cause = advice(source).unwrap_or("Check that you may write to the folder.");
            return Failure::new(
                format!("{error}."),
                format!(
                    "{cause}\nOr name another path with --checkpoint FILE.\nOr send without one, \
                     with --no-checkpoint: after a crash, sending the file again then creates new \
                     messages."
                ),
            );
        }
        CheckpointError::Removed(_) => {
            "Put it back, and run the same command again: it resumes, and nothing arrives \
             twice.\nWithout it, the same command sends the whole file as new messages, including \
             those that were sent already."
        }
        CheckpointError::Replaced(_) => {
            "The same command resumes from the file that is there now. If the other one was right, \
             put it back first, or messages may arrive twice."
        }
        CheckpointError::Locked(_) => {
            "Another sender is sending this file: wait until it ends.\nTo send it elsewhere at the \
             same time, name another checkpoint with --checkpoint FILE."
        }
        CheckpointError::Unreadable {
            reason: Unreadable::Damaged | Unreadable::Line(_),
            ..
        } => {
            "Restore a copy of it, if there is one. Without it, it is unknown which messages of the \
             file were sent, and under which ids.\nWith --again the whole file is sent as new \
             messages, including those that were sent already."
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
    fn the_advice_fits_the_cause() {
        let busy = failure(CheckpointError::Write {
            path: "c".into(),
            source: std::io::ErrorKind::ResourceBusy.into(),
        });
        assert!(busy.text().contains("mount the folder"), "{busy}");
        assert!(busy.text().contains("--no-checkpoint"), "{busy}");
        let removed = failure(CheckpointError::Removed("c".into())).text();
        assert!(removed.contains("Put it back") && removed.contains("new messages"));
        let replaced = failure(CheckpointError::Replaced("c".into())).text();
        assert!(replaced.contains("file that is there now"), "{replaced}");
    }

    #[test]
    fn a_checkpoint_is_renamed_with_its_file() {
        let text = |checkpoint| after_rotation(Path::new("d/log"), Path::new(checkpoint));
        assert!(text("d/log.r.ciphermq-send").ends_with("<its new name>.r.ciphermq-send"));
        assert!(text("elsewhere/c").contains("another --checkpoint"));
    }

    #[test]
    fn a_link_shares_its_targets_checkpoint_unless_an_earlier_version_made_one_beside_it() {
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
