//! The behaviour of each attacker until its process is killed. A refused attacker tries again.

mod bound_queues;
mod handshakes;
mod idle_connections;
mod list_rejected;
mod minimal_envelopes;
mod no_reading;
mod own_rejections;
mod slow_lines;
mod unknown_acks;
mod unrelated_ids;

use super::Attack;
use super::target::Target;

/// Attacks until the process is killed.
pub async fn run(attack: Attack, target: Target) {
    // It lives as long as the process.
    let target: &'static Target = Box::leak(Box::new(target));
    match attack {
        Attack::BoundQueues => bound_queues::run(target).await,
        Attack::UnrelatedIds => unrelated_ids::run(target).await,
        Attack::MinimalEnvelopes => minimal_envelopes::run(target, 1).await,
        Attack::TwelveMinimalEnvelopes => minimal_envelopes::run(target, 12).await,
        Attack::UnknownAcks => unknown_acks::run(target).await,
        Attack::SlowLines => slow_lines::run(target).await,
        Attack::ListRejected => list_rejected::run(target).await,
        Attack::OwnRejections => own_rejections::run(target).await,
        Attack::Handshakes => handshakes::run(target).await,
        Attack::IdleConnections => idle_connections::run(target).await,
        Attack::NoReading => no_reading::run(target).await,
    }
}
