//! The gate through which every command passes: what a command needs, and whether the client may.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::permission::PermissionRequest;
use ciphermq_protocol::{
    ClientId, Command, Envelope, ErrorCode, ErrorReply, ExchangeName, Reply, RoutingKey,
};

use super::ClientSession;
use super::answer::Answer;
use super::refusals::Refusals;
use crate::authorization::{
    Action, ClientPolicy, CurrentPolicy, Decision, Effect, Reason, Request,
};
use crate::repeated::Event;

/// The most decisions about publishing that a connection remembers.
const REMEMBERED: usize = 64;

/// What one connection knows of its client's permissions, until the policy is replaced.
pub(super) struct SessionAuthorization {
    client_id: ClientId,
    generation: u64,
    policy: ClientPolicy,
    /// Whether the client may publish anything to anybody.
    publishes_all: bool,
    /// The decisions about publishing by exchange, routing key and receiver.
    publishes: HashMap<(ExchangeName, RoutingKey, ClientId), Decision>,
}

/// The gate's verdict about a command.
pub(super) enum Verdict {
    /// It is carried out, but for the messages that are refused.
    Allowed(Refusals),
    /// It is not carried out.
    Refused(Answer),
}

/// A refusal that follows from a rule, or from the default.
#[derive(Clone)]
struct Denial {
    action: Action,
    /// The rule that denies it; `None` if no rule allows it.
    rule: Option<Arc<str>>,
    error: ErrorReply,
    /// The number of commands, or of messages in a command.
    count: u64,
}

/// What a command needs.
enum Needed<'a> {
    /// What every client may do.
    Nothing,
    /// One permission.
    One(Request<'a>),
    /// A permission for each message.
    Messages {
        exchange: &'a ExchangeName,
        routing_key: &'a RoutingKey,
        envelopes: &'a [Envelope],
    },
}

impl SessionAuthorization {
    pub(super) fn new(current: &CurrentPolicy, client_id: ClientId) -> Self {
        let (policy, generation) = current.get();
        let policy = policy.for_client(&client_id);
        Self {
            client_id,
            generation,
            publishes_all: policy.allows_all(Action::Publish),
            policy,
            publishes: HashMap::new(),
        }
    }

    /// Forgets everything if the policy was replaced.
    fn refresh(&mut self, current: &CurrentPolicy) {
        if self.generation != current.generation() {
            *self = Self::new(current, self.client_id.clone());
        }
    }

    /// Returns the refusal of a request, if there is one.
    fn refuse(&self, request: &Request<'_>) -> Option<Denial> {
        self.denial(request, &self.policy.decide(request))
    }

    /// Returns the messages that are refused, and a denial for each rule.
    fn refuse_messages(
        &mut self,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
        envelopes: &[Envelope],
    ) -> (Refusals, Vec<Denial>) {
        let (mut refusals, mut denials) = (Refusals::default(), Vec::<Denial>::new());
        if self.publishes_all {
            return (refusals, denials);
        }
        // The messages of a batch often have one receiver.
        let mut last: Option<(&ClientId, Option<Denial>)> = None;
        for (place, envelope) in envelopes.iter().enumerate() {
            let receiver = &envelope.receiver_client_id;
            if last.as_ref().is_none_or(|(known, _)| *known != receiver) {
                last = Some((
                    receiver,
                    self.refuse_publish(exchange, routing_key, receiver),
                ));
            }
            if let Some((_, Some(denial))) = &last {
                refusals.insert(place, denial.error.clone());
                match denials.iter_mut().find(|known| known.rule == denial.rule) {
                    Some(known) => known.count += 1,
                    None => denials.push(denial.clone()),
                }
            }
        }
        (refusals, denials)
    }

    fn refuse_publish(
        &mut self,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
        receiver: &ClientId,
    ) -> Option<Denial> {
        let request = Request {
            exchange: Some(exchange),
            routing_key: Some(routing_key),
            receiver: Some(receiver),
            ..Request::new(Action::Publish)
        };
        let route = (exchange.clone(), routing_key.clone(), receiver.clone());
        if let Some(decision) = self.publishes.get(&route) {
            return self.denial(&request, decision);
        }
        let decision = self.policy.decide(&request);
        let denial = self.denial(&request, &decision);
        if self.publishes.len() >= REMEMBERED {
            self.publishes.clear();
        }
        self.publishes.insert(route, decision);
        denial
    }

    /// Returns the refusal that follows from a decision, if it is one.
    fn denial(&self, request: &Request<'_>, decision: &Decision) -> Option<Denial> {
        let rule = match (decision.effect, &decision.reason) {
            (Effect::Allow, _) => return None,
            (Effect::Deny, Reason::Rule(name)) => Some(Arc::clone(name)),
            (Effect::Deny, _) => None,
        };
        let reason = reason(request.action, rule.as_deref());
        let text = format!(
            "{reason}: {} may not {}",
            self.client_id,
            description(request)
        );
        Some(Denial {
            action: request.action,
            rule,
            error: ErrorReply::new(ErrorCode::NotAuthorized, text),
            count: 1,
        })
    }

