use std::sync::mpsc::{self, Receiver, Sender};

use super::*;

/// An output that reports every call and follows the scripted answers: `None` to take all, or the
/// number of bytes to take before it fails.
struct ScriptedOutput {
    calls: Sender<String>,
    answers: Receiver<Option<usize>>,
}

impl Output for ScriptedOutput {
    fn write(&mut self, _time: Duration, lines: &[u8]) -> Result<(), Failure> {
        self.calls
            .send(String::from_utf8(lines.to_vec()).unwrap())
            .unwrap();
        match self.answers.recv_timeout(LONG).unwrap() {
            None => Ok(()),
            Some(written) => Err(Failure {
                written,
                source: io::ErrorKind::StorageFull.into(),
            }),
        }
    }

    fn write_lost(&mut self, count: u64) -> io::Result<()> {
        self.calls.send(format!("lost {count}")).unwrap();
        Ok(())
    }

    fn name(&self) -> String {
        String::from("the scripted output")
    }
}

fn scripted(capacity: usize) -> (Spool, Receiver<String>, Sender<Option<usize>>) {
    let (calls, seen) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    (
        Spool::start(Box::new(ScriptedOutput { calls, answers }), capacity).unwrap(),
        seen,
        answer,
    )
}

const NOW: Duration = Duration::from_secs(1_757_314_980);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn lines_gathered_during_a_write_are_written_together() {
    let (spool, seen, answer) = scripted(100);
    spool.push(NOW, b"a\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    spool.push(NOW, b"b\n", WhenFull::Drop);
    spool.push(NOW, b"c\n", WhenFull::Drop);
    answer.send(None).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "b\nc\n");
    answer.send(None).unwrap();
    spool.flush(LONG);
    spool.close();
    spool.wait_closed(LONG);
    assert!(
        seen.recv().is_err(),
        "the thread has ended and nothing was written twice"
    );
}

#[test]
fn lines_of_two_hours_are_written_apart() {
    let (spool, seen, answer) = scripted(100);
    spool.push(NOW, b"first\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "first\n");
    spool.push(NOW, b"a\n", WhenFull::Drop);
    spool.push(NOW + Duration::from_secs(3600), b"b\n", WhenFull::Drop);
    for _ in 0..3 {
        answer.send(None).unwrap();
    }
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "b\n");
}

#[test]
fn dropped_lines_are_counted_and_reported() {
    let (spool, seen, answer) = scripted(4);
    spool.push(NOW, b"a\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    spool.push(NOW, b"b\n", WhenFull::Drop);
    spool.push(NOW, b"c\n", WhenFull::Drop);
    spool.push(NOW, b"d\n", WhenFull::Drop);
    spool.push(NOW, b"e\n", WhenFull::Drop);
    answer.send(None).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "b\nc\n");
    answer.send(None).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "lost 2");
}

#[test]
fn a_line_that_may_wait_is_written_once_there_is_room() {
    let (spool, seen, answer) = scripted(2);
    spool.push(NOW, b"a\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    spool.push(NOW, b"b\n", WhenFull::Drop);
    let waiting = {
        let spool = spool.clone();
        thread::spawn(move || spool.push(NOW, b"c\n", WhenFull::Wait(LONG)))
    };
    for wanted in ["b\n", "c\n"] {
        answer.send(None).unwrap();
        assert_eq!(seen.recv_timeout(LONG).unwrap(), wanted);
    }
    answer.send(None).unwrap();
    waiting.join().unwrap();
    spool.flush(LONG);
    assert_eq!(spool.0.state.lock().lost, 0);
}

#[test]
fn a_wait_ends_and_later_lines_do_not_repeat_it() {
    let (spool, seen, answer) = scripted(2);
    spool.push(NOW, b"a\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    spool.push(NOW, b"b\n", WhenFull::Drop);
    spool.push(NOW, b"c\n", WhenFull::Wait(Duration::from_millis(1)));
    // Would take half a minute if it waited.
    let begun = std::time::Instant::now();
    spool.push(NOW, b"d\n", WhenFull::Wait(LONG));
    assert!(begun.elapsed() < LONG);
    assert_eq!(spool.0.state.lock().lost, 2);
    answer.send(None).unwrap();
    answer.send(None).unwrap();
}

#[test]
fn a_failed_output_gets_the_rest_later_and_nothing_twice() {
    let (spool, seen, answer) = scripted(100);
    spool.push(NOW, b"a\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    spool.push(NOW, b"bb\n", WhenFull::Drop);
    spool.push(NOW, b"cc\n", WhenFull::Drop);
    spool.push(NOW + Duration::from_secs(3600), b"dd\n", WhenFull::Drop);
    answer.send(None).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "bb\ncc\n");
    answer.send(Some(3)).unwrap();
    // After the pause for a retry, with what came meanwhile behind it.
    spool.push(NOW + Duration::from_secs(3600), b"ee\n", WhenFull::Drop);
    for wanted in ["cc\n", "dd\n", "ee\n"] {
        assert_eq!(seen.recv_timeout(LONG).unwrap(), wanted);
        answer.send(None).unwrap();
    }
    spool.close();
    spool.wait_closed(LONG);
    assert!(seen.recv().is_err());
}

#[test]
fn closing_writes_what_is_left_and_does_not_wait_for_a_broken_output() {
    let (spool, seen, answer) = scripted(100);
    spool.push(NOW, b"a\n", WhenFull::Drop);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "a\n");
    spool.push(NOW, b"b\n", WhenFull::Drop);
    spool.close();
    answer.send(None).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "b\n");
    answer.send(Some(0)).unwrap();
    spool.wait_closed(LONG);
    assert!(spool.0.state.lock().closed);
    // Lost, and neither blocks nor panics.
    spool.push(NOW, b"c\n", WhenFull::Wait(LONG));
}
