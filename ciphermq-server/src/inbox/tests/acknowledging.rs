//! Acknowledgements: credit, confirmations, failures and races.

use super::*;

#[test]
fn prefetch_bounds_unacked_messages_and_a_confirmation_returns_credit() {
    let mut bench = Bench::new();
    bench.subscribe(A, 2).publish(5);
    assert_eq!(bench.seen_seqs(), [1, 2]);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    bench.commit_ack(1);
    assert_eq!(
        bench.seen_seqs(),
        [] as [i64; 0],
        "no delivery may overtake the confirmation"
    );
    bench.inbox.settled(A, [&id(1)], bench.now);
    assert_eq!(bench.settle().seen_seqs(), [3]);
}

#[test]
fn a_consumer_that_need_not_wait_for_confirmations_has_room_once_its_ack_is_read() {
    let mut bench = Bench::new();
    bench.subscribe_as(A, Prefetch::until_acked(2)).publish(9);
    assert_eq!(bench.seen_seqs(), [1, 2]);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    assert_eq!(bench.settle().seen_seqs(), [3]);
    // The same ack again makes no more room.
    bench.inbox.begin_ack(A, &id(1), bench.now);
    assert_eq!(bench.settle().seen_seqs(), [0_i64; 0]);
    bench.inbox.begin_ack(A, &id(2), bench.now);
    assert_eq!(bench.settle().seen_seqs(), [4]);
    // As many again are acked: now the confirmations have to come first.
    bench.inbox.begin_ack(A, &id(3), bench.now);
    assert_eq!(bench.settle().seen_seqs(), [0_i64; 0]);
    bench.commit_ack(2);
    bench.inbox.settled(A, [&id(2)], bench.now);
    assert_eq!(bench.settle().seen_seqs(), [5]);
    bench.disconnect(A).commit_ack(3).subscribe(B, 10);
    assert_eq!(bench.seen_seqs(), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn an_ack_that_fails_takes_its_room_back() {
    let mut bench = Bench::new();
    bench.subscribe_as(A, Prefetch::until_acked(1)).publish(4);
    assert_eq!(bench.seen_seqs(), [1]);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    assert_eq!(bench.settle().seen_seqs(), [2]);
    bench
        .inbox
        .ack_committed(&id(1), &AckOutcome::NotAuthorized, bench.now);
    bench.inbox.begin_ack(A, &id(2), bench.now);
    bench.commit_ack(2);
    bench.inbox.settled(A, [&id(2)], bench.now);
    assert_eq!(bench.settle().seen_seqs(), [0_i64; 0], "1 is unacked");
    bench.ack(A, 1);
    assert_eq!(bench.seen_seqs(), [3]);
}

#[test]
fn credit_waits_for_the_confirmation_also_if_somebody_else_acked_too() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1).publish(2);
    assert_eq!(bench.seen_seqs(), [1]);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    // The same receiver, on a connection that it lost or keeps for acks.
    bench.inbox.begin_ack(B, &id(1), bench.now);
    bench.commit_ack(1);
    assert_eq!(
        bench.settle().seen_seqs(),
        [0_i64; 0],
        "A has not been told yet"
    );
    bench.commit_ack(1);
    bench.inbox.settled(B, [&id(1)], bench.now);
    assert_eq!(
        bench.settle().seen_seqs(),
        [0_i64; 0],
        "A has not been told yet"
    );
    bench.inbox.settled(A, [&id(1)], bench.now);
    assert_eq!(bench.settle().seen_seqs(), [2]);
}

#[test]
fn a_message_whose_ack_is_under_way_is_not_delivered_again() {
    let mut bench = Bench::new();
    bench.subscribe(A, 2).publish(2);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    bench.disconnect(A).subscribe(B, 10);
    assert_eq!(bench.seen_seqs(), [1, 2, 2]);
    bench.commit_ack(1);
    assert_eq!(bench.seen_seqs(), [] as [i64; 0]);
}

#[test]
fn a_message_that_was_never_delivered_here_can_be_acked() {
    let mut bench = Bench::new();
    bench.publish(3).subscribe(A, 1);
    assert_eq!(bench.seen_seqs(), [1]);
    // 2 waits in the window, as after a restart of the server.
    bench.inbox.begin_ack(A, &id(2), bench.now);
    bench.ack(A, 1);
    assert_eq!(
        bench.seen_seqs(),
        [3],
        "2 is set aside while its ack is under way"
    );
    bench.commit_ack(2);
    bench.inbox.settled(A, [&id(2)], bench.now);
    bench.settle().ack(A, 3);
    assert_eq!(bench.seen_seqs(), [] as [i64; 0]);
}

#[test]
fn a_refused_ack_leaves_the_message_with_its_receiver() {
    let mut bench = Bench::new();
    bench.subscribe(A, 5).publish(1);
    bench.inbox.begin_ack(A, &id(1), bench.now);
    bench
        .inbox
        .ack_committed(&id(1), &AckOutcome::NotAuthorized, bench.now);
    bench.disconnect(A).subscribe(B, 5);
    assert_eq!(bench.seen(), [(1, "1".to_owned()), (2, "1".to_owned())]);
}

#[test]
fn acks_of_unknown_messages_leave_nothing_behind() {
    let mut bench = Bench::new();
    bench.inbox.begin_ack(A, &id(77), bench.now);
    bench.inbox.begin_ack(A, &id(77), bench.now);
    bench
        .inbox
        .ack_committed(&id(77), &AckOutcome::NotFound, bench.now);
    assert!(!bench.inbox.in_flight.is_empty());
    bench
        .inbox
        .ack_committed(&id(77), &AckOutcome::NotFound, bench.now);
    assert!(bench.inbox.tidy());
}

#[test]
fn an_ack_on_another_connection_frees_the_holders_credit_at_once() {
    let mut bench = Bench::new();
    bench.subscribe(A, 1).publish(2);
    bench
        .inbox
        .subscribe(OTHER, B, Prefetch::until_confirmed(1));
    bench.inbox.begin_ack(B, &id(1), bench.now);
    bench.commit_ack(1);
    assert_eq!(bench.seen_seqs(), [1, 2]);
}
