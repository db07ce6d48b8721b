//! A file system that forgets, when its power fails, what was not synced.
//!
//! It forgets as much as POSIX allows: a sync makes durable what a file or folder held when the
//! sync began, and nothing else. So a file that is synced may have no name, a name may lead to an
//! empty file, and of what was written since the last sync each sector, the length and each name
//! may be there or not. A rename is atomic, and a sector is written as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::trace::{Call, Event};

/// Number of a file or folder.
pub type Node = usize;

/// Files by their paths; folders have no content.
pub type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// When something began and ended, counted in beginnings and ends of recorded calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug)]
pub(super) enum Change {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
    Names(Vec<(String, Option<Node>)>),
}

/// A kind of sync: of which program, and of what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncKind {
    /// The program.
    pub program: String,
    /// The last name of the file, or the folder with a slash at its end.
    pub what: String,
}

impl fmt::Debug for SyncKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.what, self.program)
    }
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) is_folder: bool,
    /// The last name.
    path: PathBuf,
    /// Content, of a file, and names, of a folder, when the record began.
    pub(super) content: Vec<u8>,
    pub(super) names: BTreeMap<String, Node>,
    pub(super) changes: Vec<(Span, Change)>,
    pub(super) syncs: Vec<(Span, String)>,
}

/// Everything that happened to the files in some folders.
#[derive(Debug, Default)]
pub struct Disk {
    pub(super) entries: Vec<Entry>,
    /// The folders, which are always there.
    pub(super) tops: Vec<(PathBuf, Node)>,
    /// Times of all ticks.
    times: Vec<u64>,
    /// Ticks at which a sync has begun or ended.
    interesting: BTreeSet<usize>,
    /// What each path held when it was last given a file by a rename, in order.
    placed: BTreeMap<PathBuf, Vec<Vec<u8>>>,
}

/// The names and contents as programs saw them while they ran.
#[derive(Default)]
struct Live {
    names: BTreeMap<PathBuf, Node>,
    content: BTreeMap<Node, Vec<u8>>,
    /// Positions of descriptors, and whether they append, by program run.
    positions: BTreeMap<(usize, u32), (u64, bool)>,
}

impl Disk {
    /// Builds the history of `tops`, which held `before` when the record began. `runs` are the
    /// programs and their calls.
    ///
    /// # Panics
    ///
    /// If a program has made a call whose effect is not modelled.
    pub fn build(tops: &[PathBuf], before: &Tree, runs: Vec<(String, Vec<Event>)>) -> Self {
        let mut disk = Self::default();
        let mut live = Live::default();
        for top in tops {
            let node = disk.add(top, true);
            disk.tops.push((top.clone(), node));
            live.names.insert(top.clone(), node);
        }
        for (path, content) in before {
            let node = disk.add(path, content.is_none());
            disk.entries[node].content = content.clone().unwrap_or_default();
            live.content
                .insert(node, disk.entries[node].content.clone());
            live.names.insert(path.clone(), node);
            let parent = live.names[path.parent().expect("a path in a folder")];
            disk.entries[parent].names.insert(name(path), node);
        }
        // The beginnings and ends of all calls, in order; those of one program keep theirs.
        let mut ticks = Vec::new();
        for (run, (_, events)) in runs.iter().enumerate() {
            for (index, event) in events.iter().enumerate() {
                ticks.push((event.start, false, run, index));
                ticks.push((event.end, true, run, index));
            }
        }
        // An end at the time of a beginning was before it.
        ticks.sort_by_key(|(time, is_end, run, index)| (*time, !is_end, *run, *index));
        let mut starts = BTreeMap::new();
        for (tick, (time, is_end, run, index)) in ticks.into_iter().enumerate() {
            disk.times.push(time);
            if !is_end {
                starts.insert((run, index), tick);
                continue;
            }
            let start = starts.remove(&(run, index)).unwrap_or(tick);
            let (program, events) = &runs[run];
            let span = Span { start, end: tick };
            disk.apply(&mut live, (run, program), span, &events[index].call);
        }
        disk
    }

    fn add(&mut self, path: &Path, is_folder: bool) -> Node {
        self.entries.push(Entry {
            is_folder,
            path: path.to_owned(),
            ..Entry::default()
        });
        self.entries.len() - 1
    }

    fn contains(&self, path: &Path) -> bool {
        self.tops.iter().any(|(top, _)| path.starts_with(top))
    }

