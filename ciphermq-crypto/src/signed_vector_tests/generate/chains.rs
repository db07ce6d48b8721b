//! Certificates and chains at the bounds of what is accepted and beyond, all with right signatures.

use jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use super::announcements::Payload;
use super::keys::Cases;
use super::signer::Signer;
use super::{AUTHORITY, NOW, RECEIVER, issue, now, spec};
use crate::identity::testing::{Ca, CertificateSpec};

const DAY: i64 = 86_400;

/// Issues a usual certificate, with the changes of `change`.
pub(super) fn issue_with(ca: &Ca, client: &str, change: impl FnOnce(&mut CertificateSpec)) -> Ca {
    let mut spec = spec(&rcgen::PKCS_ECDSA_P384_SHA384);
    change(&mut spec);
    ca.issue_as(client, &spec)
}

pub(super) fn authority_below(ca: &Ca, change: impl FnOnce(&mut CertificateSpec)) -> Ca {
    let mut spec = CertificateSpec {
        is_authority: true,
        valid: Some((NOW - 30 * DAY, NOW + 300 * DAY)),
        ..CertificateSpec::default()
    };
    change(&mut spec);
    ca.issue_as("An intermediate authority", &spec)
}

/// Issues a client's certificate below a path of authorities, by the last of them.
pub(super) fn below(authorities: &[&Ca], client: &str) -> Ca {
    let mut own = issue(authorities.last().unwrap(), client);
    own.chain.extend(
        authorities
            .iter()
            .rev()
            .map(|authority| authority.certificate()),
    );
    own
}

pub(super) fn signed(certificate: &Ca) -> String {
    Signer::p384(certificate).signed_key(&Payload::default().to_string())
}

pub(super) fn cases(cases: &mut Cases<'_>) {
    dates(cases);
    lengths(cases);
    usages(cases);
    names(cases);
    kinds(cases);
    intermediates(cases);
    authorities(cases);
}

fn dates(cases: &mut Cases<'_>) {
    let ca = cases.ca;
    let valid = |from, until| {
        signed(&issue_with(ca, RECEIVER, |spec| {
            spec.valid = Some((from, until));
        }))
    };
    let millis = |millis| now() + std::time::Duration::from_millis(millis);
    let last = valid(NOW - DAY, NOW);
    cases.good(
        "a certificate that begins in this second",
        &valid(NOW, NOW + DAY),
    );
    cases.good_under(
        ca,
        "a certificate that ends with this second, of which 999 ms are over",
        millis(999),
        &last,
    );
    let begins = "a certificate that begins in the next second";
    let next = valid(NOW + 1, NOW + DAY);
    cases.case(
        begins,
        "certificate_not_yet_valid",
        millis(999),
        &next,
        super::keys::Control::OtherTime(millis(1000)),
    );
    let ended = "a certificate that ended with the last second";
    cases.case(
        ended,
        "certificate_expired",
        millis(1000),
        &last,
        super::keys::Control::OtherTime(millis(999)),
    );
}

fn lengths(cases: &mut Cases<'_>) {
    let own = issue(cases.ca, RECEIVER);
    let of = |length: usize| {
        let mut signer = Signer::p384(&own);
        signer.chain.resize(length, own.chain[0].clone());
        signer.signed_key(&Payload::default().to_string())
    };
    let good = of(8);
    cases.good("a chain of eight certificates, most of no use", &good);
    cases.bad(
        "a chain of nine certificates",
        "certificate_too_long",
        &of(9),
        &good,
    );
    cases.bad("no certificate", "certificate_missing", &of(0), &good);
    let mut longer = Signer::p384(&own);
    longer.chain = vec![CertificateDer::from([&own.chain[0][..], &[0]].concat())];
    let longer = longer.signed_key(&Payload::default().to_string());
    cases.bad(
        "a byte behind the certificate",
        "certificate_unreadable",
        &longer,
        &good,
    );
}

fn usages(cases: &mut Cases<'_>) {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let ca = cases.ca;
    let of = |usages: &[KeyUsagePurpose], extended: &[ExtendedKeyUsagePurpose]| {
        signed(&issue_with(ca, RECEIVER, |spec| {
            spec.usages = usages.to_vec();
            spec.extended_usages = extended.to_vec();
        }))
    };
    let good = of(
        &[KeyUsagePurpose::DigitalSignature],
        &[ServerAuth, ClientAuth],
    );
    cases.good("a certificate for signatures, servers and clients", &good);
    cases.good("a certificate that states no usages", &of(&[], &[]));
    let agreement = of(&[KeyUsagePurpose::KeyAgreement], &[ServerAuth, ClientAuth]);
    let about = "a certificate that is not for signatures";
    cases.bad(about, "certificate_usage", &agreement, &good);
}

