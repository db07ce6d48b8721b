//! Generation of the vectors, with new keys and signatures each time.

mod announcements;
mod chains;
mod client_ids;
mod constraints;
mod forms;
mod keys;
mod sessions;
mod signer;

use jiff::Timestamp;
use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::CertificateDer;

use super::Vectors;
use crate::encoding::encode;
use crate::identity::Identity;
use crate::identity::testing::{Ca, CertificateSpec};
use crate::keys::PrivateKey;
use crate::vector_tests::to_hex;

/// The time of verifying signed keys, and of starting sessions: 2025-09-08T07:03:00Z.
const NOW: i64 = 1_757_314_980;

const AUTHORITY: &str = "CipherMQ vectors";
const RECEIVER: &str = "receiver_1";
const SENDER: &str = "sender_1";

pub(super) fn vectors() -> Vectors {
    let ca = Ca::new(AUTHORITY);
    let mut signed = keys::Cases::new(&ca);
    keys::good(&mut signed);
    keys::bad(&mut signed);
    forms::cases(&mut signed);
    announcements::cases(&mut signed);
    chains::cases(&mut signed);
    constraints::cases(&mut signed);
    let signed = signed.finish();
    let client_ids = client_ids::cases(&ca);
    Vectors {
        about: [
            "CipherMQ test vectors of signed keys, client ids and signed sessions; docs/cryptography.md says \
             what they mean.",
            "Certificates are base64 of DER, the client's own first, and lead to `authority`. \
             Other bytes are hexadecimal; signed keys and envelopes are the exact text.",
            "signed_keys: what a sender that asks for the keys of `receiver_client_id` at the time \
             `now` must believe, under the `authority` of the case if it has one. \
             signed_keys_must_fail: what it must refuse, and why; `pinned` is a signed key that it \
             has verified before.",
            "client_ids: the client that a certificate names where `client_id_from` lists the \
             fields that count, or none if there is no `client_id`.",
            "sessions: what the receiver must open, and know the sender of. sessions_must_fail: \
             what it must refuse by default, and why; `certificates` is what the server gives when \
             asked for the sender's.",
            "Never use a key of this file.",
        ]
        .map(str::to_owned)
        .to_vec(),
        authority: encode(&ca.certificate()),
        receiver_client_id: RECEIVER.to_owned(),
        receiver_private_key: to_hex(receiver_key().as_bytes()),
        signed_keys: signed.good,
        signed_keys_must_fail: signed.bad,
        client_ids,
        sessions: sessions::good(&ca),
        sessions_must_fail: sessions::bad(&ca),
    }
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn receiver_key() -> PrivateKey {
    PrivateKey::from_bytes(&[0xa1; 32])
}

fn chain_text(chain: &[CertificateDer<'_>]) -> Vec<String> {
    chain.iter().map(|der| encode(der)).collect()
}

fn spec(key: &'static rcgen::SignatureAlgorithm) -> CertificateSpec {
    CertificateSpec {
        key,
        extended_usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
        valid: Some((NOW - 30 * 86_400, NOW + 300 * 86_400)),
        ..CertificateSpec::default()
    }
}

fn issue(ca: &Ca, client: &str) -> Ca {
    ca.issue_as(client, &spec(&rcgen::PKCS_ECDSA_P384_SHA384))
}

fn for_servers(ca: &Ca, client: &str) -> Identity {
    let spec = CertificateSpec {
        extended_usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        ..spec(&rcgen::PKCS_ECDSA_P384_SHA384)
    };
    ca.issue_as(client, &spec).identity()
}
