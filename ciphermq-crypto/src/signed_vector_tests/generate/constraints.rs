//! Certificates below authorities that may certify some names only (RFC 5280, section 4.2.1.10).

use rcgen::{
    CidrSubnet, CustomExtension, DistinguishedName, DnType, GeneralSubtree, NameConstraints,
    SanType,
};

use super::chains::{authority_below, issue_with, signed};
use super::keys::Cases;
use super::{AUTHORITY, RECEIVER, now};
use crate::identity::testing::{Ca, CertificateSpec};

const REFUSED: &str = "certificate_not_trusted";

fn permitted(subtrees: &[GeneralSubtree]) -> NameConstraints {
    NameConstraints {
        permitted_subtrees: subtrees.to_vec(),
        excluded_subtrees: Vec::new(),
    }
}

fn excluded(subtrees: &[GeneralSubtree]) -> NameConstraints {
    NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: subtrees.to_vec(),
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn dns_below(name: &str) -> GeneralSubtree {
    GeneralSubtree::DnsName(name.to_owned())
}

fn limited(ca: &Ca, constraints: NameConstraints) -> Ca {
    authority_below(ca, |spec| spec.name_constraints = Some(constraints))
}

/// Returns a signed key by a certificate of `authority` with these alternative names.
fn named(authority: &Ca, names: &[SanType]) -> String {
    let mut own = issue_with(authority, RECEIVER, |spec| {
        spec.alternative_names = names.to_vec();
    });
    own.chain.extend(authority.chain.iter().cloned());
    signed(&own)
}

pub(super) fn cases(cases: &mut Cases<'_>) {
    dns_names(cases);
    other_kinds(cases);
    below_two(cases);
    of_the_authority(cases);
}

fn dns_names(cases: &mut Cases<'_>) {
    let ca = cases.ca;
    let only = limited(ca, permitted(&[dns_below("example.org")]));
    let good = named(&only, &[dns("receiver-1.example.org")]);
    let about = "a DNS name that the intermediate authority may certify";
    cases.good(about, &good);
    let about = "the very DNS name that the intermediate authority is limited to";
    cases.good(about, &named(&only, &[dns("example.org")]));
    let about = "no alternative name, below an authority that is limited to some DNS names";
    cases.good(about, &named(&only, &[]));
    let about = "a URI below an authority that is limited to some DNS names";
    cases.good(about, &named(&only, &[uri("urn:example:receiver_1")]));
    for (about, names) in [
        (
            "a DNS name that the intermediate authority may not certify",
            &[dns("receiver-1.example.net")][..],
        ),
        (
            "a DNS name that ends like the permitted ones, within a label",
            &[dns("receiver-1.counterexample.org")],
        ),
        (
            "one DNS name that may be certified, and one that may not",
            &[dns("receiver-1.example.org"), dns("receiver-1.example.net")],
        ),
    ] {
        cases.bad(about, REFUSED, &named(&only, names), &good);
    }
    let but = limited(ca, excluded(&[dns_below("secret.example.org")]));
    let good = named(&but, &[dns("receiver-1.example.org")]);
    cases.good("a DNS name that is not excluded", &good);
    let bad = named(&but, &[dns("receiver-1.secret.example.org")]);
    cases.bad("an excluded DNS name", REFUSED, &bad, &good);
}

fn other_kinds(cases: &mut Cases<'_>) {
    let ca = cases.ca;
    let net = GeneralSubtree::IpAddress(CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]));
    let net = limited(ca, permitted(&[net]));
    let address = |last: [u8; 4]| [SanType::IpAddress(last.into())];
    let good = named(&net, &address([192, 0, 2, 7]));
    cases.good("an address that may be certified", &good);
    let bad = named(&net, &address([198, 51, 100, 7]));
    cases.bad("an address that may not be certified", REFUSED, &bad, &good);

    let mail = GeneralSubtree::Rfc822Name("example.org".to_owned());
    let mail = limited(ca, permitted(&[mail]));
    let good = named(&mail, &[]);
    let about = "no alternative name, below an authority that is limited to some mail addresses";
    cases.good(about, &good);
    let address = SanType::Rfc822Name("receiver_1@example.org".try_into().unwrap());
    let about = "a mail address that may be certified: such limits are not evaluated";
    cases.bad(about, REFUSED, &named(&mail, &[address]), &good);

    let uris = authority_below(ca, |spec| {
        spec.extensions = vec![uri_constraint("example.org")];
    });
    let good = named(&uris, &[dns("receiver-1.example.org")]);
    let about = "no URI, below an authority that is limited to some URIs";
    cases.good(about, &good);
    let about = "a URI that may be certified: such limits are not evaluated";
    let bad = named(&uris, &[uri("spiffe://example.org/receiver/1")]);
    cases.bad(about, REFUSED, &bad, &good);

    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, RECEIVER);
    let name = limited(ca, permitted(&[GeneralSubtree::DirectoryName(name)]));
    let good = named(&authority_below(ca, |_| {}), &[]);
    let about = "a subject that may be certified: such limits are not evaluated";
    cases.bad(about, REFUSED, &named(&name, &[]), &good);
}

/// Every authority of the path limits the names below it.
fn below_two(cases: &mut Cases<'_>) {
    let upper = limited(cases.ca, permitted(&[dns_below("example.org")]));
    let mut lower = limited(&upper, permitted(&[dns_below("example.net")]));
    lower.chain.extend(upper.chain.iter().cloned());
    let good = named(&lower, &[]);
    cases.good("no alternative name, below two limited authorities", &good);
    for name in ["receiver-1.example.org", "receiver-1.example.net"] {
        let about = format!("{name}, which one of two limited authorities may not certify");
        cases.bad(&about, REFUSED, &named(&lower, &[dns(name)]), &good);
    }
}

/// The name constraints of the authority itself count as well.
fn of_the_authority(cases: &mut Cases<'_>) {
    let limited = Ca::new_as(
        AUTHORITY,
        CertificateSpec {
            name_constraints: Some(permitted(&[dns_below("example.org")])),
            ..CertificateSpec::default()
        },
    );
    let of = |name: &str| {
        signed(&issue_with(&limited, RECEIVER, |spec| {
            spec.alternative_names = vec![dns(name)];
        }))
    };
    let good = of("receiver-1.example.org");
    let about = "a DNS name that the authority itself may certify";
    cases.good_under(&limited, about, now(), &good);
    let about = "a DNS name that the authority itself may not certify";
    let bad = of("receiver-1.example.net");
    cases.bad_under(&limited, about, REFUSED, &bad, &good);
}

/// Encodes a limit to URIs of one host, which rcgen cannot express.
fn uri_constraint(host: &str) -> CustomExtension {
    let tagged = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128, "the short form of DER");
        [&[tag, length], content].concat()
    };
    // NameConstraints { permittedSubtrees [0] { GeneralSubtree { base [6] host } } }
    let subtree = tagged(0x30, &tagged(0x86, host.as_bytes()));
    let content = tagged(0x30, &tagged(0xa0, &subtree));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    extension
}
