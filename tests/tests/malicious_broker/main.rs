//! An evil broker in front of the real one: every attack is refused with the right error, or
//! delivers exactly the original, once; and the honest traffic beside it arrives.

mod bits;
mod cli;
mod copies;
mod database;
mod envelopes;
mod keys;
mod order;
mod outputs;
mod packed;
mod replays;
mod secrets;
mod senders;
mod terminal;
#[path = "../cli/workspace.rs"]
#[allow(
    dead_code,
    reason = "it is made for the tests of the command line, which use the whole of it"
)]
mod workspace;

use ciphermq_client::Identity;
use ciphermq_tests::Authority;
use ciphermq_tests::evil::{Evil, EvilFixture};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::value::RawValue;

/// What the client with this certificate signs with.
fn signer(identity: &ciphermq_tests::pki::Identity) -> Identity {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    Identity::new(vec![identity.certificate_der()], &key).unwrap()
}

/// An identity of this client that another CA has issued, of the same name as the true one.
fn identity_of_another_ca(id: &str) -> Identity {
    signer(&Authority::new("CipherMQ test CA").client(id))
}

/// The envelopes that this client has published so far, as they came.
fn published(fixture: &EvilFixture, client: &str) -> Vec<String> {
    published_through(&fixture.evil, client)
}

/// The same, whatever is in front of or behind the broker.
fn published_through(evil: &Evil, client: &str) -> Vec<String> {
    let mut envelopes = Vec::new();
    for line in evil.published_by(client) {
        let json = line.splitn(4, ' ').nth(3).expect("an envelope, or several");
        match json.starts_with('[') {
            true => {
                let batch: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
                envelopes.extend(batch.iter().map(|envelope| envelope.get().to_owned()));
            }
            false => envelopes.push(json.to_owned()),
        }
    }
    envelopes
}

/// The broker delivers these, ids and envelopes, to this client as soon as it consumes, before
/// anything else.
fn deliver_to(fixture: &EvilFixture, client: &'static str, deliveries: Vec<(String, String)>) {
    fixture.evil.play(move |line| {
        let mut lines = line.honest();
        if line.reply_to(client, "Subscribed to queue").is_some() {
            lines.extend(
                deliveries
                    .iter()
                    .map(|(id, envelope)| format!("Message: {id} {envelope}")),
            );
        }
        lines
    });
}
