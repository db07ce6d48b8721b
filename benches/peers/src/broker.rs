//! What a broker's client has to do.

use std::path::PathBuf;

use crate::inbox::Inbox;
use crate::plan::Plan;

/// How to reach a broker.
#[derive(Debug, Clone, clap::Args)]
pub struct Address {
    /// TLS port of the broker on localhost
    #[arg(long)]
    pub port: u16,
    /// Folder with `ca.crt`, `client.crt` and `client.key`
    #[arg(long)]
    pub certs: PathBuf,
}

impl Address {
    pub fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.path(name))?)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.certs.join(name)
    }
}

/// A broker in which a run's queues exist, one for each receiver.
pub trait Broker {
    type Sender: Sender;
    type Receiver: Receiver;

    /// Connects a sender.
    async fn sender(&self, plan: &Plan) -> anyhow::Result<Self::Sender>;

    /// Connects the receiver of this number.
    async fn receiver(&self, plan: &Plan, number: usize) -> anyhow::Result<Self::Receiver>;

    /// Checks that nothing is left over.
    async fn check_empty(&self) -> anyhow::Result<()>;
}

/// A sending connection.
pub trait Sender: Send + 'static {
    /// Waits until the window has room for a message.
    fn ready(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Publishes a message for a receiver, and does not wait until it is confirmed.
    fn publish(
        &mut self,
        receiver: usize,
        message: Vec<u8>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Waits until all messages are confirmed.
    fn flush(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A receiving connection, with a queue.
pub trait Receiver: Send + 'static {
    /// Receives, opens and acknowledges messages until the inbox is complete.
    fn receive(&mut self, inbox: &mut Inbox) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Waits until the broker has processed all acknowledgements.
    fn settle(self) -> impl Future<Output = anyhow::Result<()>> + Send;
}
