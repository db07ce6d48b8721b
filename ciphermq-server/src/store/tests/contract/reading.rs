//! Reading: pages, and envelopes by id.

use super::*;

on_both! {
    pages_are_in_order_and_limited,
    envelopes_are_found_once_over_all_queues,
}

async fn pages_are_in_order_and_limited(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let ids: Vec<String> = (0..250).map(|n| format!("m-{n:03}")).collect();
    // Another receiver's messages are stored between them.
    let mut publishes = Vec::new();
    for id in &ids {
        publishes.push(message(id, queue));
        publishes.push(publish(
            "s",
            &[queue],
            envelope(&format!("x-{id}"), "other", true, "AAAA"),
        ));
    }
    publish_all(&mut store, publishes).await;
    let size = message("m-000", queue).envelope.raw().len();
    let (reader, lane) = (&store.reader, lane(queue, "r"));
    let mut after = Seq(0);
    let mut seen = Vec::new();
    loop {
        let page = reader
            .lane(
                &lane,
                after,
                PageLimit {
                    messages: 100,
                    bytes: usize::MAX,
                },
            )
            .await
            .unwrap();
        after = page.messages.last().unwrap().seq;
        seen.extend(
            page.messages
                .iter()
                .map(|message| message.message_id.to_string()),
        );
        if !page.more {
            break;
        }
        assert_eq!(page.messages.len(), 100);
    }
    assert_eq!(seen, ids);

    for (messages, bytes, expected, more) in [
        (100, 3 * size, 3, true),
        (100, 3 * size - 1, 3, true),
        (100, 3 * size + 1, 4, true),
        (100, 0, 1, true),
        (250, usize::MAX, 250, false),
        (1000, 250 * size, 250, false),
        (0, usize::MAX, 0, true),
    ] {
        let page = reader
            .lane(&lane, Seq(0), PageLimit { messages, bytes })
            .await
            .unwrap();
        assert_eq!(
            (page.messages.len(), page.more),
            (expected, more),
            "{messages} {bytes}"
        );
    }
    let nothing = reader
        .lane(
            &lane,
            after,
            PageLimit {
                messages: 10,
                bytes: 10,
            },
        )
        .await
        .unwrap();
    assert_eq!((nothing.messages.len(), nothing.more), (0, false));

    let seqs = [Seq(9), Seq(3), Seq(1), Seq(10_000), Seq(5)];
    let page = reader.messages(&seqs, usize::MAX).await.unwrap();
    let found: Vec<(i64, &str)> = page
        .messages
        .iter()
        .map(|m| (m.seq.0, m.message_id.as_str()))
        .collect();
    assert_eq!(
        found,
        [(1, "m-000"), (3, "m-001"), (5, "m-002"), (9, "m-004")]
    );
    assert_eq!(
        &page.messages[0].envelope,
        message("m-000", queue).envelope.raw()
    );
    assert!(!page.more);
    let page = reader.messages(&seqs, size).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (1, true));
    assert!(reader.messages(&[], 10).await.unwrap().messages.is_empty());
    close(store).await;
}

async fn envelopes_are_found_once_over_all_queues(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["empty", "q1", "other", "q2", "last"]).await;
    let (q1, q2) = (queue[1], queue[3]);
    let sealed = |id: &str| envelope(id, "r", true, &"A".repeat(100));
    publish_all(
        &mut store,
        vec![
            publish("s", &[q2, q1], sealed("a")),
            publish("s", &[q1], sealed("b")),
            publish("s", &[q1, q2], sealed("c")),
            publish("s", &[queue[2]], envelope("x", "stranger", true, "AAAA")),
        ],
    )
    .await;
    let reader = &store.reader;
    let lanes = async |receiver: &str, from: QueueId, limit: u32| {
        let lanes = reader.lanes(&client(receiver), from, limit).await.unwrap();
        (lanes.queues, lanes.next)
    };
    assert_eq!(
        lanes("r", QueueId(i64::MIN), 100).await,
        (vec![q1, q2], None)
    );
    assert_eq!(lanes("r", QueueId(i64::MIN), 5).await, (vec![q1, q2], None));
    assert_eq!(lanes("r", queue[0], 3).await, (vec![q1], Some(q2)));
    assert_eq!(lanes("r", queue[0], 1).await, (vec![], Some(q1)));
    assert_eq!(lanes("r", q2, 1).await, (vec![q2], Some(queue[4])));
    assert_eq!(lanes("r", QueueId(i64::MAX), 1).await, (vec![], None));
    assert_eq!(lanes("nobody", queue[0], 100).await, (vec![], None));

    let read = async |queue: QueueId, after: i64, messages: usize, bytes: usize| {
        let limit = PageLimit { messages, bytes };
        let found = reader
            .envelopes(&lane(queue, "r"), Seq(after), limit)
            .await
            .unwrap();
        let ids: Vec<String> = found
            .envelopes
            .iter()
            .map(|(time, bytes)| {
                assert_eq!(time.as_deref(), Some("2025-09-08T07:03:00.000000Z"));
                Envelope::parse(bytes.to_bytes())
                    .unwrap()
                    .message_id
                    .to_string()
            })
            .collect();
        (ids.join(" "), found.seen, found.last, found.more)
    };
    let all = usize::MAX;
    // The copies of a are 1 and 2, b is 3, those of c are 4 and 5.
    assert_eq!(
        read(q1, 0, 10, all).await,
        ("b c".to_owned(), 3, Some(Seq(4)), false)
    );
    assert_eq!(
        read(q2, 0, 10, all).await,
        ("a".to_owned(), 2, Some(Seq(5)), false)
    );
    assert_eq!(
        read(q1, 0, 1, all).await,
        (String::new(), 1, Some(Seq(2)), true),
        "a stands in the other lane"
    );
    assert_eq!(
        read(q1, 2, 1, all).await,
        ("b".to_owned(), 1, Some(Seq(3)), true)
    );
    assert_eq!(
        read(q1, 2, 10, 1).await,
        ("b".to_owned(), 1, Some(Seq(3)), true),
        "one at least"
    );
    assert_eq!(
        read(q1, 3, 10, 1).await,
        ("c".to_owned(), 1, Some(Seq(4)), false)
    );
    assert_eq!(read(q1, 4, 10, all).await, (String::new(), 0, None, false));
    ack_all(&mut store, vec![ack("a", "r"), ack("b", "r")]).await;
    let reader = &store.reader;
    let left = reader.lanes(&client("r"), queue[0], 100).await.unwrap();
    assert_eq!(left.queues, [q1, q2], "c has a copy in both");
    close(store).await;
}
