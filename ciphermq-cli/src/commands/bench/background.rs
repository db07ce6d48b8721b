//! Additional waiting messages, queues and connections.

use std::time::Duration;

use ciphermq_client::{Client, Keyring, QueueName, RoutingKey};

use super::payload::{Payload, RunClock};
use super::plan::{PlanArgs, SpawnArgs};
use super::receiver_route::{ReceiverRoute, announce, name_failure};
use super::sending::acknowledged;
use super::server::{BenchServer, Role};
use crate::console::Console;
use crate::exit::Failure;

/// Creates the additional queues, waiting messages and connections. Returns the connections, which
/// last until they are dropped.
pub(super) async fn set_up(
    server: &BenchServer,
    plan: &PlanArgs,
    spawn: &SpawnArgs,
    routes: &[ReceiverRoute],
    keyring: &Keyring,
    console: &Console,
) -> Result<Vec<Client>, Failure> {
    let Some(route) = routes.first() else {
        return Ok(Vec::new());
    };
    for number in 0..spawn.idle_queues {
        let name = format!("idle_{number}");
        let queue = QueueName::new(&name).map_err(name_failure)?;
        let routing_key = RoutingKey::new(&name).map_err(name_failure)?;
        route.client.declare_queue(&queue).await?;
        route
            .client
            .bind(&queue, &route.exchange, &routing_key)
            .await?;
    }
    if spawn.backlog > 0 {
        console.info(format_args!(
            "Filling the queue with {} messages",
            spawn.backlog
        ));
        let absent = server.connect(Role::Absent).await?;
        announce(&absent, keyring).await?;
        let sender = server.connect(Role::Sender(0)).await?;
        let publisher = sender
            .publisher(absent.id())
            .exchange(route.exchange.clone())
            .routing_key(route.routing_key.clone());
        let publisher = publisher.start().await?;
        let mut payload = Payload::new(&RunClock::start(), plan.size);
        for number in 0..spawn.backlog {
            publisher
                .submit(payload.stamped(Duration::ZERO, number))
                .await?;
        }
        acknowledged(publisher).await?;
    }
    let mut idle = Vec::new();
    for _ in 0..spawn.idle_connections {
        idle.push(server.connect(Role::Absent).await?);
    }
    Ok(idle)
}
