//! Certificate requests, PKCS #10 (RFC 2986): made for a profile, and checked before they are
//! signed.
//!
//! A request says who asks, with which key; it decides nothing. What it asks for beyond its profile
//! is left out of the certificate, and named; a request to be an authority is refused.

use std::path::Path;

use ciphermq_certificates::{ClientIdFrom, NameError, NameField, describes_curve, key_kind};
use ciphermq_crypto::ClientId;
use ciphermq_crypto::identity::SignatureAlgorithm;
use ciphermq_crypto::text::Escaped;
use rcgen::{KeyPair, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::objects::{oid_registry, oid2sn};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer as _, X509Version};
use x509_parser::public_key::PublicKey;
use x509_parser::x509;

use crate::error::Error;
use crate::files;
use crate::profile::{Profile, StatedUses, host_name, uri};

/// The reason why a request is refused; the text continues "the request".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It cannot be read.
    #[error("is no certificate request in PEM form (PKCS #10)")]
    Unreadable,
    /// Its key is of a kind that is not accepted for what is asked.
    #[error("has a key of a kind that is not accepted: {0}")]
    KeyKind(String),
    /// Its signature is not its key's.
    #[error("was not signed with its own key, or with an algorithm that is not accepted")]
    Signature,
    /// It asks for an authority's certificate.
    #[error("asks for an authority's certificate")]
    Authority,
    /// It asks for a server's certificate, and none was expected.
    #[error("asks for a server's certificate")]
    Server,
    /// It asks for a client's certificate, and a server's was expected.
    #[error("asks for a client's certificate")]
    Client,
    /// It names no client.
    #[error("{0}")]
    Name(#[from] NameError),
    /// It names another client than the expected one.
    #[error("is for the client `{found}`, not for `{expected}`", found = .found.as_str())]
    OtherClient {
        /// The client that it names.
        found: ClientId,
        /// The expected client.
        expected: ClientId,
    },
    /// It asks for other names of a server than the expected ones.
    #[error("asks for the names {found}, which are not the given ones")]
    OtherNames {
        /// The names that it asks for.
        found: String,
    },
}

impl Refusal {
    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable => {
                "name the file that `keygen csr` has made; it begins with -----BEGIN CERTIFICATE \
                 REQUEST-----"
            }
            Self::KeyKind(_) => {
                "make a new key: ECDSA P-384 or P-256 or Ed25519, for a server also RSA of 2048 to \
                 8192 bits; `keygen csr` makes one"
            }
            Self::Signature => {
                "have the request made again where the key is, and copy it as it is; with RSA, \
                 sign it with SHA-256 or more"
            }
            Self::Authority => {
                "leave basic constraints and the key usages keyCertSign and cRLSign out of it; \
                 `keygen authority` makes authorities"
            }
            Self::Server => {
                "if that is right, give each of the server's names with --server-name: whoever \
                 has the certificate can pretend to be that server"
            }
            Self::Client => "leave --server-name out, and give --client NAME",
            Self::Name(error) => error.advice(),
            Self::OtherClient { .. } => {
                "ask who has made the request; only its maker can change the name in it"
            }
            Self::OtherNames { .. } => {
                "give each of the server's names with --server-name, or have the request made \
                 again with `keygen csr --server-name`"
            }
        }
    }
}

/// Makes a request for a certificate of this profile, in PEM.
///
/// # Errors
///
/// [`Error::Certificate`].
pub fn make(profile: &Profile, key: &KeyPair) -> Result<String, Error> {
    Ok(profile.params()?.serialize_request(key)?.pem()?)
}

/// A request whose signature is its key's and that does not ask to be an authority.
#[derive(Debug)]
pub struct Request {
    pub(crate) key: SubjectPublicKeyInfo,
    /// The kind of the key, in words.
    pub(crate) kind: String,
    /// Whether a client can sign its keys and sessions with it.
    signs: bool,
    /// The client that each field names.
    clients: [(NameField, Result<ClientId, NameError>); 3],
    uses: StatedUses,
    /// What it asks for that no certificate gets, in words.
    pub(crate) left_out: Vec<String>,
}

