//! Deliveries and acks.

use super::*;

#[test]
fn a_lost_connection_empties_the_delivery_queue() {
    let queued = Arc::new(DeliveryQueue::new(10));
    let mut test = Test::new(Some(queued.clone()));
    test.receive(&["Message: 1 {}", "Message: 2 {}"]).unwrap();
    assert_eq!(queued.pop().unwrap().message_id.as_str(), "1");
    test.disconnect();
    assert!(queued.pop().is_none());
    test.connect(100_000);
    test.receive(&["Message: 1 {}", "Message: 2 {}"]).unwrap();
    for id in ["1", "2"] {
        assert_eq!(
            queued.pop().unwrap().message_id.as_str(),
            id,
            "both come again"
        );
    }
    assert!(queued.pop().is_none());
}

#[test]
fn a_server_that_ignores_the_prefetch_breaks_the_protocol() {
    let mut test = Test::new(Some(Arc::new(DeliveryQueue::new(1))));
    let lines: Vec<String> = (0..20).map(|id| format!("Message: {id} {{}}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert!(matches!(
        test.receive(&lines),
        Err(ConnectionFault::Violation(_))
    ));
}

#[test]
fn acks_are_batched_while_others_are_in_flight() {
    let mut test = Test::new(Some(Arc::new(DeliveryQueue::new(10))));
    let first = test.ack("1");
    assert_eq!(test.sent(), ["ack 1"], "an ack that is alone goes at once");
    let rest = ["2", "3"].map(|id| test.ack(id));
    assert_eq!(test.sent(), [""; 0]);
    assert_eq!(
        test.machine.deadline(0),
        Some(test.now + Duration::from_millis(2))
    );
    test.wait(Duration::from_millis(2)).unwrap();
    assert_eq!(test.sent(), ["ack 2 3"]);
    test.receive(&[
        "ACK_CONFIRMED 1",
        "Message: 9 {}",
        "ACK_CONFIRMED 2",
        "Error: not_found: unknown for message 3",
    ])
    .unwrap();
    assert!(matches!(first.now_or_never(), Some(Ok(Ok(())))));
    let [second, third] = rest.map(|result| result.now_or_never().unwrap().unwrap());
    assert!(second.is_ok());
    assert_eq!(third.unwrap_err().kind(), AckErrorKind::NotFound);
}

#[test]
fn ack_lines_hold_at_most_512_ids() {
    let mut test = Test::new(Some(Arc::new(DeliveryQueue::new(10))));
    let items = (0..1100).map(|id| AckItem::later(MessageId::new(&format!("m{id}")).unwrap()));
    test.machine.push_acks(test.now, items);
    let (done, summary) = oneshot::channel();
    test.machine.apply(test.now, Op::FlushAcks(done));
    let sent = test.sent();
    let ids: Vec<usize> = sent
        .iter()
        .map(|line| line.split(' ').count() - 1)
        .collect();
    assert_eq!(ids, [512, 512, 76]);
    for id in 0..1100 {
        test.receive(&[&format!("ACK_CONFIRMED m{id}")]).unwrap();
    }
    assert_eq!(summary.now_or_never().unwrap().unwrap().confirmed, 1100);
}

#[test]
fn acks_are_resent_after_a_loss_and_fail_after_three_attempts() {
    let mut test = Test::new(Some(Arc::new(DeliveryQueue::new(10))));
    let result = test.ack("1");
    assert_eq!(test.sent(), ["ack 1"]);
    test.disconnect();
    test.wait(SECOND).unwrap();
    test.connect(100_000);
    assert_eq!(test.sent(), ["ack 1"]);
    for _ in 0..2 {
        test.wait(10 * SECOND).unwrap();
        assert!(test.sent().contains(&"ack 1".to_owned()));
        // Other lines arrive, so the connection is alive.
        test.receive(&["Message: 9 {}"]).unwrap();
    }
    test.wait(10 * SECOND).unwrap();
    assert_eq!(
        result.now_or_never().unwrap().unwrap().unwrap_err().kind(),
        AckErrorKind::TimedOut
    );
}
