//! Deliveries that are on their way to sockets.

use super::*;

const OTHER: ConnectionId = ConnectionId(77);
const BIG: usize = 100 * 1024;

/// Takes memory for deliveries as other clients do.
fn fill(bench: &Bench) -> Budget {
    let budget = bench.inbox.unsent_budget.clone();
    budget.take(budget.free());
    budget
}

#[test]
fn deliveries_that_are_not_written_count_until_they_are() {
    let mut bench = Bench::new();
    let budget = bench.inbox.unsent_budget.clone();
    bench.subscribe(A, 100).publish(3);
    let length = envelope(Seq(1)).len();
    assert_eq!(
        (budget.used(), bench.inbox.unsent),
        (3 * length, 3 * length)
    );
    bench.inbox.sent(A, length);
    assert_eq!(budget.used(), 2 * length);
    // More than was on its way is nothing more.
    bench.inbox.sent(A, 10 * length);
    assert_eq!(budget.used(), 0);
    bench.publish(2).disconnect(A);
    assert_eq!((budget.used(), bench.inbox.unsent), (0, 0));
}

#[test]
fn when_the_memory_is_used_up_each_connection_still_has_a_little() {
    let mut bench = Bench::new();
    let budget = fill(&bench);
    bench.subscribe(A, 100).publish(1);
    assert_eq!(bench.seen_seqs(), [1]);
    // As if it were a large one.
    bench.inbox.peers.get_mut(&A).unwrap().unsent += BIG;
    bench.inbox.unsent += BIG;
    budget.take(BIG);
    bench.publish(1);
    assert!(bench.seen_seqs().is_empty());
    bench.inbox.sent(A, BIG);
    assert_eq!(bench.settle().seen_seqs(), [2]);
}

#[test]
fn one_connection_that_does_not_read_leaves_room_for_the_others_of_its_client() {
    let mut bench = Bench::new();
    bench.inbox.policy.client_unsent_bytes = BIG;
    bench.subscribe(A, 1).publish(1);
    bench.inbox.peers.get_mut(&A).unwrap().unsent += BIG;
    bench.inbox.unsent += BIG;
    bench.inbox.unsent_budget.take(BIG);
    bench.subscribe(OTHER, 100).publish(3);
    assert_eq!(bench.seen_seqs(), [1, 2, 3, 4]);
}
