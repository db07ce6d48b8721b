//! `exchanges`: lists, shows, declares and deletes exchanges.

use ciphermq_client::{Client, ExchangeInfo, ExchangeName, ExchangesRequest};

use super::{maker, there_is_no};
use crate::commands::listing::{Consent, Listing, Page, Row, connect, done};
use crate::connection::ConnectionArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// List, show, declare and delete exchanges
///
/// A client sees the exchanges that it has made, or bound queues to. It may delete those that it
/// has made and nobody else has bound queues to. Administrators see all, and may delete all.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List exchanges
    List {
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Show one exchange; the exit code is 4 if there is none of that name that this client may see
    Show {
        /// The exchange
        #[arg(value_name = "EXCHANGE")]
        exchange: ExchangeName,
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Declare an exchange, unless it exists
    Declare {
        /// The exchange
        #[arg(value_name = "EXCHANGE")]
        exchange: ExchangeName,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Delete an exchange and the bindings to it
    Delete {
        /// The exchange
        #[arg(value_name = "EXCHANGE")]
        exchange: ExchangeName,
        /// Only if no queue is bound to it
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
    Exchange,
    MadeBy,
    Bindings,
}

impl Row<Column> for ExchangeInfo {
    fn cell(&self, column: Column) -> String {
        match column {
            Column::Exchange => self.exchange.to_string(),
            Column::MadeBy => maker(self.made_by.as_ref()),
            Column::Bindings => self.bindings.to_string(),
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
        Action::Show { exchange, listing } => {
            let none = there_is_no(&format!("exchange {exchange}"));
            let page =
                async |client: &Client, after| page(client, Some(exchange.clone()), after).await;
            listing.print_one(none, page).await
        }
        Action::Declare {
            exchange,
            connection,
        } => {
            let client = connect(connection).await?;
            client.declare_exchange(&exchange).await?;
            done(client, &console, format!("Exchange {exchange} declared")).await
        }
        Action::Delete {
            exchange,
            if_unused,
            consent,
            connection,
        } => {
            consent.ask(&format!(
                "Delete exchange {exchange}, and unbind all queues from it"
            ))?;
            let client = connect(connection).await?;
            client.delete_exchange(&exchange, if_unused).await?;
            done(client, &console, format!("Exchange {exchange} deleted")).await
        }
    }
}

/// Asks for a page of the exchanges, or for the one of this name.
async fn page(
    client: &Client,
    exchange: Option<ExchangeName>,
    after: Option<ExchangeName>,
) -> Page<ExchangeInfo, ExchangeName> {
    let page = client
        .exchanges(ExchangesRequest {
            after,
            exchange,
            limit: None,
        })
        .await?;
    Ok((page.exchanges, page.next))
}