impl Request {
    /// Reads a request in PEM, and checks it.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Request`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = files::read(path)?;
        let read = CertificateSigningRequestDer::from_pem_slice(&text)
            .map_err(|_| Refusal::Unreadable)
            .and_then(|der| Self::parse(&der));
        read.map_err(|reason| reason.of(path))
    }

    fn parse(der: &[u8]) -> Result<Self, Refusal> {
        let Ok((rest, request)) = X509CertificationRequest::from_der(der) else {
            return Err(Refusal::Unreadable);
        };
        let info = &request.certification_request_info;
        if !rest.is_empty() || info.version != X509Version::V1 {
            return Err(Refusal::Unreadable);
        }
        let kind = key_kind(&info.subject_pki);
        let signs = SignatureAlgorithm::of_key(&info.subject_pki).is_some();
        // Checked before the signature, which short keys cannot have.
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .ok()
            .filter(|_| !describes_curve(&info.subject_pki))
            .filter(|_| signs || is_long_rsa(&info.subject_pki))
            .ok_or_else(|| Refusal::KeyKind(kind.clone()))?;
        request.verify_signature().map_err(|_| Refusal::Signature)?;
        let mut parsed = Self {
            key,
            kind,
            signs,
            clients: NameField::ALL.map(|field| (field, Err(none(field)))),
            uses: StatedUses::default(),
            left_out: Vec::new(),
        };
        if info.subject.iter_attributes().count() > info.subject.iter_common_name().count() {
            let subject = &info.subject;
            parsed.left_out.push(format!(
                "the subject {}, but for its Common Name",
                Escaped(subject)
            ));
        }
        let mut alternatives = Vec::new();
        for attribute in info.iter_attributes() {
            match attribute.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(asked) => {
                    for extension in &asked.extensions {
                        parsed.add(extension)?;
                        if let ParsedExtension::SubjectAlternativeName(names) =
                            extension.parsed_extension()
                        {
                            alternatives.extend(names.general_names.iter().cloned());
                        }
                    }
                }
                _ => parsed
                    .left_out
                    .push(format!("the attribute {}", short_name(&attribute.oid))),
            }
        }
        parsed.clients = NameField::ALL.map(|field| {
            let from = ClientIdFrom::only(field);
            (field, from.client_id_of(&info.subject, &alternatives))
        });
        Ok(parsed)
    }

    /// Takes over what the request asks for, or notes that it is left out.
    fn add(&mut self, extension: &X509Extension<'_>) -> Result<(), Refusal> {
        let asked = extension.parsed_extension();
        self.uses.add(asked);
        let is_granted = match asked {
            ParsedExtension::ParseError { .. } => return Err(Refusal::Unreadable),
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(Refusal::Authority);
            }
            ParsedExtension::BasicConstraints(_) => true,
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                return Err(Refusal::Authority);
            }
            ParsedExtension::KeyUsage(usage) => {
                // The first bit alone (RFC 5280, section 4.2.1.3).
                usage.flags & !1 == 0
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let both = usage.client_auth && usage.server_auth;
                let others = usage.any
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing
                    || !usage.other.is_empty();
                !both && !others
            }
            // Whether hosts and URIs are granted is decided with the profile.
            ParsedExtension::SubjectAlternativeName(names) => names
                .general_names
                .iter()
                .all(|name| host_name(name).is_some() || uri(name).is_some()),
            _ => false,
        };
        if !is_granted {
            let name = short_name(&extension.oid);
            self.left_out.push(match asked {
                ParsedExtension::KeyUsage(_) | ParsedExtension::ExtendedKeyUsage(_) => {
                    format!("usages of {name} beyond its profile")
                }
                ParsedExtension::SubjectAlternativeName(_) => {
                    format!("names of other kinds in {name}")
                }
                _ => format!("the extension {name}"),
            });
        }
        Ok(())
    }

    /// Returns the client that it asks for, and the field that names it: the given one, or the
    /// first that it has. It must be the expected client, if there is one.
    pub(crate) fn client(
        &mut self,
        field: Option<NameField>,
        expected: Option<&ClientId>,
    ) -> Result<(ClientId, NameField), Refusal> {
        if self.uses.is_server() {
            return Err(Refusal::Server);
        }
        // It could connect, but sign neither its keys nor its sessions.
        if !self.signs {
            return Err(Refusal::KeyKind(self.kind.clone()));
        }
        let field = field.unwrap_or_else(|| {
            let mut fields = [NameField::CommonName, NameField::Uri, NameField::Dns].into_iter();
            let named =
                fields.find(|field| !matches!(self.client_in(*field), Err(NameError::None(_))));
            named.unwrap_or(NameField::CommonName)
        });
        let found = self.client_in(field)?;
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(Refusal::OtherClient {
                found,
                expected: expected.clone(),
            });
        }
        let common_name = self.client_in(NameField::CommonName);
        if field != NameField::CommonName && !matches!(common_name, Err(NameError::None(_))) {
            self.left_out.push("the Common Name".to_owned());
        }
        let granted = |name: &&String| name.as_str() != found.as_str();
        let hosts = self
            .uses
            .hosts
            .iter()
            .filter(|name| field != NameField::Dns || granted(name));
        let uris = self
            .uses
            .uris
            .iter()
            .filter(|name| field != NameField::Uri || granted(name));
        let names: Vec<&str> = hosts.chain(uris).map(String::as_str).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            self.left_out.push(format!("the names {}", Escaped(names)));
        }
        Ok((found, field))
    }

    fn client_in(&self, field: NameField) -> Result<ClientId, NameError> {
        let mut clients = self.clients.iter();
        let found = clients.find(|(known, _)| *known == field);
        found.map_or_else(|| Err(none(field)), |(_, client)| client.clone())
    }

    /// Returns the server's names that it asks for. Each must be `allowed`, and each of the
    /// `wanted` ones must be among them.
    pub(crate) fn hosts(
        &mut self,
        wanted: &[String],
        allowed: &[String],
    ) -> Result<&[String], Refusal> {
        if !self.uses.is_server() {
            return Err(Refusal::Client);
        }
        let found = &self.uses.hosts;
        let is_in = |name: &String, names: &[String]| {
            names.iter().any(|other| name.eq_ignore_ascii_case(other))
        };
        let is_same = found.iter().all(|name| is_in(name, allowed))
            && wanted.iter().all(|name| is_in(name, found));
        if !is_same {
            return Err(Refusal::OtherNames {
                found: match found.is_empty() {
                    true => "(none)".to_owned(),
                    false => Escaped(found.join(", ")).to_string(),
                },
            });
        }
        if !self.uses.uris.is_empty() {
            let uris = self.uses.uris.join(", ");
            self.left_out.push(format!("the names {}", Escaped(uris)));
        }
        Ok(found)
    }
}

/// Returns the error of a field that is not there.
fn none(field: NameField) -> NameError {
    NameError::None(ClientIdFrom::only(field))
}

impl Refusal {
    pub(crate) fn of(self, path: &Path) -> Error {
        Error::Request {
            path: path.to_owned(),
            reason: self,
        }
    }
}

/// Whether TLS accepts what an RSA key has signed.
fn is_long_rsa(key: &x509::SubjectPublicKeyInfo<'_>) -> bool {
    matches!(key.parsed(), Ok(PublicKey::RSA(key)) if (2048..=8192).contains(&key.key_size()))
}

/// Returns the usual name of an object identifier, or its numbers.
fn short_name(oid: &Oid<'_>) -> String {
    match oid2sn(oid, oid_registry()) {
        Ok(name) => name.to_owned(),
        Err(_) => oid.to_id_string(),
    }
}
