//! The course of a benchmark, from connecting to the last confirmation.

use std::sync::Arc;

use super::ack_latencies::AckLatencies;
use super::background;
use super::payload::RunClock;
use super::plan::{Mode, PlanArgs, SpawnArgs};
use super::processes::Processes;
use super::receiver_route::ReceiverRoute;
use super::receiving::{consumers, finished, receive};
use super::report::Measurement;
use super::sending::{publishers, send};
use super::server::{BenchServer, Role};
use super::stopwatch::Stopwatch;
use super::warm_up::warm_up;
use crate::console::Console;
use crate::exit::Failure;

/// Runs a benchmark.
pub(super) async fn run(
    server: &BenchServer,
    plan: &PlanArgs,
    spawn: &SpawnArgs,
    processes: Processes,
    console: &Console,
) -> Result<Measurement, Failure> {
    let keyring = server.keyring()?;
    let mut routes = Vec::new();
    for number in 0..plan.receivers.get() {
        routes.push(ReceiverRoute::open(server, plan, number, &keyring).await?);
    }
    let idle = background::set_up(server, plan, spawn, &routes, &keyring, console).await?;
    let mut senders = Vec::new();
    for number in 0..plan.senders.get() {
        senders.push(server.connect(Role::Sender(number)).await?);
    }
    let run = RunClock::start();
    let ack_latencies = Arc::new(AckLatencies::new(run)?);
    let measured_acks = (plan.mode == Mode::Publish).then_some(&ack_latencies);
    let publishers = publishers(&senders, &routes, plan, measured_acks).await?;
    let suite = match publishers
        .first()
        .and_then(|sender| sender.publishers.first())
    {
        Some(publisher) => publisher.receiver_key().await.suite().to_string(),
        None => String::new(),
    };

    let cold = consumers(&routes, plan, &keyring).await?;
    let mut ready = warm_up(&publishers, cold, plan, run).await?;
    if plan.mode != Mode::EndToEnd {
        for consumer in ready.drain(..) {
            consumer.close().await;
        }
    }
    let mut stopwatch = Stopwatch::start(processes, run);
    let receiving = receive(ready, &routes, run);
    send(publishers, plan, run, measured_acks).await?;
    let received = match plan.mode {
        Mode::EndToEnd => Some(finished(receiving).await?),
        Mode::Publish => None,
        Mode::Drain => {
            stopwatch = Stopwatch::start(processes, run);
            let ready = consumers(&routes, plan, &keyring).await?;
            Some(finished(receive(ready, &routes, run)).await?)
        }
    };
    let (time, usages) = stopwatch.stop();
    let latencies = match received {
        Some(latencies) => latencies,
        None => ack_latencies.take()?,
    };
    let server_version = senders
        .first()
        .map(|client| client.server().version)
        .unwrap_or_default();
    if plan.mode == Mode::Publish && matches!(server, BenchServer::Running { .. }) {
        console.info(format_args!(
            "Removing the {} messages again",
            plan.messages
        ));
        let ready = consumers(&routes, plan, &keyring).await?;
        finished(receive(ready, &routes, run)).await?;
    }
    drop(idle);
    Ok(Measurement {
        time,
        latencies,
        suite,
        server_version,
        usages,
    })
}
