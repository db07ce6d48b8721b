//! The section `[server]`.

use ciphermq_protocol::text::{holds_key, shown};

use super::{Error, file, validator::Validator};

const ADDRESS_ADVICE: &str = "Write host:port, such as 127.0.0.1:5672, 0.0.0.0:5672 or [::1]:5672.";

/// The section `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address to listen on, `host:port`.
    ///
    /// The host is a name, an IPv4 address, or an IPv6 address in brackets. Port 0 lets the
    /// operating system choose a free port.
    pub address: String,
}

/// Validates the section.
///
/// # Errors
///
/// [`Error::Setting`] if the address is not a host and port, or the connections are not TLS.
pub(super) fn validate(section: &file::Server, validator: &Validator<'_>) -> Result<Server, Error> {
    if let Some(kind) = &section.connection_type
        && !kind.value.0.trim().eq_ignore_ascii_case("tls")
    {
        return Err(validator.invalid(
            ("server", "connection_type"),
            Some(&kind.location),
            format!(
                "`{}` is not supported: clients are identified by their certificates",
                shown(&kind.value.0)
            ),
            "Write connection_type = \"tls\", or leave the line out.",
        ));
    }
    let address = match &section.address {
        None => String::from("127.0.0.1:5672"),
        // It could be one as well: a host, without a port or with one.
        Some(address) if holds_key(&address.value.0) => {
            return Err(validator.invalid(
                ("server", "address"),
                Some(&address.location),
                "it holds a key, not a host and port",
                ADDRESS_ADVICE,
            ));
        }
        Some(address) if is_address(address.value.0.trim()) => address.value.0.trim().to_owned(),
        Some(address) => {
            return Err(validator.invalid(
                ("server", "address"),
                Some(&address.location),
                format!("`{}` is not a host and port", shown(&address.value.0)),
                ADDRESS_ADVICE,
            ));
        }
    };
    Ok(Server { address })
}

/// Returns whether `text` has the form `host:port`. The listener resolves the host.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host_valid = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace())
        }
    };
    is_host_valid && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}
