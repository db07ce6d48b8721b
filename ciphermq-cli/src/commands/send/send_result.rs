//! How sending ended, for each receiver and for all: the summary, the exit code, and what to tell.

use ciphermq_client::{ClientId, Summary};

use super::lines::{LineError, Piece};
use super::report::Report;
use crate::console::Console;
use crate::exit::{Exit, Failure, Signal};

/// What became of one receiver's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) unacknowledged: u64,
}

impl Counts {
    /// Adds what became of one stream's messages.
    pub(super) fn add(&mut self, summary: &Summary) {
        self.acknowledged += summary.acknowledged;
        self.unacknowledged += summary.unacknowledged;
    }
}

/// What ended the sending to one receiver before the input's end.
pub(super) enum Stop {
    /// The input cannot be read on.
    Input(Piece),
    /// A message cannot be sent, or something else of this receiver's is wrong.
    Failed(Failure),
    /// Something that would befall all that follow.
    Refused,
    Signal(Signal),
}

/// How sending to one receiver ended.
#[derive(Default)]
pub(super) struct Ending {
    pub(super) counts: Counts,
    pub(super) stop: Option<Stop>,
    /// The number of the last line, if it was left out because somebody was still writing it.
    pub(super) unfinished: Option<u64>,
}

impl Ending {
    /// Nothing was sent to it, for this reason.
    pub(super) fn failed(failure: Failure) -> Self {
        Self {
            stop: Some(Stop::Failed(failure)),
            ..Self::default()
        }
    }

    /// Whether it did not get everything.
    pub(super) fn is_short(&self) -> bool {
        self.stop.is_some() || self.counts.unacknowledged > 0
    }
}

/// What is told of it at the end.
enum Told {
    Done,
    Failed(Failure),
    Signalled(Signal),
}

/// The exit of the whole, or what to tell.
///
/// # Errors
///
/// [`Failure`] if a receiver did not get everything.
pub(super) fn conclude(
    endings: Vec<(ClientId, Ending)>,
    report: &Report,
    input: &str,
    console: &Console,
) -> Result<Exit, Failure> {
    let told = endings
        .into_iter()
        .enumerate()
        .map(|(number, (receiver, ending))| {
            let reading = match &ending.stop {
                Some(Stop::Input(piece)) => {
                    let error = piece.as_ref().as_ref().err();
                    error.map(|error| line_failure(error, input, report.can_resume()))
                }
                _ => None,
            };
            let told = match (ending.counts.unacknowledged, reading, ending.stop) {
                (0, Some(failure), _) | (0, None, Some(Stop::Failed(failure))) => {
                    Told::Failed(failure)
                }
                (0, None, Some(Stop::Signal(signal))) => Told::Signalled(signal),
                (0, None, _) => Told::Done,
                (count, reading, stop) => {
                    if let (Some(failure), _) | (None, Some(Stop::Failed(failure))) =
                        (reading, stop)
                    {
                        console.warn(failure.in_one_line());
                    }
                    Told::Failed(report.failure(number, count))
                }
            };
            (receiver, told)
        });
    together(told.collect())
}

/// Nothing was sent to any of them, for these reasons.
///
/// # Errors
///
/// [`Failure`], always.
pub(super) fn refused(
    failures: impl Iterator<Item = (ClientId, Failure)>,
) -> Result<Exit, Failure> {
    together(
        failures
            .map(|(receiver, failure)| (receiver, Told::Failed(failure)))
            .collect(),
    )
}

fn together(told: Vec<(ClientId, Told)>) -> Result<Exit, Failure> {
    let count = told.len();
    let (mut failures, mut signal) = (Vec::<(Vec<ClientId>, Failure)>::new(), None);
    for (receiver, told) in told {
        match told {
            Told::Done => {}
            Told::Signalled(came) => signal = Some(came),
            Told::Failed(failure) => match failures.iter_mut().find(|(_, other)| *other == failure)
            {
                Some((receivers, _)) => receivers.push(receiver),
                None => failures.push((vec![receiver], failure)),
            },
        }
    }
    if failures.is_empty() {
        return Ok(signal.map_or(Exit::Done, Exit::Signalled));
    }
    let failed: usize = failures.iter().map(|(receivers, _)| receivers.len()).sum();
    // What befell all of them alike is one error.
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

/// What to tell of an input that cannot be read on.
fn line_failure(error: &LineError, name: &str, resumes: bool) -> Failure {
    let advice = match error {
        LineError::TooLong { .. } => {
            "The server takes no longer ones: is it a file of messages, one a line?\nWhat stood \
             before it was sent, what follows was not."
        }
        LineError::Read { .. } => {
            "Check that it is a file that you may read. What stood before was sent, what follows \
             was not."
        }
        LineError::Changed { .. } if resumes => {
            "What stood before was sent, what follows was not. Put it back as it was, and run the \
             same command again: it goes on, and nothing arrives twice.\nIf what it held is gone: \
             --again sends what it holds now, as new messages.\nTo rotate a file that is being \
             sent, rename it, and let a new one be begun; or wait until it is sent."
        }
        LineError::Changed { .. } => {
            "What stood before was sent, what follows was not. Send what is left of it as an input \
             of its own: sent again as a whole, all of it would be new messages.\nTo rotate a file \
             that is being sent, rename it, and let a new one be begun; or wait until it is sent."
        }
    };
    Failure::new(format!("Of {name}, {error}."), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    fn failed(text: &str) -> Told {
        Told::Failed(Failure::new(text, "Mend it."))
    }

    #[test]
    fn what_befell_one_of_several_names_it() {
        let told = vec![
            (client("a"), Told::Done),
            (client("b"), failed("It broke.")),
            (client("c"), failed("It was gone.")),
            (client("d"), failed("It broke.")),
        ];
        let failure = together(told).unwrap_err();
        assert_eq!(failure.exit(), Exit::Error);
        assert_eq!(
            failure.to_string(),
            "3 of 4 receivers did not get everything: b, d, c.\n       b, d: It broke.\n       \
             Mend it.\n       c: It was gone.\n       Mend it."
        );
    }

    #[test]
    fn what_befell_all_alike_is_told_once() {
        for count in [1, 3] {
            let told = (0..count)
                .map(|_| (client("a"), failed("It broke.")))
                .collect();
            assert_eq!(
                together(told).unwrap_err().to_string(),
                "It broke.\n       Mend it."
            );
        }
    }

    #[test]
    fn what_is_listed_decides_the_exit_code_and_a_signal_only_where_nothing_failed() {
        let listed = || Told::Failed(Failure::plain("Listed.").with_exit(Exit::Unacknowledged));
        let signalled = || Told::Signalled(Signal::Interrupt);
        let exit = |told: Vec<Told>| {
            let told = told.into_iter().map(|told| (client("a"), told)).collect();
            together(told).unwrap_or_else(|failure| failure.exit())
        };
        assert_eq!(exit(vec![Told::Done, Told::Done]), Exit::Done);
        assert_eq!(
            exit(vec![Told::Done, signalled()]),
            Exit::Signalled(Signal::Interrupt)
        );
        assert_eq!(exit(vec![failed("x"), signalled()]), Exit::Error);
        assert_eq!(
            exit(vec![failed("x"), listed(), signalled()]),
            Exit::Unacknowledged
        );
    }
}
