//! A finished record, whose images are checked.

use std::collections::BTreeSet;
use std::path::Path;

use super::disk::{Disk, SyncKind, Tree};
use super::loss::Loss;
use super::promise::{Images, Places, Promise, repair_note};

/// A finished record.
pub struct Record {
    disk: Disk,
    before: Tree,
    promises: Vec<Promise>,
    places: Places,
}

/// An image that breaks a promise.
#[derive(Debug)]
pub struct Finding {
    /// Number of the tick before which the power failed.
    pub cut: usize,
    /// What was lost.
    pub loss: Loss,
    /// The broken promises.
    pub broken: Vec<String>,
}

impl Record {
    pub(super) fn new(disk: Disk, before: Tree, promises: Vec<Promise>, places: Places) -> Self {
        Self {
            disk,
            before,
            promises,
            places,
        }
    }

    /// The files, as they may be.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What must hold at a tick.
    pub(super) fn promises_at(&self, cut: usize) -> impl Iterator<Item = &Promise> {
        self.promises.iter().filter(move |promise| {
            self.disk.until(promise.since) <= cut && cut <= self.disk.until(promise.until)
        })
    }

    /// Whether a file that is given its name by a rename may have this content.
    pub(super) fn may_hold(&self, path: &Path, content: &[u8]) -> bool {
        let before = self.before.get(path).and_then(Option::as_ref);
        let Some(placed) = self.disk.placed().get(path) else {
            return true;
        };
        placed.iter().chain(before).any(|whole| whole == content)
    }

    /// The places of what is checked.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The moments at which a power failure is tried: around each sync and each promise.
    pub fn moments(&self) -> BTreeSet<usize> {
        let promises = self.promises.iter().map(|one| self.disk.until(one.since));
        let end = [self.disk.ticks()];
        let all = self.disk.interesting().iter().copied();
        all.chain(promises).chain(end).collect()
    }

    /// Those of the moments at which an output is being repaired.
    pub fn moments_of_repair(&self) -> Vec<usize> {
        let note = repair_note(&self.places.output);
        let has_note = |cut: &usize| {
            self.disk
                .image(*cut, &[], Loss::Everything)
                .contains_key(&note)
        };
        self.moments().into_iter().filter(has_note).collect()
    }

    /// Checks images with these losses at all moments, and returns their number.
    ///
    /// # Panics
    ///
    /// If a promise is broken.
    pub fn check_all(&self, losses: impl IntoIterator<Item = Loss>) -> usize {
        let moments = self.moments();
        let tries = losses.into_iter();
        let tries = tries.flat_map(|loss| moments.iter().map(move |cut| (*cut, loss)));
        let (findings, count) = self.check(&[], tries, 3);
        assert!(findings.is_empty(), "{findings:#?}");
        count
    }

    /// Whether an image breaks a promise if syncs of these kinds are not made.
    pub fn is_broken_without(&self, kinds: &[SyncKind]) -> bool {
        let moments = self.moments();
        let tries = [Loss::Everything, Loss::Data, Loss::Contents].into_iter();
        let tries = tries.flat_map(|loss| moments.iter().map(move |cut| (*cut, loss)));
        let (findings, count) = self.check(kinds, tries, 1);
        match findings.first() {
            Some(found) => eprintln!("without {kinds:?}: {count} images, {found:?}"),
            None => eprintln!("without {kinds:?}: {count} images, all as promised"),
        }
        !findings.is_empty()
    }

    /// Checks images at these moments, and returns the first `most` that break a promise, with the
    /// number of images. Syncs of the kinds `without` are taken as not made.
    pub fn check(
        &self,
        without: &[SyncKind],
        tries: impl IntoIterator<Item = (usize, Loss)>,
        most: usize,
    ) -> (Vec<Finding>, usize) {
        let mut images = Images::new(self);
        let (mut findings, mut count) = (Vec::new(), 0);
        for (cut, loss) in tries {
            if findings.len() >= most {
                break;
            }
            count += 1;
            let broken = images.broken(&self.disk.image(cut, without, loss), cut);
            if !broken.is_empty() {
                findings.push(Finding { cut, loss, broken });
            }
        }
        (findings, count)
    }
}

/// The losses that do not depend on a number, and `more` that do.
pub fn losses(seed: u64, more: u64) -> Vec<Loss> {
    let more = (0..more).map(|index| Loss::Some(seed.wrapping_add(index)));
    Loss::PLAIN.into_iter().chain(more).collect()
}
