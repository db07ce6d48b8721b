//! What one transaction holds, and in which order it is committed, observed and answered.

use super::*;
use crate::store::writer::Parts;

#[tokio::test(start_paused = true)]
async fn submissions_during_a_commit_are_committed_together_in_order() {
    let (scripted, handle, task) = start(WriterSettings::default());
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    let b = publish(&handle, &["b", "again"]).await;
    let x = ack_all(&handle, &["x", "never"]).await;
    let c = publish(&handle, &["c"]).await;
    let rejection = || Rejection {
        ack: ack("y"),
        reason: String::from("why"),
    };
    let y = handle.client(&client("r")).reject(rejection).await;
    let q = handle.client(&client("s")).change(Change::DeclareQueue {
        queue: QueueName::new("q").unwrap(),
        made_by: client("c"),
    });
    handle.delivered(vec![(MessageId::new("z").unwrap(), Time::now())]);
    scripted.gate.add_permits(2);
    assert_eq!(soon(a).await.unwrap(), [stored(1)]);
    assert_eq!(
        soon(b).await.unwrap(),
        [stored(2), Ok(PublishOutcome::Duplicate)]
    );
    assert_eq!(
        soon(x).await.unwrap(),
        [Ok(done()), Ok(AckOutcome::NotFound)]
    );
    assert_eq!(soon(c).await.unwrap(), [stored(3)]);
    assert_eq!(soon(y).await.unwrap(), done());
    assert_eq!(soon(q).await.unwrap(), ChangeOutcome::Queue(QueueId(7)));
    drop(handle);
    soon(task).await.unwrap().unwrap();
    assert_eq!(
        scripted.events(),
        [
            "commit p:a",
            "see [a=1] []",
            "commit p:b,again,c a:x,never r:y d:z c:1",
            "see [b=2,c=3] [x,never=NotFound,y]",
            "close"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn acks_wait_a_moment_for_the_next_message() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    scripted.gate.add_permits(10);
    soon(publish(&handle, &["a"]).await).await.unwrap();
    let acked = ack_all(&handle, &["a"]).await;
    settle().await;
    let next = publish(&handle, &["b"]).await;
    soon(acked).await.unwrap();
    soon(next).await.unwrap();
    // No message comes: the ack is committed alone, and the one after it does not wait.
    let started = Instant::now();
    soon(ack_all(&handle, &["b"]).await).await.unwrap();
    assert!(started.elapsed() <= Duration::from_millis(2));
    let started = Instant::now();
    soon(ack_all(&handle, &["c"]).await).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    let commits = scripted.commits();
    assert_eq!(commits, ["p:a", "p:b a:a", "a:b", "a:c"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_the_commit_and_the_observer() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    let mut a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    settle().await;
    assert!((&mut a).now_or_never().is_none());
    let a = Arc::new(Mutex::new(a));
    let seen = Arc::clone(&a);
    scripted.with(|database| {
        database.on_commit = Some(Box::new(move || {
            let mut answer = seen.lock();
            assert!(
                (&mut *answer).now_or_never().is_none(),
                "answered before the observer has seen it"
            );
        }));
    });
    scripted.gate.add_permits(1);
    settle().await;
    assert_eq!(scripted.events(), ["commit p:a", "see [a=1] []"]);
    let answer = (&mut *a.lock()).now_or_never();
    assert_eq!(answer.unwrap().unwrap(), [stored(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_bounded() {
    let settings = WriterSettings {
        // Each of them is a row of its own.
        max_batch_work: 3 * 22,
        ..WriterSettings::default()
    };
    let (scripted, handle, _task) = start(settings);
    let _first = publish(&handle, &["first"]).await;
    begun(&scripted).await;
    for id in ["a", "b", "c", "d"] {
        drop(publish(&handle, &[id]).await);
    }
    let last = publish(&handle, &["e", "f", "g", "h"]).await;
    scripted.gate.add_permits(10);
    assert_eq!(soon(last).await.unwrap().len(), 4);
    let commits: Vec<String> = scripted
        .events()
        .into_iter()
        .filter(|event| event.starts_with("commit"))
        .collect();
    // A submission is never split.
    assert_eq!(
        commits,
        ["commit p:first", "commit p:a,b,c", "commit p:d,e,f,g,h"]
    );

    let bytes = message("a").envelope.raw().len();
    let (scripted, handle, _task) = start(WriterSettings {
        max_batch_bytes: 2 * bytes,
        ..WriterSettings::default()
    });
    drop(publish(&handle, &["a"]).await);
    begun(&scripted).await;
    for id in ["b", "c", "d"] {
        drop(publish(&handle, &[id]).await);
    }
    scripted.gate.add_permits(10);
    soon(ack_all(&handle, &["x"]).await).await.unwrap();
    let commits: Vec<String> = scripted
        .events()
        .into_iter()
        .filter(|event| event.starts_with("commit"))
        .collect();
    assert_eq!(commits, ["commit p:a", "commit p:b,c", "commit p:d a:x"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_faulty_item_is_refused() {
    let (scripted, handle, _task) = start_open();
    scripted.with(|database| {
        database
            .refused
            .extend(["bad".to_owned(), "worse".to_owned(), "b".to_owned()]);
    });
    let ids = ["1", "2", "bad", "3", "4", "5", "6", "worse"];
    let answers = publish(&handle, &ids).await;
    let acks = ack_all(&handle, &["a", "b", "c"]).await;
    let answers = soon(answers).await.unwrap();
    let refused = Err(WriteError::Refused("no such character".into()));
    for (id, answer) in ids.iter().zip(&answers) {
        assert_eq!(
            answer.is_err(),
            ["bad", "worse"].contains(id),
            "{id}: {answer:?}"
        );
    }
    assert_eq!((&answers[2], &answers[7]), (&refused, &refused));
    assert_eq!(
        [0, 1, 3, 4, 5, 6].map(|at| answers[at].clone()),
        [
            stored(1),
            stored(2),
            stored(3),
            stored(4),
            stored(5),
            stored(6)
        ]
    );
    let acks = soon(acks).await.unwrap();
    assert_eq!(
        acks,
        [
            Ok(done()),
            Err(WriteError::Refused("no such character".into())),
            Ok(done())
        ]
    );
    // The observer saw every commit, in order, and the outcome of the ack.
    let seen: String = scripted
        .events()
        .into_iter()
        .filter(|event| event.starts_with("see"))
        .collect();
    let order: Vec<usize> = ["1=1", "2=2", "3=3", "4=4", "5=5", "6=6"]
        .iter()
        .map(|id| seen.find(id).unwrap())
        .collect();
    assert!(order.is_sorted(), "{seen}");
    assert!(seen.contains("b=NotFound"), "{seen}");
}

#[test]
fn long_batches_are_submitted_in_parts() {
    let stream = StreamId::new(1, 2);
    let consecutive = (0..1100).map(|number| stream.message_id(number).unwrap().to_string());
    let unrelated = (0..100).map(|number| format!("m{number}"));
    let publishes: Vec<Arc<Publish>> = consecutive
        .chain(unrelated)
        .map(|id| message(&id))
        .collect();
    let mut open = Parts::default();
    let mut parts: Vec<_> = publishes
        .iter()
        .filter_map(|publish| open.push(Arc::clone(publish)))
        .collect();
    parts.extend(open.last());
    assert_eq!(
        parts.iter().map(Vec::len).collect::<Vec<_>>(),
        [1014, 171, 15]
    );
    let joined = parts
        .concat()
        .into_iter()
        .map(|publish| publish.envelope.message_id.clone());
    assert!(
        joined.eq(publishes
            .iter()
            .map(|publish| publish.envelope.message_id.clone()))
    );
    assert!(Parts::default().last().is_none());
}
