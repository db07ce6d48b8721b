//! Cases of signed sessions.

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::{ClientId, Envelope, StreamId};
use jiff::Timestamp;
use rcgen::KeyUsagePurpose;
use rustls_pki_types::CertificateDer;

use super::chains::{below, issue_with};
use super::signer::Signer;
use super::{
    AUTHORITY, NOW, RECEIVER, SENDER, chain_text, for_servers, issue, now, receiver_key, spec,
};
use crate::encoding::{decode, encode};
use crate::identity::testing::{Ca, CertificateSpec};
use crate::identity::{Authority, Fingerprint, Identity, fingerprint};
use crate::seal::SessionStart;
use crate::sender::{Signature, SignedFields};
use crate::signed_vector_tests::{BadSession, GoodSession};
use crate::vector_tests::{header, name, to_hex};
use crate::{Keyring, OpenPolicy, Opener};

/// Returns an envelope of a session of `sender` that `signer` has signed, and the signed bytes.
fn sealed(sender: &str, signer: &Identity, time: Timestamp, payload: &[u8]) -> (Envelope, Vec<u8>) {
    sealed_over(sender, signer, time, payload, |signed, certificate| {
        signed.bytes(certificate)
    })
}

/// Returns such an envelope, with a signature of the bytes that `choose` returns.
fn sealed_over(
    sender: &str,
    signer: &Identity,
    time: Timestamp,
    payload: &[u8],
    choose: impl FnOnce(SignedFields<'_>, Fingerprint) -> Vec<u8>,
) -> (Envelope, Vec<u8>) {
    let sign = |signed: &[u8]| signer.sign(signed).unwrap();
    sealed_by(sender, (signer.fingerprint(), &sign), time, payload, choose)
}

/// A function that signs bytes with the certificate's algorithm.
type Sign<'a> = dyn Fn(&[u8]) -> Vec<u8> + 'a;

/// Returns such an envelope, signed with any certificate.
fn sealed_by(
    sender: &str,
    (certificate, sign): (Fingerprint, &Sign<'_>),
    time: Timestamp,
    payload: &[u8],
    choose: impl FnOnce(SignedFields<'_>, Fingerprint) -> Vec<u8>,
) -> (Envelope, Vec<u8>) {
    let (sender, receiver): (ClientId, ClientId) = (name(sender), name(RECEIVER));
    let key = (*receiver_key().public_key()).into();
    let start = SessionStart::fresh(&sender, &receiver, &key, time).unwrap();
    let signed = choose(start.signed(), certificate);
    let signature = sign(&signed);
    let mut session = start.session(Some(&Signature {
        certificate,
        signature,
    }));
    let id = StreamId::new(1_757_314_979_999, 1).message_id(0).unwrap();
    (session.seal(&header(&id, time), payload).unwrap(), signed)
}

fn text(envelope: &Envelope) -> String {
    String::from_utf8(envelope.raw().to_bytes().to_vec()).unwrap()
}

pub(super) fn good(ca: &Ca) -> Vec<GoodSession> {
    let intermediate = ca.intermediate("An intermediate authority");
    let mut below = issue(&intermediate, SENDER);
    below.chain.push(intermediate.certificate());
    let long = "s".repeat(255);
    let mut eight = issue(ca, SENDER);
    eight.chain.resize(8, ca.certificate());
    [
        ("ECDSA P-384", SENDER, issue(ca, SENDER)),
        (
            "ECDSA P-256, a name that JSON escapes and that is not ASCII",
            "\"station\"/Zürich",
            ca.issue_as("\"station\"/Zürich", &spec(&rcgen::PKCS_ECDSA_P256_SHA256)),
        ),
        (
            "Ed25519",
            SENDER,
            ca.issue_as(SENDER, &spec(&rcgen::PKCS_ED25519)),
        ),
        ("by way of an intermediate authority", SENDER, below),
        (
            "a certificate that begins in the session's second",
            SENDER,
            issue_with(ca, SENDER, |spec| spec.valid = Some((NOW, NOW + 60))),
        ),
        (
            "a certificate that ends with the session's second",
            SENDER,
            issue_with(ca, SENDER, |spec| spec.valid = Some((NOW - 60, NOW))),
        ),
        ("a name of 255 bytes", &long, issue(ca, &long)),
        (
            "a chain of eight certificates, most of no use",
            SENDER,
            eight,
        ),
    ]
    .into_iter()
    .map(|(about, sender, certificate)| {
        let identity = certificate.identity();
        let payload = format!("signed with {about}");
        let (envelope, signed) = sealed(sender, &identity, now(), payload.as_bytes());
        let fields = envelope.fields().unwrap();
        GoodSession {
            about: about.to_owned(),
            sender_client_id: sender.to_owned(),
            algorithm: identity.algorithm().as_str().to_owned(),
            certificates: chain_text(identity.chain()),
            sender_certificate: identity.fingerprint().to_string(),
            session_time: fields.session_time.clone().unwrap().into_owned(),
            enc_session_key: to_hex(decode(&fields.enc_session_key).unwrap()),
            signed: to_hex(&signed),
            signature: to_hex(decode(fields.sender_signature.as_deref().unwrap()).unwrap()),
            payload: to_hex(payload.as_bytes()),
            envelope: text(&envelope),
        }
    })
    .collect()
}

/// Replaces the value of a string field with JSON.
fn replaced(of: &Envelope, field: &str, value: &str) -> Envelope {
    let text = text(of);
    let start = text.find(&format!("\"{field}\":\"")).unwrap() + field.len() + 3;
    let end = start + 1 + text[start + 1..].find('"').unwrap() + 1;
    Envelope::parse(format!("{}{value}{}", &text[..start], &text[end..]).into()).unwrap()
}

fn altered(of: &Envelope, alter: impl FnOnce(&mut Fields<'_>)) -> Envelope {
    let mut fields = of.fields().unwrap();
    alter(&mut fields);
    Envelope::build(&fields).unwrap()
}

/// Asserts that an envelope opens with `sender` verified: the control of a bad case.
fn opens(about: &str, envelope: &Envelope, sender: &str, signer: &Identity, authority: Authority) {
    let keyring = Keyring::new(receiver_key());
    let mut opener = Opener::new(name(RECEIVER), keyring, authority, OpenPolicy::default());
    opener.add_sender_chain(signer.chain().to_vec());
    let opened = opener
        .open(envelope)
        .unwrap_or_else(|error| panic!("{about}: {error}"));
    assert_eq!(opened.sender, Some(name(sender)), "{about}");
    assert!(opened.is_sender_verified, "{about}");
}

fn bad_session(
    about: &str,
    expect: &str,
    certificate: &Identity,
    envelope: &Envelope,
) -> BadSession {
    BadSession {
        about: about.to_owned(),
        certificates: chain_text(certificate.chain()),
        expect: expect.to_owned(),
        envelope: text(envelope),
    }
}

pub(super) fn bad(ca: &Ca) -> Vec<BadSession> {
    let sender = issue(ca, SENDER).identity();
    let mallory = issue(ca, "mallory").identity();
    let mut cases = altered_sessions(ca, &sender);
    cases.extend(refused_certificates(ca));
    cases.extend(misused_session_signatures(ca, &sender, &mallory));

    let (honest, _) = sealed(SENDER, &sender, now(), b"honest");
    let about = "the server gives another certificate than was asked for";
    opens(about, &honest, SENDER, &sender, ca.authority());
    cases.push(bad_session(about, "certificate_needed", &mallory, &honest));

    let (of_mallory, _) = sealed("mallory", &mallory, now(), b"as mallory");
    let about = "signed by another client, who says so, in the sender's name";
    opens(about, &of_mallory, "mallory", &mallory, ca.authority());
    let (forged, _) = sealed(SENDER, &mallory, now(), b"forged");
    cases.push(bad_session(about, "other_client", &mallory, &forged));
    let about = "another client's session, relabelled as the sender's";
    let relabelled = altered(&of_mallory, |f| f.sender_client_id = Some(SENDER.into()));
    cases.push(bad_session(about, "not_authentic", &mallory, &relabelled));

    let about = "a certificate of another authority with the same name";
    let other_ca = Ca::new(AUTHORITY);
    let other = issue(&other_ca, SENDER).identity();
    let (envelope, _) = sealed(SENDER, &other, now(), b"forged");
    opens(about, &envelope, SENDER, &other, other_ca.authority());
    cases.push(bad_session(
        about,
        "certificate_not_trusted",
        &other,
        &envelope,
    ));

    for (about, expect, (from, until), but) in [
        (
            "the certificate had expired when the session began",
            "certificate_expired",
            (-86_400, -1),
            -1,
        ),
        (
            "the certificate was not valid yet when the session began",
            "certificate_not_yet_valid",
            (1, 86_400),
            1,
        ),
    ] {
        let spec = CertificateSpec {
            valid: Some((NOW + from, NOW + until)),
            ..spec(&rcgen::PKCS_ECDSA_P384_SHA384)
        };
        let identity = ca.issue_as(SENDER, &spec).identity();
        let in_time = Timestamp::from_second(NOW + but).unwrap();
        let (envelope, _) = sealed(SENDER, &identity, in_time, b"in time");
        opens(about, &envelope, SENDER, &identity, ca.authority());
        let (envelope, _) = sealed(SENDER, &identity, now(), b"at the wrong time");
        cases.push(bad_session(about, expect, &identity, &envelope));
    }
    // With a certificate for clients, it is `honest`.
    let server = for_servers(ca, SENDER);
    let (envelope, _) = sealed(SENDER, &server, now(), b"from a server");
    let about = "the certificate is for servers only";
    cases.push(bad_session(about, "certificate_usage", &server, &envelope));
    cases
}

/// Sessions with right signatures of refused certificates.
fn refused_certificates(ca: &Ca) -> Vec<BadSession> {
    let mut cases = Vec::new();
    let mut case = |about: &str, expect: &str, signer: &Signer| {
        let certificate = fingerprint(signer.chain.first().unwrap());
        let sign = |signed: &[u8]| signer.sign(signed);
        let signed = |signed: SignedFields<'_>, certificate| signed.bytes(certificate);
        let (envelope, _) = sealed_by(SENDER, (certificate, &sign), now(), b"refused", signed);
        cases.push(BadSession {
            about: about.to_owned(),
            certificates: chain_text(&signer.chain),
            expect: expect.to_owned(),
            envelope: text(&envelope),
        });
    };
    let own = issue(ca, SENDER);
    let chain = |length: usize| {
        let mut signer = Signer::p384(&own);
        signer.chain.resize(length, ca.certificate());
        signer
    };
    case(
        "a chain of nine certificates",
        "certificate_too_long",
        &chain(9),
    );
    let intermediate = ca.intermediate("An intermediate authority");
    let mut alone = below(&[&intermediate], SENDER);
    alone.chain.truncate(1);
    let about = "the intermediate authority is not in the chain";
    case(about, "certificate_not_trusted", &Signer::p384(&alone));
    let client = issue(ca, "sender_2");
    let by_client = Signer::p384(&below(&[&client], SENDER));
    case(
        "issued by another client",
        "certificate_not_trusted",
        &by_client,
    );
    let agreement = issue_with(ca, SENDER, |spec| {
        spec.usages = vec![KeyUsagePurpose::KeyAgreement];
    });
    let about = "a certificate that is not for signatures";
    case(about, "certificate_usage", &Signer::p384(&agreement));
    let names = |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Signer::p384(&issue_with(ca, SENDER, |spec| {
            spec.common_names = Some(names);
        }))
    };
    case(
        "a certificate without a Common Name",
        "certificate_name",
        &names(&[]),
    );
    let twice = names(&[SENDER, SENDER]);
    case(
        "a certificate with the Common Name twice",
        "certificate_name",
        &twice,
    );
    case(
        "a Common Name with a space",
        "certificate_name",
        &names(&["sender 1"]),
    );
    case(
        "a Common Name that differs in capitals",
        "other_client",
        &names(&["Sender_1"]),
    );
    let p521 = ca.issue_as(SENDER, &spec(&rcgen::PKCS_ECDSA_P521_SHA512));
    case(
        "an ECDSA P-521 key",
        "certificate_key_kind",
        &Signer::p521(&p521),
    );
    for (about, expect, from, until) in [
        (
            "the certificate ended a second before the session began",
            "certificate_expired",
            -60,
            -1,
        ),
        (
            "the certificate began a second after the session",
            "certificate_not_yet_valid",
            1,
            60,
        ),
    ] {
        let certificate = issue_with(ca, SENDER, |spec| {
            spec.valid = Some((NOW + from, NOW + until));
        });
        case(about, expect, &Signer::p384(&certificate));
    }
    cases
}

/// Alterations of an honest session in transit.
fn altered_sessions(ca: &Ca, sender: &Identity) -> Vec<BadSession> {
    // The signature's base64 must reveal its alphabet.
    let honest = || sealed(SENDER, sender, now(), b"honest").0;
    let shows = |of: &Envelope| {
        let fields = of.fields().unwrap();
        fields.sender_signature.unwrap().contains(['+', '/'])
    };
    let honest = std::iter::repeat_with(honest).find(shows).unwrap();
    let (other_session, _) = sealed(SENDER, sender, now(), b"another session");
    for envelope in [&honest, &other_session] {
        opens("altered sessions", envelope, SENDER, sender, ca.authority());
    }
    let other = other_session.fields().unwrap();
    let other_signature = other.sender_signature.as_deref().unwrap();
    let case = |about, expect, envelope| bad_session(about, expect, sender, &envelope);
    vec![
        case(
            "signature and certificate were taken away",
            "unsigned_session",
            altered(&honest, |f| {
                f.sender_signature = None;
                f.sender_certificate = None;
            }),
        ),
        case(
            "the signature was taken away",
            "not_authentic",
            altered(&honest, |f| f.sender_signature = None),
        ),
        case(
            "the certificate's fingerprint was taken away",
            "not_authentic",
            altered(&honest, |f| f.sender_certificate = None),
        ),
        case(
            "a bit of the signature",
            "not_authentic",
            altered(&honest, |f| {
                let mut signature = decode(f.sender_signature.as_deref().unwrap()).unwrap();
                signature[20] ^= 1;
                f.sender_signature = Some(encode(&signature).into());
            }),
        ),
        case(
            "the signature is null",
            "not_authentic",
            replaced(&honest, "sender_signature", "null"),
        ),
        case(
            "signature and certificate are null",
            "unsigned_session",
            replaced(
                &replaced(&honest, "sender_signature", "null"),
                "sender_certificate",
                "null",
            ),
        ),
        case(
            "the certificate's fingerprint in capitals",
            "not_authentic",
            altered(&honest, |f| {
                f.sender_certificate =
                    Some(f.sender_certificate.as_ref().unwrap().to_uppercase().into());
            }),
        ),
        case(
            "a byte behind the signature",
            "not_authentic",
            altered(&honest, |f| {
                let mut signature = decode(f.sender_signature.as_deref().unwrap()).unwrap();
                signature.push(0);
                f.sender_signature = Some(encode(&signature).into());
            }),
        ),
        case(
            "the signature in the alphabet of base64url",
            "not_authentic",
            altered(&honest, |f| {
                let signature = f.sender_signature.as_deref().unwrap();
                f.sender_signature = Some(signature.replace('+', "-").replace('/', "_").into());
            }),
        ),
        case(
            "the signature of the sender's other session",
            "not_authentic",
            altered(&honest, |f| {
                f.sender_signature = Some(other_signature.to_owned().into());
            }),
        ),
        case(
            "the session's time is another",
            "not_authentic",
            altered(&honest, |f| {
                f.session_time = Some("2025-09-08T07:02:59.999Z".into());
            }),
        ),
    ]
}

/// Sessions with a signature of the sender that covers something else.
///
/// Anybody with the receiver's public key can seal a session in the sender's name, but lacks the
/// sender's signature of it. Each of these signatures differs in one field.
fn misused_session_signatures(ca: &Ca, sender: &Identity, mallory: &Identity) -> Vec<BadSession> {
    type Choose = fn(SignedFields<'_>, Fingerprint) -> Vec<u8>;
    let fields: [(&str, Choose); 7] = [
        ("another purpose", |signed, certificate| {
            let mut bytes = signed.bytes(certificate);
            let last = "CipherMQ sender 1".len() + 3;
            assert_eq!(bytes[last], b'1');
            bytes[last] = b'2';
            bytes
        }),
        ("another suite", |signed, certificate| {
            SignedFields {
                suite: "XWING-AES256GCM",
                ..signed
            }
            .bytes(certificate)
        }),
        ("another sender", |signed, certificate| {
            SignedFields {
                sender: "sender_2",
                ..signed
            }
            .bytes(certificate)
        }),
        ("another receiver", |signed, certificate| {
            SignedFields {
                receiver: "receiver_2",
                ..signed
            }
            .bytes(certificate)
        }),
        ("another key id", |signed, certificate| {
            SignedFields {
                receiver_key_id: "0123456789abcdef",
                ..signed
            }
            .bytes(certificate)
        }),
        ("another session time", |signed, certificate| {
            SignedFields {
                session_time: "2025-09-08T07:02:59.999Z",
                ..signed
            }
            .bytes(certificate)
        }),
        ("another certificate", |signed, _| {
            signed.bytes(fingerprint(&CertificateDer::from(b"another".as_slice())))
        }),
    ];
    let (honest, _) = sealed_over(SENDER, sender, now(), b"honest", |signed, certificate| {
        signed.bytes(certificate)
    });
    opens("signatures", &honest, SENDER, sender, ca.authority());
    let mut cases: Vec<_> = fields
        .into_iter()
        .map(|(what, choose)| {
            let about = format!("the sender's signature is over {what}");
            let (envelope, _) = sealed_over(SENDER, sender, now(), b"forged", choose);
            bad_session(&about, "not_authentic", sender, &envelope)
        })
        .collect();
    // The sender's certificate with another client's private key.
    let (envelope, _) = sealed_over(SENDER, mallory, now(), b"forged", |signed, _| {
        signed.bytes(sender.fingerprint())
    });
    let envelope = altered(&envelope, |f| {
        f.sender_certificate = Some(sender.fingerprint().to_string().into());
    });
    let about = "the sender's certificate and another client's signature";
    cases.push(bad_session(about, "not_authentic", sender, &envelope));
    cases
}
