//! Temporary certificate authorities, and valid and invalid certificates, for one test each.
//!
//! They are issued with rcgen rather than with the project's own `keygen`, so that a bug there
//! cannot hide here; and with the `openssl` program, as older clients' certificates are
//! ([`openssl`]). Keys are ECDSA P-384, as in the rest of the project.

pub mod openssl;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;

use crate::files;

/// The beginnings of two years, in seconds since the Unix epoch.
const YEAR_2021: u64 = 1_609_459_200;
const YEAR_2100: u64 = 4_102_444_800;

/// A certificate with its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    /// The certificate or certificate chain, PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.clone()
    }

    /// The private key, PEM (PKCS #8).
    pub fn key_pem(&self) -> String {
        self.key.clone()
    }

    /// The first certificate, DER.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate in PEM")
    }

    /// Writes `<name>.crt` and `<name>.key` into `folder`, which is created if necessary.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Files {
        std::fs::create_dir_all(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let files = Files {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        files::create(&files.certificate, &self.certificate, 0o644);
        files::create(&files.key, &self.key, 0o600);
        files
    }
}

/// Paths of an [`Identity`]'s files.
#[derive(Debug, Clone)]
pub struct Files {
    /// Path of the certificate.
    pub certificate: PathBuf,
    /// Path of the private key, whose mode is 0600.
    pub key: PathBuf,
}

/// A certificate authority that issues certificates with rcgen.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    /// What follows its clients' certificates in a chain, PEM.
    above: String,
}

impl Authority {
    /// Creates a CA with a self-signed certificate.
    pub fn new(name: &str) -> Self {
        Self::valid(name, key_pair(), YEAR_2100)
    }

    /// Creates a CA whose own certificate expired at the end of 2020. This does not change the
    /// validity of the certificates that it issues.
    pub fn expired(name: &str) -> Self {
        Self::valid(name, key_pair(), YEAR_2021)
    }

    /// Creates a CA whose own certificate expires at `second`, in seconds since the Unix epoch.
    pub fn until(name: &str, second: u64) -> Self {
        Self::valid(name, key_pair(), second)
    }

    /// Creates a CA with the key of this one, whose certificate does not expire soon.
    ///
    /// # Panics
    ///
    /// If the key cannot be read.
    #[must_use]
    pub fn renewed(&self, name: &str) -> Self {
        let key = self.issuer.key().serialize_pem();
        let key = KeyPair::from_pem(&key).expect("a private key in PEM");
        Self::valid(name, key, YEAR_2100)
    }

    /// Creates a CA below this one. What it issues comes with its own certificate.
    ///
    /// # Panics
    ///
    /// If rcgen refuses it.
    #[must_use]
    pub fn department(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name, YEAR_2100), key_pair());
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a CA certificate can be created")
            .pem();
        Self {
            issuer: Issuer::new(params, key),
            above: format!("{certificate}{}", self.above),
            certificate,
        }
    }

    fn params(name: &str, until: u64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until);
        params
    }

    fn valid(name: &str, key: KeyPair, until: u64) -> Self {
        let params = Self::params(name, until);
        let certificate = params
            .self_signed(&key)
            .expect("a CA certificate can be created")
            .pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            above: String::new(),
        }
    }

    /// The CA's own certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.clone()
    }

    /// The CA's own certificate, DER.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate in PEM")
    }

    /// Issues a revocation list of these certificates, PEM, whose successor comes at `next_update`,
    /// in seconds since the Unix epoch. They were revoked at the beginning of 2021.
    ///
    /// # Panics
    ///
    /// If rcgen refuses it.
    pub fn revocation_list(
        &self,
        number: u64,
        revoked: &[&CertificateDer<'_>],
        next_update: u64,
    ) -> String {
        self.list(&List {
            number,
            revoked,
            next_update,
            ..List::default()
        })
    }

    /// Issues a revocation list, PEM.
    ///
    /// # Panics
    ///
    /// If rcgen refuses it.
    pub fn list(&self, list: &List<'_>) -> String {
        let list = self.signed(list).pem();
        list.expect("a revocation list in PEM")
    }

    /// Issues a revocation list, DER.
    ///
    /// # Panics
    ///
    /// If rcgen refuses it.
    pub fn list_der(&self, list: &List<'_>) -> Vec<u8> {
        self.signed(list).der().to_vec()
    }

    fn signed(&self, list: &List<'_>) -> CertificateRevocationList {
        let time = |second| date_time_ymd(1970, 1, 1) + Duration::from_secs(second);
        let revoked_certs = list.revoked.iter().map(|der| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial_number(der)),
            revocation_time: time(list.revoked_at),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: time(list.made_at),
            next_update: time(list.next_update),
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.issuer)
            .unwrap_or_else(|error| panic!("revocation list: {error}"))
    }

    /// Issues a server certificate for these DNS names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.issue(
            Request::named(names[0])
                .server_names(names)
                .usage(ExtendedKeyUsagePurpose::ServerAuth),
        )
    }

    /// Issues a valid client certificate, whose Common Name is the client id.
    pub fn client(&self, id: &str) -> Identity {
        self.issue(Request::client(id))
    }

    /// Issues a certificate, valid or not, for `request`.
    ///
    /// # Panics
    ///
    /// If rcgen refuses it.
    pub fn issue(&self, request: Request) -> Identity {
        let key = key_pair();
        let certificate = request
            .params
            .signed_by(&key, &self.issuer)
            .unwrap_or_else(|error| panic!("certificate: {error}"));
        Identity {
            certificate: format!("{}{}", certificate.pem(), self.above),
            key: key.serialize_pem(),
        }
    }
}

