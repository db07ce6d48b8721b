//! `bindings`: lists and shows bindings, binds and unbinds queues.

use ciphermq_client::{
    BindingCursor, BindingInfo, BindingsRequest, Client, ExchangeName, QueueName, RoutingKey,
};

use super::{maker, there_is_no};
use crate::commands::listing::{Consent, Listing, Page, Row, connect, done};
use crate::connection::ConnectionArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// List and show bindings, bind and unbind queues
///
/// A client sees the bindings that it has made, and those of queues and exchanges that it has made.
/// It may remove those that it has made. Administrators see all, and may remove all.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List bindings
    List {
        /// Only those of this queue
        #[arg(long)]
        queue: Option<QueueName>,
        /// Only those to this exchange
        #[arg(long)]
        exchange: Option<ExchangeName>,
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Show one binding; the exit code is 4 if there is none that this client may see
    Show {
        #[command(flatten)]
        binding: Binding,
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Bind a queue to an exchange by a routing key
    Bind {
        #[command(flatten)]
        binding: Binding,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove a binding; messages that wait in the queue stay
    Unbind {
        #[command(flatten)]
        binding: Binding,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Binding {
    /// The queue
    #[arg(value_name = "QUEUE")]
    queue: QueueName,
    /// The exchange
    #[arg(value_name = "EXCHANGE")]
    exchange: ExchangeName,
    /// The routing key
    #[arg(value_name = "ROUTING_KEY")]
    routing_key: RoutingKey,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Column {
    Exchange,
    RoutingKey,
    Queue,
    MadeBy,
}

impl Row<Column> for BindingInfo {
    fn cell(&self, column: Column) -> String {
        match column {
            Column::Exchange => self.exchange.to_string(),
            Column::RoutingKey => self.routing_key.to_string(),
            Column::Queue => self.queue.to_string(),
            Column::MadeBy => maker(self.made_by.as_ref()),
        }
    }
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    match args.action {
        Action::List {
            queue,
            exchange,
            listing,
        } => {
            let page = async |client: &Client, after| {
                page(client, queue.clone(), exchange.clone(), after).await
            };
            listing.print(page).await
        }
        Action::Show { binding, listing } => {
            let Binding {
                queue,
                exchange,
                routing_key,
            } = binding;
            let what = format!("binding of queue {queue} to exchange {exchange} by {routing_key}");
            let none = there_is_no(&what);
            let page = async |client: &Client, after| {
                let of = (Some(queue.clone()), Some(exchange.clone()));
                let (mut bindings, next) = page(client, of.0, of.1, after).await?;
                bindings.retain(|binding| binding.routing_key == routing_key);
                Ok((bindings, next))
            };
            listing.print_one(none, page).await
        }
        Action::Bind {
            binding,
            connection,
        } => {
            let Binding {
                queue,
                exchange,
                routing_key,
            } = binding;
            let client = connect(connection).await?;
            client.bind(&queue, &exchange, &routing_key).await?;
            let what = format!("Queue {queue} bound to exchange {exchange} by {routing_key}");
            done(client, &console, what).await
        }
        Action::Unbind {
            binding,
            consent,
            connection,
        } => {
            let Binding {
                queue,
                exchange,
                routing_key,
            } = binding;
            consent.ask(&format!(
                "Unbind queue {queue} from exchange {exchange} by {routing_key}"
            ))?;
            let client = connect(connection).await?;
            client.unbind(&queue, &exchange, &routing_key).await?;
            let what = format!("Queue {queue} unbound from exchange {exchange} by {routing_key}");
            done(client, &console, what).await
        }
    }
}

/// Asks for a page of the bindings of a queue, to an exchange, or of all.
async fn page(
    client: &Client,
    queue: Option<QueueName>,
    exchange: Option<ExchangeName>,
    after: Option<BindingCursor>,
) -> Page<BindingInfo, BindingCursor> {
    let page = client
        .bindings(BindingsRequest {
            after,
            exchange,
            queue,
            limit: None,
        })
        .await?;
    Ok((page.bindings, page.next))
}
