//! Authorization by the real server, and the commands that show what a client may do.

mod acl;
mod check;
mod client;
mod commands;
mod documented;

use ciphermq_tests::server::Options;
use ciphermq_tests::{EnvelopeText, RawClient, Server};

/// Returns these options with the section `[authorization]` of a configuration.
fn with_rules(mut options: Options, config: &str) -> Options {
    let config: toml::Table = config.parse().expect("the configuration is TOML");
    let section = config["authorization"].as_table().expect("a section");
    for (field, value) in section {
        options = options.set("authorization", field, value.clone());
    }
    options
}

/// Clients of one server, by their ids.
struct Clients<'a> {
    server: &'a Server,
    messages: u32,
}

impl<'a> Clients<'a> {
    fn of(server: &'a Server) -> Self {
        let messages = 0;
        Self { server, messages }
    }

    /// Sends a command on a connection of its own, and returns the first line of the reply.
    async fn reply(&self, client_id: &str, command: &str) -> String {
        let mut client = RawClient::connect(self.server, client_id).await;
        client.send_line(command).await;
        client.line().await
    }

    /// Checks that a client may do something.
    async fn may(&self, client_id: &str, command: &str) {
        let reply = self.reply(client_id, command).await;
        let is_refused = reply.starts_with("Error: not_authorized");
        assert!(!is_refused, "{client_id}: {command}: {reply}");
    }

    /// Checks that a client may do none of this, because of `reason`.
    async fn may_not(&self, client_id: &str, reason: &str, commands: &[&str]) {
        let expected = format!("Error: not_authorized: {reason}: {client_id} may not ");
        for command in commands {
            let reply = self.reply(client_id, command).await;
            assert!(
                reply.starts_with(&expected),
                "{client_id}: {command}: {reply}"
            );
        }
    }

    /// Returns a line that publishes a new message.
    fn publish(&mut self, exchange: &str, routing_key: &str, receiver: &str) -> String {
        self.messages += 1;
        let envelope = EnvelopeText::modern(&format!("m{}", self.messages), receiver);
        format!("publish {exchange} {routing_key} {envelope}")
    }
}

/// The refusal if no rule decides.
const DEFAULT: &str = "no rule allows it, and the default is deny";

/// Returns the refusal of a rule.
fn rule(name: &str) -> String {
    format!("the rule '{name}' denies it")
}
