//! Matches replies to the commands of a connection.
//!
//! Replies come in the order of the commands, so a queue of expectations identifies the command of
//! each line. A command for several messages is answered by one line per message, or by a single
//! one if it is refused as a whole.

use std::collections::VecDeque;

use bytes::BytesMut;
use ciphermq_protocol::{Command, Delivery, ErrorReply, LineDecoder, MessageId, Reply};

use super::ending::is_last_line;
use super::op::{PublisherId, Request};

/// The outstanding replies of one connection.
#[derive(Debug)]
pub(crate) struct PendingReplies {
    decoder: LineDecoder,
    expected: VecDeque<Expected>,
    /// `Message:` lines are deliveries, not replies to `fetch`.
    is_consuming: bool,
}

/// The next expected reply, and its recipient.
#[derive(Debug)]
pub(crate) enum Expected {
    /// One line for a request.
    Request(Request),
    /// A line for each of these items of an outbox.
    Items(OutboxId, Line),
    /// `PONG`.
    Pong,
}

/// Identifies an outbox of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutboxId {
    /// The messages of a publisher.
    Publisher(PublisherId),
    /// The acks.
    Acks,
}

/// The reason for which a reply may be delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The server's store, for as long as it is down: the server never drops an ack that it has
    /// read.
    Store,
    /// The server's store, for at most the announced `storage_wait`; an error follows then.
    Answer,
}

/// The items of one sent line, and the number of those that are answered.
#[derive(Debug)]
pub(crate) struct Line {
    numbers: Vec<u64>,
    answered: usize,
}

impl Line {
    pub(crate) fn new(numbers: Vec<u64>) -> Self {
        Self {
            numbers,
            answered: 0,
        }
    }
}

/// The meaning of a line.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Messages for the consumer.
    Deliveries(Vec<Delivery>),
    /// The reply to a request.
    Request(Request, Reply),
    /// The outcome of items of an outbox.
    Items(OutboxId, ItemAnswer),
    /// The reply to a ping.
    Pong,
    /// The last line of a connection that the server ends. What is unanswered was not carried out.
    Ended(ErrorReply),
}

/// The outcome of one or all items of a line.
#[derive(Debug)]
pub(crate) struct ItemAnswer {
    pub(crate) about: ReplyScope,
    pub(crate) reply: Reply,
    /// No further reply is expected for this line.
    pub(crate) is_last: bool,
}

/// The items that a reply is about.
#[derive(Debug)]
pub(crate) enum ReplyScope {
    /// One item, and the id that the server gives for it.
    One(u64, MessageId),
    /// All items of the line.
    All(Vec<u64>),
}

/// A line that this protocol does not allow, or that answers no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub(crate) String);

impl PendingReplies {
    pub(crate) fn new(max_reply_bytes: usize, is_consuming: bool) -> Self {
        Self {
            decoder: LineDecoder::new(max_reply_bytes),
            expected: VecDeque::new(),
            is_consuming,
        }
    }

    /// Records the reply that a written command expects.
    pub(crate) fn expect(&mut self, expected: Expected) {
        self.expected.push_back(expected);
    }

