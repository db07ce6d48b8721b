//! Bounds of what waits for its commit, and turns between clients.

use super::*;

#[tokio::test(start_paused = true)]
async fn acks_beyond_their_room_wait_outside() {
    let (scripted, handle, _task) = start(WriterSettings {
        max_pending_acks: 2,
        client_part: 1,
        ..WriterSettings::default()
    });
    let first = ack_all(&handle, &["a", "b"]).await;
    let mut second = std::pin::pin!(ack_all(&handle, &["c"]));
    assert!(second.as_mut().now_or_never().is_none());
    scripted.gate.add_permits(10);
    assert_eq!(soon(first).await.unwrap(), [Ok(done()), Ok(done())]);
    assert_eq!(soon(second.await).await.unwrap(), [Ok(done())]);
    // More than all the room together: submitted alone.
    let many = ack_all(&handle, &["d", "e", "f"]).await;
    assert_eq!(soon(many).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn submitting_waits_for_room() {
    let size = message("a").envelope.raw().len();
    let settings = WriterSettings {
        max_pending_bytes: size + 513,
        client_part: 1,
        ..WriterSettings::default()
    };
    let (scripted, handle, _task) = start(settings);
    let a = publish(&handle, &["a"]).await;
    begun(&scripted).await;
    // No room: it is not even submitted, up to its deadline.
    let started = Instant::now();
    let b = publish(&handle, &["b"]).await;
    assert_eq!(started.elapsed().as_secs(), 8);
    assert_eq!(soon(b).await, Err(WriteError::Unavailable));
    assert_eq!(soon(a).await, Err(WriteError::Unavailable));
    // Answered, but still in its commit: it keeps its room until it is resolved.
    assert!(publish(&handle, &["c"]).now_or_never().is_none());
    scripted.gate.add_permits(10);
    // Larger than all the room: submitted alone.
    let large = soon(publish(&handle, &["d", "e", "f"])).await;
    assert_eq!(
        soon(large).await.unwrap(),
        [stored(2), stored(3), stored(4)]
    );
    assert_eq!(
        soon(soon(publish(&handle, &["g"])).await).await.unwrap(),
        [stored(5)]
    );
    // Acks need no room.
    assert_eq!(
        soon(ack_all(&handle, &["x"]).await).await.unwrap(),
        [Ok(done())]
    );
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_line_waits_half_as_long_for_room() {
    let (scripted, handle, _task) = start(WriterSettings {
        max_pending_bytes: message("a").envelope.raw().len() + 513,
        client_part: 1,
        ..WriterSettings::default()
    });
    let writer = handle.client(&client("s"));
    let started = Instant::now();
    let first = Deadlines::within(Duration::from_secs(8));
    let a = writer.publish(vec![message("a")], first).await;
    begun(&scripted).await;
    let b = writer.publish(vec![message("b")], first.further_parts());
    assert_eq!(soon(b.await).await, Err(WriteError::Unavailable));
    assert_eq!(started.elapsed().as_secs(), 4);
    scripted.gate.add_permits(10);
    assert_eq!(soon(a).await.unwrap(), [stored(1)]);
    // There is room again, but what was refused is not overtaken.
    let c = writer.publish(vec![message("c")], first.further_parts());
    assert_eq!(soon(c.await).await, Err(WriteError::Unavailable));
    let d = writer.publish(vec![message("d")], first).await;
    assert_eq!(soon(d).await.unwrap(), [stored(2)]);
}

#[tokio::test(start_paused = true)]
async fn clients_take_turns() {
    let (scripted, handle, _task) = start(WriterSettings {
        max_batch_work: 3600,
        ..WriterSettings::default()
    });
    let busy = handle.client(&client("busy"));
    let deadlines = Deadlines::within(Duration::from_secs(8));
    let mut first = message("first");
    drop(busy.publish(vec![first.clone()], deadlines).await);
    begun(&scripted).await;
    // Each of these is nearly a turn.
    for id in ["a", "b", "c", "d"] {
        first = message(id);
        let message = Arc::make_mut(&mut first);
        message.queues = (0..301).map(QueueId).collect();
        drop(busy.publish(vec![first], deadlines).await);
    }
    let last = publish(&handle, &["small"]).await;
    scripted.gate.add_permits(10);
    soon(last).await.unwrap();
    let commits = scripted.commits();
    assert_eq!(commits[..2], ["p:first", "p:a,small,b"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_used_its_room_holds_up_nobody_else() {
    let size = message("a").envelope.raw().len() + 512;
    let (scripted, handle, _task) = start(WriterSettings {
        max_pending_bytes: 4 * size,
        client_part: 2,
        ..WriterSettings::default()
    });
    let [first, second] = [
        publish(&handle, &["a"]).await,
        publish(&handle, &["b"]).await,
    ];
    begun(&scripted).await;
    let mut third = std::pin::pin!(publish(&handle, &["c"]));
    assert!(third.as_mut().now_or_never().is_none());
    let other = handle.client(&client("other"));
    let deadlines = Deadlines::within(Duration::from_secs(8));
    let others = other
        .publish(vec![message("o")], deadlines)
        .now_or_never()
        .unwrap();
    scripted.gate.add_permits(10);
    for answer in [first, second, others, soon(third).await] {
        assert!(soon(answer).await.unwrap()[0].is_ok());
    }
}
