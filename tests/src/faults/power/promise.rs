//! What must hold after a power failure, and the check of an image.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use ciphermq_client::dedup::{Checkpointed, Found};
use ciphermq_files::beside;
use rusqlite::Connection;
use tempfile::TempDir;

use super::disk::Tree;
use super::record::Record;
use crate::files;

/// Queries for what the server has promised to keep, and the word before each result.
const STORED: &[(&str, &str)] = &[
    ("accepted", "SELECT message_id FROM message_metadata"),
    (
        "settled",
        "SELECT message_id FROM message_metadata
         WHERE acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL",
    ),
    ("waiting", "SELECT message_id FROM messages"),
    ("queue", "SELECT queue_name FROM queues"),
    ("exchange", "SELECT exchange_name FROM exchanges"),
    (
        "binding",
        "SELECT exchange_name || ' ' || routing_key || ' ' || queue_id FROM bindings",
    ),
    ("key", "SELECT client_id FROM public_keys"),
    ("signed-key", "SELECT client_id FROM signed_keys"),
];

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The database holds this: a result of one of the server's tables, with a word before it.
    Stored(String),
    /// The receiver's output holds the message with this id.
    Line(String),
    /// A file holds this text.
    Text(PathBuf, String),
    /// A file has this content.
    File(PathBuf, Vec<u8>),
}

/// A claim, and the times from which and until which it holds, in microseconds since 1970.
#[derive(Debug, Clone)]
pub struct Promise {
    /// The claim.
    pub claim: Claim,
    /// When a program has made it.
    pub since: u64,
    /// When it may end.
    pub until: u64,
}

/// The places of what is checked.
#[derive(Debug, Clone)]
pub struct Places {
    /// The server's database.
    pub database: PathBuf,
    /// The key that seals what is in it.
    pub at_rest_key: PathBuf,
    /// The senders' checkpoints.
    pub sent: Vec<PathBuf>,
    /// The receiver's output; its checkpoint is beside it.
    pub output: PathBuf,
}

impl Places {
    /// The receiver's checkpoint.
    pub fn received(&self) -> PathBuf {
        beside(&self.output, ".ciphermq-receive")
    }
}

/// The check of images, which remembers what it has read: most images have the same database.
pub(super) struct Images<'a> {
    record: &'a Record,
    scratch: TempDir,
    databases: HashMap<u64, Result<BTreeSet<String>, String>>,
    outputs: HashMap<u64, Vec<String>>,
}

impl<'a> Images<'a> {
    pub(super) fn new(record: &'a Record) -> Self {
        Self {
            record,
            scratch: files::folder("image"),
            databases: HashMap::new(),
            outputs: HashMap::new(),
        }
    }

    /// Returns the promises that an image breaks.
    pub(super) fn broken(&mut self, image: &Tree, cut: usize) -> Vec<String> {
        let places = self.record.places();
        let stored = match self.stored(image) {
            Ok(stored) => stored,
            Err(error) => return vec![error],
        };
        let repaired = repaired(image, &places.output);
        let image = repaired.as_ref().unwrap_or(image);
        let lines = lines(image, &places.output);
        let mut broken = self.output(image);
        for promise in self.record.promises_at(cut) {
            match &promise.claim {
                Claim::Stored(what) if !stored.contains(what) => {
                    broken.push(format!("the database has lost {what}"));
                }
                Claim::Line(id) if !lines.contains_key(id) => {
                    broken.push(format!("the output has lost {id}"));
                }
                Claim::Text(path, text) if !holds(image, path, text) => {
                    broken.push(format!("{} has lost {text}", path.display()));
                }
                Claim::File(path, content) if content_of(image, path) != Some(content) => {
                    broken.push(format!("{} is not what it was", path.display()));
                }
                _ => {}
            }
        }
        for (path, content) in image {
            let content = content.as_deref().unwrap_or_default();
            if !self.record.may_hold(path, content) {
                broken.push(format!("{} is not whole", path.display()));
            }
        }
        for (id, count) in lines {
            if count > 1 {
                broken.push(format!("{id} is in the output {count} times"));
            }
        }
        for what in &stored {
            // Nobody expires here, so what is accepted and not settled waits.
            if let Some(id) = what.strip_prefix("accepted ")
                && !stored.contains(&format!("settled {id}"))
                && !stored.contains(&format!("waiting {id}"))
            {
                broken.push(format!("{id} was accepted and is gone"));
            }
        }
        if stored.iter().any(|what| what.contains("key "))
            && content_of(image, &places.at_rest_key).is_none()
        {
            broken.push(String::from(
                "there are keys in the database, but not theirs",
            ));
        }
        for path in &places.sent {
            broken.extend(self.sent(image, path, &stored));
        }
        broken
    }

