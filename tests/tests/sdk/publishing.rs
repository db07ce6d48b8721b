//! Publishers: windows, receipts, and sessions that end.

use super::*;

/// Suspends the server, and waits until all of its threads are stopped: until then, one of them may
/// still reply.
async fn suspend(server: &Server) {
    server.process().signal(Signal::STOP);
    let pid = server
        .process()
        .pid()
        .expect("the server runs")
        .as_raw_nonzero();
    let runs = || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.map(Result::unwrap).any(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name in parentheses (proc(5)).
            !stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .starts_with(" T")
        })
    };
    let waiting = async {
        while runs() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the server is suspended");
}

/// While the server is suspended, exactly the window can be in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_window_makes_the_sender_wait() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    for (messages, bytes, at_least) in [(10, usize::MAX, 10), (usize::MAX, 20_000, 5)] {
        let publisher = pair
            .publisher()
            .window(messages, bytes)
            .start()
            .await
            .unwrap();
        let payload = "x".repeat(1000);
        submit(&publisher, 0..1).await;
        publisher.flush().await.unwrap();

        suspend(&server).await;
        let mut sent = 0usize;
        // That `submit` blocks can only be observed with a timeout. A busy machine may need longer
        // for the calls that should return.
        let limit = |sent| match sent < at_least {
            true => PATIENCE,
            false => Duration::from_millis(300),
        };
        while let Ok(result) =
            tokio::time::timeout(limit(sent), publisher.submit(payload.as_str())).await
        {
            result.unwrap();
            sent += 1;
            assert!(
                sent <= 20,
                "the window holds {messages} messages and {bytes} bytes"
            );
        }
        if messages == 10 {
            assert_eq!(sent, 10);
        } else {
            assert!(
                (at_least..=20).contains(&sent),
                "{sent} of about 1000 bytes and an envelope"
            );
        }
        server.process().signal(Signal::CONT);
        // The window has capacity again, and nothing was lost.
        submit(&publisher, 0..50).await;
        let summary = publisher.finish().await;
        assert_eq!(
            (summary.acknowledged, summary.unacknowledged),
            (51 + u64::try_from(sent).unwrap(), 0)
        );
    }
}

/// A sender that is faster than the server is slowed down: at most the window is in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_window_is_in_flight() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    let settled = Arc::new(AtomicUsize::new(0));
    let counter = settled.clone();
    let publisher = pair
        .publisher()
        .window(100, usize::MAX)
        .on_outcome(move |outcome| {
            assert!(outcome.result.is_ok());
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .start()
        .await
        .unwrap();
    for sent in 1..=5000usize {
        publisher.submit("x").await.unwrap();
        let in_flight = sent - settled.load(Ordering::SeqCst).min(sent);
        assert!(in_flight <= 100, "{in_flight} are in flight");
    }
    assert_eq!(publisher.finish().await.acknowledged, 5000);
    assert_eq!(settled.load(Ordering::SeqCst), 5000);
    assert_eq!(stored_messages(&server).await, 5000);
}

/// Each receipt resolves to its own message's result; a failure does not affect other messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_resolve_to_the_result_of_each_message() {
    let server = Server::start(Options::sqlite().set("limits", "max_line_bytes", 65536)).await;
    let pair = Pair::new(&server).await;
    let publisher = pair.publisher().start().await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..200u64 {
        receipts.push(publisher.send(number.to_string().as_str()).await.unwrap());
        if number == 100 {
            let error = publisher
                .send("x".repeat(65536).as_str())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), PublishErrorKind::TooLarge);
            assert!(!error.is_retryable() && error.advice().is_some());
        }
    }
    for (position, receipt) in (0..).zip(receipts) {
        let expected = publisher.stream().message_id(position).unwrap();
        assert_eq!(receipt.message_id(), &expected, "no position is left out");
        assert_eq!(receipt.await.unwrap(), expected);
    }
    assert_eq!(stored_messages(&server).await, 200);

    // Another route on the same connection.
    let nowhere = RoutingKey::new("nowhere").unwrap();
    let lost = pair.publisher().routing_key(nowhere).start().await.unwrap();
    let receipt = lost.send("x").await.unwrap();
    let id = receipt.message_id().clone();
    let error = receipt.await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::NoRoute);
    assert_eq!(
        lost.flush().await.unwrap_err().kind(),
        PublishErrorKind::NoRoute
    );
    let summary = lost.finish().await;
    assert_eq!((summary.acknowledged, summary.unacknowledged), (0, 1));
    assert_eq!(summary.failures[0].0, id);
    publisher.send("201").await.unwrap().await.unwrap();

    let unknown = ExchangeName::new("unknown").unwrap();
    let lost = pair.publisher().exchange(unknown).start().await.unwrap();
    assert_eq!(
        lost.send("x").await.unwrap().await.unwrap_err().kind(),
        PublishErrorKind::NotFound
    );
    let nobody = pair
        .sender
        .publisher(&ClientId::new("nobody").unwrap())
        .start()
        .await;
    assert_eq!(nobody.unwrap_err().kind(), PublishErrorKind::NoReceiverKey);
}

/// One session key encrypts at most 65,536 messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_after_65536_messages() {
    const COUNT: u64 = 65_536 + 500;
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    let publisher = pair.publisher().start().await.unwrap();
    let sending = tokio::spawn(async move {
        submit(&publisher, 0..COUNT).await;
        publisher.finish().await
    });

    let mut raw = RawClient::connect(&server, "receiver").await;
    raw.ask("consume receiver_queue 1000", "Subscribed to queue")
        .await;
    let mut opener = Opener::new(
        pair.receiver.id().clone(),
        pair.keyring(),
        pair.receiver.authority().clone(),
        OpenPolicy::default(),
    );
    let chain = pair
        .receiver
        .certificate(pair.sender.id(), None)
        .await
        .unwrap()
        .unwrap();
    opener.add_sender_chain(certificates(&chain).unwrap());
    let mut sessions: BTreeMap<String, u64> = BTreeMap::new();
    let mut nonces = BTreeSet::new();
    let (mut arrived, mut acks) = (0, String::from("ack"));
    while arrived < COUNT {
        let line = raw.line().await;
        if line.starts_with("ACK_CONFIRMED ") {
            continue;
        }
        let delivery = line
            .strip_prefix("Message: ")
            .unwrap_or_else(|| panic!("{line:.100}"));
        let (id, json) = delivery.split_once(' ').unwrap();
        let envelope: serde_json::Value = serde_json::from_str(json).unwrap();
        let key = envelope["enc_session_key"].as_str().unwrap();
        *sessions.entry(key.to_owned()).or_default() += 1;
        assert!(
            nonces.insert(envelope["nonce"].as_str().unwrap().to_owned()),
            "a nonce is used twice"
        );
        let opened = opener
            .open(&Envelope::parse(json.to_owned().into_bytes().into()).unwrap())
            .unwrap();
        assert_eq!(opened.payload, arrived.to_string().as_bytes());
        arrived += 1;
        acks.push(' ');
        acks.push_str(id);
        if arrived % 250 == 0 || arrived == COUNT {
            raw.send_line(&acks).await;
            acks.truncate("ack".len());
        }
    }
    let mut counts: Vec<u64> = sessions.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [500, 65_536]);
    let summary = sending.await.unwrap();
    assert_eq!((summary.acknowledged, summary.unacknowledged), (COUNT, 0));
}