fn names(cases: &mut Cases<'_>) {
    let ca = cases.ca;
    let of = |names: &[&str]| {
        signed(&issue_with(ca, RECEIVER, |spec| {
            spec.common_names = Some(names.iter().map(|&name| name.to_owned()).collect());
        }))
    };
    let good = of(&[RECEIVER]);
    for (about, names) in [
        ("a certificate without a Common Name", &[][..]),
        ("a certificate with an empty Common Name", &[""]),
        (
            "a certificate with two Common Names",
            &[RECEIVER, "receiver_2"],
        ),
        (
            "a certificate with the Common Name twice",
            &[RECEIVER, RECEIVER],
        ),
        ("a Common Name with a space", &["receiver 1"]),
        (
            "a Common Name with an invisible character",
            &["receiver_1\u{200b}"],
        ),
    ] {
        cases.bad(about, "certificate_name", &of(names), &good);
    }
    let about = "a Common Name that differs in capitals";
    cases.bad(about, "other_signer", &of(&["Receiver_1"]), &good);
}

fn kinds(cases: &mut Cases<'_>) {
    let certificate = cases
        .ca
        .issue_as(RECEIVER, &spec(&rcgen::PKCS_ECDSA_P521_SHA512));
    let p521 = Signer::p521(&certificate).signed_key(&Payload::default().to_string());
    let good = signed(&issue(cases.ca, RECEIVER));
    cases.bad("an ECDSA P-521 key", "certificate_key_kind", &p521, &good);
    let authority = signed(&issue_with(cases.ca, RECEIVER, |spec| {
        spec.is_authority = true;
    }));
    let about = "a certificate that is an authority's";
    cases.bad(about, "certificate_not_trusted", &authority, &good);
}

fn intermediates(cases: &mut Cases<'_>) {
    let ca = cases.ca;
    let plain = authority_below(ca, |_| {});
    let good = signed(&below(&[&plain], RECEIVER));
    let mut alone = below(&[&plain], RECEIVER);
    alone.chain.truncate(1);
    cases.bad(
        "the intermediate authority is not in the chain",
        "certificate_not_trusted",
        &signed(&alone),
        &good,
    );
    let client = issue(ca, "sender_1");
    let by_client = signed(&below(&[&client], RECEIVER));
    cases.bad(
        "issued by another client",
        "certificate_not_trusted",
        &by_client,
        &good,
    );
    for (about, expect, intermediate) in [
        (
            "the intermediate authority has expired",
            "certificate_not_trusted",
            authority_below(ca, |spec| spec.valid = Some((NOW - DAY, NOW - 1))),
        ),
        (
            "the intermediate authority is not valid yet",
            "certificate_not_trusted",
            authority_below(ca, |spec| spec.valid = Some((NOW + 1, NOW + DAY))),
        ),
        (
            "the intermediate authority is for servers only",
            "certificate_usage",
            authority_below(ca, |spec| {
                spec.extended_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
    ] {
        cases.bad(
            about,
            expect,
            &signed(&below(&[&intermediate], RECEIVER)),
            &good,
        );
    }

    let [lower, none_below] =
        [Some(1), Some(0)].map(|length| authority_below(ca, |spec| spec.path_length = length));
    let two = |upper: &Ca| {
        let lower = authority_below(upper, |_| {});
        signed(&below(&[upper, &lower], RECEIVER))
    };
    let good = two(&lower);
    cases.good("an intermediate authority below one that allows it", &good);
    let about = "an intermediate authority below one whose path length is 0";
    cases.bad(about, "certificate_not_trusted", &two(&none_below), &good);

    let path = |length: usize| {
        let mut path: Vec<Ca> = Vec::new();
        for _ in 0..length {
            path.push(authority_below(path.last().unwrap_or(ca), |_| {}));
        }
        signed(&below(&path.iter().collect::<Vec<_>>(), RECEIVER))
    };
    let good = path(6);
    cases.good("a path of six intermediate authorities", &good);
    let about = "a path of seven intermediate authorities";
    cases.bad(about, "certificate_not_trusted", &path(7), &good);
}

/// Only name, key and name constraints of the authority itself are relevant.
fn authorities(cases: &mut Cases<'_>) {
    let expired = Ca::new_as(
        AUTHORITY,
        CertificateSpec {
            valid: Some((NOW - DAY, NOW - 1)),
            ..CertificateSpec::default()
        },
    );
    let at: Timestamp = now();
    cases.good_under(
        &expired,
        "an authority that has expired",
        at,
        &signed(&issue(&expired, RECEIVER)),
    );
    let short = Ca::new_as(
        AUTHORITY,
        CertificateSpec {
            path_length: Some(0),
            ..CertificateSpec::default()
        },
    );
    let intermediate = authority_below(&short, |_| {});
    let signed_below = signed(&below(&[&intermediate], RECEIVER));
    cases.good_under(
        &short,
        "an intermediate authority below an authority of path length 0",
        at,
        &signed_below,
    );
}
