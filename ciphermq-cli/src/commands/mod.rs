//! The commands, one module each: arguments and implementation.
//!
//! `listing` is what commands share that list things and change them; `events` reports the events
//! of a connection, for the commands that keep one open.

pub(crate) mod ack;
pub(crate) mod administration;
pub(crate) mod bench;
pub(crate) mod can_i;
pub(crate) mod certs;
pub(crate) mod completions;
pub(crate) mod demo;
mod events;
pub(crate) mod fetch;
pub(crate) mod get_key;
pub(crate) mod keygen;
pub(crate) mod keys;
mod listing;
pub(crate) mod receive;
pub(crate) mod register_key;
pub(crate) mod rejected;
pub(crate) mod resend;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod topology;
pub(crate) mod verify_key;

use std::future::Future;

use clap::Subcommand;

use crate::console::{Console, Role, Verbosity};
use crate::exit::{Exit, Failure};

/// The commands. Each one's help is the documentation of its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Send(send::Args),
    Receive(receive::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Keygen(keygen::Args),
    Certs(certs::Args),
    RegisterKey(register_key::Args),
    GetKey(get_key::Args),
    VerifyKey(verify_key::Args),
    Keys(keys::Args),
    Fetch(fetch::Args),
    Ack(ack::Args),
    Resend(resend::Args),
    Rejected(rejected::Args),
    Queues(topology::queues::Args),
    Exchanges(topology::exchanges::Args),
    Bindings(topology::bindings::Args),
    Connections(administration::connections::Args),
    Clients(administration::clients::Args),
    Reload(administration::reload::Args),
    CanI(can_i::Args),
    Status(status::Args),
    Completions(completions::Args),
}

/// Runs a command. `program` returns the definition of the whole command line.
///
/// # Errors
///
/// [`Failure`] with the error and advice.
pub(crate) fn run(
    command: Command,
    verbosity: Verbosity,
    program: fn() -> clap::Command,
) -> Result<Exit, Failure> {
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
        Command::Queues(args) => block_on(topology::queues::run(args, console(Role::Client))),
        Command::Exchanges(args) => block_on(topology::exchanges::run(args, console(Role::Client))),
        Command::Bindings(args) => block_on(topology::bindings::run(args, console(Role::Client))),
        Command::Connections(args) => block_on(administration::connections::run(
            args,
            console(Role::Client),
        )),
        Command::Clients(args) => {
            block_on(administration::clients::run(args, console(Role::Client)))
        }
        Command::Reload(args) => block_on(administration::reload::run(args)),
        Command::CanI(args) => block_on(can_i::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Completions(args) => completions::run(&args, program()),
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
