//! Random sequences of events, against what must hold after each of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Publish(usize),
    Subscribe(u64, u32, bool),
    Disconnect(u64),
    BeginAck(u64, usize),
    CommitAcks,
    Settle(u64),
    Pass(u64),
    Expire,
    Resend(usize),
    LoadLate,
    Purge,
    PurgeDuringLoad,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1usize..6).prop_map(Act::Publish),
        2 => (1u64..4, 1u32..5, any::<bool>()).prop_map(|(c, prefetch, waits)| Act::Subscribe(c, prefetch, waits)),
        1 => (1u64..4).prop_map(Act::Disconnect),
        4 => (1u64..4, 0usize..40).prop_map(|(c, nth)| Act::BeginAck(c, nth)),
        3 => Just(Act::CommitAcks),
        3 => (1u64..4).prop_map(Act::Settle),
        1 => (1u64..40).prop_map(Act::Pass),
        1 => Just(Act::Expire),
        1 => (0usize..40).prop_map(Act::Resend),
        1 => Just(Act::LoadLate),
        1 => Just(Act::Purge),
        1 => Just(Act::PurgeDuringLoad),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: what is acked or purged never comes again, and in the end everything else
    /// comes, in order.
    #[test]
    fn nothing_is_lost_and_nothing_acked_is_delivered_again(acts in proptest::collection::vec(act(), 1..80)) {
        let mut bench = Bench::new();
        let mut acked = BTreeSet::new();
        let mut begun: Vec<(ConnectionId, i64)> = Vec::new();
        let mut unsettled: Vec<(ConnectionId, i64)> = Vec::new();
        let mut first_seen = Vec::new();
        for act in acts {
            match act {
                Act::Publish(count) => { bench.publish(count); }
                Act::Subscribe(c, messages, waits) => {
                    let prefetch = if waits {
                        Prefetch::until_confirmed(messages)
                    } else {
                        Prefetch::until_acked(messages)
                    };
                    bench.subscribe_as(ConnectionId(c), prefetch);
                }
                Act::Disconnect(c) => { bench.disconnect(ConnectionId(c)); }
                Act::BeginAck(c, nth) => {
                    if let Some(seq) = bench.stored.keys().nth(nth).copied() {
                        bench.inbox.begin_ack(ConnectionId(c), &id(seq.0), bench.now);
                        begun.push((ConnectionId(c), seq.0));
                        bench.settle();
                    }
                }
                Act::CommitAcks => {
                    for (connection, seq) in std::mem::take(&mut begun) {
                        acked.insert(seq);
                        bench.commit_ack(seq);
                        unsettled.push((connection, seq));
                    }
                }
                Act::Settle(c) => {
                    unsettled.retain(|(connection, seq)| {
                        if connection.0 == c {
                            bench.inbox.settled(*connection, [&id(*seq)], bench.now);
                        }
                        connection.0 != c
                    });
                    bench.settle();
                }
                Act::Pass(seconds) => { bench.pass(seconds); }
                Act::Expire => {
                    let now = bench.now;
                    bench.inbox.expire(now, |_| None);
                    bench.settle();
                }
                Act::Resend(nth) => {
                    if let Some(seq) = bench.stored.keys().nth(nth).copied() {
                        bench.inbox.resend(&id(seq.0), bench.now);
                        bench.settle();
                    }
                }
                Act::LoadLate => {
                    // A read whose answer is older than what happens before it comes.
                    let actions = bench.inbox.poll(bench.clock());
                    prop_assert!(actions.dispatches.is_empty());
                    let pages: Vec<_> = actions.loads.into_iter().map(|load| (bench.page(&load), load)).collect();
                    for (connection, seq) in std::mem::take(&mut begun) {
                        acked.insert(seq);
                        bench.commit_ack(seq);
                        unsettled.push((connection, seq));
                    }
                    for (page, load) in pages {
                        bench.inbox.loaded(load, page);
                    }
                    bench.settle();
                }
                Act::Purge => acked.extend(bench.purge()),
                Act::PurgeDuringLoad => {
                    let actions = bench.inbox.poll(bench.clock());
                    prop_assert!(actions.dispatches.is_empty());
                    let pages: Vec<_> = actions.loads.into_iter().map(|load| (bench.page(&load), load)).collect();
                    acked.extend(bench.purge());
                    for (page, load) in pages {
                        bench.inbox.loaded(load, page);
                    }
                    bench.settle();
                }
            }
            for seq in bench.seen_seqs() {
                prop_assert!(!acked.contains(&seq), "{seq} was acked");
                if !first_seen.contains(&seq) {
                    first_seen.push(seq);
                }
            }
        }
        // A patient consumer gets and acks what is left, also what was parked.
        for c in 1..4 {
            bench.disconnect(ConnectionId(c));
        }
        for seq in bench.seen_seqs() {
            prop_assert!(!acked.contains(&seq), "{seq} was acked");
            if !first_seen.contains(&seq) {
                first_seen.push(seq);
            }
        }
        for (_, seq) in begun {
            acked.insert(seq);
            bench.commit_ack(seq);
        }
        bench.subscribe(ConnectionId(9), 1);
        for _ in 0..10_000 {
            let seen = bench.seen_seqs();
            if seen.is_empty() && bench.stored.is_empty() {
                break;
            }
            for seq in seen {
                prop_assert!(!acked.contains(&seq), "{seq} was acked");
                acked.insert(seq);
                if !first_seen.contains(&seq) {
                    first_seen.push(seq);
                }
                bench.ack(ConnectionId(9), seq);
            }
            bench.pass(301);
        }
        prop_assert!(bench.stored.is_empty(), "{:?} never came", bench.stored);
        prop_assert!(first_seen.is_sorted(), "first deliveries in order: {:?}", first_seen);
        bench.disconnect(ConnectionId(9));
        prop_assert!(bench.inbox.tidy(), "{:?}", bench.inbox);
        prop_assert_eq!(bench.budget.used(), 0);
    }
}
