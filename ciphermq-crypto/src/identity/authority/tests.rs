//! Chains that are accepted and refused.

use super::*;
use crate::identity::fingerprint;
use crate::identity::testing::{Ca, CertificateSpec};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 1_800_000_000;

#[test]
fn a_client_of_the_authority_is_verified() {
    let ca = Ca::new("ca");
    let chain = ca.issue("receiver_1").chain;
    let certificate = ca.authority().verify(&chain, at(NOW)).unwrap();
    assert_eq!(certificate.client_id().as_str(), "receiver_1");
    assert_eq!(certificate.fingerprint(), fingerprint(&chain[0]));
    assert_eq!(certificate.algorithm().as_str(), "ES384");
}

#[test]
fn a_client_of_another_authority_of_the_same_name_is_refused() {
    let [ca, other] = ["ca", "ca"].map(Ca::new);
    let error = ca
        .authority()
        .verify(&other.issue("receiver_1").chain, at(NOW))
        .unwrap_err();
    assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    // Not even with the other authority's certificate in the chain.
    let mut chain = other.issue("receiver_1").chain;
    chain.push(other.certificate());
    let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
    assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
}

#[test]
fn a_client_cannot_issue_certificates() {
    let ca = Ca::new("ca");
    let client = ca.issue("receiver_1");
    let forged = client.issue("sender_1");
    let chain = [forged.chain[0].clone(), client.chain[0].clone()];
    let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
    assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
}

#[test]
fn an_intermediate_authority_is_accepted() {
    let ca = Ca::new("ca");
    let intermediate = ca.intermediate("department");
    let client = intermediate.issue("receiver_1");
    let chain = [client.chain[0].clone(), intermediate.certificate()];
    ca.authority().verify(&chain, at(NOW)).unwrap();
    let error = ca.authority().verify(&chain[..1], at(NOW)).unwrap_err();
    assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
}

#[test]
fn a_certificate_is_refused_outside_its_validity() {
    let ca = Ca::new("ca");
    let chain = ca
        .issue_as(
            "receiver_1",
            &CertificateSpec {
                valid: Some((NOW, NOW + 60)),
                ..CertificateSpec::default()
            },
        )
        .chain;
    let verify = |second| ca.authority().verify(&chain, at(second));
    assert!(verify(NOW).is_ok() && verify(NOW + 60).is_ok());
    assert_eq!(
        verify(NOW + 61),
        Err(CertificateError::Expired(at(NOW + 60)))
    );
    assert_eq!(verify(NOW - 1), Err(CertificateError::NotYetValid(at(NOW))));
    let last = at(NOW + 60) + Duration::from_millis(999);
    assert!(ca.authority().verify(&chain, last).is_ok());
}

#[test]
fn stated_usages_must_permit_signing() {
    let ca = Ca::new("ca");
    let verify = |spec: CertificateSpec| {
        let chain = ca.issue_as("receiver_1", &spec).chain;
        ca.authority().verify(&chain, at(NOW)).map(|_| ())
    };
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let extended = |usages: &[ExtendedKeyUsagePurpose]| {
        verify(CertificateSpec {
            extended_usages: usages.to_vec(),
            ..CertificateSpec::default()
        })
    };
    assert_eq!(extended(&[]), Ok(()));
    assert_eq!(extended(&[ClientAuth]), Ok(()));
    assert_eq!(extended(&[ServerAuth, ClientAuth]), Ok(()));
    assert_eq!(
        extended(&[ServerAuth]),
        Err(CertificateError::Usage(Usage::ClientAuthentication))
    );
    let usages = |usages: &[KeyUsagePurpose]| {
        verify(CertificateSpec {
            usages: usages.to_vec(),
            ..CertificateSpec::default()
        })
    };
    assert_eq!(usages(&[KeyUsagePurpose::DigitalSignature]), Ok(()));
    assert_eq!(
        usages(&[KeyUsagePurpose::KeyAgreement]),
        Err(CertificateError::Usage(Usage::Signatures))
    );
    for (usage, names, not) in [
        (Usage::Signatures, "digitalSignature", "clientAuth"),
        (
            Usage::ClientAuthentication,
            "clientAuth",
            "digitalSignature",
        ),
    ] {
        let advice = CertificateError::Usage(usage).advice();
        assert!(advice.contains(names) && !advice.contains(not), "{advice}");
    }
}

#[test]
fn invalid_common_names_are_refused() {
    let ca = Ca::new("ca");
    for name in ["", "with space", "line\nbreak"] {
        let chain = ca.issue(name).chain;
        let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
        assert!(
            matches!(error, CertificateError::Name(_)),
            "{name:?}: {error}"
        );
    }
}

#[test]
fn other_kinds_of_keys_are_refused() {
    let ca = Ca::new("ca");
    let chain = ca
        .issue_as(
            "receiver_1",
            &CertificateSpec {
                key: &rcgen::PKCS_ECDSA_P521_SHA512,
                ..CertificateSpec::default()
            },
        )
        .chain;
    assert_eq!(
        ca.authority().verify(&chain, at(NOW)),
        Err(CertificateError::KeyKind)
    );
}

#[test]
fn garbage_is_refused() {
    let ca = Ca::new("ca");
    let authority = ca.authority();
    assert_eq!(
        authority.verify(&[], at(NOW)),
        Err(CertificateError::Missing)
    );
    let own = ca.issue("receiver_1").chain[0].clone();
    for length in [0, 1, own.len() / 2, own.len() - 1] {
        let cut = CertificateDer::from(own[..length].to_vec());
        let error = authority.verify(&[cut], at(NOW)).unwrap_err();
        assert!(
            matches!(error, CertificateError::Unreadable(_)),
            "{length}: {error}"
        );
    }
    let longer = CertificateDer::from([&own[..], b"x"].concat());
    assert!(matches!(
        authority.verify(&[longer], at(NOW)),
        Err(CertificateError::Unreadable(_))
    ));
    assert_eq!(
        authority.verify(&vec![own; 9], at(NOW)),
        Err(CertificateError::TooLong)
    );
    assert!(Authority::new([]).is_err());
    assert!(Authority::new([CertificateDer::from(b"x".to_vec())]).is_err());
}

#[test]
fn every_flipped_bit_is_detected() {
    let ca = Ca::new("ca");
    let authority = ca.authority();
    let own = ca.issue("receiver_1").chain[0].clone();
    for byte in 0..own.len() {
        let mut flipped = own.to_vec();
        flipped[byte] ^= 1;
        let verified = authority.verify(&[CertificateDer::from(flipped)], at(NOW));
        assert!(verified.is_err(), "byte {byte}");
    }
}