    /// Compares a sender's checkpoint with the server.
    fn sent(&self, image: &Tree, path: &Path, stored: &BTreeSet<String>) -> Vec<String> {
        let mut broken = Vec::new();
        let mut streams = Vec::new();
        for checkpoint in self.record.disk().placed().get(path).into_iter().flatten() {
            let (stream, _) = progress(checkpoint);
            if !streams.contains(&stream) {
                streams.push(stream);
            }
        }
        let now = content_of(image, path).map(|content| progress(content));
        let begun = now.as_ref().map_or(0, |(now, _)| {
            1 + streams.iter().position(|stream| stream == now).unwrap_or(0)
        });
        for stream in &streams[begun..] {
            // It would be sent again, with other ids.
            if stored.iter().any(|what| is_of(what, stream)) {
                broken.push(format!("the sender has forgotten its stream {stream}"));
            }
        }
        let (stream, acknowledged) = now.unwrap_or_default();
        for position in 0..acknowledged {
            let id = format!("{stream}{position:010x}");
            if !stored.contains(&format!("accepted {id}")) {
                broken.push(format!(
                    "the sender skips {id}, which the server does not have"
                ));
            }
        }
        broken
    }

    /// Reads the database as the server would.
    fn stored(&mut self, image: &Tree) -> Result<BTreeSet<String>, String> {
        let database = &self.record.places().database;
        let files = ["", "-wal", "-journal"].map(|end| beside(database, end));
        let hash = hash(image, &files);
        if let Some(known) = self.databases.get(&hash) {
            return known.clone();
        }
        let folder = self.scratch.path().join("database");
        write(image, &files, &folder);
        let result = read_database(&folder.join(name(database)));
        self.databases.insert(hash, result.clone());
        result
    }

    /// Reads the receiver's output and its checkpoint as the receiver would.
    fn output(&mut self, image: &Tree) -> Vec<String> {
        let places = self.record.places();
        let files = [places.output.clone(), places.received()];
        let hash = hash(image, &files);
        if let Some(known) = self.outputs.get(&hash) {
            return known.clone();
        }
        let folder = self.scratch.path().join("output");
        write(image, &files, &folder);
        let (output, checkpoint) = (folder.join(name(&files[0])), folder.join(name(&files[1])));
        let mut broken = Vec::new();
        match Checkpointed::open(&checkpoint) {
            Err(error) => broken.push(format!("the receiver's checkpoint: {error}")),
            Ok(checkpoint) => match File::open(&output) {
                Err(_) if checkpoint.is_closed() => {}
                Err(_) => broken.push(String::from("the output is gone")),
                Ok(output) => {
                    let found = checkpoint.find_lines(&output).expect("it can be read");
                    if matches!(found, Found::Other { .. }) {
                        broken.push(String::from("the checkpoint is not of this output"));
                    }
                }
            },
        }
        self.outputs.insert(hash, broken.clone());
        broken
    }
}

