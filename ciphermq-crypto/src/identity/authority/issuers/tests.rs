//! Intermediate authorities that are learned from the chains of other clients.

use super::*;
use crate::identity::testing::{Ca, CertificateSpec};
use crate::identity::{Certificate, RevocationListError};

const NOW: i64 = 1_800_000_000;

/// When the lists of these tests were made.
const MADE: i64 = 1_700_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn chain(client: &Ca, issuers: &[&Ca]) -> Vec<CertificateDer<'static>> {
    let issuers = issuers.iter().map(|issuer| issuer.certificate());
    std::iter::once(client.chain[0].clone())
        .chain(issuers)
        .collect()
}

fn learning(ca: &Ca) -> Authority {
    ca.authority().refuse_unknown_issuers(true)
}

fn unknown(verified: Result<Certificate, CertificateError>) -> Vec<Intermediate> {
    match verified {
        Err(CertificateError::UnknownIssuers(issuers)) => issuers,
        other => panic!("{other:?}"),
    }
}

/// Learns what a chain needs.
fn learn(authority: &mut Authority, chain: &[CertificateDer<'_>]) -> Learned {
    let issuers = unknown(authority.verify(chain, at(NOW)));
    authority.learn(&issuers)
}

fn subjects(issuers: &[Intermediate]) -> Vec<String> {
    issuers.iter().map(Intermediate::subject).collect()
}

#[test]
fn a_chain_is_refused_until_the_authorities_of_its_path_are_known() {
    let root = Ca::new("root");
    let middle = root.intermediate("middle");
    let [lower, other] = ["lower", "other"].map(|name| middle.intermediate(name));
    let client = lower.issue("client");
    // The order is the sender's, and what the path does not need is ignored.
    let presented = chain(&client, &[&other, &middle, &lower]);
    let mut authority = learning(&root);
    let issuers = unknown(authority.verify(&presented, at(NOW)));
    assert_eq!(subjects(&issuers), ["CN=lower", "CN=middle"]);
    assert!(root.authority().verify(&presented, at(NOW)).is_ok());

    assert!(authority.read_list(&lower.list(1, &[])).is_err());
    let learned = authority.learn(&issuers);
    let signers = issuers.iter().map(|issuer| issuer.signer().clone());
    assert_eq!(learned.new, signers.collect::<Vec<_>>());
    assert_eq!(authority.learn(&issuers), Learned::default());
    let verified = authority.verify(&presented, at(NOW)).unwrap();
    assert_eq!(verified.issuers(), issuers);
    assert!(authority.read_list(&lower.list(1, &[])).is_ok());
    // One below them needs the one that is new, and a client of the root needs none.
    let sibling = chain(&other.issue("sibling"), &[&other, &middle]);
    assert_eq!(
        subjects(&unknown(authority.verify(&sibling, at(NOW)))),
        ["CN=other"]
    );
    let direct = root.issue("direct").chain;
    let verified = learning(&root).verify(&direct, at(NOW)).unwrap();
    assert_eq!(verified.issuers(), []);
}

#[test]
fn the_clients_own_authorities_need_not_be_learned() {
    let root = Ca::new("root");
    let own = root.intermediate("own");
    let [client, peer] = ["client", "peer"].map(|name| chain(&own.issue(name), &[&own]));
    let authority = learning(&root).with_intermediates_of(&client, at(NOW));
    let verified = authority.verify(&peer, at(NOW)).unwrap();
    assert_eq!(verified.issuers(), []);
}

#[test]
fn a_chain_that_is_refused_teaches_nothing() {
    let [root, stranger] = ["root", "stranger"].map(Ca::new);
    let below_stranger = stranger.intermediate("department");
    let foreign = chain(&below_stranger.issue("client"), &[&below_stranger]);
    let error = learning(&root).verify(&foreign, at(NOW)).unwrap_err();
    assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");

    // An intermediate authority that the root has revoked.
    let revoked = root.intermediate("revoked");
    let below = chain(&revoked.issue("client"), &[&revoked]);
    let authority = learning(&root);
    let list = authority.read_list(&root.list(1, &[(&revoked, NOW)]));
    let mut authority = authority.with_lists(vec![list.unwrap()]);
    let verified = authority.verify(&below, at(NOW));
    assert_eq!(verified, Err(CertificateError::Revoked(None)));

    // It was learned before: its own list revokes nothing, and changes nothing.
    let mut before = learning(&root);
    learn(&mut before, &below);
    let own = before.read_list(&revoked.list(9, &[])).unwrap();
    authority = authority.with_learned_of(&before);
    let lists = [authority.lists(), &[own]].concat();
    let verified = authority.with_lists(lists).verify(&below, at(NOW));
    assert_eq!(verified, Err(CertificateError::Revoked(None)));
}

#[test]
fn the_list_of_a_learned_authority_counts_and_a_forged_one_does_not() {
    let root = Ca::new("root");
    let [department, namesake] = ["department", "department"].map(|name| root.intermediate(name));
    let [revoked, other] = ["revoked", "other"].map(|name| department.issue(name));
    let presented = chain(&revoked, &[&department]);
    let mut authority = learning(&root);
    learn(&mut authority, &presented);
    for forger in [&namesake, &Ca::new("department")] {
        assert_eq!(
            authority.read_list(&forger.list(9, &[])).unwrap_err(),
            RevocationListError::Signature("CN=department".to_owned())
        );
    }
    let list = authority.read_list(&department.list(1, &[(&revoked, NOW)]));
    let authority = authority.with_lists(vec![list.unwrap()]);
    assert_eq!(
        authority.verify(&presented, at(NOW)),
        Err(CertificateError::Revoked(Some(at(NOW))))
    );
    let others = chain(&other, &[&department]);
    assert!(authority.verify(&others, at(NOW)).is_ok());
    // What was learned and what is in force is kept apart from the client's own.
    assert_eq!(authority.lists_made_at(), None);
}

/// Two authorities with one name and different keys are two signers.
#[test]
fn an_authority_with_a_new_key_is_learned_anew() {
    let root = Ca::new("root");
    let [former, current] = ["department", "department"].map(|name| root.intermediate(name));
    let mut authority = learning(&root);
    for issuer in [&former, &current] {
        let learned = learn(&mut authority, &chain(&issuer.issue("client"), &[issuer]));
        assert_eq!(learned.new.len(), 1);
        assert!(authority.read_list(&issuer.list(1, &[])).is_ok());
    }
}

#[test]
fn the_authority_that_was_learned_longest_ago_is_forgotten() {
    let root = Ca::new_as(
        "root",
        CertificateSpec {
            key: &rcgen::PKCS_ED25519,
            ..CertificateSpec::default()
        },
    );
    let spec = CertificateSpec {
        key: &rcgen::PKCS_ED25519,
        is_authority: true,
        ..CertificateSpec::default()
    };
    let departments: Vec<Ca> = (0..=MAX_LEARNED)
        .map(|number| root.issue_as(&format!("department {number}"), &spec))
        .collect();
    let chains: Vec<_> = departments
        .iter()
        .map(|department| chain(&department.issue("client"), &[department]))
        .collect();
    let mut authority = learning(&root);
    learn(&mut authority, &chains[0]);
    let list = authority.read_list(&departments[0].list(1, &[])).unwrap();
    authority = authority.with_lists(vec![list.clone()]);
    for presented in &chains[1..MAX_LEARNED] {
        assert_eq!(learn(&mut authority, presented).forgotten, []);
    }
    let learned = learn(&mut authority, &chains[MAX_LEARNED]);
    assert_eq!(learned.forgotten, [list.signer().clone()]);
    assert!(authority.lists().is_empty());
    assert!(authority.verify(&chains[MAX_LEARNED], at(NOW)).is_ok());
    assert!(authority.verify(&chains[1], at(NOW)).is_ok());
    // It is learned again when it is needed.
    assert_eq!(learn(&mut authority, &chains[0]).new.len(), 1);
    assert_eq!(authority.learned.len(), MAX_LEARNED);
}

#[test]
fn an_old_list_concerns_only_the_paths_through_its_signer() {
    let root = Ca::new("root");
    let [listed, unlisted] = ["listed", "unlisted"].map(|name| root.intermediate(name));
    let chains = [&listed, &unlisted].map(|issuer| chain(&issuer.issue("client"), &[issuer]));
    let direct = root.issue("direct").chain;
    let mut authority = learning(&root);
    for presented in &chains {
        learn(&mut authority, presented);
    }
    let list = authority.read_list(&listed.list(1, &[])).unwrap();
    let authority = authority.with_lists(vec![list]);
    let outcome = |from, presented: &[_]| {
        let mut required = authority.clone();
        required.require_lists_made_in(Some(at(from)..=at(NOW)));
        required.verify(presented, at(NOW)).map(drop)
    };
    let old = |issuer: &str, made: Option<i64>| {
        Err(CertificateError::OldList {
            issuer: issuer.to_owned(),
            made: made.map(at),
        })
    };
    assert_eq!(outcome(MADE, &chains[0]), Ok(()));
    assert_eq!(outcome(MADE + 1, &chains[0]), old("CN=listed", Some(MADE)));
    assert_eq!(outcome(MADE, &chains[1]), old("CN=unlisted", None));
    assert_eq!(outcome(NOW, &direct), Ok(()));
    assert!(authority.verify(&chains[1], at(NOW)).is_ok());
}

#[test]
fn what_was_learned_below_other_authorities_is_not_kept() {
    let [root, other] = ["root", "other"].map(Ca::new);
    let department = root.intermediate("department");
    let presented = chain(&department.issue("client"), &[&department]);
    let mut authority = learning(&root);
    learn(&mut authority, &presented);
    let both = Authority::new([root.certificate(), other.certificate()]).unwrap();
    let both = both.refuse_unknown_issuers(true);
    unknown(both.with_learned_of(&authority).verify(&presented, at(NOW)));
    let same = learning(&root).with_learned_of(&authority);
    assert!(same.verify(&presented, at(NOW)).is_ok());
}
