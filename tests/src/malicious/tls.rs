//! TLS settings of the malicious broker: its own certificate, which the CA has issued for
//! `localhost`, and those of its clients.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Pki;
use crate::pki::{Files, Identity};

fn roots(pki: &Pki) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(pki.authority().certificate_der())
        .expect("a CA certificate");
    Arc::new(roots)
}

/// TLS settings towards the clients, with a valid certificate other than the real server's.
pub(super) fn server(pki: &Pki) -> ServerConfig {
    let identity: Identity = pki.authority().server(&["localhost", "127.0.0.1"]);
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).expect("a private key");
    let verifier = WebPkiClientVerifier::builder(roots(pki))
        .build()
        .expect("a CA to verify clients by");
    ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate_der()], key)
        .expect("certificate and key match")
}

/// TLS settings towards the real server, with the certificate of the client that has connected.
pub(super) fn client(pki: &Pki, files: &Files) -> ClientConfig {
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a private key");
    let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a file");
    let chain = chain
        .collect::<Result<_, _>>()
        .expect("certificates in PEM");
    ClientConfig::builder()
        .with_root_certificates(roots(pki))
        .with_client_auth_cert(chain, key)
        .expect("certificate and key match")
}

/// The client of this test that presented this certificate, if any.
pub(super) fn client_of(pki: &Pki, shown: &CertificateDer<'_>) -> Option<String> {
    std::fs::read_dir(pki.folder())
        .ok()?
        .filter_map(Result::ok)
        .find_map(|folder| {
            let own = folder.path().join("client.crt");
            (own.is_file() && certificate(&own) == *shown)
                .then(|| folder.file_name().to_string_lossy().into_owned())
        })
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
