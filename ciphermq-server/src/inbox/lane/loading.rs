//! Reading the messages of a lane from the store.

use std::collections::{HashMap, HashSet, VecDeque};

use ciphermq_protocol::envelope::EnvelopeBytes;

use super::{Lane, Loading, RETURNED_PAGE};
use crate::inbox::{Budget, LoadScope};
use crate::model::{Page, PageLimit, Seq};

impl Lane {
    pub(in crate::inbox) fn is_loading(&self) -> bool {
        !matches!(self.loading, Loading::No)
    }

    /// Returns what to read next. `asked` is whether somebody waits who does not consume.
    pub(in crate::inbox) fn begin_load(
        &mut self,
        ready: PageLimit,
        asked: bool,
        budget: &Budget,
    ) -> Option<LoadScope> {
        let wanted = asked || !self.turns.is_empty();
        if self.is_loading() || !(wanted || self.has_consumers()) {
            return None;
        }
        let bytes = ready.bytes.min(budget.free()).max(1);
        if self
            .returned
            .first_key_value()
            .is_some_and(|(_, first)| first.envelope.is_none())
        {
            if !wanted {
                return None;
            }
            let page = RETURNED_PAGE.min(ready.messages);
            let seqs = self
                .returned
                .iter()
                .filter(|(_, r)| r.envelope.is_none())
                .map(|(seq, _)| *seq)
                .take(page)
                .collect();
            self.loading = Loading::Again;
            return Some(LoadScope::Again(seqs, bytes));
        }
        // The next page is fetched while half of the last one is still there; in want of memory,
        // when none is.
        let low = self.fresh.is_empty() && wanted
            || self.fresh.len() < ready.messages / 2 && budget.free() >= ready.bytes;
        if !self.more || !low {
            return None;
        }
        self.loading = Loading::After {
            arrivals: VecDeque::new(),
            overflown: false,
        };
        Some(LoadScope::After(
            self.cursor,
            PageLimit {
                messages: ready.messages,
                bytes,
            },
        ))
    }

    pub(in crate::inbox) fn loaded(&mut self, what: LoadScope, page: Page, budget: &Budget) {
        let loading = std::mem::replace(&mut self.loading, Loading::No);
        let removed = std::mem::take(&mut self.removed);
        match what {
            LoadScope::Again(seqs, _) => self.loaded_again(&seqs, page, &removed, budget),
            LoadScope::After(cursor, _) => {
                let Loading::After {
                    arrivals,
                    overflown,
                } = loading
                else {
                    return;
                };
                // Unloaded meanwhile: the page does not join on.
                let joins_on = cursor == self.cursor;
                let is_last = joins_on && !page.more && !overflown;
                if joins_on {
                    self.more = !is_last;
                    for message in page.messages {
                        self.cursor = message.seq;
                        if !removed.contains(&message.seq) {
                            self.push_fresh(
                                message.seq,
                                message.message_id,
                                message.envelope,
                                budget,
                            );
                        }
                    }
                }
                for arrival in arrivals {
                    // The read may have found it too.
                    let is_next = arrival.seq > self.cursor && !removed.contains(&arrival.seq);
                    if is_last && is_next {
                        self.cursor = arrival.seq;
                        self.fresh.push_back(arrival);
                    } else {
                        budget.give(arrival.envelope.len());
                    }
                }
            }
        }
    }

    /// Takes messages that were read again. What was asked for and is not there has been removed;
    /// what is past a page that was cut short is not known.
    fn loaded_again(&mut self, seqs: &[Seq], page: Page, removed: &HashSet<Seq>, budget: &Budget) {
        let known_to = if page.more {
            page.messages.last().map(|message| message.seq)
        } else {
            seqs.last().copied()
        };
        let mut found: HashMap<Seq, EnvelopeBytes> = page
            .messages
            .into_iter()
            .map(|message| (message.seq, message.envelope))
            .collect();
        for seq in seqs
            .iter()
            .filter(|seq| known_to.is_some_and(|known_to| **seq <= known_to))
        {
            match found.remove(seq).filter(|_| !removed.contains(seq)) {
                Some(envelope) => {
                    if let Some(returned) = self.returned.get_mut(seq)
                        && returned.envelope.is_none()
                    {
                        budget.take(envelope.len());
                        returned.envelope = Some(envelope);
                    }
                }
                None => {
                    self.remove(*seq, budget);
                }
            }
        }
    }
}
