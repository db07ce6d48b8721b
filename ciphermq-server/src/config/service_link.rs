//! Variables that Kubernetes sets for every service of a namespace, in the form of Docker links.
//!
//! A service named `ciphermq-server` sets `CIPHERMQ_SERVER_PORT=tcp://10.0.0.1:5672` and others in
//! every container; those of `ciphermq-database` include the name of a setting. Such variables are
//! recognised by name and value together, so that a mistake in a real setting is still an error.
//! See <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.

use std::net::{IpAddr, SocketAddr};

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Returns whether a variable has the name and value of a service link.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    // CIPHERMQ_SERVER_PORT_5672_TCP, optionally followed by _ADDR, _PORT or _PROTO.
    if let Some((_, rest)) = name
        .rsplit_once("_PORT_")
        .filter(|(_, rest)| !is_port(rest))
        && let Some((port, rest)) = rest.split_once('_')
        && is_port(port)
    {
        let (protocol, part) = rest.split_once('_').unwrap_or((rest, ""));
        let is_protocol = PROTOCOLS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(protocol));
        return is_protocol
            && match part {
                "" => is_url(value),
                "ADDR" => is_ip_address(value),
                "PORT" => is_port(value),
                "PROTO" => PROTOCOLS.contains(&value),
                _ => false,
            };
    }
    if name.ends_with("_SERVICE_HOST") {
        return is_ip_address(value);
    }
    // The name of the port may follow.
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    name.ends_with("_PORT") && is_url(value)
}

fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u16>().is_ok()
}

fn is_ip_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Returns whether the text is a URL such as `tcp://10.0.0.1:5672`.
///
/// An IPv6 address may lack its brackets, as in old versions of Kubernetes.
fn is_url(text: &str) -> bool {
    let Some((protocol, address)) = text.split_once("://") else {
        return false;
    };
    let is_without_brackets = || {
        address
            .rsplit_once(':')
            .is_some_and(|(host, port)| is_ip_address(host) && is_port(port))
    };
    PROTOCOLS.contains(&protocol)
        && (address.parse::<SocketAddr>().is_ok() || is_without_brackets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_recognised_by_name_and_value() {
        for (name, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_HOST", "fd00::1"),
            ("SERVICE_PORT", "5672"),
            ("SERVICE_PORT_MQ_TLS", "5672"),
            ("PORT", "tcp://10.0.0.1:5672"),
            ("PORT", "udp://[fd00::1]:53"),
            ("PORT", "tcp://fd00::1:5672"),
            ("PORT_5672_TCP", "tcp://10.0.0.1:5672"),
            ("PORT_5672_TCP_ADDR", "10.0.0.1"),
            ("PORT_5672_TCP_PORT", "5672"),
            ("PORT_5672_TCP_PROTO", "tcp"),
            ("PORT_53_UDP_PROTO", "udp"),
            ("PORT_9_SCTP", "sctp://10.0.0.1:9"),
        ] {
            for service in [
                "CIPHERMQ",
                "CIPHERMQ_SERVER",
                "CIPHERMQ_LIMITS_X",
                "CIPHERMQ_SERVER_PORT",
            ] {
                assert!(
                    is_service_link(&format!("{service}_{name}"), value),
                    "{service}_{name}={value}"
                );
            }
        }
    }

    #[test]
    fn other_variables_are_not_service_links() {
        for (name, value) in [
            ("CIPHERMQ_SERVER_PORT", "5672"),
            ("CIPHERMQ_SERVER_PORT", "tcp://server:5672"),
            ("CIPHERMQ_SERVER_PORT", "http://10.0.0.1:5672"),
            ("CIPHERMQ_SERVER_PORT", ""),
            ("CIPHERMQ_SERVER_SERVICE_HOST", "server"),
            ("CIPHERMQ_SERVER_SERVICE_PORT", "tcp"),
            ("CIPHERMQ_SERVER_PORT_5672_TCP", "5672"),
            ("CIPHERMQ_SERVER_PORT_5672_TLS", "tcp://10.0.0.1:5672"),
            ("CIPHERMQ_SERVER_PORT_5672_TCP_HOST", "10.0.0.1"),
            ("CIPHERMQ_SERVER_ADDRESS", "tcp://10.0.0.1:5672"),
            ("CIPHERMQ_DATABASE_PORT", "5432"),
            ("CIPHERMQ_DATABASE_HOST", "10.0.0.1"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }
}
