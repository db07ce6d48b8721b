//! The part of the workload that does not depend on the broker.

use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::broker::{Broker, Receiver, Sender};
use crate::cost::{Cost, family_cost, own_cost};
use crate::inbox::{Inbox, Progress, histogram};
use crate::plan::Plan;
use crate::sealing::{RunClock, Sealer, SessionKeys};

/// Results of a run.
pub struct Measurement {
    pub seconds: f64,
    /// Cost of the broker during the run, if known.
    pub server: Option<Cost>,
    /// Cost of this process during the run, if known.
    pub client: Option<Cost>,
    pub latencies: Histogram<u64>,
}

/// Connects all senders and receivers, sends one message from each sender to each receiver, and
/// then measures until all messages of the plan are confirmed, opened and acknowledged.
pub async fn run<B: Broker>(
    broker: B,
    plan: &Plan,
    server_pid: Option<u32>,
) -> anyhow::Result<Measurement> {
    let progress = Progress::default();
    let measured = tokio::select! {
        measured = connect_and_measure(&broker, plan, server_pid, &progress) => measured?,
        error = progress.clone().stalls() => return Err(error),
    };
    broker.check_empty().await?;
    Ok(measured)
}

async fn connect_and_measure<B: Broker>(
    broker: &B,
    plan: &Plan,
    server_pid: Option<u32>,
    progress: &Progress,
) -> anyhow::Result<Measurement> {
    let (keys, clock, warm_up) = (SessionKeys::new(plan), RunClock::start(), plan.warm_up());
    let mut parties = Parties::<B> {
        senders: Vec::new(),
        receivers: Vec::new(),
    };
    for number in 0..plan.receivers {
        let connection = broker.receiver(plan, number as usize).await?;
        let opener = keys.opener(number, clock);
        let inbox = Inbox::new(opener, warm_up.expected(number), progress.clone())?;
        parties.receivers.push((connection, inbox));
    }
    for number in 0..plan.senders {
        let connection = broker.sender(plan).await?;
        parties
            .senders
            .push((connection, keys.sealer(number, plan.size, clock)));
    }
    parties.exchange(&warm_up).await?;
    parties.expect(plan)?;

    let costs = || (server_pid.and_then(family_cost), own_cost());
    let before = costs();
    let began = Instant::now();
    parties.exchange(plan).await?;
    let latencies = parties.settle().await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = costs();
    Ok(Measurement {
        seconds,
        server: spent(before.0, after.0),
        client: spent(before.1, after.1),
        latencies,
    })
}

/// All senders and receivers, by their numbers.
struct Parties<B: Broker> {
    senders: Vec<(B::Sender, Sealer)>,
    receivers: Vec<(B::Receiver, Inbox)>,
}

impl<B: Broker> Parties<B> {
    /// Lets the receivers expect the messages of this plan from now on.
    fn expect(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for (number, (_, inbox)) in (0..).zip(&mut self.receivers) {
            inbox.restart(plan.expected(number))?;
        }
        Ok(())
    }

    /// Sends, receives and acknowledges all messages of a plan, in a task for each connection, so
    /// that none of them blocks another one.
    async fn exchange(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let (mut sending, mut receiving) = (JoinSet::new(), JoinSet::new());
        for (number, (mut connection, mut inbox)) in self.receivers.drain(..).enumerate() {
            receiving.spawn(async move {
                connection.receive(&mut inbox).await?;
                anyhow::Ok((number, connection, inbox))
            });
        }
        for (number, (connection, sealer)) in (0..).zip(self.senders.drain(..)) {
            let shares = plan.shares(number);
            sending.spawn(async move {
                let (connection, sealer) = send(connection, sealer, &shares).await?;
                anyhow::Ok((number, connection, sealer))
            });
        }
        let (mut senders, mut receivers) =
            tokio::try_join!(all_of(&mut sending), all_of(&mut receiving))?;
        senders.sort_unstable_by_key(|(number, ..)| *number);
        receivers.sort_unstable_by_key(|(number, ..)| *number);
        self.senders.extend(
            senders
                .into_iter()
                .map(|(_, connection, sealer)| (connection, sealer)),
        );
        self.receivers.extend(
            receivers
                .into_iter()
                .map(|(_, connection, inbox)| (connection, inbox)),
        );
        Ok(())
    }

    /// Waits until the broker has processed all acknowledgements. Returns all latencies.
    async fn settle(mut self) -> anyhow::Result<Histogram<u64>> {
        let mut settling = JoinSet::new();
        let mut all = histogram()?;
        for (connection, mut inbox) in self.receivers.drain(..) {
            all.add(inbox.restart(0)?)?;
            settling.spawn(connection.settle());
        }
        all_of(&mut settling).await?;
        Ok(all)
    }
}

/// Sends a sender's messages, to the receivers in turn.
async fn send<S: Sender>(
    mut connection: S,
    mut sealer: Sealer,
    shares: &[u64],
) -> anyhow::Result<(S, Sealer)> {
    for round in 0..shares.iter().copied().max().unwrap_or_default() {
        for (receiver, share) in shares.iter().enumerate() {
            if round < *share {
                connection.ready().await?;
                connection.publish(receiver, sealer.seal(receiver)?).await?;
            }
        }
    }
    connection.flush().await?;
    Ok((connection, sealer))
}

/// Waits for all tasks, or for the first error.
async fn all_of<T: 'static>(tasks: &mut JoinSet<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.push(done??);
    }
    Ok(all)
}

fn spent(before: Option<Cost>, after: Option<Cost>) -> Option<Cost> {
    let (before, after) = (before?, after?);
    Some(Cost {
        cpu: after.cpu.checked_sub(before.cpu)?,
        ..after
    })
}
