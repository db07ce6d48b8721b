//! The result of sending to all receivers: the exit code, and one error for all failures.

use ciphermq_client::ClientId;

use super::lines::LineError;
use super::report::Report;
use super::send_result::{SendResult, StopReason};
use crate::console::Console;
use crate::exit::{Exit, Failure, Signal};

/// The part of one receiver's result that decides the exit code.
enum Verdict {
    Complete,
    Failed(Failure),
    Signalled(Signal),
}

/// Combines the results of all receivers.
///
/// # Errors
///
/// [`Failure`] if a receiver did not get everything.
pub(super) fn overall_result(
    results: Vec<(ClientId, SendResult)>,
    report: &Report,
    input: &str,
    console: &Console,
) -> Result<Exit, Failure> {
    let verdicts = results
        .into_iter()
        .enumerate()
        .map(|(number, (receiver, result))| {
            let reading = match &result.stop {
                Some(StopReason::Input(chunk)) => {
                    let error = chunk.as_ref().as_ref().err();
                    error.map(|error| line_failure(error, input, report.can_resume()))
                }
                _ => None,
            };
            let verdict = match (result.counts.unacknowledged, reading, result.stop) {
                (0, Some(failure), _)
                | (0, None, Some(StopReason::Failed(failure) | StopReason::Unlisted(failure))) => {
                    Verdict::Failed(failure)
                }
                (0, None, Some(StopReason::Signal(signal))) => Verdict::Signalled(signal),
                (0, None, _) => Verdict::Complete,
                (count, reading, stop) => {
                    if let (Some(failure), _) | (None, Some(StopReason::Failed(failure))) =
                        (reading, stop)
                    {
                        console.warn(failure.in_one_line());
                    }
                    Verdict::Failed(report.failure(number, count))
                }
            };
            (receiver, verdict)
        });
    combine(verdicts.collect())
}

/// Combines the failures of receivers to none of whom anything was sent.
///
/// # Errors
///
/// [`Failure`], always.
pub(super) fn all_failed(
    failures: impl Iterator<Item = (ClientId, Failure)>,
) -> Result<Exit, Failure> {
    combine(
        failures
            .map(|(receiver, failure)| (receiver, Verdict::Failed(failure)))
            .collect(),
    )
}

fn combine(verdicts: Vec<(ClientId, Verdict)>) -> Result<Exit, Failure> {
    let count = verdicts.len();
    let (mut failures, mut signal) = (Vec::<(Vec<ClientId>, Failure)>::new(), None);
    for (receiver, verdict) in verdicts {
        match verdict {
            Verdict::Complete => {}
            Verdict::Signalled(received) => signal = Some(received),
            Verdict::Failed(failure) => {
                match failures.iter_mut().find(|(_, other)| *other == failure) {
                    Some((receivers, _)) => receivers.push(receiver),
                    None => failures.push((vec![receiver], failure)),
                }
            }
        }
    }
    if failures.is_empty() {
        return Ok(signal.map_or(Exit::Done, Exit::Signalled));
    }
    let failed: usize = failures.iter().map(|(receivers, _)| receivers.len()).sum();
    // A failure common to all receivers is reported once, without their names.
    if failures.len() == 1
        && failed == count
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure);
    }
    let names = |receivers: &[ClientId]| {
        let names: Vec<&str> = receivers.iter().map(ClientId::as_str).collect();
        names.join(", ")
    };
    let all: Vec<ClientId> = failures
        .iter()
        .flat_map(|(receivers, _)| receivers.clone())
        .collect();
    let is_listed = failures
        .iter()
        .any(|(_, failure)| failure.exit() == Exit::Unacknowledged);
    let advice: Vec<String> = failures
        .iter()
        .map(|(receivers, failure)| format!("{}: {}", names(receivers), failure.text()))
        .collect();
    let what = format!(
        "{failed} of {count} receivers did not get everything: {}.",
        names(&all)
    );
    let exit = if is_listed {
        Exit::Unacknowledged
    } else {
        Exit::Error
    };
    Err(Failure::new(what, advice.join("\n")).with_exit(exit))
}

/// The error for an input that cannot be read to its end.
fn line_failure(error: &LineError, name: &str, resumes: bool) -> Failure {
    let advice = match error {
        LineError::TooLong { .. } => {
            "The server does not accept longer lines: is it a file of messages, one per line?\n\
             Everything before it was sent, nothing after it."
        }
        LineError::Read { .. } => {
            "Check that it is a file that you may read. Everything before it was sent, nothing \
             after it."
        }
        LineError::Changed { .. } if resumes => {
            "Everything before it was sent, nothing after it. Restore the file as it was, and run \
             the same command again: it resumes, and nothing arrives twice.\nIf its earlier content \
             is gone: --again sends the current content, as new messages.\nTo rotate a file that is \
             being sent, rename it and begin a new one; once it is sent, rename its checkpoint, too."
        }
        LineError::Changed { .. } => {
            "Everything before it was sent, nothing after it. Send the rest as a separate input: \
             sent again as a whole, all of it would be new messages.\nTo rotate a file that is \
             being sent, rename it and begin a new one."
        }
    };
    Failure::new(format!("{name}: {error}."), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    fn failed(text: &str) -> Verdict {
        Verdict::Failed(Failure::new(text, "Fix it."))
    }

    #[test]
    fn a_failure_of_some_receivers_names_them() {
        let verdicts = vec![
            (client("a"), Verdict::Complete),
            (client("b"), failed("It broke.")),
            (client("c"), failed("It was gone.")),
            (client("d"), failed("It broke.")),
        ];
        let failure = combine(verdicts).unwrap_err();
        assert_eq!(failure.exit(), Exit::Error);
        assert_eq!(
            failure.to_string(),
            "3 of 4 receivers did not get everything: b, d, c.\n       b, d: It broke.\n       \
             Fix it.\n       c: It was gone.\n       Fix it."
        );
    }

    #[test]
    fn a_failure_common_to_all_receivers_is_reported_once() {
        for count in [1, 3] {
            let verdicts = (0..count)
                .map(|_| (client("a"), failed("It broke.")))
                .collect();
            assert_eq!(
                combine(verdicts).unwrap_err().to_string(),
                "It broke.\n       Fix it."
            );
        }
    }

    #[test]
    fn unacknowledged_messages_decide_the_exit_code_and_a_signal_only_if_nothing_failed() {
        let listed = || Verdict::Failed(Failure::plain("Listed.").with_exit(Exit::Unacknowledged));
        let signalled = || Verdict::Signalled(Signal::Interrupt);
        let exit = |verdicts: Vec<Verdict>| {
            let verdicts = verdicts.into_iter().map(|verdict| (client("a"), verdict));
            combine(verdicts.collect()).unwrap_or_else(|failure| failure.exit())
        };
        assert_eq!(exit(vec![Verdict::Complete, Verdict::Complete]), Exit::Done);
        assert_eq!(
            exit(vec![Verdict::Complete, signalled()]),
            Exit::Signalled(Signal::Interrupt)
        );
        assert_eq!(exit(vec![failed("x"), signalled()]), Exit::Error);
        assert_eq!(
            exit(vec![failed("x"), listed(), signalled()]),
            Exit::Unacknowledged
        );
    }
}
