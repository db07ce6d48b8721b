//! Authorities and clients for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    SignatureAlgorithm,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Authority, Identity};

/// A key pair with its certificate chain, of an authority or a client.
pub(crate) struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// The properties of a certificate to issue.
pub(crate) struct CertificateSpec {
    pub(crate) key: &'static SignatureAlgorithm,
    pub(crate) extended_usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) usages: Vec<KeyUsagePurpose>,
    /// First and last second of its validity, in Unix time.
    pub(crate) valid: Option<(i64, i64)>,
    pub(crate) is_authority: bool,
    /// The path length of an authority; unlimited if left out.
    pub(crate) path_length: Option<u8>,
    /// The Common Names; that of the client if left out.
    pub(crate) common_names: Option<Vec<String>>,
    /// The subject's alternative names.
    pub(crate) alternative_names: Vec<SanType>,
    /// The names that an authority may certify.
    pub(crate) name_constraints: Option<NameConstraints>,
    /// Extensions beyond these.
    pub(crate) extensions: Vec<CustomExtension>,
}

impl Default for CertificateSpec {
    fn default() -> Self {
        Self {
            key: &rcgen::PKCS_ECDSA_P384_SHA384,
            extended_usages: Vec::new(),
            usages: Vec::new(),
            valid: None,
            is_authority: false,
            path_length: None,
            common_names: None,
            alternative_names: Vec::new(),
            name_constraints: None,
            extensions: Vec::new(),
        }
    }
}

fn params(name: &str, spec: &CertificateSpec) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let one = vec![name.to_owned()];
    for (index, name) in spec
        .common_names
        .as_ref()
        .unwrap_or(&one)
        .iter()
        .enumerate()
    {
        // rcgen keeps one attribute per type, but distinguishes these types.
        let kind = match index {
            0 => DnType::CommonName,
            _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
        };
        params.distinguished_name.push(kind, name.as_str());
    }
    params.extended_key_usages.clone_from(&spec.extended_usages);
    params.key_usages.clone_from(&spec.usages);
    params.subject_alt_names.clone_from(&spec.alternative_names);
    params.name_constraints.clone_from(&spec.name_constraints);
    params.custom_extensions.clone_from(&spec.extensions);
    if let Some((from, until)) = spec.valid {
        let time = |second: i64| {
            rcgen::date_time_ymd(1970, 1, 1)
                + std::time::Duration::from_secs(second.try_into().unwrap())
        };
        params.not_before = time(from);
        params.not_after = time(until);
    }
    params.is_ca = if spec.is_authority {
        IsCa::Ca(match spec.path_length {
            Some(length) => BasicConstraints::Constrained(length),
            None => BasicConstraints::Unconstrained,
        })
    } else {
        IsCa::ExplicitNoCa
    };
    params
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::new_as(name, CertificateSpec::default())
    }

    /// Creates an authority with these properties.
    pub(crate) fn new_as(name: &str, spec: CertificateSpec) -> Self {
        let spec = CertificateSpec {
            is_authority: true,
            ..spec
        };
        let params = params(name, &spec);
        let key = KeyPair::generate_for(spec.key).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            params,
            key,
            chain: vec![certificate.der().clone()],
        }
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.chain[0].clone()
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::new([self.certificate()]).unwrap()
    }

    pub(crate) fn issue(&self, name: &str) -> Self {
        self.issue_as(name, &CertificateSpec::default())
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.issue_as(
            name,
            &CertificateSpec {
                is_authority: true,
                ..CertificateSpec::default()
            },
        )
    }

    pub(crate) fn issue_as(&self, name: &str, spec: &CertificateSpec) -> Self {
        let params = params(name, spec);
        let key = KeyPair::generate_for(spec.key).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self {
            params,
            key,
            chain: vec![certificate.der().clone()],
        }
    }

    /// Issues a certificate for the key pair of `issued`.
    pub(crate) fn renew(&self, issued: &Self, name: &str) -> Self {
        let params = params(name, &CertificateSpec::default());
        let key = KeyPair::try_from(issued.key.serialize_der()).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self {
            params,
            key,
            chain: vec![certificate.der().clone()],
        }
    }

    /// Issues a revocation list in DER of these certificates, revoked at these seconds.
    pub(crate) fn list(&self, number: u64, revoked: &[(&Self, i64)]) -> Vec<u8> {
        let time = |second: i64| {
            rcgen::date_time_ymd(1970, 1, 1)
                + std::time::Duration::from_secs(second.try_into().unwrap())
        };
        let revoked_certs = revoked.iter().map(|(revoked, at)| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&revoked.chain[0]).unwrap();
            rcgen::RevokedCertParams {
                serial_number: certificate.raw_serial().to_vec().into(),
                revocation_time: time(*at),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: time(1_700_000_000),
            next_update: time(1_700_100_000),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&issuer).unwrap().der().to_vec()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::new(self.chain.clone(), &self.private_key()).unwrap()
    }
}
