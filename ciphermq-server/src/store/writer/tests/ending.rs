//! The end of the writer, and what it does when it is idle.

use super::*;

#[tokio::test(start_paused = true)]
async fn commits_what_waits_before_it_ends() {
    let (scripted, handle, task) = start(WriterSettings::default());
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    let b = publish(&handle, &["b"]).await;
    let x = ack_all(&handle, &["x"]).await;
    handle.shutdown(Instant::now() + Duration::from_secs(5));
    assert_eq!(
        soon(publish(&handle, &["late"]).await).await,
        Err(WriteError::Closed)
    );
    scripted.gate.add_permits(10);
    soon(task).await.unwrap().unwrap();
    assert_eq!(soon(a).await.unwrap(), [stored(1)]);
    assert_eq!(soon(b).await.unwrap(), [stored(2)]);
    assert_eq!(soon(x).await.unwrap(), [Ok(done())]);
    assert_eq!(
        soon(ack_all(&handle, &["y"]).await).await,
        Err(WriteError::Closed)
    );
    assert_eq!(scripted.events().last().map(String::as_str), Some("close"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_indefinitely() {
    // The database is away.
    let (scripted, handle, task) = start_open();
    scripted.with(|database| {
        database.steps = [Step::Unavailable].into();
        database.failing_reopens = usize::MAX;
    });
    let x = ack_all(&handle, &["x"]).await;
    settle().await;
    let started = Instant::now();
    handle.shutdown(started + Duration::from_secs(5));
    soon(task).await.unwrap().unwrap();
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(soon(x).await, Err(WriteError::Closed));

    // A commit hangs, and all handles are dropped.
    let (scripted, handle, task) = start(WriterSettings {
        close_timeout: Duration::from_secs(3),
        ..WriterSettings::default()
    });
    let x = ack_all(&handle, &["x"]).await;
    begun(&scripted).await;
    drop(handle);
    let started = Instant::now();
    soon(task).await.unwrap().unwrap();
    assert_eq!(
        (started.elapsed().as_secs(), scripted.events()),
        (3, vec![String::from("close")])
    );
    assert_eq!(soon(x).await, Err(WriteError::Closed));
}

#[tokio::test(start_paused = true)]
async fn maintains_the_database_when_idle() {
    let day = Duration::from_secs(24 * 3600);
    let (scripted, handle, _task) = start(WriterSettings {
        metadata_retention: Some(day),
        ..WriterSettings::default()
    });
    scripted.gate.add_permits(10);
    soon(publish(&handle, &["a"]).await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // As long as there is more to do.
    let maintained = scripted.with(|database| database.maintained.clone());
    assert_eq!(maintained.len(), 3);
    let before = maintained[0].unwrap().timestamp();
    let age = Time::now().timestamp().duration_since(before);
    assert!(
        age.as_secs() >= 24 * 3600 && age.as_secs() < 24 * 3600 + 60,
        "{age:?}"
    );
    // Commits go on.
    soon(publish(&handle, &["b"]).await).await.unwrap();
}
