//! Signals: the first that asks the program to end lets it finish what it has begun, the second
//! ends it at once.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGINT, SIGTERM | end |
//! | SIGHUP, of a terminal that was closed | ends, unless it was ignored from the start (`nohup`). It is no second signal: shells send it twice |
//! | SIGXFSZ, SIGPIPE | nothing: what cannot be written is an error where it is written |
//! | SIGQUIT | ends at once, as the system does it: what was acknowledged is safe then, too |

use std::sync::Arc;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

use crate::console::stderr;
use crate::exit::{Exit, Failure, Signal};

/// A limit on the size of files is an error of the write that reaches it, not the program's end.
/// (Rust's runtime sees to the same for SIGPIPE.)
pub(crate) fn outlive_file_size_limits() {
    // Should the system not let us, nothing is lost but the error's text.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Tells of the first signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    first: watch::Receiver<Option<Signal>>,
}

impl Signals {
    /// Begins to listen. From now on no signal ends the program by itself.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the system does not let us.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::plain(format!("Signals cannot be listened for: {error}."));
        let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangups = (!is_ignored(SignalKind::hangup()))
            .then(|| signal(SignalKind::hangup()))
            .transpose()
            .map_err(failed)?;
        let (sender, first) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let came = tokio::select! {
                    Some(()) = interrupts.recv() => Signal::Interrupt,
                    Some(()) = terminations.recv() => Signal::Terminate,
                    Some(()) = next(&mut hangups) => Signal::Hangup,
                    else => return,
                };
                match (*sender.borrow(), came) {
                    (None, _) => {}
                    (Some(_), Signal::Hangup) => continue,
                    (Some(_), _) => {
                        stderr::clear_bar();
                        std::process::exit(i32::from(Exit::Signalled(came).code()));
                    }
                }
                sender.send_replace(Some(came));
            }
        });
        Ok(Self { first })
    }

    /// Waits for the first signal; returns at once if it has come. Safe to cancel.
    pub(crate) async fn received(&mut self) -> Signal {
        loop {
            if let Some(signal) = *self.first.borrow_and_update() {
                return signal;
            }
            if self.first.changed().await.is_err() {
                // The listener has gone, so nothing will come.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn next(signals: &mut Option<Stream>) -> Option<()> {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether whoever started this program has it ignore a signal. Where the system does not tell, it
/// has not.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in_mask(&status, signal.as_raw_value())
}

/// Whether a signal is in the mask `SigIgn` of `/proc/<pid>/status`, of which the lowest bit is
/// signal 1.
fn is_in_mask(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|bit| 1u64.checked_shl(bit));
    mask.unwrap_or(0) & bit.unwrap_or(0) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        let ignored: Vec<i32> = (0..70)
            .filter(|&signal| is_in_mask(status, signal))
            .collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!is_in_mask("", 1) && !is_in_mask("SigIgn:\tnone\n", 1));
    }
}