/// Content of a revocation list to be issued. Times are seconds since the Unix epoch; by default
/// all of them are the beginning of 2021, but the next list comes in 2096.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// The list's number.
    pub number: u64,
    /// The revoked certificates.
    pub revoked: &'a [&'a CertificateDer<'a>],
    /// When they were revoked.
    pub revoked_at: u64,
    /// When the list was made.
    pub made_at: u64,
    /// When the next one comes.
    pub next_update: u64,
}

impl Default for List<'_> {
    fn default() -> Self {
        const BEGINNING_OF_2021: u64 = 1_609_459_200;
        Self {
            number: 1,
            revoked: &[],
            revoked_at: BEGINNING_OF_2021,
            made_at: BEGINNING_OF_2021,
            next_update: 4_000_000_000,
        }
    }
}

/// Content of a certificate to be issued. By default it is valid from 2020 to 2100, and has neither
/// extended key usages nor subject alternative names.
#[derive(Debug, Clone)]
pub struct Request {
    params: CertificateParams,
}

impl Request {
    /// Requests a certificate with this Common Name, which may be an invalid client id.
    pub fn named(common_name: &str) -> Self {
        let mut request = Self::anonymous();
        request
            .params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        request
    }

    /// Requests a valid client certificate.
    pub fn client(id: &str) -> Self {
        Self::named(id).usage(ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Requests a certificate without a Common Name, whose subject is only an organisation.
    pub fn anonymous() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "CipherMQ tests");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        Self { params }
    }

    /// Adds a second Common Name.
    #[must_use]
    pub fn also_named(mut self, common_name: &str) -> Self {
        // rcgen keeps one value per type, and takes the OID of id-at-commonName (RFC 5280, appendix
        // A.1) for another type.
        self.params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 3]), common_name);
        self
    }

    /// Sets the subject alternative names to these DNS names and IP addresses.
    ///
    /// # Panics
    ///
    /// If one is neither.
    #[must_use]
    pub fn server_names(mut self, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.params.subject_alt_names = CertificateParams::new(names)
            .expect("DNS names or IP addresses")
            .subject_alt_names;
        self
    }

    /// Adds a URI to the subject alternative names.
    ///
    /// # Panics
    ///
    /// If it is not ASCII.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        let uri = SanType::URI(uri.try_into().expect("a URI"));
        self.params.subject_alt_names.push(uri);
        self
    }

    /// Adds an extended key usage.
    #[must_use]
    pub fn usage(mut self, usage: ExtendedKeyUsagePurpose) -> Self {
        self.params.extended_key_usages.push(usage);
        self
    }

    /// Makes the certificate expire at the beginning of 2021.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.params.not_after = date_time_ymd(2021, 1, 1);
        self
    }

    /// Makes the certificate expire at `second`, in seconds since the Unix epoch.
    #[must_use]
    pub fn until(mut self, second: u64) -> Self {
        self.params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(second);
        self
    }

    /// Makes the certificate valid from 2099 on.
    #[must_use]
    pub fn not_yet_valid(mut self) -> Self {
        self.params.not_before = date_time_ymd(2099, 1, 1);
        self
    }
}

/// A folder of certificates with the layout of `keygen certs`: `ca.crt`, `server.crt`,
/// `server.key`, and `<client>/client.crt`, `<client>/client.key` for each client.
pub struct Pki {
    authority: Authority,
    folder: TempDir,
}

impl Pki {
    /// Creates a CA, and a server certificate for `localhost` and 127.0.0.1. Clients are added by
    /// [`client`](Self::client).
    ///
    /// # Panics
    ///
    /// If they cannot be created.
    #[expect(
        clippy::new_without_default,
        reason = "generating keys and writing files should not happen by default"
    )]
    pub fn new() -> Self {
        Self::of(Authority::new("CipherMQ test CA"))
    }

    /// Creates a folder like [`new`](Self::new) with an existing CA.
    ///
    /// # Panics
    ///
    /// If the files cannot be written.
    pub fn of(authority: Authority) -> Self {
        let folder = files::folder("pki");
        files::create(
            &folder.path().join("ca.crt"),
            authority.certificate_pem(),
            0o644,
        );
        authority
            .server(&["localhost", "127.0.0.1"])
            .write(folder.path(), "server");
        Self { authority, folder }
    }

    /// The CA, for issuing other certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Path of the folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Path of the CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Has a department issue the client's certificate, before the first use of
    /// [`client`](Self::client).
    pub fn client_of(&self, department: &Authority, id: &str) -> Files {
        let folder = self.folder.path().join(id);
        department.client(id).write(&folder, "client")
    }

    /// Paths of the client's certificate and key, which are created on first use.
    pub fn client(&self, id: &str) -> Files {
        let folder = self.folder.path().join(id);
        let files = Files {
            certificate: folder.join("client.crt"),
            key: folder.join("client.key"),
        };
        if files.certificate.exists() {
            return files;
        }
        self.authority.client(id).write(&folder, "client")
    }
}

fn key_pair() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a P-384 key can be generated")
}

/// Returns the serial number of a certificate, big endian.
fn serial_number(der: &CertificateDer<'_>) -> Vec<u8> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).expect("a certificate");
    certificate.raw_serial().to_vec()
}
