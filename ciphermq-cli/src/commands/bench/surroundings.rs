//! What is there beside the load: waiting messages, queues, connections.

use std::time::Duration;

use ciphermq_client::{Client, Keyring, QueueName, RoutingKey};

use super::lane::{Lane, announce, unnamed};
use super::payload::{Payload, Run};
use super::plan::{PlanArgs, SpawnArgs};
use super::sending::acknowledged;
use super::target::{Role, Target};
use crate::console::Console;
use crate::exit::Failure;

/// Whatever is to be there beside the load: queues, waiting messages, connections. The latter live
/// as long as the result.
pub(super) async fn set_up(
    target: &Target,
    plan: &PlanArgs,
    spawn: &SpawnArgs,
    lanes: &[Lane],
    keyring: &Keyring,
    console: &Console,
) -> Result<Vec<Client>, Failure> {
    let Some(lane) = lanes.first() else {
        return Ok(Vec::new());
    };
    for number in 0..spawn.idle_queues {
        let name = format!("idle_{number}");
        let queue = QueueName::new(&name).map_err(unnamed)?;
        let routing_key = RoutingKey::new(&name).map_err(unnamed)?;
        lane.client.declare_queue(&queue).await?;
        lane.client
            .bind(&queue, &lane.exchange, &routing_key)
            .await?;
    }
    if spawn.backlog > 0 {
        console.say(format_args!(
            "Filling the queue with {} messages",
            spawn.backlog
        ));
        let absent = target.connect(Role::Absent).await?;
        announce(&absent, keyring).await?;
        let sender = target.connect(Role::Sender(0)).await?;
        let publisher = sender
            .publisher(absent.id())
            .exchange(lane.exchange.clone())
            .routing_key(lane.routing_key.clone());
        let publisher = publisher.start().await?;
        let mut payload = Payload::new(&Run::start(), plan.size);
        for number in 0..spawn.backlog {
            publisher
                .submit(payload.stamped(Duration::ZERO, number))
                .await?;
        }
        acknowledged(publisher).await?;
    }
    let mut idle = Vec::new();
    for _ in 0..spawn.idle_connections {
        idle.push(target.connect(Role::Absent).await?);
    }
    Ok(idle)
}
