//! `exchanges`: lists, shows, declares and deletes exchanges.

use ciphermq_client::{Client, ExchangeInfo, ExchangeName, ExchangesRequest};

use super::maker;
use crate::commands::listing::{Consent, ListArgs, Row, connect, done};
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
        list: ListArgs<Column>,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one exchange; the exit code is 4 if there is none of that name that this client may see
    Show {
        /// The exchange
        #[arg(value_name = "EXCHANGE")]
        exchange: ExchangeName,
        #[command(flatten)]
        list: ListArgs<Column>,
        #[command(flatten)]
        connection: ConnectionArgs,
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
        Action::List { list, connection } => {
            let client = connect(connection).await?;
            let exchanges = all(&client, None).await?;
            client.close().await;
            list.print(&exchanges)?;
            Ok(Exit::Done)
        }
        Action::Show {
            exchange,
            list,
            connection,
        } => {
            let client = connect(connection).await?;
            let exchanges = all(&client, Some(exchange.clone())).await?;
            client.close().await;
            if exchanges.is_empty() {
                let what = format!("There is no exchange {exchange} that this client may see.");
                return Err(Failure::plain(what).with_exit(Exit::Less));
            }
            list.print(&exchanges)?;
            Ok(Exit::Done)
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

/// Returns all exchanges, or the one of this name.
async fn all(
    client: &Client,
    exchange: Option<ExchangeName>,
) -> Result<Vec<ExchangeInfo>, Failure> {
    let mut exchanges = Vec::new();
    let mut after = None;
    loop {
        let page = client
            .exchanges(ExchangesRequest {
                after: after.clone(),
                exchange: exchange.clone(),
                limit: None,
            })
            .await?;
        exchanges.extend(page.exchanges);
        // A server that returns the same page again would keep us here indefinitely.
        if page.next.is_none() || page.next <= after {
            return Ok(exchanges);
        }
        after = page.next;
    }
}
