//! The content of a stream's checkpoint.

use ciphermq_protocol::{ClientId, ExchangeName, MessageId, RoutingKey, StreamId};

use crate::checkpoint::Unreadable;
use crate::client::Client;
use crate::defaults::{DEFAULT_EXCHANGE, default_routing_key};
use crate::error::PublishError;
use crate::publisher::{new_stream, no_route};

/// A stream: its route, its input, and its acknowledged position.
///
/// A stream carries one input that never changes: so every id identifies one message, whichever
/// copy of the checkpoint it is derived from. Additions to the input go into [another
/// stream](StreamState::following).
///
/// As text, in this order, a line each:
///
/// ```text
/// stream <id at position 0>
/// sender <client id>
/// receiver <client id>
/// exchange <name>
/// routing-key <name>
/// server <host:port>
/// input <one line of the application's>
/// earlier <messages> <place>
/// acknowledged <position> <place>
/// complete yes|no
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The stream from which the message ids are derived.
    pub stream: StreamId,
    /// The publishing client. Another client's messages with the same ids would be other messages.
    pub sender: ClientId,
    /// The receiver of the messages.
    pub receiver: ClientId,
    /// The exchange to which they are published.
    pub exchange: ExchangeName,
    /// The routing key by which they are published.
    pub routing_key: RoutingKey,
    /// The server's address as configured: another server does not have the acknowledged messages.
    pub server: String,
    /// The application's description of the input. It must not change during the stream. Line
    /// endings in it become spaces.
    pub input: String,
    /// Messages of the input that earlier streams have carried.
    pub earlier: u64,
    /// The place in the input where this stream begins, after earlier ones.
    pub begins: u64,
    /// The server has every message before this position.
    pub acknowledged: u64,
    /// The place in the input where the message at that position begins; initially `begins`.
    pub place: u64,
    /// The whole input is acknowledged.
    pub complete: bool,
}

impl StreamState {
    /// Creates a new stream to `receiver`, by the default route, of which nothing is sent.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: `Sealing` if there is no randomness for a stream, `Refused` if no route
    /// can be named after the receiver.
    pub fn begin(
        client: &Client,
        receiver: &ClientId,
        input: impl Into<String>,
    ) -> Result<Self, PublishError> {
        Ok(Self {
            stream: new_stream()?,
            sender: client.id().clone(),
            receiver: receiver.clone(),
            exchange: DEFAULT_EXCHANGE.into(),
            routing_key: default_routing_key(receiver)
                .map_err(|error| no_route(receiver, &error))?,
            server: client.server_address(),
            input: input.into(),
            earlier: 0,
            begins: 0,
            acknowledged: 0,
            place: 0,
            complete: false,
        })
    }

    /// Creates the stream that follows this one, by the same route and with ids of its own, for
    /// what follows `place` in an `input` that has grown. Nothing of it is sent.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: `Sealing` if there is no randomness for a stream.
    pub fn following(&self, input: impl Into<String>, place: u64) -> Result<Self, PublishError> {
        Ok(Self {
            stream: new_stream()?,
            input: input.into(),
            earlier: self.earlier.saturating_add(self.acknowledged),
            begins: place,
            acknowledged: 0,
            place,
            complete: false,
            ..self.clone()
        })
    }

    pub(super) fn write(&self) -> String {
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        format!(
            "stream {}\nsender {}\nreceiver {}\nexchange {}\nrouting-key {}\nserver {}\ninput \
             {}\nearlier {} {}\nacknowledged {} {}\ncomplete {}\n",
            self.stream,
            self.sender,
            self.receiver,
            self.exchange,
            self.routing_key,
            one_line(&self.server),
            one_line(&self.input),
            self.earlier,
            self.begins,
            self.acknowledged,
            self.place,
            if self.complete { "yes" } else { "no" },
        )
    }

    /// Reads the lines of this version of the format; those of version 1 have no `earlier`: one
    /// stream carried everything.
    pub(super) fn read(version: u32, text: &str) -> Result<Self, Unreadable> {
        let pair = |text: &str| {
            let (first, second) = text.split_once(' ')?;
            Some((first.parse().ok()?, second.parse().ok()?))
        };
        let mut lines = FieldLines {
            rest: text.split_terminator('\n'),
            // The first line is the kind.
            number: 1,
        };
        let state = Self {
            stream: lines.value("stream", |text| {
                match StreamId::split(&MessageId::new(text).ok()?)? {
                    (stream, 0) => Some(stream),
                    _ => None,
                }
            })?,
            sender: lines.value("sender", |text| ClientId::new(text).ok())?,
            receiver: lines.value("receiver", |text| ClientId::new(text).ok())?,
            exchange: lines.value("exchange", |text| ExchangeName::new(text).ok())?,
            routing_key: lines.value("routing-key", |text| RoutingKey::new(text).ok())?,
            server: lines.value("server", |text| Some(text.to_owned()))?,
            input: lines.value("input", |text| Some(text.to_owned()))?,
            earlier: 0,
            begins: 0,
            acknowledged: 0,
            place: 0,
            complete: false,
        };
        let (earlier, begins) = if version == 1 {
            (0, 0)
        } else {
            lines.value("earlier", pair)?
        };
        let (acknowledged, place) = lines.value("acknowledged", pair)?;
        let complete = lines.value("complete", |text| match text {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        })?;
        if lines.rest.next().is_some() {
            return Err(Unreadable::Line(lines.number + 1));
        }
        Ok(Self {
            earlier,
            begins,
            acknowledged,
            place,
            complete,
            ..state
        })
    }
}

