//! The store's outcomes of a line that was submitted in parts.

use std::collections::VecDeque;

use crate::store::writer::{Pending, WriteError};

/// The store's outcomes of the items of a part.
type Part<T> = Vec<Result<T, WriteError>>;

/// The outcomes of the items of a line, in order, as the store returns them.
#[derive(Debug)]
pub(crate) struct PendingOutcomes<T> {
    /// The parts that are not answered yet, each with the number of its items.
    waiting: VecDeque<(usize, Pending<Part<T>>)>,
    known: Part<T>,
}

impl<T> Default for PendingOutcomes<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            known: Vec::new(),
        }
    }
}

impl<T> PendingOutcomes<T> {
    /// Appends a part of `count` items.
    pub(super) fn push(&mut self, count: usize, outcomes: Pending<Part<T>>) {
        self.waiting.push_back((count, outcomes));
    }

    /// Waits for all outcomes. It is cancel safe: what has arrived is kept.
    pub(super) async fn all(&mut self) -> Part<T> {
        while let Some((count, outcomes)) = self.waiting.front_mut() {
            match outcomes.await {
                Ok(outcomes) => self.known.extend(outcomes),
                Err(error) => self.known.extend((0..*count).map(|_| Err(error.clone()))),
            }
            self.waiting.pop_front();
        }
        self.so_far()
    }

    /// Returns the outcomes that have arrived.
    pub(super) fn so_far(&mut self) -> Part<T> {
        std::mem::take(&mut self.known)
    }
}