    /// Returns the number of the policy that decides.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Returns why an action is refused.
fn reason(action: Action, rule: Option<&str>) -> String {
    match (rule, action) {
        (Some(name), _) => format!("the rule '{name}' denies it"),
        (None, Action::Administer) => {
            "no rule allows it, and the client is none of the administrators".to_owned()
        }
        (None, _) => "no rule allows it, and the default is deny".to_owned(),
    }
}

impl ClientSession {
    /// Decides whether the client may do what a command asks for.
    pub(super) fn authorize(&mut self, command: &Command) -> Verdict {
        self.authorization.refresh(&self.broker.authorization);
        let refused = match needed(&self.client_id, command) {
            Needed::Nothing => None,
            Needed::One(request) => self.authorization.refuse(&request),
            Needed::Messages {
                exchange,
                routing_key,
                envelopes,
            } => {
                let (refusals, denials) =
                    self.authorization
                        .refuse_messages(exchange, routing_key, envelopes);
                denials.iter().for_each(|denial| self.log(denial));
                return Verdict::Allowed(refusals);
            }
        };
        match refused.or_else(|| self.refuse_creation(command)) {
            None => Verdict::Allowed(Refusals::default()),
            Some(denial) => {
                self.log(&denial);
                Verdict::Refused(refused_answer(command, denial.error))
            }
        }
    }

    /// Logs a client's first refusal for each action and rule, and counts the others.
    fn log(&self, denial: &Denial) {
        let Denial {
            action,
            rule,
            error,
            count,
        } = denial;
        let (repeated, client_id) = (&self.broker.repeated, self.client_id.as_str());
        let reason = format!("{action}: {}", reason(*action, rule.as_deref()));
        if repeated.is_first_of(Event::NotAuthorized, client_id, &reason, *count) {
            let (action, rule) = (action.as_str(), rule.as_deref().unwrap_or("default"));
            tracing::warn!(client_id, action, rule, "Refused: {}", error.text);
        }
    }

    /// Executes `can_i`.
    pub(super) fn can_i(&self, request: &PermissionRequest) -> Reply {
        let decision = self.authorization.policy.decide(&request.into());
        Reply::Permission(decision.into())
    }