struct FieldLines<'a> {
    rest: std::str::SplitTerminator<'a, char>,
    number: usize,
}

impl FieldLines<'_> {
    fn value<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Unreadable> {
        self.number += 1;
        self.rest
            .next()
            .and_then(|line| read(line.strip_prefix(name)?.strip_prefix(' ')?))
            .ok_or(Unreadable::Line(self.number))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::resume) fn state() -> StreamState {
        StreamState {
            stream: StreamId::new(0x0199_2a3b_4c5d, 0x3_ffff_ffff),
            sender: ClientId::new("sender_1").unwrap(),
            receiver: ClientId::new("receiver_1").unwrap(),
            exchange: ExchangeName::new("e").unwrap(),
            routing_key: RoutingKey::new("k").unwrap(),
            server: "localhost:5672".to_owned(),
            input: "1401440 abc".to_owned(),
            earlier: 0,
            begins: 0,
            acknowledged: 0,
            place: 0,
            complete: false,
        }
    }

    #[test]
    fn the_lines_are_the_documented_ones() {
        let state = StreamState {
            earlier: 3,
            begins: 240,
            acknowledged: 17,
            place: 1360,
            complete: true,
            ..state()
        };
        let text = "stream 01992a3b-4c5d-8fff-bfff-ff0000000000\nsender sender_1\nreceiver \
                    receiver_1\nexchange e\n\
             routing-key k\nserver localhost:5672\ninput 1401440 abc\nearlier 3 240\n\
             acknowledged 17 1360\ncomplete yes\n";
        assert_eq!(state.write(), text);
        assert_eq!(StreamState::read(2, text), Ok(state));
    }

    #[test]
    fn version_1_is_read() {
        let text = "stream 01992a3b-4c5d-8fff-bfff-ff0000000000\nsender sender_1\nreceiver \
                    receiver_1\nexchange e\n\
             routing-key k\nserver localhost:5672\ninput 1401440 abc\nacknowledged 17 \
                    1360\ncomplete yes\n";
        let expected = StreamState {
            acknowledged: 17,
            place: 1360,
            complete: true,
            ..state()
        };
        assert_eq!(StreamState::read(1, text), Ok(expected));
        assert_eq!(StreamState::read(2, text), Err(Unreadable::Line(9)));
    }

    #[test]
    fn the_following_stream_has_its_own_ids() {
        let first = StreamState {
            acknowledged: 17,
            place: 1360,
            complete: true,
            ..state()
        };
        let next = first.following("longer", 1361).unwrap();
        assert_ne!(next.stream, first.stream);
        let expected = StreamState {
            stream: next.stream,
            input: "longer".to_owned(),
            earlier: 17,
            begins: 1361,
            place: 1361,
            ..state()
        };
        assert_eq!(next, expected);
        assert_ne!(first.following("longer", 1361).unwrap().stream, next.stream);
    }

    #[test]
    fn malformed_lines_are_named() {
        let text = state().write();
        for (number, (old, new)) in [
            ("ff0000000000", "ff0000000001"),
            ("sender sender_1", "sender a b"),
            ("receiver receiver_1", "receiver "),
            ("exchange e", "exchanges e"),
            ("routing-key k", "routing-key"),
            ("server localhost:5672\n", ""),
            ("input", "output"),
            ("earlier 0 0", "earlier 0"),
            ("acknowledged 0 0", "acknowledged 0"),
            ("complete no", "complete maybe"),
        ]
        .into_iter()
        .enumerate()
        {
            let broken = text.replace(old, new);
            assert_eq!(
                StreamState::read(2, &broken),
                Err(Unreadable::Line(number + 2)),
                "{broken}"
            );
        }
        assert_eq!(
            StreamState::read(2, &(text + "more\n")),
            Err(Unreadable::Line(12))
        );
    }

    #[test]
    fn line_endings_in_the_input_become_spaces() {
        let state = StreamState {
            input: "a\nb\r\n".to_owned(),
            ..state()
        };
        assert_eq!(StreamState::read(2, &state.write()).unwrap().input, "a b  ");
    }
}
