use std::time::Duration;

use ciphermq_protocol::ErrorCode;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LATE_WAIT: Duration = Duration::from_secs(2);
const RETRY: Retry = Retry {
    attempts: 3,
    timeout: Duration::from_secs(10),
};

fn limits(messages: usize, bytes: usize) -> BatchLimits {
    BatchLimits {
        messages,
        bytes,
        time: Duration::from_millis(5),
    }
}

/// Creates a connected outbox of numbers, each item 10 bytes long.
fn outbox(messages: usize, count: u64, now: Instant) -> Outbox<u64> {
    let mut outbox = Outbox::new(limits(messages, 1000), LATE_WAIT, RETRY, now);
    outbox.connected();
    push(&mut outbox, 0..count, now);
    outbox
}

fn push(outbox: &mut Outbox<u64>, items: std::ops::Range<u64>, now: Instant) {
    for item in items {
        outbox.push(now, item, 10, 1);
    }
}

fn lines(outbox: &mut Outbox<u64>, now: Instant) -> Vec<Vec<u64>> {
    std::iter::from_fn(|| outbox.take_line(now, 1000)).collect()
}

fn expired(outbox: &mut Outbox<u64>, now: Instant) -> Vec<u64> {
    outbox
        .expire(now)
        .into_iter()
        .map(|expired| expired.item)
        .collect()
}

#[test]
fn a_lone_item_is_sent_at_once_and_later_ones_are_batched() {
    let now = Instant::now();
    let mut outbox = outbox(3, 1, now);
    assert_eq!(lines(&mut outbox, now), [[0]]);
    push(&mut outbox, 1..3, now);
    assert_eq!(lines(&mut outbox, now), [[0; 0]; 0]);
    assert_eq!(outbox.deadline(true), Some(now + Duration::from_millis(5)));
    assert_eq!(
        outbox.deadline(false),
        Some(now + 10 * SECOND),
        "nothing can be sent: only the try's end counts"
    );
    push(&mut outbox, 3..4, now);
    assert_eq!(lines(&mut outbox, now), [[1, 2, 3]], "a full batch goes");
    push(&mut outbox, 4..5, now);
    assert_eq!(
        lines(&mut outbox, now + Duration::from_millis(5)),
        [[4]],
        "and what has waited long enough"
    );
    push(&mut outbox, 5..6, now);
    outbox.flush();
    assert_eq!(lines(&mut outbox, now), [[5]], "and what is flushed");
    push(&mut outbox, 6..7, now);
    for _ in 0..4 {
        assert_eq!(lines(&mut outbox, now), [[0; 0]; 0]);
        outbox.line_answered(now);
    }
    assert_eq!(
        lines(&mut outbox, now),
        [[6]],
        "and what is there when nothing is under way any more"
    );
}

#[test]
fn when_answers_come_late_items_wait_longer_for_a_full_batch() {
    let mut now = Instant::now();
    let far = SECOND / 10;
    let mut outbox = outbox(3, 6, now);
    assert_eq!(lines(&mut outbox, now), [[0, 1, 2], [3, 4, 5]]);
    now += far;
    outbox.line_answered(now);
    push(&mut outbox, 6..7, now);
    assert_eq!(
        outbox.deadline(true),
        Some(now + Duration::from_millis(5)),
        "the server is far away, and not busy"
    );
    now += SECOND;
    outbox.line_answered(now);
    assert_eq!(lines(&mut outbox, now), [[6]], "nothing is under way");
    push(&mut outbox, 7..8, now);
    let waited = now + SECOND;
    assert_eq!(outbox.deadline(true), Some(waited), "the last one was late");
    let almost = waited - Duration::from_millis(1);
    assert_eq!(lines(&mut outbox, almost), [[0; 0]; 0]);
    assert_eq!(lines(&mut outbox, waited), [[7]]);
    push(&mut outbox, 8..11, waited);
    assert_eq!(
        lines(&mut outbox, waited),
        [[8, 9, 10]],
        "a full batch goes"
    );
    for item in 0..6 {
        outbox.settle(item);
    }
    outbox.connected();
    assert_eq!(lines(&mut outbox, waited), [vec![6, 7, 8], vec![9, 10]]);
    push(&mut outbox, 11..12, waited);
    assert_eq!(
        outbox.deadline(true),
        Some(waited + Duration::from_millis(5)),
        "a new connection may be another way"
    );
}

