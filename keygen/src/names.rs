//! The rules for names of clients and servers, and the names of the files.
//!
//! A client's name is also used as a folder's name, so it may not be a path, hidden, or look like
//! an option.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciphermq_crypto::ClientId;
use ciphermq_crypto::key_file::{PRIVATE_KEY_FILE, PUBLIC_KEY_FILE};
use rcgen::SanType;
use rustls_pki_types::ServerName;

/// The authority's certificate.
pub const CA_CERT: &str = "ca.crt";
/// The authority's private key.
pub const CA_KEY: &str = "ca.key";
/// The authority's revocation list.
pub const CA_LIST: &str = "ca.crl";
/// The server's certificate.
pub const SERVER_CERT: &str = "server.crt";
/// The server's private key.
pub const SERVER_KEY: &str = "server.key";
/// The request for the server's certificate.
pub const SERVER_REQUEST: &str = "server.csr";
/// A client's certificate, in the client's folder.
pub const CLIENT_CERT: &str = "client.crt";
/// A client's private key, in the client's folder.
pub const CLIENT_KEY: &str = "client.key";

/// The reason why a name is not allowed for a client or a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is not a valid client id.
    #[error("`{}` is not a client name: {source}", name.escape_debug())]
    NoClientId {
        /// The name.
        name: String,
        /// The violated rule.
        source: ciphermq_crypto::NameError,
    },
    /// The name cannot be in the field that is to hold it.
    #[error("a certificate for `{}` {reason}", name.escape_debug())]
    Field {
        /// The name.
        name: String,
        /// What is wrong with it there.
        reason: ciphermq_certificates::NameError,
    },
    /// The name cannot be a folder's name.
    #[error("`{0}` cannot be a client's name, because it cannot be the name of its folder")]
    NoFolder(String),
    /// The name is neither a host name nor an IP address.
    #[error("`{}` is neither a host name nor an IP address", .0.escape_debug())]
    NoHost(String),
}

impl NameError {
    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::NoClientId { .. } => "choose a name of 1 to 255 bytes without spaces, such as \
                                        sender_1"
                .to_owned(),
            Self::NoFolder(_) => {
                "choose a name without / \\ and :, that does not begin with . or -, does not \
                 contain .. and is none of keygen's file names"
                    .to_owned()
            }
            Self::Field { reason, .. } => reason.advice().to_owned(),
            Self::NoHost(_) => "give the name or address by which clients reach the server, such \
                                as localhost"
                .to_owned(),
        }
    }
}

/// Names in the output folder that keygen uses itself.
const RESERVED: [&str; 8] = [
    CA_CERT,
    CA_KEY,
    CA_LIST,
    SERVER_CERT,
    SERVER_KEY,
    SERVER_REQUEST,
    PRIVATE_KEY_FILE,
    PUBLIC_KEY_FILE,
];

/// Validates a client's name, which is also its folder's.
///
/// # Errors
///
/// [`NameError`].
pub fn client(text: &str) -> Result<ClientId, NameError> {
    let id = client_id(text)?;
    let is_path = text.contains(['/', '\\', ':', '\0']) || text.contains("..");
    // Case-insensitive file systems must not be fooled either.
    let is_reserved = RESERVED
        .iter()
        .any(|taken| taken.eq_ignore_ascii_case(text));
    if is_path || is_reserved || text.starts_with(['.', '-']) {
        return Err(NameError::NoFolder(text.to_owned()));
    }
    Ok(id)
}

/// Validates a client's id.
pub(crate) fn client_id(text: &str) -> Result<ClientId, NameError> {
    ClientId::new(text).map_err(|source| NameError::NoClientId {
        name: text.to_owned(),
        source,
    })
}

/// Returns the subject alternative names of a server with these host names and addresses.
/// `localhost` includes its two addresses.
///
/// # Errors
///
/// [`NameError::NoHost`].
pub fn subject_alternative_names(hosts: &[String]) -> Result<Vec<SanType>, NameError> {
    let mut names = Vec::new();
    let mut add = |name| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    for host in hosts {
        let no_host = || NameError::NoHost(host.clone());
        match ServerName::try_from(host.as_str()).map_err(|_| no_host())? {
            ServerName::IpAddress(address) => add(SanType::IpAddress(address.into())),
            ServerName::DnsName(name) => {
                add(SanType::DnsName(
                    name.as_ref().try_into().map_err(|_| no_host())?,
                ));
                if name.as_ref().eq_ignore_ascii_case("localhost") {
                    add(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
                    add(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
                }
            }
            _ => return Err(no_host()),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_folder_names_are_accepted() {
        for text in [
            "sender_1",
            "Zürich",
            "a.b",
            "a-b",
            "温度",
            "mail@example.org",
            &"x".repeat(255),
        ] {
            assert_eq!(client(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn path_traversal_in_names_is_refused() {
        for text in [
            "/etc",
            "a/b",
            "..",
            "../x",
            "a..b",
            ".",
            ".ssh",
            "-rf",
            "--force",
            "a\\b",
            "C:x",
            "ca.crt",
            "CA.KEY",
            "server.key",
            "ca.crl",
            "server.csr",
        ] {
            assert_eq!(
                client(text),
                Err(NameError::NoFolder(text.to_owned())),
                "{text}"
            );
        }
        for text in ["", "a b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(
                matches!(client(text), Err(NameError::NoClientId { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn localhost_includes_its_addresses() {
        let names = |hosts: &[&str]| {
            subject_alternative_names(&hosts.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let localhost = names(&["localhost"]).unwrap();
        assert_eq!(localhost.len(), 3);
        assert_eq!(
            names(&["localhost", "127.0.0.1", "::1", "localhost"]).unwrap(),
            localhost
        );
        assert_eq!(names(&["mq.example.org", "192.0.2.1"]).unwrap().len(), 2);
        for host in [
            "",
            "a b",
            "-x",
            "a/b",
            "mq.example.org:5672",
            "1.2.3",
            "*.example.org",
        ] {
            assert_eq!(
                names(&[host]),
                Err(NameError::NoHost(host.to_owned())),
                "{host}"
            );
        }
    }
}
