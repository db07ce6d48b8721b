//! What a power failure leaves of the files.

use std::path::Path;

use super::disk::{Change, Disk, Node, SyncKind, Tree};
use super::loss::Loss;

/// Size of what a disk writes at once.
const SECTOR: usize = 512;

/// When the power fails, which syncs are taken as not made, and what is lost.
type Failure<'a> = (usize, &'a [SyncKind], Loss);

impl Disk {
    /// Returns the files after a power failure before the tick `cut`, as if the syncs of the kinds
    /// `without` had not been made.
    pub fn image(&self, cut: usize, without: &[SyncKind], loss: Loss) -> Tree {
        let mut tree = Tree::new();
        for (top, node) in &self.tops {
            self.write_into(&mut tree, top, *node, (cut, without, loss));
        }
        tree
    }

    fn write_into(&self, tree: &mut Tree, path: &Path, node: Node, failure: Failure<'_>) {
        let entry = &self.entries[node];
        let (cut, without, loss) = failure;
        let is_made =
            |program: &str| without.is_empty() || !without.contains(&self.kind(entry, program));
        let horizon = entry
            .syncs
            .iter()
            .filter(|(span, program)| span.end < cut && is_made(program))
            .map(|(span, _)| span.start)
            .max()
            .unwrap_or(0);
        let happened = entry.changes.iter().filter(|(span, _)| span.start < cut);
        let (durable, pending): (Vec<_>, Vec<_>) =
            happened.partition(|(span, _)| span.end < horizon);
        if entry.is_folder {
            let mut names = entry.names.clone();
            for (_, change) in durable {
                change.rename(&mut names);
            }
            for (index, (_, change)) in pending.into_iter().enumerate() {
                if loss.keeps_names(node, index) {
                    change.rename(&mut names);
                }
            }
            for (name, node) in names {
                let path = path.join(name);
                self.write_into(tree, &path, node, failure);
            }
            if self.tops.iter().all(|(top, _)| top != path) {
                tree.insert(path.to_owned(), None);
            }
            return;
        }
        let mut content = entry.content.clone();
        for (_, change) in durable {
            change.apply(&mut content);
        }
        let mut lengths = vec![content.len()];
        for (index, (_, change)) in pending.into_iter().enumerate() {
            // The length of the whole file, whether its content is kept or not.
            let mut length = *lengths.last().expect("the durable one");
            match change {
                Change::Write { at, data } => {
                    length = length.max(at + data.len());
                    for (begin, piece) in sectors(*at, data) {
                        if loss.keeps_data(node, index, begin / SECTOR) {
                            Change::write(&mut content, begin, piece);
                        }
                    }
                }
                Change::Length(new) => {
                    length = *new;
                    if loss.keeps_data(node, index, usize::MAX) {
                        change.apply(&mut content);
                    }
                }
                Change::Names(_) => {}
            }
            lengths.push(length);
        }
        content.resize(lengths[loss.length(node, lengths.len())], 0);
        tree.insert(path.to_owned(), Some(content));
    }
}

/// Splits data at the ends of sectors; returns where each piece begins.
fn sectors(at: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let length = (SECTOR - (at + begin) % SECTOR).min(data.len().checked_sub(begin)?);
        let piece = &data[begin..begin + length];
        let place = at + begin;
        begin += length;
        (length > 0).then_some((place, piece))
    })
}