#[test]
fn the_wait_for_a_full_batch_is_bounded() {
    let mut now = Instant::now();
    let mut outbox = outbox(3, 6, now);
    lines(&mut outbox, now);
    outbox.line_answered(now);
    now += 600 * SECOND;
    outbox.line_answered(now);
    push(&mut outbox, 6..7, now);
    lines(&mut outbox, now);
    push(&mut outbox, 7..8, now);
    assert_eq!(outbox.send_time(true), Some(now + LATE_WAIT));
}

#[test]
fn what_is_due_is_sent_at_the_end_of_a_pause() {
    let now = Instant::now();
    let mut outbox = outbox(3, 3, now);
    lines(&mut outbox, now);
    outbox.slow_down(now, 0, SECOND);
    outbox.line_answered(now);
    outbox.disconnected(now);
    outbox.connected();
    assert_eq!(outbox.send_time(true), Some(now + SECOND), "sent before");
    let mut outbox = self::outbox(3, 1, now);
    lines(&mut outbox, now);
    outbox.slow_down(now, 0, SECOND);
    outbox.settle(0);
    outbox.line_answered(now + SECOND);
    push(&mut outbox, 1..2, now + SECOND);
    outbox.slow_down(now + SECOND, 1, SECOND);
    assert_eq!(
        outbox.send_time(true),
        Some(now + 2 * SECOND),
        "nothing is under way"
    );
}

#[test]
fn without_a_time_for_batches_nothing_waits() {
    let now = Instant::now();
    let limits = BatchLimits {
        time: Duration::ZERO,
        ..limits(3, 1000)
    };
    let mut outbox = Outbox::new(limits, LATE_WAIT, RETRY, now);
    outbox.connected();
    push(&mut outbox, 0..6, now);
    assert_eq!(lines(&mut outbox, now), [[0, 1, 2], [3, 4, 5]]);
    outbox.line_answered(now + SECOND);
    push(&mut outbox, 6..7, now + SECOND);
    assert_eq!(lines(&mut outbox, now + SECOND), [[6]]);
}

#[test]
fn batches_respect_the_byte_limit_and_a_larger_item_is_sent_alone() {
    let now = Instant::now();
    let mut outbox = Outbox::new(limits(100, 35), LATE_WAIT, RETRY, now);
    outbox.connected();
    push(&mut outbox, 0..4, now);
    outbox.push(now, 4, 500, 1);
    push(&mut outbox, 5..6, now);
    outbox.flush();
    assert_eq!(
        lines(&mut outbox, now),
        [vec![0, 1, 2], vec![3], vec![4], vec![5]]
    );
    assert_eq!(outbox.bytes(4), 500);
}

