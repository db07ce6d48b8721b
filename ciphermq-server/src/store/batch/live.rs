//! Publishes whose queues were deleted while they waited for their commit.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::{Publish, QueueId};

/// Returns all queues that the publishes go to.
pub(in crate::store) fn queues_of(publishes: &[Arc<Publish>]) -> HashSet<QueueId> {
    let mut queues = HashSet::new();
    let mut last: Option<&Arc<[QueueId]>> = None;
    for publish in publishes {
        // Those of one line share them.
        if !last.is_some_and(|last| Arc::ptr_eq(last, &publish.queues)) {
            queues.extend(publish.queues.iter().copied());
            last = Some(&publish.queues);
        }
    }
    queues
}

/// Publishes that go to fewer queues than they were meant for, by index.
pub(in crate::store) type Narrowed = Vec<(usize, Arc<Publish>)>;

/// Returns the publishes with those queues only that exist, and the ones that this has changed, by
/// index.
pub(in crate::store) fn narrow(
    publishes: &[Arc<Publish>],
    exist: &HashSet<QueueId>,
) -> (Vec<Arc<Publish>>, Narrowed) {
    type Queues = Arc<[QueueId]>;
    let mut narrowed = Vec::new();
    // The queues of the last publish, before and after.
    let mut last: Option<(Queues, Queues)> = None;
    let one = |(at, publish): (usize, &Arc<Publish>)| {
        if publish.queues.iter().all(|queue| exist.contains(queue)) {
            return Arc::clone(publish);
        }
        let queues = match &last {
            Some((before, after)) if Arc::ptr_eq(before, &publish.queues) => Arc::clone(after),
            _ => {
                let queues = publish.queues.iter().copied();
                let queues: Arc<[QueueId]> = queues.filter(|queue| exist.contains(queue)).collect();
                last = Some((Arc::clone(&publish.queues), Arc::clone(&queues)));
                queues
            }
        };
        let publish = Arc::new(Publish {
            queues,
            ..Publish::clone(publish)
        });
        narrowed.push((at, Arc::clone(&publish)));
        publish
    };
    let publishes = publishes.iter().enumerate().map(one).collect();
    (publishes, narrowed)
}
