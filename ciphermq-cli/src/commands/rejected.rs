//! `rejected`: lists messages that their receivers rejected.

use crate::connection::{ConnectionArgs, Identity};
use crate::console::{Console, Count};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// List messages that their receivers rejected: those sent by this client, and those for it
///
/// One JSON object per line, in the order of rejection. The server keeps the envelopes in its
/// database.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let client = args.connection.connect(Identity::Receiver).await?;
    let mut after = None;
    let mut count = 0u64;
    loop {
        let page = client.rejected(after).await?;
        for message in &page.messages {
            let line = serde_json::to_string(message).map_err(|error| {
                Failure::plain(format!("A rejected message cannot be shown: {error}."))
            })?;
            stdout::print(line + "\n")?;
        }
        count += page.messages.len() as u64;
        after = page.messages.last().map(|message| message.cursor());
        if !page.more || after.is_none() {
            break;
        }
    }
    client.close().await;
    console.info(format_args!(
        "{count} rejected {}",
        Count::messages(count).verb("message", "messages")
    ));
    Ok(Exit::Done)
}
