//! From connecting to the last confirmation, in the order that the mode asks for.

use std::sync::Arc;

use super::acknowledgements::Acknowledgements;
use super::lane::Lane;
use super::payload::Run;
use super::plan::{Mode, PlanArgs, SpawnArgs};
use super::receiving::{consumers, finished, receive};
use super::report::Measured;
use super::sending::{publishers, send};
use super::stopwatch::Stopwatch;
use super::surroundings;
use super::target::{Role, Target};
use crate::console::Console;
use crate::exit::Failure;

/// Does it all.
pub(super) async fn run(
    target: &Target,
    plan: &PlanArgs,
    spawn: &SpawnArgs,
    console: &Console,
) -> Result<Measured, Failure> {
    let keyring = target.keyring()?;
    let mut lanes = Vec::new();
    for number in 0..plan.receivers.get() {
        lanes.push(Lane::open(target, plan, number, &keyring).await?);
    }
    let idle = surroundings::set_up(target, plan, spawn, &lanes, &keyring, console).await?;
    let mut senders = Vec::new();
    for number in 0..plan.senders.get() {
        senders.push(target.connect(Role::Sender(number)).await?);
    }
    let run = Run::start();
    let acknowledgements = Arc::new(Acknowledgements::new(run)?);
    let watched = (plan.mode == Mode::Publish).then_some(&acknowledgements);
    let publishers = publishers(&senders, &lanes, plan, watched).await?;
    let suite = match publishers.first().and_then(|publishers| publishers.first()) {
        Some(publisher) => publisher.receiver_key().await.suite().to_string(),
        None => String::new(),
    };

    let ready = if plan.mode == Mode::EndToEnd {
        consumers(&lanes, plan, &keyring).await?
    } else {
        Vec::new()
    };
    let mut stopwatch = Stopwatch::start(target, run);
    let receiving = receive(ready, &lanes, run);
    send(publishers, plan, run, watched).await?;
    let received = match plan.mode {
        Mode::EndToEnd => Some(finished(receiving).await?),
        Mode::Publish => None,
        Mode::Drain => {
            stopwatch = Stopwatch::start(target, run);
            let ready = consumers(&lanes, plan, &keyring).await?;
            Some(finished(receive(ready, &lanes, run)).await?)
        }
    };
    let (time, server, client) = stopwatch.stop();
    let latencies = match received {
        Some(latencies) => latencies,
        None => acknowledgements.take()?,
    };
    let server_version = senders
        .first()
        .map(|client| client.server().version)
        .unwrap_or_default();
    if plan.mode == Mode::Publish && matches!(target, Target::Running { .. }) {
        console.say(format_args!("Taking {} messages out again", plan.messages));
        let ready = consumers(&lanes, plan, &keyring).await?;
        finished(receive(ready, &lanes, run)).await?;
    }
    drop(idle);
    Ok(Measured {
        time,
        latencies,
        suite,
        server_version,
        server,
        client,
    })
}
