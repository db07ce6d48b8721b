//! Reports of what happens to a connection while a command runs.

use ciphermq_client::keys::Registration;
use ciphermq_client::{Event, Events, Timestamp};

use crate::console::Console;

/// Warns if an announcement of keys could not be recorded.
pub(super) fn warn_unrecorded(registration: &Registration, console: &Console) {
    if let Some(reason) = &registration.not_recorded {
        console.warn(format_args!(
            "{reason}. If the server's database is restored from a backup, and this machine's clock \
             is set back, too, senders may refuse the next keys"
        ));
    }
}

/// Reports the events of a connection until it is closed permanently.
pub(super) fn report_events(mut events: Events, console: Console) {
    tokio::spawn(async move {
        // The first connection is not reported.
        let mut was_lost = false;
        while let Some(event) = events.next().await {
            match &event {
                Event::Disconnected { reason } => {
                    console.info(format_args!("Connection lost: {reason}"));
                }
                Event::ConnectFailed { reason } => {
                    console.info(format_args!("No connection yet: {reason}"));
                }
                Event::Reconnecting { after, attempt } => {
                    console.info(format_args!(
                        "Trying to connect again in {:.1} s (try {attempt})",
                        after.as_secs_f64()
                    ));
                }
                Event::Connected if was_lost => console.info("Connected again"),
                Event::RateLimited { pause } => console.info(format_args!(
                    "The server limits how fast this client may publish: sending waits {:.1} s, \
                     and goes on more slowly",
                    pause.as_secs_f64()
                )),
                Event::KeysAnnounced { registration } => {
                    console.info(format_args!(
                        "Public keys registered again, epoch {}",
                        registration.epoch.unwrap_or_default()
                    ));
                    warn_unrecorded(registration, &console);
                }
                Event::KeysNotAnnounced { reason } => console.warn(format_args!(
                    "The public keys are not registered as they should be: {reason}. {}",
                    reason.advice()
                )),
                Event::CertificateRenewed { until } => console.info(format_args!(
                    "The connection uses this client's new certificate, valid until {until}"
                )),
                Event::CertificateNotRenewed { reason } => console.warn(format_args!(
                    "This client's new certificate is not used: {reason} {}",
                    reason.advice().unwrap_or_default()
                )),
                Event::CertificateEnds { end } => {
                    if let Some(trouble) = end.trouble(Timestamp::now()) {
                        console.warn(format_args!("{trouble}. {}", end.advice()));
                    }
                }
                Event::RevocationListUsed { list } => console.info(format_args!(
                    "A new revocation list is in force: {} of {}, made at {}",
                    list.number(),
                    list.validity().subject,
                    list.validity().not_before
                )),
                Event::RevocationListRefused { reason } => {
                    console.warn(format_args!("{reason}. {}", reason.advice()));
                }
                Event::MessagesWait { reason, .. } => {
                    console.warn(format_args!(
                        "{reason} {}",
                        reason.advice().unwrap_or_default()
                    ));
                }
                _ => {}
            }
            was_lost |= matches!(event, Event::Disconnected { .. });
        }
    });
}
