//! `reload`: has the server read its configuration again.

use ciphermq_client::Reloaded;

use crate::commands::listing::connect;
use crate::connection::ConnectionArgs;
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Have the server read its configuration, certificates and revocation lists again
///
/// Only for administrators of the server. What cannot be reloaded needs a restart, and is named. If
/// a file cannot be used, everything stays as it is, and the error says why.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the server's answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let client = connect(args.connection).await?;
    let reloaded = client.reload().await?;
    client.close().await;
    let text = match args.json {
        true => stdout::json_line(&reloaded)?,
        false => text_of(&reloaded),
    };
    stdout::print(text)?;
    Ok(Exit::Done)
}

fn text_of(reloaded: &Reloaded) -> String {
    let mut text = match reloaded.changed.as_slice() {
        [] => "nothing has changed\n".to_owned(),
        changed => format!("in force: {}\n", changed.join(", ")),
    };
    if !reloaded.restart.is_empty() {
        text.push_str(&format!(
            "only after a restart: {}\n",
            reloaded.restart.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let nothing = text_of(&Reloaded::default());
        assert_eq!(nothing, "nothing has changed\n");
        let reloaded = Reloaded {
            changed: names(&["certificate", "quotas"]),
            restart: names(&["[limits] max_prefetch"]),
        };
        assert_eq!(
            text_of(&reloaded),
            "in force: certificate, quotas\nonly after a restart: [limits] max_prefetch\n"
        );
    }
}
