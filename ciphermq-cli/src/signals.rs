//! Signals. The first one that asks the program to end lets it finish what is in progress, a second
//! one ends it at once.
//!
//! | signal | effect |
//! |---|---|
//! | SIGINT, SIGTERM | ends the program |
//! | SIGHUP, of a terminal that was closed | ends the program, unless it was ignored from the start (`nohup`). It does not count as a second signal, because shells send it twice |
//! | SIGXFSZ, SIGPIPE | none: the failed write is an error |
//! | SIGQUIT | ends the program at once, by the system's default; acknowledged messages are safe |

use std::sync::Arc;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

use crate::console::stderr;
use crate::exit::{Exit, Failure, Signal};

/// Ignores SIGXFSZ, so that reaching the limit of a file's size is an error of the write. (Rust's
/// runtime does the same for SIGPIPE.)
pub(crate) fn ignore_file_size_signal() {
    // If this fails, the signal ends the program without an error message.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Waits for the first signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    first: watch::Receiver<Option<Signal>>,
}

impl Signals {
    /// Registers the handlers. From now on the first signal does not end the program by itself.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the system refuses a handler.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed =
            |error| Failure::plain(format!("Signal handlers cannot be registered: {error}."));
        let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangups = (!is_ignored(SignalKind::hangup()))
            .then(|| signal(SignalKind::hangup()))
            .transpose()
            .map_err(failed)?;
        // All of the runtime's threads may be waiting for a reader of standard error.
        let mut ending = vec![SignalKind::interrupt(), SignalKind::terminate()];
        ending.extend(hangups.as_ref().map(|_| SignalKind::hangup()));
        for signal in ending {
            signal_hook::flag::register(signal.as_raw_value(), stderr::ending_flag())
                .map_err(failed)?;
        }
        let (sender, first) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    Some(()) = interrupts.recv() => Signal::Interrupt,
                    Some(()) = terminations.recv() => Signal::Terminate,
                    Some(()) = next(&mut hangups) => Signal::Hangup,
                    else => return,
                };
                match (*sender.borrow(), signal) {
                    (None, _) => {}
                    (Some(_), Signal::Hangup) => continue,
                    (Some(_), _) => {
                        stderr::clear_bar();
                        std::process::exit(i32::from(Exit::Signalled(signal).code()));
                    }
                }
                sender.send_replace(Some(signal));
            }
        });
        Ok(Self { first })
    }

    /// Waits for the first signal; completes at once if there was one. Cancel safe.
    pub(crate) async fn received(&mut self) -> Signal {
        loop {
            if let Some(signal) = *self.first.borrow_and_update() {
                return signal;
            }
            if self.first.changed().await.is_err() {
                // The listening task has ended, so no signal will arrive.
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

/// Whether a signal was ignored when the program started; `false` if the system does not report it.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in_mask(&status, signal.as_raw_value())
}

/// Whether a signal is in the mask `SigIgn` of `/proc/<pid>/status` (proc(5)), whose lowest bit is
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
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        let ignored: Vec<i32> = (0..70)
            .filter(|&signal| is_in_mask(status, signal))
            .collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!is_in_mask("", 1) && !is_in_mask("SigIgn:\tnone\n", 1));
    }
}
