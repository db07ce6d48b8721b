//! The serialization of signed keys: compact JWS (RFC 7515, section 7.1).
//!
//! ```text
//!   header    = {"alg":"ES384","typ":"ciphermq-keys","x5c":["<base64 DER>", ...]}
//!   signed    = base64url(header) ‖ "." ‖ base64url(payload)
//!   signature = by the certificate's key over signed              RFC 7515, section 5.1
//!   JWS       = signed ‖ "." ‖ base64url(signature)
//! ```
//!
//! A header with any other field is refused, since it might change what the signature means
//! (`crit`, `b64`, `jwk`, `jku` among them). That strictness is the reason for not using a JOSE
//! library.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ciphermq_protocol::json::Object;
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use crate::identity::{Identity, SignError};

/// The type of signed keys, which separates them from other signatures with the same certificate.
const TYPE: &str = "ciphermq-keys";

/// The fields of a header, sorted; all are required, and no others are allowed.
const FIELDS: [&str; 3] = ["alg", "typ", "x5c"];

#[derive(Serialize)]
struct Header {
    alg: String,
    typ: String,
    x5c: Vec<String>,
}

impl Header {
    fn parse(json: &[u8]) -> Option<Self> {
        let object = Object::parse(std::str::from_utf8(json).ok()?).ok()?;
        if !object.keys().eq(FIELDS) {
            return None;
        }
        Some(Self {
            alg: object.get("alg").ok()?,
            typ: object.get("typ").ok()?,
            x5c: object.get("x5c").ok()?,
        })
    }
}

/// A parsed JWS, not yet verified.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    pub(super) algorithm: String,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) payload: Vec<u8>,
    /// The signed part of the text.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

/// Signs a payload and returns a compact JWS.
pub(crate) fn sign(identity: &Identity, payload: &[u8]) -> Result<String, SignError> {
    let header = Header {
        alg: identity.algorithm().as_str().to_owned(),
        typ: TYPE.to_owned(),
        x5c: identity
            .chain()
            .iter()
            .map(|der| STANDARD.encode(der))
            .collect(),
    };
    // Infallible: serializing strings into memory.
    let header = serde_json::to_vec(&header).map_err(|_| SignError)?;
    let mut jws = URL_SAFE_NO_PAD.encode(header);
    jws.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut jws);
    let signature = identity.sign(jws.as_bytes())?;
    jws.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
    Ok(jws)
}

/// Parses a compact JWS; the error is a description.
pub(super) fn parse(text: &str) -> Result<Jws<'_>, &'static str> {
    if text.len() > super::MAX_SIGNED_KEY_BYTES {
        return Err("it is too long");
    }
    let (signed, signature) = text
        .rsplit_once('.')
        .ok_or("it does not have three parts")?;
    let (header, payload) = signed
        .split_once('.')
        .ok_or("it does not have three parts")?;
    if payload.contains('.') {
        return Err("it does not have three parts");
    }
    let decode = |part: &str| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| "its parts are not base64url without padding")
    };
    let header =
        Header::parse(&decode(header)?).ok_or("its header is not `alg`, `typ` and `x5c`")?;
    if header.typ != TYPE {
        return Err("it is a signature of another kind");
    }
    let chain = header
        .x5c
        .iter()
        .map(|der| STANDARD.decode(der).map(CertificateDer::from))
        .collect::<Result<_, _>>()
        .map_err(|_| "its certificates are not base64")?;
    Ok(Jws {
        algorithm: header.alg,
        chain,
        payload: decode(payload)?,
        signed,
        signature: decode(signature)?,
    })
}