    /// Refuses a `consume` that would declare a queue, if the client may not declare it.
    fn refuse_creation(&self, command: &Command) -> Option<Denial> {
        match command {
            Command::Consume { queue, .. } if self.broker.topology.queue(queue).is_none() => {
                let request = Request::of_queue(Action::Declare, queue);
                self.authorization.refuse(&request)
            }
            _ => None,
        }
    }
}

/// Returns what a command needs. A new command is placed here.
fn needed<'a>(client_id: &'a ClientId, command: &'a Command) -> Needed<'a> {
    let request = match command {
        Command::DeclareQueue { queue } => Request::of_queue(Action::Declare, queue),
        Command::DeclareExchange { exchange } => Request::of_exchange(Action::Declare, exchange),
        Command::Bind {
            queue,
            exchange,
            routing_key,
        }
        | Command::Unbind {
            queue,
            exchange,
            routing_key,
        } => Request::of_binding(queue, exchange, routing_key),
        Command::DeleteQueue { queue, .. } | Command::PurgeQueue { queue } => {
            Request::of_queue(Action::Delete, queue)
        }
        Command::DeleteExchange { exchange, .. } => Request::of_exchange(Action::Delete, exchange),

        Command::Publish {
            exchange,
            routing_key,
            envelope,
        } => {
            return Needed::Messages {
                exchange,
                routing_key,
                envelopes: std::slice::from_ref(envelope),
            };
        }
        Command::PublishBatch {
            exchange,
            routing_key,
            envelopes,
        }
        | Command::PublishPacked {
            exchange,
            routing_key,
            envelopes,
        } => {
            return Needed::Messages {
                exchange,
                routing_key,
                envelopes,
            };
        }

        Command::Consume { queue, .. } | Command::Fetch { queue } => {
            Request::of_queue(Action::Consume, queue)
        }
        Command::Ack { .. } | Command::Reject { .. } | Command::ListRejected(_) => {
            Request::new(Action::Consume)
        }

        Command::RegisterPublicKey { .. } | Command::RegisterSignedKey { .. } => {
            Request::new(Action::RegisterKey)
        }
        Command::GetPublicKey { client_id: owner }
        | Command::GetSignedKey { client_id: owner }
        | Command::GetCertificate {
            client_id: owner, ..
        } => Request::of_keys(owner),
        Command::ListConnections(_)
        | Command::CloseConnection { .. }
        | Command::ListClients(_)
        | Command::BlockClient { .. }
        | Command::UnblockClient { .. }
        | Command::Reload => Request::new(Action::Administer),

        // It is about the client's own keys.
        Command::ListWaitingKeys(_) => Request::of_keys(client_id),

        // The store knows whose message it is, and lists what the client has to do with;
        // certificates of the client's own, revocation lists and the ends of certificates are
        // public.
        Command::Resend { .. }
        | Command::ListQueues(_)
        | Command::ListExchanges(_)
        | Command::ListBindings(_)
        | Command::RegisterCertificate { .. }
        | Command::GetCrl
        | Command::ListEnds
        | Command::CanI(_)
        | Command::Hello(_)
        | Command::Ping
        | Command::Heartbeat => return Needed::Nothing,
    };
    Needed::One(request)
}

/// Returns the answer to a command that is refused as a whole: a line for each of its messages.
fn refused_answer(command: &Command, error: ErrorReply) -> Answer {
    match command {
        Command::Ack { message_ids } => {
            let of_message = |id: &_| error.clone().for_message(Clone::clone(id)).into();
            Answer::Refused(message_ids.iter().map(of_message).collect())
        }
        Command::Reject { message_id, .. } => {
            Answer::Ready(error.for_message(message_id.clone()).into())
        }
        _ => Answer::Ready(error.into()),
    }
}

fn description(request: &Request<'_>) -> String {
    let (action, queue, exchange) = match request.action {
        Action::Publish => ("publish", "to queue", "to exchange"),
        Action::Consume => ("consume", "from queue", "from exchange"),
        Action::Declare => ("declare", "queue", "exchange"),
        Action::Bind => ("bind", "queue", "to exchange"),
        Action::Delete => ("delete", "queue", "exchange"),
        Action::RegisterKey => ("register a key", "of queue", "of exchange"),
        Action::ReadKeys => ("read keys", "of queue", "of exchange"),
        Action::Administer => ("administer the server", "with queue", "with exchange"),
    };
    let mut text = action.to_owned();
    let parts = [
        (queue, request.queue.map(AsRef::<str>::as_ref)),
        (exchange, request.exchange.map(AsRef::as_ref)),
        ("by", request.routing_key.map(AsRef::as_ref)),
        ("for", request.receiver.map(AsRef::as_ref)),
    ];
    for (word, name) in parts {
        if let Some(name) = name {
            text.push_str(&format!(" {word} '{name}'"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::Policy;

    fn envelopes(receivers: &[&str]) -> Vec<Envelope> {
        let envelope = |receiver: &&str| {
            let json = format!(
                r#"{{"message_id":"m","receiver_client_id":"{receiver}","enc_session_key":"YQ==",
                "nonce":"Yg==","ciphertext":"Yw=="}}"#
            );
            Envelope::parse(json.into()).unwrap()
        };
        receivers.iter().map(envelope).collect()
    }

    fn refused(session: &mut SessionAuthorization, receivers: &[&str]) -> Vec<bool> {
        let (exchange, routing_key) = ("e".parse().unwrap(), "k".parse().unwrap());
        let envelopes = envelopes(receivers);
        let (mut refusals, denials) = session.refuse_messages(&exchange, &routing_key, &envelopes);
        let counts: Vec<u64> = denials.iter().map(|denial| denial.count).collect();
        let refused = refusals.len() as u64;
        assert_eq!(counts, Vec::from_iter((refused > 0).then_some(refused)));
        (0..receivers.len())
            .map(|place| refusals.take(place).is_some())
            .collect()
    }

    #[test]
    fn decisions_are_remembered_until_the_policy_is_replaced() {
        let current = CurrentPolicy::default();
        let mut session = SessionAuthorization::new(&current, "c".parse().unwrap());
        assert_eq!(refused(&mut session, &["a", "b"]), [false, false]);
        assert!(session.publishes.is_empty(), "nothing is to be decided");

        let deny = Policy {
            default: Effect::Deny,
            ..Policy::default()
        };
        current.replace(deny);
        session.refresh(&current);
        assert_eq!(refused(&mut session, &["a", "b", "a"]), [true, true, true]);
        assert_eq!(session.publishes.len(), 2);
        // The remembered decisions are the same.
        assert_eq!(refused(&mut session, &["b", "a"]), [true, true]);
        assert_eq!(session.publishes.len(), 2);

        current.replace(Policy::default());
        session.refresh(&current);
        assert_eq!(refused(&mut session, &["a", "b"]), [false, false]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let current = CurrentPolicy::new(Policy {
            default: Effect::Deny,
            ..Policy::default()
        });
        let mut session = SessionAuthorization::new(&current, "c".parse().unwrap());
        let receivers: Vec<_> = (0..1000).map(|number| format!("r{number}")).collect();
        let receivers: Vec<_> = receivers.iter().map(String::as_str).collect();
        assert!(
            refused(&mut session, &receivers)
                .iter()
                .all(|refused| *refused)
        );
        assert!(session.publishes.len() <= REMEMBERED);
    }
}