/// Returns what the database holds; nothing if it was not made yet.
pub(super) fn read_database(path: &Path) -> Result<BTreeSet<String>, String> {
    let mut stored = BTreeSet::new();
    if !path.exists() {
        return Ok(stored);
    }
    let damaged = |error: rusqlite::Error| format!("the database is damaged: {error}");
    let database = Connection::open(path).map_err(damaged)?;
    let check = "PRAGMA integrity_check";
    let check: String = database
        .query_row(check, [], |row| row.get(0))
        .map_err(damaged)?;
    if check != "ok" {
        return Err(format!("the database is damaged: {check}"));
    }
    for (word, query) in STORED {
        let mut query = match database.prepare(query) {
            Ok(query) => query,
            Err(error) if error.to_string().contains("no such table") => continue,
            Err(error) => return Err(damaged(error)),
        };
        let rows = query
            .query_map([], |row| row.get::<_, String>(0))
            .map_err(damaged)?;
        for row in rows {
            stored.insert(format!("{word} {}", row.map_err(damaged)?));
        }
    }
    Ok(stored)
}

/// Returns the ids in an output's whole lines, and how often each is there.
pub(super) fn lines(image: &Tree, output: &Path) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    let content = content_of(image, output).map_or(&[][..], Vec::as_slice);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let record = serde_json::from_slice::<serde_json::Value>(line);
        let id = record
            .as_ref()
            .ok()
            .and_then(|record| record["message_id"].as_str());
        if let Some(id) = id.filter(|_| line.ends_with(b"\n")) {
            *ids.entry(id.to_owned()).or_default() += 1;
        }
    }
    ids
}

/// Puts back what a repair of the output had begun to change, as the receiver does; `None` if none
/// was interrupted.
fn repaired(image: &Tree, output: &Path) -> Option<Tree> {
    let note = content_of(image, &repair_note(output))?;
    let (_, line) = std::str::from_utf8(note)
        .ok()?
        .trim_end()
        .split_once('\n')?;
    let mut words = line.split(' ');
    let (end, number) = (words.next()?, words.next()?);
    let copy = content_of(image, &beside(output, &format!(".damaged-{number}")))?;
    let content = content_of(image, output)?.get(..end.parse().ok()?)?;
    let mut image = image.clone();
    image.insert(output.to_owned(), Some([content, copy].concat()));
    Some(image)
}

/// The receiver's note that it repairs an output.
pub fn repair_note(output: &Path) -> PathBuf {
    beside(output, ".ciphermq-repair")
}

/// Returns the stream of a sender's checkpoint, without its position, and the number of messages
/// that are acknowledged.
fn progress(checkpoint: &[u8]) -> (String, u64) {
    let text = String::from_utf8_lossy(checkpoint);
    let value = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.split(' ').nth(1))
            .unwrap_or_default()
    };
    let stream = value("stream");
    // The last ten digits are the position.
    let stream = stream
        .get(..stream.len().saturating_sub(10))
        .unwrap_or_default();
    (
        stream.to_owned(),
        value("acknowledged").parse().unwrap_or(0),
    )
}

fn is_of(what: &str, stream: &str) -> bool {
    what.strip_prefix("accepted ")
        .is_some_and(|id| id.starts_with(stream))
}

fn content_of<'a>(image: &'a Tree, path: &Path) -> Option<&'a Vec<u8>> {
    image.get(path)?.as_ref()
}

fn holds(image: &Tree, path: &Path, text: &str) -> bool {
    let content = content_of(image, path);
    content.is_some_and(|content| String::from_utf8_lossy(content).contains(text))
}

fn name(path: &Path) -> PathBuf {
    path.file_name().unwrap_or_default().into()
}

fn hash(image: &Tree, paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        content_of(image, path).hash(&mut hasher);
    }
    hasher.finish()
}

/// Writes some files of an image into an otherwise empty folder.
fn write(image: &Tree, paths: &[PathBuf], folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir(folder).expect("a new folder");
    for path in paths {
        if let Some(content) = content_of(image, path) {
            files::create(&folder.join(name(path)), content, 0o600);
        }
    }
}
