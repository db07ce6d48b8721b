//! Pages of queues, exchanges and bindings.

use ciphermq_protocol::ExchangeName;
use ciphermq_protocol::topology::BindingCursor;

use crate::model::{ListScope, Listed, ListedBinding};

/// The most batches of a queue whose messages are counted for a list.
pub(in crate::store) const COUNTED_BATCHES: i64 = 100;

/// Makes a page of the rows that were examined; the others may not be seen.
pub(in crate::store) fn listed<T, C>(
    mut rows: Vec<T>,
    scope: &ListScope,
    cursor: impl Fn(&T) -> C,
    is_visible: impl Fn(&T) -> bool,
) -> Listed<T, C> {
    let is_full = rows.len() >= usize::try_from(scope.limit).unwrap_or(usize::MAX);
    let next = rows.last().filter(|_| is_full).map(cursor);
    rows.retain(is_visible);
    Listed { rows, next }
}

impl<T, C> Listed<T, C> {
    /// Converts each row.
    pub(in crate::store) fn map<U>(self, with: impl FnMut(T) -> U) -> Listed<U, C> {
        Listed {
            rows: self.rows.into_iter().map(with).collect(),
            next: self.next,
        }
    }
}

impl Listed<ListedBinding, BindingCursor> {
    /// Ends the list of one exchange's bindings where those of the next one begin.
    pub(in crate::store) fn within(mut self, exchange: Option<&ExchangeName>) -> Self {
        let is_within = |next: &BindingCursor| exchange.is_none_or(|only| next.exchange == *only);
        self.next = self.next.filter(is_within);
        self
    }
}
