//! Full disks, and databases that fail, hang, lose commits or never come back.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_publishes_and_takes_acks() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    scripted.with(|database| database.steps = [Step::Full].into());
    let first = publish(&handle, &["a", "b"]).await;
    let acked = ack_all(&handle, &["x"]).await;
    scripted.gate.add_permits(100);
    assert_eq!(
        soon(first).await.unwrap(),
        [Err(WriteError::Full), Err(WriteError::Full)]
    );
    assert_eq!(soon(acked).await.unwrap(), [Ok(done())]);
    assert_eq!(
        scripted.events(),
        ["commit p:a,b a:x", "commit a:x", "see [] [x]"]
    );

    // Even acks find no room: they are retried.
    scripted.with(|database| database.steps = [Step::Full, Step::Full, Step::Full].into());
    assert_eq!(
        soon(ack_all(&handle, &["y"]).await).await.unwrap(),
        [Ok(done())]
    );

    // Meanwhile senders are refused at once, not at their deadline.
    scripted
        .with(|database| database.steps = std::iter::repeat_with(|| Step::Full).take(8).collect());
    let trying = ack_all(&handle, &["y"]).await;
    let with_it = publish(&handle, &["b"]).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let after_it = publish(&handle, &["c"]).await;
    assert_eq!(soon(with_it).await, Err(WriteError::Full));
    assert_eq!(soon(after_it).await, Err(WriteError::Full));
    assert_eq!(soon(trying).await.unwrap(), [Ok(done())]);

    // Below the reserve nothing is tried.
    scripted.with(|database| {
        database.no_room = true;
        database.events.clear();
    });
    let refused = publish(&handle, &["c"]).await;
    assert_eq!(soon(refused).await, Err(WriteError::Full));
    assert_eq!(
        soon(ack_all(&handle, &["z"]).await).await.unwrap(),
        [Ok(done())]
    );
    assert_eq!(scripted.events(), ["commit a:z", "see [] [z]"]);
    scripted.with(|database| database.no_room = false);
    assert!(soon(publish(&handle, &["d"]).await).await.unwrap()[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_loses_the_database_repeatedly_is_split() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    scripted.with(|database| database.steps = [Step::Unavailable, Step::Unknown(false)].into());
    let acks = ack_all(&handle, &["a", "b", "c"]).await;
    scripted.gate.add_permits(10);
    assert_eq!(
        soon(acks).await.unwrap(),
        [Ok(done()), Ok(done()), Ok(done())]
    );
    let commits = scripted.commits();
    assert_eq!(commits, ["a:a,b,c", "a:a,b,c", "a:a", "a:b,c"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_resolved_before_anything_else() {
    for happened in [true, false] {
        let (scripted, handle, _task) = start(WriterSettings::default());
        scripted.with(|database| {
            database.steps = [Step::Unknown(happened)].into();
            database.failing_reopens = 3;
        });
        let a = publish(&handle, &["a"]).await;
        let x = ack_all(&handle, &["x"]).await;
        begun(&scripted).await;
        let b = publish(&handle, &["b"]).await;
        scripted.gate.add_permits(10);
        assert_eq!(soon(a).await.unwrap(), [stored(1)]);
        assert_eq!(soon(x).await.unwrap(), [Ok(done())]);
        assert_eq!(soon(b).await.unwrap(), [stored(2)]);
        let again: &[&str] = if happened { &[] } else { &["commit p:a a:x"] };
        let expected = [
            &["commit p:a a:x"],
            again,
            &["see [a=1] [x]", "commit p:b", "see [b=2] []"],
        ]
        .concat();
        assert_eq!(scripted.events(), expected);
        assert_eq!(
            scripted.with(|database| (database.commit, database.reopened)),
            (2, 4)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn publishes_wait_until_their_deadline_and_acks_indefinitely() {
    let (scripted, handle, _task) = start_open();
    scripted.with(|database| {
        database.steps = [Step::Unavailable].into();
        database.failing_reopens = 500;
    });
    let started = Instant::now();
    let a = publish(&handle, &["a"]).await;
    let x = ack_all(&handle, &["x"]).await;
    // The first commit takes the publish with it; what waits behind it has a later deadline.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let b = publish(&handle, &["b"]).await;
    assert_eq!(soon(a).await, Err(WriteError::Unavailable));
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(8) && waited < Duration::from_millis(8200),
        "{waited:?}"
    );
    assert_eq!(soon(b).await, Err(WriteError::Unavailable));
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(10) && waited < Duration::from_millis(10_200),
        "{waited:?}"
    );
    assert_eq!(soon(x).await.unwrap(), [Ok(done())]);
    // The batch in the commit is committed when the database is back, and observed; what waited is
    // dropped.
    assert_eq!(
        scripted.events(),
        ["commit p:a a:x", "commit p:a a:x", "see [a=1] [x]"]
    );
    let c = publish(&handle, &["c"]).await;
    assert_eq!(soon(c).await.unwrap(), [stored(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_holds_up_nobody_beyond_their_deadline() {
    let (scripted, handle, _task) = start(WriterSettings::default());
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    let b = publish(&handle, &["b"]).await;
    assert_eq!(soon(a).await, Err(WriteError::Unavailable));
    assert_eq!(soon(b).await, Err(WriteError::Unavailable));
    scripted.gate.add_permits(1);
    settle().await;
    assert_eq!(scripted.events(), ["commit p:a", "see [a=1] []"]);
}

#[tokio::test(start_paused = true)]
async fn ends_when_another_server_has_taken_over() {
    let (scripted, handle, task) = start_open();
    scripted.with(|database| {
        database.steps = [Step::Unavailable].into();
        database.taken_over = true;
    });
    let a = publish(&handle, &["a"]).await;
    assert_eq!(soon(a).await, Err(WriteError::Closed));
    assert!(matches!(soon(task).await.unwrap(), Err(Error::Unusable(_))));
    assert_eq!(
        soon(ack_all(&handle, &["x"]).await).await,
        Err(WriteError::Closed)
    );
    assert_eq!(scripted.events(), ["commit p:a", "close"]);
}

#[tokio::test(start_paused = true)]
async fn ends_when_the_database_has_lost_commits() {
    for step in [Step::Unavailable, Step::Unknown(false)] {
        let (scripted, handle, task) = start_open();
        soon(publish(&handle, &["a"]).await).await.unwrap();
        soon(publish(&handle, &["b"]).await).await.unwrap();
        scripted.with(|database| {
            database.steps = [step].into();
            database.lost_commits = 1;
        });
        let lost = publish(&handle, &["c"]).await;
        assert_eq!(soon(lost).await, Err(WriteError::Closed));
        assert!(
            matches!(soon(task).await.unwrap(), Err(Error::Corrupt(text)) if text.contains("backup"))
        );
    }
}
