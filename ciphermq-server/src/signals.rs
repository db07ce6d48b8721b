//! What signals mean to the server.
//!
//! | signal | |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT | stop in good order |
//! | SIGHUP, SIGUSR1 | open the log files anew, and go on |
//! | SIGPIPE, SIGXFSZ | nothing: a write to what is closed, or to a file at its limit, fails and is handled as an error |
//! | SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF | nothing |

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logging::Handle;

/// The signals of this process. None of them ends it any more.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    /// Begins to take them. Call it first of all, in a runtime.
    ///
    /// # Errors
    ///
    /// When the operating system gives none.
    pub fn listen() -> io::Result<Self> {
        let unheeded = [
            libc::SIGXFSZ,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGVTALRM,
            libc::SIGPROF,
        ];
        // Once it is listened to, a signal does nothing else for as long as the process lives.
        for number in unheeded {
            drop(signal(SignalKind::from_raw(number))?);
        }
        drop(signal(SignalKind::pipe())?);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns when the server is to stop, and does meanwhile what else signals ask for. May be
    /// dropped and called again.
    pub async fn stop(&mut self, logs: &Handle) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.quit.recv() => return,
                _ = self.hang_up.recv() => {}
                _ = self.user.recv() => {}
            }
            logs.reopen();
            tracing::info!("The log files are opened anew");
        }
    }
}
