//! Cost of sealing and opening a message with each suite, in an existing session and in a new one.

#![allow(missing_docs, reason = "criterion's macros make functions")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a measurement speaks to people, and fails by panicking"
)]

use std::hint::black_box;

use ciphermq_crypto::identity::Identity;
use ciphermq_crypto::{
    Authority, Header, Keyring, OlderForm, OpenPolicy, Opener, PrivateKey, SendingSession,
    XWingPrivateKey, seal_older, stream,
};
use ciphermq_protocol::{ClientId, ExchangeName, MessageId, RoutingKey};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const SIZES: [usize; 2] = [256, 64 * 1024];

/// Creates a sender with an ECDSA P-384 certificate, as `keygen` issues them.
fn sender() -> (Identity, Authority, Vec<CertificateDer<'static>>) {
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = key();
    let ca_certificate = ca.self_signed(&ca_key).unwrap().der().clone();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "sender_1");
    params.is_ca = IsCa::ExplicitNoCa;
    let own = key();
    let certificate = params
        .signed_by(&own, &Issuer::from_params(&ca, &ca_key))
        .unwrap();
    let chain = vec![certificate.der().clone()];
    let private: PrivateKeyDer<'_> = PrivatePkcs8KeyDer::from(own.serialize_der()).into();
    let identity = Identity::new(chain.clone(), &private).unwrap();
    (identity, Authority::new([ca_certificate]).unwrap(), chain)
}

struct Names {
    id: MessageId,
    exchange: ExchangeName,
    routing_key: RoutingKey,
    now: Timestamp,
}

impl Names {
    fn header(&self) -> Header<'_> {
        Header {
            message_id: &self.id,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            content_type: "application/octet-stream",
            sent_time: self.now,
        }
    }
}

fn suites(criterion: &mut Criterion) {
    let (identity, authority, chain) = sender();
    let receiver: ClientId = "receiver_1".parse().unwrap();
    let now = Timestamp::now();
    let names = Names {
        id: stream::start(now).unwrap().message_id(0).unwrap(),
        exchange: "ciphermq_exchange".parse().unwrap(),
        routing_key: "receiver_1_key".parse().unwrap(),
        now,
    };
    let private = PrivateKey::generate().unwrap();
    let public = *private.public_key();
    let keyring = Keyring::new(private).with_x_wing(XWingPrivateKey::generate().unwrap());
    let opener = || {
        let policy = OpenPolicy {
            unverified_senders: true,
            ..OpenPolicy::default()
        };
        let mut opener = Opener::new(receiver.clone(), keyring.clone(), authority.clone(), policy);
        opener.add_sender_chain(chain.clone());
        opener
    };
    for bytes in SIZES {
        let payload = vec![b'x'; bytes];
        for key in keyring.recipient_keys() {
            let start = || SendingSession::start(&identity, &receiver, &key, now).unwrap();
            let mut group = criterion.benchmark_group(format!("{}/{bytes}", key.suite()));
            group.throughput(Throughput::Bytes(bytes as u64));
            let mut session = start();
            group.bench_function("seal", |bencher| {
                bencher.iter(|| {
                    if session.is_exhausted(now) {
                        session = start();
                    }
                    session.seal(&names.header(), black_box(&payload)).unwrap()
                });
            });
            group.bench_function("seal, new session", |bencher| {
                bencher.iter(|| start().seal(&names.header(), black_box(&payload)).unwrap());
            });
            let envelope = start().seal(&names.header(), &payload).unwrap();
            eprintln!(
                "{}: {bytes} bytes in {} bytes",
                key.suite(),
                envelope.raw().len()
            );
            let mut known = opener();
            known.open(&envelope).unwrap();
            group.bench_function("open", |bencher| {
                bencher.iter(|| known.open(black_box(&envelope)).unwrap());
            });
            group.bench_function("open, new session", |bencher| {
                bencher.iter_batched(
                    opener,
                    |mut opener| opener.open(black_box(&envelope)).unwrap(),
                    BatchSize::SmallInput,
                );
            });
            group.finish();
        }
        // Older clients use a session key for each message.
        for form in OlderForm::ALL {
            let mut group = criterion.benchmark_group(format!("{}/{bytes}", form.as_str()));
            group.throughput(Throughput::Bytes(bytes as u64));
            let seal = || seal_older(form, &receiver, &public, &names.header(), &payload).unwrap();
            group.bench_function("seal", |bencher| bencher.iter(|| black_box(seal())));
            let envelope = seal();
            eprintln!(
                "{}: {bytes} bytes in {} bytes",
                form.as_str(),
                envelope.raw().len()
            );
            let mut known = opener();
            group.bench_function("open", |bencher| {
                bencher.iter(|| known.open(black_box(&envelope)).unwrap());
            });
            group.finish();
        }
    }
}

criterion_group!(benches, suites);
criterion_main!(benches);
