//! The load of a run: how many messages, from how many senders to how many receivers.

/// The load of a run.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    #[arg(long, default_value_t = 100_000)]
    pub messages: u64,
    /// Size of a payload before it is sealed, in bytes
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..))]
    pub size: u32,
    /// Maximum number of unconfirmed messages of each sender, to all its receivers together
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Number of sending connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub senders: u32,
    /// Number of receiving connections, each with its own queue
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub receivers: u32,
}

/// What a receiver may hold unacknowledged, however small the window is: no real receiver waits for
/// its own acknowledgements.
const LEAST_PREFETCH: u64 = 100;
/// Beyond it, more makes nothing faster.
const MOST_PREFETCH: u64 = 10_000;
/// What a receiver may have asked for in bytes: NATS closes connections with 64 MiB outstanding.
const MOST_PREFETCH_BYTES: u64 = 32 << 20;

impl Plan {
    /// Refuses a load in which a pair of a sender and a receiver has nothing to do.
    pub fn check(&self) -> anyhow::Result<()> {
        let pairs = self.pairs();
        anyhow::ensure!(
            self.messages >= pairs,
            "{} messages do not reach each of the {pairs} pairs of a sender and a receiver",
            self.messages
        );
        Ok(())
    }

    /// The load that reaches each pair once.
    pub fn warm_up(&self) -> Self {
        Self {
            messages: self.pairs(),
            ..self.clone()
        }
    }

    fn pairs(&self) -> u64 {
        u64::from(self.senders) * u64::from(self.receivers)
    }

    /// Number of messages that a sender sends to each receiver. All pairs have equally many, or one
    /// more than others.
    pub fn shares(&self, sender: u32) -> Vec<u64> {
        let first = u64::from(sender) * u64::from(self.receivers);
        let pairs = self.pairs();
        (first..first + u64::from(self.receivers))
            .map(|pair| self.messages / pairs + u64::from(pair < self.messages % pairs))
            .collect()
    }

    /// Number of messages that a receiver gets.
    pub fn expected(&self, receiver: u32) -> u64 {
        let shares = |sender| self.shares(sender).into_iter().nth(receiver as usize);
        (0..self.senders).filter_map(shares).sum()
    }

    /// Number of messages that a receiver may have unacknowledged: as many as all senders may have
    /// in flight, within bounds.
    pub fn prefetch(&self) -> u32 {
        let windows = u64::from(self.window) * u64::from(self.senders);
        let by_bytes = MOST_PREFETCH_BYTES / u64::from(self.size).max(1);
        let prefetch = windows
            .clamp(LEAST_PREFETCH, MOST_PREFETCH)
            .min(by_bytes.max(1));
        u32::try_from(prefetch).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(messages: u64, senders: u32, receivers: u32) -> Plan {
        Plan {
            messages,
            size: 256,
            window: 1,
            senders,
            receivers,
        }
    }

    #[test]
    fn the_work_is_split_evenly() {
        for (messages, senders, receivers) in [(1, 1, 1), (101, 3, 4), (40_000, 1, 200)] {
            let plan = plan(messages, senders, receivers);
            let shares: Vec<u64> = (0..senders)
                .flat_map(|sender| plan.shares(sender))
                .collect();
            assert_eq!(shares.iter().sum::<u64>(), messages);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            let expected: u64 = (0..receivers).map(|number| plan.expected(number)).sum();
            assert_eq!(expected, messages);
            assert_eq!(plan.warm_up().shares(0), vec![1; receivers as usize]);
        }
    }

    #[test]
    fn each_pair_has_something_to_do() {
        assert!(plan(64, 8, 8).check().is_ok());
        assert!(plan(63, 8, 8).check().is_err());
    }

    #[test]
    fn a_receiver_may_hold_what_the_senders_have_in_flight() {
        let prefetch = |window, size| {
            Plan {
                window,
                size,
                ..plan(1, 2, 1)
            }
            .prefetch()
        };
        assert_eq!(prefetch(1, 256), 100);
        assert_eq!(prefetch(1000, 256), 2000);
        assert_eq!(prefetch(100_000, 256), 10_000);
        assert_eq!(prefetch(1000, 1 << 20), 32);
    }
}
