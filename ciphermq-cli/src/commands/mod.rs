//! The commands, one module each: arguments and implementation.

pub(crate) mod ack;
pub(crate) mod bench;
pub(crate) mod can_i;
pub(crate) mod certs;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod fetch;
pub(crate) mod get_key;
pub(crate) mod keygen;
pub(crate) mod keys;
pub(crate) mod receive;
pub(crate) mod register_key;
pub(crate) mod rejected;
pub(crate) mod resend;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod verify_key;

use std::future::Future;

use ciphermq_client::keys::Registration;
use ciphermq_client::{Event, Events};

use crate::args::Command;
use crate::console::{Console, Role, Verbosity};
use crate::exit::{Exit, Failure};

/// Runs a command.
///
/// # Errors
///
/// [`Failure`] with the error and advice.
pub(crate) fn run(command: Command, verbosity: Verbosity) -> Result<Exit, Failure> {
    let console = |role| Console::new(role, verbosity);
    match command {
        Command::Send(args) => block_on(send::run(args, console(Role::Sender))),
        Command::Receive(args) => block_on(receive::run(args, console(Role::Receiver))),
        Command::Bench(args) => block_on(bench::run(args, console(Role::Client))),
        Command::Demo(args) => block_on(demo::run(args, console(Role::Demo), verbosity)),
        Command::Keygen(args) => keygen::run(args, &console(Role::Client)),
        Command::Certs(args) => certs::run(args, &console(Role::Client)),
        Command::RegisterKey(args) => block_on(register_key::run(args, console(Role::Receiver))),
        Command::GetKey(args) => block_on(get_key::run(args, console(Role::Sender))),
        Command::VerifyKey(args) => block_on(verify_key::run(args, console(Role::Sender))),
        Command::Keys(args) => block_on(keys::run(args, console(Role::Receiver))),
        Command::Fetch(args) => block_on(fetch::run(args, console(Role::Receiver))),
        Command::Ack(args) => block_on(ack::run(args, console(Role::Receiver))),
        Command::Resend(args) => block_on(resend::run(args, console(Role::Sender))),
        Command::Rejected(args) => block_on(rejected::run(args, console(Role::Client))),
        Command::CanI(args) => block_on(can_i::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Completions(args) => completions::run(&args),
    }
}

fn block_on(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::plain(format!("The program cannot start its threads: {error}."))
        })?;
    let result = runtime.block_on(command);
    // A thread may still be blocked on standard input: do not wait for it.
    runtime.shutdown_background();
    result
}

/// Warns if an announcement of keys could not be recorded.
fn warn_unrecorded(registration: &Registration, console: &Console) {
    if let Some(reason) = &registration.not_recorded {
        console.warn(format_args!(
            "{reason}. If the server's database is restored from a backup, and this machine's clock \
             is set back, too, senders may refuse the next keys"
        ));
    }
}

/// Reports the events of a connection until it is closed permanently.
fn report_events(mut events: Events, console: Console) {
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
                _ => {}
            }
            was_lost |= matches!(event, Event::Disconnected { .. });
        }
    });
}
