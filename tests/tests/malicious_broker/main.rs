//! A malicious broker in front of the real one: every attack is either refused with the right
//! error, or delivers exactly the original, once. Concurrent honest traffic arrives.

mod bits;
mod cli;
mod copies;
mod database;
mod departments;
mod envelopes;
mod keys;
mod order;
mod outputs;
mod packed;
mod replays;
mod revocation;
mod secrets;
mod senders;
mod terminal;

use ciphermq_client::Identity;
use ciphermq_tests::Authority;
use ciphermq_tests::malicious::{MaliciousBroker, MaliciousBrokerFixture};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::value::RawValue;

/// The signing identity of the client with this certificate.
fn signer(identity: &ciphermq_tests::pki::Identity) -> Identity {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    Identity::new(vec![identity.certificate_der()], &key).unwrap()
}

/// An identity with this client id that another CA has issued, whose name is that of the real one.
fn identity_of_another_ca(id: &str) -> Identity {
    signer(&Authority::new("CipherMQ test CA").client(id))
}

/// The envelopes that this client has published so far, byte for byte.
fn published(fixture: &MaliciousBrokerFixture, client: &str) -> Vec<String> {
    published_through(&fixture.broker, client)
}

/// The envelopes that this client has published so far through this broker, byte for byte.
fn published_through(broker: &MaliciousBroker, client: &str) -> Vec<String> {
    let mut envelopes = Vec::new();
    for line in broker.published_by(client) {
        let json = line.splitn(4, ' ').nth(3).expect("one or more envelopes");
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

/// Makes the broker deliver these ids and envelopes to this client as soon as it consumes, before
/// anything else.
fn deliver_to(
    fixture: &MaliciousBrokerFixture,
    client: &'static str,
    deliveries: Vec<(String, String)>,
) {
    fixture.broker.intercept(move |line| {
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