#[test]
fn lines_respect_the_connections_limit() {
    let now = Instant::now();
    let mut outbox = outbox(100, 5, now);
    outbox.flush();
    let mut taken = Vec::new();
    while let Some(line) = outbox.take_line(now, 20) {
        taken.push(line);
    }
    assert_eq!(taken, [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn after_a_loss_unanswered_items_are_resent_in_order() {
    let now = Instant::now();
    let mut outbox = outbox(2, 6, now);
    assert_eq!(lines(&mut outbox, now), [[0, 1], [2, 3], [4, 5]]);
    assert_eq!(outbox.settle(1), Some(1));
    assert_eq!(outbox.settle(2), Some(2));
    outbox.disconnected(now);
    push(&mut outbox, 6..7, now);
    assert_eq!(
        lines(&mut outbox, now),
        [[0; 0]; 0],
        "without a connection nothing is sent"
    );
    outbox.connected();
    assert_eq!(
        lines(&mut outbox, now),
        [vec![0, 3], vec![4, 5]],
        "the new one waits for company"
    );
    assert_eq!(lines(&mut outbox, now + Duration::from_millis(5)), [[6]]);
}

#[test]
fn space_is_released_when_all_earlier_items_are_settled() {
    let now = Instant::now();
    let mut outbox = outbox(3, 3, now);
    lines(&mut outbox, now);
    outbox.settle(1);
    outbox.settle(2);
    assert_eq!(outbox.take_released(), Released::default());
    assert_eq!(
        (outbox.settle(0), outbox.settle(0), outbox.settled_to()),
        (Some(0), None, 3)
    );
    assert_eq!(
        outbox.take_released(),
        Released {
            items: 3,
            weight: 3
        }
    );
    assert!(outbox.is_empty());
    assert_eq!(outbox.deadline(true), None, "nothing is left to wait for");
}

#[test]
fn an_item_has_three_attempts_of_ten_seconds() {
    let now = Instant::now();
    let mut outbox = outbox(10, 2, now);
    assert_eq!(lines(&mut outbox, now), [[0, 1]]);
    assert_eq!(outbox.deadline(true), Some(now + 10 * SECOND));
    assert_eq!(expired(&mut outbox, now + 9 * SECOND), [0u64; 0]);
    assert_eq!(lines(&mut outbox, now + 9 * SECOND), [[0; 0]; 0]);
    for second in [10, 20] {
        let now = now + second * SECOND;
        assert_eq!(expired(&mut outbox, now), [0u64; 0]);
        assert_eq!(
            lines(&mut outbox, now),
            [[0, 1]],
            "sent again after {second} s"
        );
        assert_eq!(lines(&mut outbox, now), [[0; 0]; 0]);
    }
    assert_eq!(expired(&mut outbox, now + 30 * SECOND), [0, 1]);
    assert!(outbox.is_empty());
}

#[test]
fn retries_precede_new_items_and_skip_answered_ones() {
    let now = Instant::now();
    let mut outbox = outbox(3, 3, now);
    lines(&mut outbox, now);
    outbox.settle(1);
    push(&mut outbox, 3..4, now + 10 * SECOND);
    outbox.expire(now + 10 * SECOND);
    assert_eq!(lines(&mut outbox, now + 10 * SECOND), [[0, 2, 3]]);
}

#[test]
fn a_loss_neither_ends_nor_starts_an_attempt() {
    let now = Instant::now();
    let mut outbox = outbox(10, 1, now);
    for second in 0..30 {
        let now = now + second * SECOND;
        assert_eq!(expired(&mut outbox, now), [0u64; 0], "{second} s");
        outbox.disconnected(now);
        outbox.connected();
        assert_eq!(lines(&mut outbox, now), [[0]]);
    }
    assert_eq!(expired(&mut outbox, now + 30 * SECOND), [0]);
}

#[test]
fn without_a_connection_items_fail_after_the_time_of_all_attempts() {
    let start = Instant::now();
    let mut outbox = outbox(1, 1, start);
    assert_eq!(lines(&mut outbox, start), [[0]]);
    outbox.disconnected(start + 5 * SECOND);
    push(&mut outbox, 1..2, start + SECOND);
    push(&mut outbox, 2..3, start + 20 * SECOND);
    for second in [10, 20] {
        assert_eq!(expired(&mut outbox, start + second * SECOND), [0u64; 0]);
    }
    assert_eq!(expired(&mut outbox, start + 29 * SECOND), [0u64; 0]);
    assert_eq!(
        expired(&mut outbox, start + 30 * SECOND),
        [0],
        "it was sent at 0 s"
    );
    assert_eq!(outbox.deadline(true), Some(start + 35 * SECOND));
    assert_eq!(
        expired(&mut outbox, start + 35 * SECOND),
        [1],
        "the connection was lost at 5 s"
    );
    assert_eq!(expired(&mut outbox, start + 49 * SECOND), [0u64; 0]);
    assert_eq!(
        expired(&mut outbox, start + 50 * SECOND),
        [2],
        "it came at 20 s"
    );
    push(&mut outbox, 3..4, start + 60 * SECOND);
    outbox.connected();
    assert_eq!(lines(&mut outbox, start + 60 * SECOND), [[3]]);
    assert_eq!(outbox.deadline(true), Some(start + 70 * SECOND));
}

#[test]
fn an_unknown_outcome_waits_for_the_end_of_its_attempt() {
    let now = Instant::now();
    let mut outbox = outbox(10, 1, now);
    lines(&mut outbox, now);
    outbox.defer(
        0,
        ErrorReply::new(ErrorCode::StorageUnavailable, "the store is away"),
    );
    outbox.line_answered(now);
    assert_eq!(lines(&mut outbox, now + 9 * SECOND), [[0; 0]; 0]);
    outbox.expire(now + 10 * SECOND);
    assert_eq!(lines(&mut outbox, now + 10 * SECOND), [[0]]);
    outbox.expire(now + 20 * SECOND);
    let failed = outbox.expire(now + 30 * SECOND);
    assert_eq!(
        failed[0].last_error.as_ref().unwrap().code,
        Some(ErrorCode::StorageUnavailable)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    Send,
    Answer(u8),
    Lose,
    Connect,
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u8..6).prop_map(Step::Push),
        Just(Step::Send),
        (0u8..20).prop_map(Step::Answer),
        Just(Step::Lose),
        Just(Step::Connect),
        (1u8..15).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Every item is settled exactly once, by an answer or by its last attempt, and all window
    /// space is released; on one connection nothing is sent for the first time before an earlier
    /// item.
    #[test]
    fn every_item_is_settled_exactly_once(steps in proptest::collection::vec(step(), 0..120)) {
        let mut now = Instant::now();
        let mut outbox = Outbox::new(limits(3, 1000), LATE_WAIT, RETRY, now);
        let (mut pushed, mut settled, mut released) = (0u64, std::collections::BTreeSet::new(), 0);
        let mut newest = None;
        for step in steps {
            match step {
                Step::Push(count) => {
                    push(&mut outbox, pushed..pushed + u64::from(count), now);
                    pushed += u64::from(count);
                }
                Step::Send => for line in lines(&mut outbox, now) {
                    prop_assert!(!line.is_empty() && line.len() <= 3);
                    for number in line {
                        prop_assert!(!settled.contains(&number), "{} was sent after it was \
                            settled", number);
                        if newest.is_none_or(|newest| number > newest) {
                            prop_assert!(newest.is_none_or(|newest| (newest + 1..number).all(|skipped| settled.contains(&skipped))));
                            newest = Some(number);
                        }
                    }
                },
                Step::Answer(number) => {
                    if let Some(item) = outbox.settle(u64::from(number)) {
                        prop_assert!(settled.insert(item));
                    }
                    outbox.line_answered(now);
                }
                Step::Lose => outbox.disconnected(now),
                Step::Connect => {
                    outbox.connected();
                    newest = None;
                }
                Step::Wait(seconds) => {
                    now += u32::from(seconds) * SECOND;
                    for item in expired(&mut outbox, now) {
                        prop_assert!(settled.insert(item));
                    }
                }
            }
            released += outbox.take_released().items;
            prop_assert!(outbox.deadline(false).is_none_or(|deadline| deadline > now));
        }
        // Without further input every attempt ends.
        outbox.disconnected(now);
        for _ in 0..40 {
            now += SECOND;
            for item in expired(&mut outbox, now) {
                prop_assert!(settled.insert(item));
            }
        }
        released += outbox.take_released().items;
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(settled.len(), usize::try_from(pushed).unwrap());
        prop_assert_eq!(released, settled.len());
    }
}
