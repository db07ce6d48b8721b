//! The section `[tls]`.

use std::path::PathBuf;

use ciphermq_certificates::{ClientIdFrom, ClientIdFromError};

use super::setting::{OneOrMore, Setting, Text};
use super::{Error, file, validator::Validator};

/// The section `[tls]`.
///
/// There is no field for `[server] connection_type`, since `tls` is its only value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The PEM file of the server's certificate chain.
    pub cert_path: PathBuf,
    /// The PEM file of the certificate's private key.
    pub key_path: PathBuf,
    /// The PEM file of the certificate authority that verifies client certificates.
    pub ca_cert_path: PathBuf,
    /// The fields of clients' certificates that name them.
    pub client_id_from: ClientIdFrom,
    /// The files of certificate revocation lists (RFC 5280, section 5), PEM or DER.
    pub crl_paths: Vec<PathBuf>,
    /// What the lists are needed for.
    pub crl_policy: CrlPolicy,
    /// Whether the files are read again when they change.
    pub watch: bool,
}

/// What certificate revocation lists are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlPolicy {
    /// A certificate is refused if a list revokes it. One about which no list says anything is
    /// accepted, and a list that has ended is still used.
    IfPresent,
    /// A certificate is accepted only if a list of its authority that has not ended says nothing
    /// against it; so is each intermediate one.
    Required,
}

/// Validates the section.
///
/// # Errors
///
/// [`Error::Setting`] for a path that is blank, or is a key instead of its path.
pub(super) fn validate(section: &file::Tls, validator: &Validator<'_>) -> Result<Tls, Error> {
    let crl_policy = validator.choice(
        ("tls", "crl_policy"),
        section.crl_policy.as_ref(),
        CrlPolicy::IfPresent,
        |word| match word {
            "if_present" => Some(CrlPolicy::IfPresent),
            "required" => Some(CrlPolicy::Required),
            _ => None,
        },
        "\"if_present\" or \"required\"",
    )?;
    let client_id_from = client_id_from(section.client_id_from.as_ref(), validator)?;
    let mut crl_paths = Vec::new();
    if let Some(Setting { value, location }) = &section.crl_paths {
        for path in &value.0 {
            let path = Setting {
                value: Text(path.clone()),
                location: location.clone(),
            };
            crl_paths.push(validator.path(("tls", "crl_paths"), Some(&path), "")?);
        }
    }
    if crl_policy == CrlPolicy::Required && crl_paths.is_empty() {
        let location = section.crl_policy.as_ref().map(|setting| &setting.location);
        return Err(validator.invalid(
            ("tls", "crl_policy"),
            location,
            "it requires revocation lists, and crl_paths names none",
            "Name the authority's list in crl_paths, or leave crl_policy out.",
        ));
    }
    Ok(Tls {
        client_id_from,
        crl_paths,
        crl_policy,
        watch: validator.boolean(("tls", "watch"), section.watch.as_ref(), false)?,
        cert_path: validator.path(
            ("tls", "cert_path"),
            section.cert_path.as_ref(),
            "certs/server.crt",
        )?,
        key_path: validator.path(
            ("tls", "key_path"),
            section.key_path.as_ref(),
            "certs/server.key",
        )?,
        ca_cert_path: validator.path(
            ("tls", "ca_cert_path"),
            section.ca_cert_path.as_ref(),
            "certs/ca.crt",
        )?,
    })
}

fn client_id_from(
    setting: Option<&Setting<OneOrMore>>,
    validator: &Validator<'_>,
) -> Result<ClientIdFrom, Error> {
    let Some(Setting { value, location }) = setting else {
        return Ok(ClientIdFrom::default());
    };
    let fields = value.0.0.iter();
    let fields = fields.map(|field| field.trim().to_ascii_lowercase().parse());
    let fields = fields.collect::<Result<Vec<_>, _>>();
    fields
        .and_then(ClientIdFrom::new)
        .map_err(|error: ClientIdFromError| {
            let name = ("tls", "client_id_from");
            validator.invalid(name, Some(location), error.to_string(), error.advice())
        })
}
