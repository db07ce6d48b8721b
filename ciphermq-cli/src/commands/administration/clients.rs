//! `clients`: lists, shows, blocks and unblocks clients.

use ciphermq_client::{Client, ClientId, ClientInfo, ClientsRequest};

use crate::commands::listing::{Consent, Listing, Page, Row, connect, done};
use crate::connection::ConnectionArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// List, show, block and unblock clients of the server
///
/// Only for administrators of the server. The list has the clients that are connected or blocked,
/// and those that hold something that a quota counts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List clients, with what they hold
    List {
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Show one client; the exit code is 4 if the server knows nothing of it
    Show {
        /// The client
        #[arg(value_name = "CLIENT")]
        client: ClientId,
        #[command(flatten)]
        listing: Listing<Column>,
    },
    /// Keep a client out until it is unblocked: its connections end, its messages wait
    Block {
        /// The client
        #[arg(value_name = "CLIENT")]
        client: ClientId,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Admit a blocked client again
    Unblock {
        /// The client
        #[arg(value_name = "CLIENT")]
        client: ClientId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Column {
    Client,
    Connections,
    Administrator,
    BlockedBy,
    BlockedSince,
    Quotas,
}

impl Row<Column> for ClientInfo {
    fn cell(&self, column: Column) -> String {
        let none = || "-".to_owned();
        match column {
            Column::Client => self.client.to_string(),
            Column::Connections => self.connections.to_string(),
            Column::Administrator => if self.administrator { "yes" } else { "no" }.to_owned(),
            Column::BlockedBy => {
                let block = self.blocked.as_ref();
                block.map_or_else(none, |block| block.by.to_string())
            }
            Column::BlockedSince => {
                let block = self.blocked.as_ref();
                block.map_or_else(none, |block| block.since.clone())
            }
            Column::Quotas => quotas(self),
        }
    }
}

/// Returns what a client holds of each quota, as far as it holds something.
fn quotas(client: &ClientInfo) -> String {
    let held = client.quotas.iter().filter(|quota| quota.held > 0);
    let quotas: Vec<String> = held
        .map(|quota| match quota.limit {
            0 => format!("{} {}", quota.quota, quota.held),
            limit => format!("{} {}/{limit}", quota.quota, quota.held),
        })
        .collect();
    match quotas.is_empty() {
        true => "-".to_owned(),
        false => quotas.join(", "),
    }
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    match args.action {
        Action::List { listing } => {
            listing
                .print(async |client, after| page(client, None, after).await)
                .await
        }
        Action::Show {
            client: only,
            listing,
        } => {
            let none =
                format!("The client {only} is not connected, holds nothing, and is not blocked.");
            let page = async |client: &Client, after| page(client, Some(only.clone()), after).await;
            listing.print_one(none, page).await
        }
        Action::Block {
            client: blocked,
            consent,
            connection,
        } => {
            let consequence = "It is kept out until it is unblocked.";
            let what = format!("Block client {blocked}, and end its connections");
            consent.ask_about(&what, consequence)?;
            let client = connect(connection).await?;
            client.block_client(&blocked).await?;
            done(client, &console, format!("Client {blocked} blocked")).await
        }
        Action::Unblock {
            client: blocked,
            connection,
        } => {
            let client = connect(connection).await?;
            client.unblock_client(&blocked).await?;
            done(client, &console, format!("Client {blocked} unblocked")).await
        }
    }
}

/// Asks for a page of the clients, or for the one with this id.
async fn page(
    client: &Client,
    only: Option<ClientId>,
    after: Option<ClientId>,
) -> Page<ClientInfo, ClientId> {
    let page = client
        .clients(ClientsRequest {
            after,
            client: only,
            limit: None,
        })
        .await?;
    Ok((page.clients, page.next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_show_what_is_held_of_which_limit() {
        let client = |quotas: &str| {
            let json = format!(r#"{{"client":"c","connections":0,"quotas":{quotas}}}"#);
            quotas_of(&json)
        };
        fn quotas_of(json: &str) -> String {
            quotas(&serde_json::from_str(json).unwrap())
        }
        let held = r#"[{"quota":"connections","held":1,"limit":2},
            {"quota":"queues","held":0,"limit":9},{"quota":"bytes","held":3,"limit":0}]"#;
        assert_eq!(client(held), "connections 1/2, bytes 3");
        assert_eq!(client("[]"), "-");
    }
}
