//! Retries, and the effect of replies on messages.

use super::*;

#[test]
fn publishers_are_served_round_robin() {
    let mut test = Test::new(None);
    let window = window();
    let (a, b) = (test.publisher("a", &window), test.publisher("b", &window));
    for id in 0..6 {
        drop(test.publish(a, &format!("a{id}")));
        drop(test.publish(b, &format!("b{id}")));
    }
    assert_eq!(
        test.sent(),
        [
            "a k a0 a1 a2",
            "b k b0 b1 b2",
            "a k a3 a4 a5",
            "b k b3 b4 b5"
        ]
    );
}

#[test]
fn a_new_connection_resends_unanswered_messages_in_order() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let ping = test.request(Command::Ping);
    let receipts: Vec<_> = ["1", "2", "3", "4", "5"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    assert_eq!(test.sent(), ["ping", "e k 1 2 3"]);
    test.receive(&["PONG", "ACK 1"]).unwrap();
    let declared = test.request(Command::DeclareQueue {
        queue: QueueName::new("q").unwrap(),
    });
    assert_eq!(test.sent(), ["declare_queue q"]);
    let late = test.request(Command::Ping);
    test.disconnect();
    assert_eq!(test.sent(), [""; 0]);
    test.wait(SECOND).unwrap();
    test.connect(100_000);
    assert_eq!(
        test.sent(),
        ["declare_queue q", "ping", "e k 2 3 4", "e k 5"]
    );
    test.receive(&["Queue declared", "PONG", "ACK 2", "ACK 3", "ACK 4", "ACK 5"])
        .unwrap();
    assert!(receipts.into_iter().all(is_acknowledged));
    assert!(
        [ping, declared, late]
            .into_iter()
            .all(|reply| matches!(reply.now_or_never(), Some(Ok(_))))
    );
}

#[test]
fn one_line_refuses_a_whole_batch() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let first: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    let second: Vec<_> = ["4", "5", "6"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    assert_eq!(test.sent(), ["e k 1 2 3", "e k 4 5 6"]);
    test.receive(&["Invalid batch format: broken", "ACK 4", "ACK 5", "ACK 6"])
        .unwrap();
    assert!(
        first
            .into_iter()
            .all(|receipt| kind(receipt) == Some(PublishErrorKind::Refused))
    );
    assert!(second.into_iter().all(is_acknowledged));
}

#[test]
fn definite_errors_fail_single_messages() {
    for (code, expected) in [
        ("no_route", PublishErrorKind::NoRoute),
        ("not_found", PublishErrorKind::NotFound),
        ("id_in_use", PublishErrorKind::IdInUse),
        ("too_large", PublishErrorKind::TooLarge),
        ("sender_mismatch", PublishErrorKind::SenderMismatch),
        ("storage_full", PublishErrorKind::StorageFull),
        ("quota_exceeded", PublishErrorKind::QuotaExceeded),
        ("storage_refused", PublishErrorKind::StorageRefused),
        ("route_mismatch", PublishErrorKind::Refused),
    ] {
        let mut test = Test::new(None);
        let window = window();
        let publisher = test.publisher("e", &window);
        let receipts = ["1", "2", "3"].map(|id| test.publish(publisher, id));
        test.sent();
        test.receive(&[
            "ACK 1",
            &format!("Error: {code}: why for message 2"),
            "ACK 3",
        ])
        .unwrap();
        let [first, second, third] = receipts;
        assert!(is_acknowledged(first) && is_acknowledged(third), "{code}");
        assert_eq!(kind(second), Some(expected), "{code}");
    }
}

#[test]
fn an_unknown_outcome_is_retried_up_to_three_attempts() {
    for reply in [
        "Error: storage_unavailable: away for message 1",
        "Error: a_new_code: who knows for message 1",
    ] {
        let mut test = Test::new(None);
        let window = window();
        let publisher = test.publisher("e", &window);
        let receipt = test.publish(publisher, "1");
        for _ in 0..3 {
            assert_eq!(test.sent(), ["e k 1"]);
            test.wait(8 * SECOND).unwrap();
            test.receive(&[reply]).unwrap();
            assert_eq!(test.sent(), [""; 0], "not before the try is over");
            test.wait(2 * SECOND).unwrap();
        }
        assert_eq!(
            test.sent(),
            ["ping"],
            "after the last try there is nothing else to say"
        );
        let expected = if reply.contains("storage") {
            PublishErrorKind::Unavailable
        } else {
            PublishErrorKind::Refused
        };
        assert_eq!(kind(receipt), Some(expected));
    }
}

#[test]
fn the_second_answer_to_a_resent_message_is_ignored() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    assert_eq!(test.sent(), ["e k 1"]);
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["e k 1"]);
    let next = test.publish(publisher, "2");
    test.receive(&["ACK 1"]).unwrap();
    assert!(is_acknowledged(receipt));
    test.wait(SECOND).unwrap();
    assert_eq!(test.sent(), ["e k 2"]);
    test.receive(&["ACK 1", "ACK 2"]).unwrap();
    assert!(is_acknowledged(next));
}

