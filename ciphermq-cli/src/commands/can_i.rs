//! `can-i`: asks the server whether this client may do something.

use ciphermq_client::{
    Action, ClientId, ExchangeName, Permission, PermissionRequest, QueueName, RoutingKey,
};

use crate::connection::{ConnectionArgs, Identity};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Ask the server whether this client may do something, and which of its rules decides
///
/// The answer is for the client of --cert, and comes from the running server. Exit code 0 if it is
/// yes, 5 if it is no.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// publish, consume, declare, bind, delete, register_key, read_keys or administer
    action: Action,
    /// The queue; any one if left out
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
    /// The exchange; any one if left out
    #[arg(long, value_name = "NAME")]
    exchange: Option<ExchangeName>,
    /// The routing key; any one if left out
    #[arg(long, value_name = "KEY")]
    routing_key: Option<RoutingKey>,
    /// The receiver of a message, or the owner of keys; any one if left out
    #[arg(long, value_name = "CLIENT")]
    to: Option<ClientId>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let identity = match args.action {
        Action::Consume | Action::RegisterKey => Identity::Receiver,
        _ => Identity::Sender,
    };
    let client = args.connection.connect(identity).await?;
    let request = PermissionRequest {
        queue: args.queue,
        exchange: args.exchange,
        routing_key: args.routing_key,
        receiver: args.to,
        ..PermissionRequest::new(args.action)
    };
    let permission = client.can_i(request).await?;
    client.close().await;
    let answer = match args.json {
        true => stdout::json_line(&permission)?,
        false => sentence(&permission) + "\n",
    };
    stdout::print(answer)?;
    Ok(match permission.allowed {
        true => Exit::Done,
        false => Exit::NotAllowed,
    })
}

/// Returns the answer, and what decides it.
fn sentence(permission: &Permission) -> String {
    let answer = if permission.allowed { "yes" } else { "no" };
    let reason = match (&permission.rule, &permission.default) {
        (Some(rule), _) => format!("the rule '{rule}'"),
        (None, Some(default)) => format!("no rule decides, and the default is {default}"),
        (None, None) if permission.administrator => "this client is an administrator".to_owned(),
        (None, None) => return answer.to_owned(),
    };
    format!("{answer}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_what_decides() {
        let permission = |json| serde_json::from_str(json).unwrap();
        for (json, expected) in [
            (r#"{"allowed":true,"rule":"r"}"#, "yes: the rule 'r'"),
            (
                r#"{"allowed":false,"default":"deny"}"#,
                "no: no rule decides, and the default is deny",
            ),
            (
                r#"{"allowed":true,"administrator":true}"#,
                "yes: this client is an administrator",
            ),
            (r#"{"allowed":false}"#, "no"),
        ] {
            assert_eq!(sentence(&permission(json)), expected);
        }
    }
}
