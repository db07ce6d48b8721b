//! Pipelining, silence and closing.

use super::*;
use crate::error::{ConnectError, ConnectErrorKind};

#[test]
fn commands_are_pipelined_and_answered_in_order() {
    let mut test = Test::new(None);
    let ping = test.request(Command::Ping);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipts: Vec<_> = ["1", "2", "3", "4"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    let (done, flushed) = oneshot::channel();
    test.machine.apply(test.now, Op::Flush(publisher, done));
    let declared = test.request(Command::DeclareQueue {
        queue: QueueName::new("q").unwrap(),
    });
    assert_eq!(
        test.sent(),
        ["ping", "declare_queue q", "e k 1 2 3", "e k 4"],
        "requests go first"
    );
    test.receive(&[
        "PONG",
        "Queue declared",
        "ACK 1",
        "Error: no_route: no queue for message 2",
        "ACK 3",
    ])
    .unwrap();
    assert!(matches!(ping.now_or_never(), Some(Ok(Reply::Pong))));
    assert!(matches!(
        declared.now_or_never(),
        Some(Ok(Reply::QueueDeclared))
    ));
    let mut flushed = flushed;
    assert!(
        (&mut flushed).now_or_never().is_none(),
        "4 has no answer yet"
    );
    test.receive(&["ACK 4"]).unwrap();
    assert_eq!(
        flushed.now_or_never().unwrap().unwrap().unwrap_err().kind(),
        PublishErrorKind::NoRoute
    );
    let mut receipts = receipts.into_iter();
    assert!(is_acknowledged(receipts.next().unwrap()));
    assert_eq!(
        kind(receipts.next().unwrap()),
        Some(PublishErrorKind::NoRoute)
    );
    assert!(receipts.all(is_acknowledged));
}

#[test]
fn a_silent_client_pings_and_leaves_a_silent_server() {
    let mut test = Test::new(None);
    assert_eq!(test.machine.deadline(0), Some(test.now + 10 * SECOND));
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["ping"]);
    assert_eq!(test.sent(), [""; 0]);
    test.receive(&["PONG"]).unwrap();
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["ping"]);
    test.wait(9 * SECOND).unwrap();
    assert_eq!(test.sent(), [""; 0]);
    assert_eq!(test.machine.deadline(0), Some(test.now + SECOND));
    assert_eq!(test.wait(SECOND), Err(ConnectionFault::Silent(20 * SECOND)));
}

/// Advances the time second by second and sends the pings that are due.
fn pass(test: &mut Test, seconds: u32) -> Result<Vec<String>, ConnectionFault> {
    let mut sent = Vec::new();
    for _ in 0..seconds {
        test.wait(SECOND)?;
        sent.extend(test.sent());
    }
    Ok(sent)
}

#[test]
fn a_connection_with_a_pending_ack_survives_minutes_of_silence() {
    let mut test = Test::new(None);
    let ack = test.ack("1");
    assert_eq!(test.sent(), ["ack 1"]);
    let sent = pass(&mut test, 600).unwrap();
    assert!(
        sent.iter().filter(|line| *line == "ping").count() > 50,
        "the server must go on hearing from us, or it takes the leases back: {sent:?}"
    );
    assert_eq!(
        ack.now_or_never().unwrap().unwrap().unwrap_err().kind(),
        AckErrorKind::TimedOut,
        "whoever waits for the ack is told, the connection stays"
    );
    // The store is back: all replies come in order, including those to retries and pings.
    let replies: Vec<&str> = std::iter::once("ACK_CONFIRMED 1")
        .chain(sent.iter().map(|line| {
            if line == "ping" {
                "PONG"
            } else {
                "ACK_CONFIRMED 1"
            }
        }))
        .collect();
    test.receive(&replies).unwrap();
    // No command waits for the store any more, so silence counts again.
    assert!(pass(&mut test, 19).is_ok());
    assert_eq!(test.wait(SECOND), Err(ConnectionFault::Silent(20 * SECOND)));
}

#[test]
fn a_stalled_connection_is_given_up_after_the_stall_timeout() {
    let mut test = Test::new(None);
    let _ack = test.ack("1");
    assert_eq!(test.sent(), ["ack 1"]);
    assert!(pass(&mut test, 899).is_ok());
    assert_eq!(
        pass(&mut test, 1),
        Err(ConnectionFault::Silent(900 * SECOND))
    );
}

#[test]
fn an_unsent_ack_does_not_excuse_silence() {
    let mut test = Test::new(None);
    let _ack = test.ack("1");
    assert!(test.wait(19 * SECOND).is_ok());
    assert_eq!(test.wait(SECOND), Err(ConnectionFault::Silent(20 * SECOND)));
}

#[test]
fn a_pending_publish_excuses_the_announced_storage_wait() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let _receipt = test.publish(publisher, "1");
    assert_eq!(test.sent(), ["e k 1"]);
    // 8 s for the store and 10 s for the reply are less than 20 s.
    assert!(pass(&mut test, 19).is_ok());
    assert_eq!(test.wait(SECOND), Err(ConnectionFault::Silent(20 * SECOND)));

    let mut test = Test::new(None);
    test.connect_waiting(100_000, 60_000);
    let publisher = test.publisher("e", &window);
    let _receipt = test.publish(publisher, "1");
    assert_eq!(test.sent(), ["e k 1"]);
    assert!(pass(&mut test, 69).is_ok());
    assert_eq!(test.wait(SECOND), Err(ConnectionFault::Silent(70 * SECOND)));
}

#[test]
fn closing_waits_for_pending_messages() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    let (done, mut ended) = oneshot::channel();
    test.machine.apply(test.now, Op::Close(done));
    assert!(!test.machine.is_done());
    assert_eq!(test.sent(), ["e k 1"]);
    test.receive(&["ACK 1"]).unwrap();
    assert!(test.machine.is_done() && is_acknowledged(receipt));
    assert!((&mut ended).now_or_never().is_none());
    let late = test.publish(publisher, "2");
    test.machine.close(None);
    assert!(matches!(ended.now_or_never(), Some(Ok(()))));
    assert_eq!(kind(late), Some(PublishErrorKind::Closed));
    assert!(
        window.acquire(1).now_or_never().unwrap().is_none(),
        "and the window is closed"
    );
}

/// What was sent and is not answered is sent again on the next connection: the last line is not its
/// answer. If there is no next connection, everything fails with the reason.
#[test]
fn a_last_line_answers_no_command() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    assert_eq!(test.sent(), ["e k 1"]);
    let Err(fault) = test.receive(&["Error: connection_closed: by an administrator"]) else {
        panic!("the connection has ended");
    };
    assert!(matches!(&fault, ConnectionFault::Ended(_)), "{fault}");
    test.disconnect();
    test.connect(100_000);
    assert_eq!(test.sent(), ["e k 1"]);
    let reason = ConnectError::new(ConnectErrorKind::Blocked, "blocked");
    test.machine.close(Some(&reason));
    assert_eq!(kind(receipt), Some(PublishErrorKind::Blocked));
}

#[test]
fn abandoned_requests_do_not_pile_up() {
    let mut test = Test::new(None);
    test.disconnect();
    for _ in 0..100 {
        drop(test.request(Command::Ping));
    }
    let waiting = test.request(Command::Ping);
    test.connect(100_000);
    assert_eq!(test.sent(), ["ping"]);
    test.receive(&["PONG"]).unwrap();
    assert!(matches!(waiting.now_or_never(), Some(Ok(Reply::Pong))));
}
