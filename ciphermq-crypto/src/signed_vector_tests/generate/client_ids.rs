//! Certificates with names in several fields, and the client that each names.

use rcgen::SanType;

use super::chains::issue_with;
use crate::encoding::encode;
use crate::identity::testing::Ca;
use crate::signed_vector_tests::NamedClient;

/// The names in a certificate.
#[derive(Default)]
struct Names<'a> {
    common: &'a [&'a str],
    dns: &'a [&'a str],
    uris: &'a [&'a str],
}

impl Names<'_> {
    fn issue(&self, ca: &Ca) -> Ca {
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let ia5 = |name: &&str| (*name).try_into().unwrap();
        issue_with(ca, "", |spec| {
            spec.common_names = Some(texts(self.common));
            let dns = self.dns.iter().map(ia5).map(SanType::DnsName);
            let uris = self.uris.iter().map(ia5).map(SanType::URI);
            spec.alternative_names = dns.chain(uris).collect();
        })
    }
}

/// The fields that count, separated by commas, and the client that they name.
type Expected<'a> = (&'a str, Option<&'a str>);

struct Cases<'a> {
    ca: &'a Ca,
    cases: Vec<NamedClient>,
}

impl Cases<'_> {
    fn add(&mut self, about: &str, names: &Names<'_>, expected: &[Expected<'_>]) {
        let certificate = encode(&names.issue(self.ca).certificate());
        for &(fields, client_id) in expected {
            self.cases.push(NamedClient {
                about: about.to_owned(),
                client_id_from: fields.split(',').map(str::to_owned).collect(),
                client_id: client_id.map(str::to_owned),
                certificate: certificate.clone(),
            });
        }
    }
}

const SENSOR: &str = "sensor_7";
const HOST: &str = "sensor-7.example.org";
const WORKLOAD: &str = "spiffe://example.org/sensor/7";

pub(super) fn cases(ca: &Ca) -> Vec<NamedClient> {
    let mut cases = Cases {
        ca,
        cases: Vec::new(),
    };
    fields(&mut cases);
    forms(&mut cases);
    uris(&mut cases);
    dns_names(&mut cases);
    cases.cases
}

/// The first field that is there decides.
fn fields(cases: &mut Cases<'_>) {
    cases.add(
        "a name in each field",
        &Names {
            common: &[SENSOR],
            dns: &[HOST],
            uris: &[WORKLOAD],
        },
        &[
            ("common_name", Some(SENSOR)),
            ("dns", Some(HOST)),
            ("uri", Some(WORKLOAD)),
            ("uri,common_name", Some(WORKLOAD)),
            ("common_name,uri", Some(SENSOR)),
            ("dns,uri,common_name", Some(HOST)),
        ],
    );
    cases.add(
        "a Common Name alone",
        &Names {
            common: &[SENSOR],
            ..Names::default()
        },
        &[
            ("common_name", Some(SENSOR)),
            ("uri,common_name", Some(SENSOR)),
            ("dns", None),
            ("uri", None),
            ("uri,dns", None),
        ],
    );
    cases.add(
        "a URI alone",
        &Names {
            uris: &[WORKLOAD],
            ..Names::default()
        },
        &[
            ("uri", Some(WORKLOAD)),
            ("common_name,uri", Some(WORKLOAD)),
            ("common_name", None),
        ],
    );
    cases.add(
        "two URIs beside a Common Name",
        &Names {
            common: &[SENSOR],
            uris: &[WORKLOAD, "urn:example:7"],
            ..Names::default()
        },
        &[
            ("common_name", Some(SENSOR)),
            ("common_name,uri", Some(SENSOR)),
            ("uri", None),
            ("uri,common_name", None),
        ],
    );
    cases.add(
        "the same DNS name twice beside a URI",
        &Names {
            dns: &[HOST, HOST],
            uris: &[WORKLOAD],
            ..Names::default()
        },
        &[
            ("uri,dns", Some(WORKLOAD)),
            ("dns,uri", None),
            ("dns", None),
        ],
    );
}

/// With several fields, no name could be from another one of them.
fn forms(cases: &mut Cases<'_>) {
    cases.add(
        "a Common Name that is a URI",
        &Names {
            common: &[WORKLOAD],
            ..Names::default()
        },
        &[
            ("common_name", Some(WORKLOAD)),
            ("dns,common_name", Some(WORKLOAD)),
            ("uri,common_name", None),
            ("common_name,uri", None),
        ],
    );
    cases.add(
        "a Common Name that is a DNS name with a dot",
        &Names {
            common: &[HOST],
            ..Names::default()
        },
        &[
            ("common_name", Some(HOST)),
            ("uri,common_name", Some(HOST)),
            ("dns,common_name", None),
        ],
    );
    cases.add(
        "a DNS name without a dot",
        &Names {
            dns: &["sensor-7"],
            ..Names::default()
        },
        &[
            ("dns", Some("sensor-7")),
            ("dns,uri", Some("sensor-7")),
            ("dns,common_name", None),
        ],
    );
}

fn uris(cases: &mut Cases<'_>) {
    for uri in ["urn:example:sensor:7", "https://example.org/sensor%207?a=b"] {
        let names = Names {
            uris: &[uri],
            ..Names::default()
        };
        cases.add("a URI in its normal form", &names, &[("uri", Some(uri))]);
    }
    for (about, uri) in [
        ("a scheme in capitals", "SPIFFE://example.org/sensor/7"),
        ("a host in capitals", "https://Example.org/sensor/7"),
        ("an escape of a letter", "https://example.org/sens%6Fr/7"),
        ("an escape in lower case", "https://example.org/sensor%2f7"),
        (
            "a segment of two dots",
            "https://example.org/actor/../sensor/7",
        ),
        ("a fragment", "https://example.org/sensor#7"),
        ("no scheme", "//example.org/sensor/7"),
        ("a trust domain without a path", "spiffe://example.org"),
        (
            "a trust domain with a port",
            "spiffe://example.org:8443/sensor/7",
        ),
        (
            "a trust domain with a user",
            "spiffe://root@example.org/sensor/7",
        ),
        (
            "a workload with a query",
            "spiffe://example.org/sensor/7?a=b",
        ),
        (
            "a workload with an escape",
            "spiffe://example.org/sensor%207",
        ),
        (
            "a workload with an empty segment",
            "spiffe://example.org//sensor/7",
        ),
        (
            "a workload whose path ends with a slash",
            "spiffe://example.org/sensor/7/",
        ),
    ] {
        let names = Names {
            common: &[SENSOR],
            uris: &[uri],
            ..Names::default()
        };
        let about = format!("a URI with {about}, beside a Common Name");
        let expected = [("common_name", Some(SENSOR)), ("uri,common_name", None)];
        cases.add(&about, &names, &expected);
    }
}

fn dns_names(cases: &mut Cases<'_>) {
    for (about, name) in [
        ("for several hosts", "*.example.org"),
        ("in capitals", "Sensor-7.example.org"),
        ("with a dot at its end", "sensor-7.example.org."),
        ("with an empty label", "sensor-7..example.org"),
        ("with a space", "sensor 7.example.org"),
    ] {
        let names = Names {
            common: &[SENSOR],
            dns: &[name],
            ..Names::default()
        };
        let expected = [("common_name", Some(SENSOR)), ("dns,common_name", None)];
        cases.add(&format!("a DNS name {about}"), &names, &expected);
    }
}
