//! `connections`: lists and closes connections of clients.

use ciphermq_client::{Client, ClientId, ConnectionInfo, ConnectionsRequest, QueueName};

use crate::commands::listing::{Consent, Listing, Row, connect, done};
use crate::connection::ConnectionArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// List and close connections to the server
///
/// Only for administrators of the server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List connections
    List {
        /// Only those of this client
        #[arg(long)]
        client: Option<ClientId>,
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Close a connection; its client may connect again, and most do so by themselves
    Close {
        /// The number of the connection, as `list` shows it
        #[arg(value_name = "NUMBER")]
        number: u64,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Column {
    Connection,
    Client,
    Address,
    Since,
    Tls,
    Program,
    Consumer,
    Queues,
    InFlight,
    Packed,
}

impl Row<Column> for ConnectionInfo {
    fn cell(&self, column: Column) -> String {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        match column {
            Column::Connection => self.connection.to_string(),
            Column::Client => self.client.to_string(),
            Column::Address => self.address.clone(),
            Column::Since => self.since.clone(),
            Column::Tls => or_none(&self.tls),
            Column::Program => or_none(&self.program),
            Column::Consumer => or_none(&self.consumer),
            Column::Queues if self.queues.is_empty() => "-".to_owned(),
            Column::Queues => {
                let names: Vec<&str> = self.queues.iter().map(QueueName::as_str).collect();
                names.join(",")
            }
            Column::InFlight => self.in_flight.to_string(),
            Column::Packed => if self.packed { "yes" } else { "no" }.to_owned(),
        }
    }
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    match args.action {
        Action::List {
            client: only,
            listing,
        } => {
            let page = async |client: &Client, after| {
                let request = ConnectionsRequest {
                    after,
                    client: only.clone(),
                    limit: None,
                };
                let page = client.connections(request).await?;
                Ok((page.connections, page.next))
            };
            listing.print(page).await
        }
        Action::Close {
            number,
            consent,
            connection,
        } => {
            let consequence = "Its client may connect again.";
            consent.ask_about(&format!("Close connection {number}"), consequence)?;
            let client = connect(connection).await?;
            client.close_connection(number).await?;
            done(client, &console, format!("Connection {number} closed")).await
        }
    }
}