#[test]
fn an_answer_about_another_message_is_a_violation() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    test.sent();
    assert!(matches!(
        test.receive(&["ACK 2"]),
        Err(ConnectionFault::Violation(_))
    ));
    test.disconnect();
    test.connect(100_000);
    assert_eq!(test.sent(), ["e k 1"]);
    test.receive(&["ACK 1"]).unwrap();
    assert!(is_acknowledged(receipt));
}

#[test]
fn answers_release_window_space() {
    let mut test = Test::new(None);
    let window = Arc::new(Window::new(2, 1_000_000));
    let publisher = test.publisher("e", &window);
    let take = || {
        window
            .acquire(1)
            .now_or_never()
            .flatten()
            .map(|room| room.keep())
    };
    for id in ["1", "2"] {
        assert_eq!(take(), Some(1));
        drop(test.publish(publisher, id));
    }
    assert_eq!(take(), None);
    assert_eq!(test.sent(), ["e k 1 2"]);
    test.receive(&["Error: storage_unavailable: away for message 1", "ACK 2"])
        .unwrap();
    assert_eq!(
        take(),
        None,
        "2 must not overtake 1 by more than the window"
    );
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["e k 1"]);
    test.receive(&["ACK 1"]).unwrap();
    assert_eq!((take(), take(), take()), (Some(1), Some(1), None));
}

#[test]
fn nothing_is_produced_above_the_high_water_mark() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    for id in 0..30 {
        drop(test.publish_sized(publisher, &id.to_string(), 50_000));
    }
    test.machine.produce(test.now, &mut test.out);
    let produced = test.out.len();
    assert!(
        (HIGH_WATER..HIGH_WATER + 200_000).contains(&produced),
        "{produced}"
    );
    test.machine.produce(test.now, &mut test.out);
    assert_eq!(test.out.len(), produced);
    assert!(
        test.machine.deadline(produced).unwrap() > test.now,
        "and no timer wakes the loop meanwhile"
    );
    let mut sent = 0;
    test.wait(Duration::from_millis(5)).unwrap();
    while let more @ 1.. = test.sent().len() {
        sent += more;
    }
    assert_eq!(
        sent, 30,
        "messages of 50,000 bytes in lines of 100,000: one in each"
    );
}

#[test]
fn lines_respect_the_current_servers_limit() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let (small, large) = (
        test.publish(publisher, "1"),
        test.publish_sized(publisher, "2", 5_000),
    );
    let last = test.publish(publisher, "3");
    test.disconnect();
    test.connect(1_000);
    test.wait(Duration::from_millis(5)).unwrap();
    assert_eq!(test.sent(), ["e k 1", "e k 3"]);
    assert_eq!(kind(large), Some(PublishErrorKind::TooLarge));
    test.receive(&["ACK 1", "ACK 3"]).unwrap();
    assert!(is_acknowledged(small) && is_acknowledged(last));
}

#[test]
fn a_finished_publisher_returns_its_summary() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let observed = outcomes.clone();
    let observer = OutcomeObserver(Some(Arc::new(move |outcome| {
        observed
            .lock()
            .unwrap()
            .push((outcome.message_id.to_string(), outcome.result.is_ok()));
    })));
    let other = PublisherId::next();
    let setup = PublisherSetup {
        exchange: ExchangeName::new("o").unwrap(),
        routing_key: RoutingKey::new("k").unwrap(),
        limits: BatchLimits::default(),
        window: window.clone(),
        observer,
    };
    test.machine
        .apply(test.now, Op::OpenPublisher(other, setup));
    for id in ["1", "2"] {
        drop(test.publish(other, id));
    }
    drop(test.publish(publisher, "x"));
    let (done, summary) = oneshot::channel::<Summary>();
    test.machine.apply(test.now, Op::Finish(other, done));
    test.sent();
    test.receive(&["ACK x", "ACK 1", "Error: no_route: none for message 2"])
        .unwrap();
    let summary = summary.now_or_never().unwrap().unwrap();
    assert_eq!((summary.acknowledged, summary.unacknowledged), (1, 1));
    assert_eq!(summary.failures[0].0.as_str(), "2");
    assert_eq!(
        *outcomes.lock().unwrap(),
        [("1".to_owned(), true), ("2".to_owned(), false)]
    );
}

#[test]
fn without_a_connection_messages_fail_with_the_reason() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    test.disconnect();
    let receipt = test.publish(publisher, "1");
    test.wait(29 * SECOND).unwrap();
    assert_eq!(test.machine.deadline(0), Some(test.now + SECOND));
    test.wait(SECOND).unwrap();
    let error = receipt.now_or_never().unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::Disconnected);
    assert!(error.to_string().contains("the cable is out"), "{error}");
}

