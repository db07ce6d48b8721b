//! `keys`: lists this receiver's keys, and the numbers of messages that wait for them.

use serde_json::json;

use crate::connection::ReceiverArgs;
use crate::console::{Console, Count};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// List this receiver's keys, and how many queued messages wait for each
///
/// One JSON object per line: {"key_id":"…","suite":"…","messages":N,"held":true}. "held" says
/// whether the private key to open them is here. A key without messages that is no longer announced
/// may be destroyed once every sender has the new one: after 5 minutes, unless they are configured
/// to cache keys for longer. Messages of older clients name no key; their key_id is null.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    receiver: ReceiverArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let (client, keyring) = args.receiver.connect().await?;
    let waiting = client.waiting_keys().await?;
    client.close().await;
    let held: Vec<String> = keyring.key_ids().map(|id| id.to_string()).collect();
    let is_held = |id: &String| held.contains(id);
    for key in &waiting {
        let line = json!({
            "key_id": key.key_id,
            "suite": key.suite,
            "messages": key.messages,
            "held": key.key_id.as_ref().map(is_held),
        });
        stdout::print(format!("{line}\n"))?;
        if key.key_id.as_ref().is_some_and(|id| !is_held(id)) {
            let messages = Count::messages(key.messages);
            console.warn(format_args!(
                "{messages} {} for a private key that is not here",
                messages.verb("waits", "wait")
            ));
        }
    }
    for (id, suite) in keyring
        .x_wing_keys()
        .map(|key| (key.public_key().key_id(), "XWING-AES256GCM"))
        .chain(
            keyring
                .keys()
                .map(|key| (key.public_key().key_id(), "X25519-AES256GCM")),
        )
    {
        let id = id.to_string();
        if !waiting.iter().any(|key| key.key_id.as_ref() == Some(&id)) {
            let line = json!({ "key_id": id, "suite": suite, "messages": 0, "held": true });
            stdout::print(format!("{line}\n"))?;
        }
    }
    Ok(Exit::Done)
}
