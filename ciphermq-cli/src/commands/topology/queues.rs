//! `queues`: lists, shows, declares, purges and deletes queues.

use ciphermq_client::{Client, DeleteQueue, QueueInfo, QueueName, QueuesRequest};

use super::{maker, there_is_no};
use crate::commands::listing::{Consent, Listing, Page, Row, connect, done};
use crate::connection::ConnectionArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// List, show, declare, purge and delete queues
///
/// A client sees the queues that it has made or bound, consumes from or has messages in. It may
/// purge and delete those that it has made and nobody else uses. Administrators see all, and may
/// remove all.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List queues
    List {
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Show one queue; the exit code is 4 if there is none of that name that this client may see
    Show {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: QueueName,
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Declare a queue, unless it exists
    Declare {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: QueueName,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove all messages from a queue: they become rejected messages
    Purge {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: QueueName,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Delete a queue and its bindings: its messages become rejected messages
    Delete {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: QueueName,
        /// Only if no message waits in it
        #[arg(long)]
        if_empty: bool,
        /// Only if no client consumes from it
        #[arg(long)]
        if_unused: bool,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Column {
    Queue,
    MadeBy,
    Bindings,
    Consumers,
    Messages,
}

impl Row<Column> for QueueInfo {
    fn cell(&self, column: Column) -> String {
        match column {
            Column::Queue => self.queue.to_string(),
            Column::MadeBy => maker(self.made_by.as_ref()),
            Column::Bindings => self.bindings.to_string(),
            Column::Consumers => self.consumers.to_string(),
            Column::Messages if self.more_messages => format!("{}+", self.messages),
            Column::Messages => self.messages.to_string(),
        }
    }
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    match args.action {
        Action::List { listing } => {
            listing
                .print(async |client, after| page(client, None, after).await)
                .await
        }
        Action::Show { queue, listing } => {
            let none = there_is_no(&format!("queue {queue}"));
            let page =
                async |client: &Client, after| page(client, Some(queue.clone()), after).await;
            listing.print_one(none, page).await
        }
        Action::Declare { queue, connection } => {
            let client = connect(connection).await?;
            client.declare_queue(&queue).await?;
            done(client, &console, format!("Queue {queue} declared")).await
        }
        Action::Purge {
            queue,
            consent,
            connection,
        } => {
            consent.ask(&format!("Reject all messages in queue {queue}"))?;
            let client = connect(connection).await?;
            client.purge_queue(&queue).await?;
            let what = format!("Queue {queue} purged; `rejected` lists what waited in it");
            done(client, &console, what).await
        }
        Action::Delete {
            queue,
            if_empty,
            if_unused,
            consent,
            connection,
        } => {
            consent.ask(&format!(
                "Delete queue {queue}, and reject all messages in it"
            ))?;
            let client = connect(connection).await?;
            let conditions = DeleteQueue {
                if_empty,
                if_unused,
            };
            client.delete_queue(&queue, conditions).await?;
            let what = format!("Queue {queue} deleted; `rejected` lists what waited in it");
            done(client, &console, what).await
        }
    }
}

/// Asks for a page of the queues, or for the one of this name.
async fn page(
    client: &Client,
    queue: Option<QueueName>,
    after: Option<QueueName>,
) -> Page<QueueInfo, QueueName> {
    let page = client
        .queues(QueuesRequest {
            after,
            queue,
            limit: None,
        })
        .await?;
    Ok((page.queues, page.next))
}