#[test]
fn messages_of_one_session_are_packed_for_servers_that_accept_it() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipts: Vec<_> = [
        ("1", "a"),
        ("2", "a"),
        ("3", "a"),
        ("4", "a"),
        ("5", "b"),
        ("6", "b"),
    ]
    .map(|(id, pending)| test.publish_envelope(publisher, packed(id, pending)))
    .into();
    assert_eq!(
        test.sent(),
        ["e k 1 2 3", "e k 4 5 6"],
        "it does not say that it knows"
    );
    test.disconnect();
    test.connect_packing(Packing::Text);
    assert_eq!(
        test.sent(),
        ["e k packed 1 2 3", "e k 4 5 6"],
        "the second line is of two sessions"
    );
    test.receive(&["ACK_ALL 3", "ACK 4", "ACK 5", "ACK 6"])
        .unwrap();
    assert!(receipts.into_iter().all(is_acknowledged));
}

#[test]
fn messages_are_sent_in_the_form_that_the_server_accepts() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipts = ["1", "2"].map(|id| test.publish_envelope(publisher, binary(id, "a")));
    assert_eq!(test.sent(), ["e k 1 2"], "each as one object");
    for (packing, form) in [(Packing::Text, "packed"), (Packing::Binary, "binary")] {
        test.disconnect();
        test.connect_packing(packing);
        assert_eq!(test.sent(), [format!("e k {form} 1 2")]);
    }
    test.receive(&["ACK_ALL 2"]).unwrap();
    assert!(receipts.into_iter().all(is_acknowledged));
}

#[test]
fn a_collective_answer_must_match_the_command() {
    for lines in [
        &["ACK_ALL 2"][..],
        &["ACK_ALL 4"],
        &["ACK 1", "ACK_ALL 3"],
        &["ACK_CONFIRMED_ALL 3"],
    ] {
        let mut test = Test::new(None);
        let window = window();
        let publisher = test.publisher("e", &window);
        let receipts = ["1", "2", "3"].map(|id| test.publish(publisher, id));
        assert_eq!(test.sent(), ["e k 1 2 3"]);
        assert!(
            matches!(test.receive(lines), Err(ConnectionFault::Violation(_))),
            "{lines:?}"
        );
        let [_, two, three] = receipts;
        assert!(!is_acknowledged(two) && !is_acknowledged(three));
    }
}

#[test]
fn a_rate_limit_slows_down_and_loses_nothing() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipts: Vec<_> = (1..=7)
        .map(|id| test.publish(publisher, &id.to_string()))
        .collect();
    assert_eq!(test.sent(), ["e k 1 2 3", "e k 4 5 6"]);
    let refused = |id: u32, pause: u32| {
        format!("Error: rate_limited: too fast; retry in {pause} ms for message {id}")
    };
    test.receive(&["ACK 1", &refused(2, 250), "ACK 3"]).unwrap();
    assert_eq!(test.machine.take_slowed(), Some(SECOND / 4));
    test.receive(&[&refused(4, 200), &refused(5, 200), &refused(6, 200)])
        .unwrap();
    assert_eq!(test.machine.take_slowed(), None, "told once");
    assert_eq!(test.sent(), [""; 0]);
    assert_eq!(test.machine.deadline(0), Some(test.now + SECOND / 4));
    test.wait(SECOND / 4).unwrap();
    // In order, and one line at a time.
    assert_eq!(test.sent(), ["e k 2 4 5"]);
    assert_eq!(test.sent(), [""; 0]);
    assert!(test.machine.deadline(0) > Some(test.now + SECOND));
    // However often: it is no failure, and uses up no attempt.
    for _ in 0..10 {
        let again = [2, 4, 5].map(|id| refused(id, 9_000));
        test.receive(&again.each_ref().map(String::as_str)).unwrap();
        for _ in 0..9 {
            assert_eq!(test.sent(), [""; 0]);
            test.wait(SECOND).unwrap();
        }
        assert_eq!(test.sent(), ["e k 2 4 5"]);
    }
    test.receive(&["ACK 2", "ACK 4", "ACK 5"]).unwrap();
    assert_eq!(test.sent(), ["e k 6 7"]);
    test.receive(&["ACK 6", "ACK 7"]).unwrap();
    assert!(receipts.into_iter().all(is_acknowledged));
    // After a while it sends as it did before, and tells of the next time.
    test.wait(6 * SECOND).unwrap();
    let receipts: Vec<_> = (8..=13)
        .map(|id| test.publish(publisher, &id.to_string()))
        .collect();
    assert_eq!(test.sent(), ["e k 8 9 10", "e k 11 12 13"]);
    test.receive(&[
        &refused(8, 10),
        "ACK 9",
        "ACK 10",
        "ACK 11",
        "ACK 12",
        "ACK 13",
    ])
    .unwrap();
    assert_eq!(test.machine.take_slowed(), Some(SECOND / 100));
    // A new connection sends it again, and without one it does not wait for ever.
    test.disconnect();
    test.wait(SECOND).unwrap();
    test.connect(100_000);
    assert_eq!(test.sent(), ["e k 8"]);
    test.receive(&[&refused(8, 10)]).unwrap();
    test.disconnect();
    for _ in 0..7 {
        test.wait(9 * SECOND).unwrap();
    }
    let failed = receipts.into_iter().next().and_then(kind);
    assert_eq!(failed, Some(PublishErrorKind::Disconnected));
}
