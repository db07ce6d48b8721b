//! Measures sealing and opening on this machine: `cargo run --release -p ciphermq-crypto --example
//! speed`

#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use ciphermq_crypto::{
    Authority, Header, Keyring, OpenPolicy, Opener, PrivateKey, SendingSession, stream,
};
use ciphermq_protocol::{ClientId, ExchangeName, RoutingKey};
use jiff::Timestamp;

const MESSAGES: u32 = 60_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (sender, receiver): (ClientId, ClientId) = ("sender_1".parse()?, "receiver_1".parse()?);
    let exchange: ExchangeName = "ciphermq_exchange".parse()?;
    let routing_key: RoutingKey = "receiver_1_key".parse()?;
    let key = PrivateKey::generate()?;
    for size in [64usize, 256, 1024, 16_384] {
        let now = Timestamp::now();
        let ids = stream::start(now)?;
        let payload = vec![b'x'; size];
        let clock = Instant::now();
        let mut session =
            SendingSession::start_unsigned(&sender, &receiver, &(*key.public_key()).into(), now)?;
        let start = clock.elapsed();
        let mut envelopes = Vec::with_capacity(1000);
        let clock = Instant::now();
        for position in 0..MESSAGES {
            let message_id = ids
                .message_id(position.into())
                .ok_or("the stream has ended")?;
            let header = Header {
                message_id: &message_id,
                exchange: &exchange,
                routing_key: &routing_key,
                content_type: "text/plain",
                sent_time: now,
            };
            let envelope = session.seal(&header, &payload)?;
            if envelopes.len() < 1000 {
                envelopes.push(envelope);
            } else {
                black_box(envelope);
            }
        }
        let seal = clock.elapsed() / MESSAGES;
        let mut opener = Opener::new(
            receiver.clone(),
            Keyring::new(key.clone()),
            Authority::nobody(),
            OpenPolicy {
                unverified_senders: true,
                ..OpenPolicy::default()
            },
        );
        let clock = Instant::now();
        for envelope in envelopes.iter().cycle().take(usize::try_from(MESSAGES)?) {
            black_box(opener.open(envelope)?);
        }
        let open = clock.elapsed() / MESSAGES;
        println!(
            "{size:>6} bytes: seal {seal:?}, open {open:?} a message; a session's start {start:?}"
        );
    }
    Ok(())
}
