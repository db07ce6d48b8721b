use ciphermq_protocol::message_id::StreamId;
use proptest::prelude::*;

use super::*;

const MESSAGES: i64 = 20;

fn stream() -> StreamId {
    StreamId::new(5, 6)
}

fn id(at: i64) -> MessageId {
    stream()
        .message_id(u64::try_from(100 + at).unwrap())
        .unwrap()
}

fn time(second: i64) -> Time {
    jiff::Timestamp::from_second(1_757_315_000 + second)
        .unwrap()
        .into()
}

fn batch(dispositions: Vec<DispositionRange>) -> BatchRow {
    BatchRow {
        first_seq: 1000,
        messages: MESSAGES,
        queues: vec![QueueId(3), QueueId(9)],
        stream: Stream::Native(stream()).to_string(),
        position: 100,
        sender: Some("s".to_owned()),
        receiver: Some("r".to_owned()),
        sent_time: Some(time(10).to_string()),
        route: None,
        has_suite: true,
        digests: None,
        bytes: 1000,
        dispositions,
    }
}

/// Returns the dispositions in the database after these entries are written.
fn written(mut runs: Vec<DispositionRange>, entries: &SettlementRows<'_>) -> Vec<DispositionRange> {
    runs.retain(|run| !entries.removed.contains(&(1000, run.from)));
    for (batch, run) in &entries.written {
        assert_eq!(*batch, 1000);
        runs.retain(|old| old.from != run.from);
        runs.push(run.clone());
    }
    runs.sort_by_key(|run| run.from);
    runs
}

#[derive(Debug, Clone)]
enum Step {
    Ack(i64, i64),
    Reject(i64, i64),
    Deliver(i64, i64),
    /// Starts a new transaction.
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let (at, second) = (0..MESSAGES, 0..30i64);
    prop_oneof![
        4 => (at.clone(), second.clone()).prop_map(|(at, second)| Step::Ack(at, second)),
        1 => (at.clone(), second.clone()).prop_map(|(at, second)| Step::Reject(at, second)),
        2 => (at, second).prop_map(|(at, second)| Step::Deliver(at, second)),
        1 => Just(Step::Commit),
    ]
}

fn ack(at: i64, second: i64) -> Ack {
    Ack {
        message_id: id(at),
        client_id: ClientId::new("r").unwrap(),
        delivered_time: None,
        time: time(second),
    }
}

proptest! {
    /// Whatever happens to a batch, each message's disposition is as if it were stored by itself.
    #[test]
    fn runs_say_what_rows_would(steps in prop::collection::vec(step(), 0..120)) {
        // Delivered, acknowledged, rejected.
        let mut rows: Vec<(Option<i64>, Option<i64>, Option<i64>)> = vec![(None, None, None); 20];
        let mut runs = Vec::new();
        let mut settlement = Settlement::default();
        settlement.add(batch(Vec::new())).unwrap();
        for step in steps.into_iter().chain([Step::Commit]) {
            match step {
                Step::Ack(at, second) | Step::Reject(at, second) => {
                    let is_ack = matches!(step, Step::Ack(..));
                    let outcome = if is_ack {
                        settlement.ack(&ack(at, second))
                    } else {
                        settlement.reject(&Rejection { ack: ack(at, second), reason: String::new() })
                    };
                    let row = &mut rows[usize::try_from(at).unwrap()];
                    let expected = match row {
                        (_, Some(_), _) if !is_ack => AckOutcome::NotFound,
                        (_, None, None) => {
                            let delivered = *row.0.get_or_insert(second.max(10));
                            let settled = Some(second.max(delivered));
                            if is_ack { row.1 = settled } else { row.2 = settled }
                            let seq = 1000 + 2 * at;
                            AckOutcome::Done(vec![
                                (QueueId(3), crate::store::Seq(seq)),
                                (QueueId(9), crate::store::Seq(seq + 1)),
                            ])
                        }
                        _ => AckOutcome::AlreadyDone,
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::Deliver(at, second) => {
                    settlement.deliver(&id(at), time(second));
                    rows[usize::try_from(at).unwrap()].0.get_or_insert(second.max(10));
                }
                Step::Commit => {
                    let entries = settlement.rows();
                    runs = written(runs, &entries);
                    let all = rows.iter().all(|row| row.1.is_some() || row.2.is_some());
                    prop_assert!(entries.finished.is_empty() || all);
                    settlement = Settlement::default();
                    settlement.add(batch(runs.clone())).unwrap();
                    for (at, row) in (0..).zip(&rows) {
                        let mut dispositions = runs.iter().filter(|run| run.contains(at)).map(|run| &run.disposition);
                        let disposition = dispositions.next();
                        prop_assert!(dispositions.next().is_none());
                        let text = |second: Option<i64>| second.map(|second| time(second).to_string());
                        prop_assert_eq!(disposition.map(|disposition| disposition.delivered.to_string()), text(row.0));
                        let settled = |of: fn(&Disposition) -> &Option<Arc<str>>| disposition.and_then(|disposition| of(disposition).as_ref().map(ToString::to_string));
                        prop_assert_eq!(settled(|disposition| &disposition.acknowledged), text(row.1));
                        prop_assert_eq!(settled(|disposition| &disposition.rejected), text(row.2));
                        let state = settlement.state(&id(at)).unwrap().unwrap();
                        prop_assert_eq!(state.waiting.is_empty(), row.1.is_some() || row.2.is_some());
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_settlement_finishes_a_batch_and_no_earlier_one() {
    let mut settlement = Settlement::default();
    settlement.add(batch(Vec::new())).unwrap();
    for at in 0..MESSAGES - 1 {
        settlement.ack(&ack(at, 20));
    }
    assert!(settlement.rows().finished.is_empty());
    settlement.reject(&Rejection {
        ack: ack(MESSAGES - 1, 21),
        reason: "no".to_owned(),
    });
    let entries = settlement.rows();
    assert_eq!(entries.finished.len(), 1);
    assert_eq!(entries.rejected.len(), 1);
    assert_eq!(entries.written.len(), 2);
}

#[test]
fn ids_beside_the_batch_are_not_in_it() {
    let mut settlement = Settlement::default();
    settlement.add(batch(Vec::new())).unwrap();
    for at in [-1, MESSAGES] {
        assert_eq!(settlement.ack(&ack(at, 20)), AckOutcome::NotFound);
    }
    let other = Ack {
        message_id: StreamId::new(5, 7).message_id(100).unwrap(),
        ..ack(0, 20)
    };
    assert_eq!(settlement.ack(&other), AckOutcome::NotFound);
}
