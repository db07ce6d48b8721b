//! The meaning of signals to the server.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT | stop gracefully |
//! | SIGHUP | reopen the log files, read the configuration again, and continue |
//! | SIGUSR1 | reopen the log files, and continue |
//! | SIGPIPE, SIGXFSZ | ignored: the write that causes one fails with an error |
//! | SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF | ignored |

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use ciphermq_logging::Handle;

/// The signal handlers of this process, in place of the default actions that would end it.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    /// Installs the handlers. Call it before anything else, within a runtime.
    ///
    /// # Errors
    ///
    /// The operating system's error if it cannot install one.
    pub fn listen() -> io::Result<Self> {
        let ignored = [
            libc::SIGXFSZ,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGVTALRM,
            libc::SIGPROF,
        ];
        // Once tokio has installed its handler, the signal has no other effect as long as the
        // process lives.
        for number in ignored {
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

    /// Returns when a signal stops the server, and handles the other signals meanwhile. SIGHUP
    /// calls `reload`. It is cancel safe.
    pub async fn stop(&mut self, logs: &Handle, mut reload: impl FnMut()) {
        loop {
            let reloads = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.quit.recv() => return,
                _ = self.hang_up.recv() => true,
                _ = self.user.recv() => false,
            };
            logs.reopen();
            tracing::info!("The log files are reopened");
            if reloads {
                reload();
            }
        }
    }
}