    /// Reads the next line from the front of `buffer`, if there is a whole one.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Answer>, Violation> {
        let line = self
            .decoder
            .decode(buffer)
            .map_err(|error| Violation(format!("the server sent no valid reply: {error}")))?;
        let Some(line) = line else { return Ok(None) };
        let reply = Reply::parse(&line).map_err(|error| Violation(error.to_string()))?;
        match reply {
            Reply::Message(delivery) if self.is_consuming => {
                Ok(Some(Answer::Deliveries(vec![delivery])))
            }
            Reply::Messages(deliveries) if self.is_consuming => {
                Ok(Some(Answer::Deliveries(deliveries)))
            }
            Reply::Error(error) if is_last_line(&error) => Ok(Some(Answer::Ended(error))),
            reply => self.answer(reply).map(Some),
        }
    }

    fn answer(&mut self, reply: Reply) -> Result<Answer, Violation> {
        match self.expected.pop_front() {
            None => Err(unexpected(&reply)),
            Some(Expected::Request(request)) => Ok(Answer::Request(request, reply)),
            Some(Expected::Pong) if matches!(reply, Reply::Pong) => Ok(Answer::Pong),
            Some(Expected::Pong) => Err(unexpected(&reply)),
            Some(Expected::Items(outbox, line)) => {
                let id = match (outbox, &reply) {
                    (OutboxId::Publisher(_), Reply::Ack(id))
                    | (OutboxId::Acks, Reply::AckConfirmed(id)) => Some(id.clone()),
                    (_, Reply::Error(error)) => error.message_id.clone(),
                    _ => None,
                };
                let (answer, rest) = item_answer(line, id, reply)?;
                if let Some(rest) = rest {
                    self.expected.push_front(Expected::Items(outbox, rest));
                }
                Ok(Answer::Items(outbox, answer))
            }
        }
    }

    /// Whether a command other than a ping is unanswered.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.expected
            .iter()
            .any(|expected| !matches!(expected, Expected::Pong))
    }

    /// Returns why the oldest outstanding reply may be delayed; `None` if it needs no store, or
    /// nothing is outstanding. Later commands do not count: when the oldest is answered, silence is
    /// measured anew.
    pub(crate) fn oldest_wait(&self) -> Option<Wait> {
        match self.expected.front()? {
            Expected::Items(OutboxId::Acks, _) => Some(Wait::Store),
            Expected::Request(request) if matches!(request.command, Command::Reject { .. }) => {
                Some(Wait::Store)
            }
            Expected::Items(OutboxId::Publisher(_), _) | Expected::Request(_) => Some(Wait::Answer),
            Expected::Pong => None,
        }
    }

    /// Returns the unanswered requests, in order.
    pub(crate) fn into_requests(self) -> impl DoubleEndedIterator<Item = Request> {
        self.expected
            .into_iter()
            .filter_map(|expected| match expected {
                Expected::Request(request) => Some(request),
                _ => None,
            })
    }
}

/// Returns the outcome of a line's items, and the line if it expects further replies. `id` is the
/// message that the reply names.
fn item_answer(
    mut line: Line,
    id: Option<MessageId>,
    reply: Reply,
) -> Result<(ItemAnswer, Option<Line>), Violation> {
    if let Reply::AckAll(count) | Reply::AckConfirmedAll(count) = reply
        && (count != line.numbers.len() || line.answered > 0)
    {
        return Err(unexpected(&reply));
    }
    let Some(id) = id else {
        // A reply to the line as a whole is its first and only one.
        let is_of_all = matches!(
            reply,
            Reply::AckAll(_)
                | Reply::AckConfirmedAll(_)
                | Reply::Error(_)
                | Reply::InvalidBatchFormat(_)
                | Reply::InvalidMessageFormat(_)
                | Reply::Missing(_)
                | Reply::UnknownCommand
        );
        if !is_of_all || line.answered > 0 {
            return Err(unexpected(&reply));
        }
        return Ok((
            ItemAnswer {
                about: ReplyScope::All(line.numbers),
                reply,
                is_last: true,
            },
            None,
        ));
    };
    let Some(&number) = line.numbers.get(line.answered) else {
        return Err(unexpected(&reply));
    };
    line.answered += 1;
    let is_last = line.answered == line.numbers.len();
    Ok((
        ItemAnswer {
            about: ReplyScope::One(number, id),
            reply,
            is_last,
        },
        (!is_last).then_some(line),
    ))
}

fn unexpected(reply: &Reply) -> Violation {
    let mut text = BytesMut::new();
    reply.encode(&mut text);
    let start: String = String::from_utf8_lossy(&text)
        .trim_end()
        .chars()
        .take(120)
        .collect();
    Violation(format!("the server sent an unexpected reply: {start:?}"))
}

#[cfg(test)]
mod tests;