    fn apply(&mut self, live: &mut Live, (run, program): (usize, &str), span: Span, call: &Call) {
        match call {
            Call::Open {
                descriptor,
                path,
                creates,
                truncates,
                appends,
            } if self.contains(path) => {
                live.positions.insert((run, *descriptor), (0, *appends));
                if !live.names.contains_key(path) && *creates {
                    let node = self.add(path, false);
                    self.name(live, span, &[(path, Some(node))]);
                } else if *truncates {
                    self.set_length(live, span, path, 0);
                }
            }
            Call::Seek {
                descriptor,
                position,
            } => {
                if let Some(known) = live.positions.get_mut(&(run, *descriptor)) {
                    known.0 = *position;
                }
            }
            Call::Write {
                descriptor,
                path,
                offset,
                data,
            } if self.contains(path) => {
                let Some(&node) = live.names.get(path) else {
                    // It has no name any more.
                    return;
                };
                let content = live.content.entry(node).or_default();
                let position = live.positions.entry((run, *descriptor)).or_default();
                let at = match offset {
                    Some(at) => usize::try_from(*at).expect("a small file"),
                    None if position.1 => content.len(),
                    None => usize::try_from(position.0).expect("a small file"),
                };
                if offset.is_none() {
                    position.0 = (at + data.len()) as u64;
                }
                let data = data.clone();
                let change = Change::Write { at, data };
                change.apply(content);
                self.entries[node].changes.push((span, change));
            }
            Call::Length {
                path,
                length,
                grows,
            } if self.contains(path) => {
                let length = usize::try_from(*length).expect("a small file");
                let now = live.names.get(path).and_then(|node| live.content.get(node));
                if !grows || now.is_none_or(|content| content.len() < length) {
                    self.set_length(live, span, path, length);
                }
            }
            Call::Rename { from, to } if self.contains(to) => {
                let node = live.names.remove(from).expect("a file that is renamed");
                self.placed
                    .entry(to.clone())
                    .or_default()
                    .push(live.content.get(&node).cloned().unwrap_or_default());
                self.name(live, span, &[(from, None), (to, Some(node))]);
            }
            Call::Link { from, to } if self.contains(to) => {
                let node = live.names[from];
                self.name(live, span, &[(to, Some(node))]);
            }
            Call::Unlink(path) if self.contains(path) => {
                live.names.remove(path);
                self.name(live, span, &[(path, None)]);
            }
            Call::CreateFolder(path) if self.contains(path) => {
                let node = self.add(path, true);
                self.name(live, span, &[(path, Some(node))]);
            }
            Call::Sync(path) => {
                if let Some(&node) = live.names.get(path) {
                    self.entries[node].syncs.push((span, program.to_owned()));
                    self.interesting
                        .extend([span.start, span.end, span.end + 1]);
                }
            }
            Call::SyncAll => {
                for entry in &mut self.entries {
                    entry.syncs.push((span, program.to_owned()));
                }
            }
            Call::Unknown(path, call) if self.contains(path) => {
                panic!("the effect of {call} on {} is not modelled", path.display())
            }
            _ => {}
        }
    }

    /// Changes names, which are in one folder, at once.
    fn name(&mut self, live: &mut Live, span: Span, names: &[(&PathBuf, Option<Node>)]) {
        let folder = names[0].0.parent().expect("a path in a folder");
        let mut changes = Vec::new();
        for (path, node) in names {
            assert_eq!(path.parent(), Some(folder), "a rename to another folder");
            changes.push((name(path), *node));
            if let Some(node) = node {
                live.names.insert((*path).clone(), *node);
                self.entries[*node].path.clone_from(path);
            }
        }
        let folder = live.names[folder];
        self.entries[folder]
            .changes
            .push((span, Change::Names(changes)));
    }

    fn set_length(&mut self, live: &mut Live, span: Span, path: &Path, length: usize) {
        if let Some(&node) = live.names.get(path) {
            let change = Change::Length(length);
            change.apply(live.content.entry(node).or_default());
            self.entries[node].changes.push((span, change));
        }
    }

    /// The number of ticks: a power failure is before any of them, or after the last.
    pub fn ticks(&self) -> usize {
        self.times.len()
    }

    /// The ticks just before and after syncs began and ended.
    pub fn interesting(&self) -> &BTreeSet<usize> {
        &self.interesting
    }

    /// The number of ticks until a time, in microseconds since 1970.
    pub fn until(&self, time: u64) -> usize {
        self.times.partition_point(|at| *at <= time)
    }

    /// What this path held each time that a file was renamed to it.
    pub fn placed(&self) -> &BTreeMap<PathBuf, Vec<Vec<u8>>> {
        &self.placed
    }

    /// All kinds of syncs, and how often each was made.
    pub fn sync_kinds(&self) -> BTreeMap<SyncKind, usize> {
        let mut kinds = BTreeMap::new();
        for entry in &self.entries {
            for (_, program) in &entry.syncs {
                *kinds.entry(self.kind(entry, program)).or_default() += 1;
            }
        }
        kinds
    }

    pub(super) fn kind(&self, entry: &Entry, program: &str) -> SyncKind {
        let top = self
            .tops
            .iter()
            .find(|(top, _)| entry.path.starts_with(top));
        let short = top.and_then(|(top, _)| entry.path.strip_prefix(top.parent()?).ok());
        // The first part is the name of a temporary folder.
        let parts = short.into_iter().flat_map(Path::components).skip(1);
        let mut what = parts.collect::<PathBuf>().display().to_string();
        // The names of drafts that never got another one are random.
        if let Some((folder, _)) = what.split_once(".new-") {
            what = format!("{folder}.new-*");
        }
        if entry.is_folder {
            what.push('/');
        }
        SyncKind {
            program: program.to_owned(),
            what,
        }
    }
}

impl Change {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => Self::write(content, *at, data),
            Self::Length(length) => content.resize(*length, 0),
            Self::Names(_) => {}
        }
    }

    pub(super) fn write(content: &mut Vec<u8>, at: usize, data: &[u8]) {
        if content.len() < at + data.len() {
            content.resize(at + data.len(), 0);
        }
        content[at..at + data.len()].copy_from_slice(data);
    }

    pub(super) fn rename(&self, names: &mut BTreeMap<String, Node>) {
        let Self::Names(changes) = self else {
            return;
        };
        for (name, node) in changes {
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests;
