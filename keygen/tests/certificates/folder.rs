//! A folder of `keygen certs`, what rustls says about its certificates, and OpenSSL in it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use keygen::{CertsArgs, Error, Report, certs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A folder with an authority and certificates.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns a folder with an authority, a server and these clients.
    pub(crate) fn with(clients: &[&str]) -> Self {
        let folder = Self::new();
        folder.run(clients).unwrap();
        folder
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn args(&self, clients: &[&str]) -> CertsArgs {
        CertsArgs {
            out: self.0.path().to_owned(),
            server_names: Vec::new(),
            clients: clients.iter().map(ToString::to_string).collect(),
            days: 825,
            force: false,
            new_ca: false,
        }
    }

    pub(crate) fn run(&self, clients: &[&str]) -> Result<Report, Error> {
        certs::run(&self.args(clients), Timestamp::now())
    }

    /// Returns all files with their contents, sorted.
    pub(crate) fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    all.push((path.clone(), Vec::new()));
                    walk(&path, all);
                } else {
                    all.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        let mut all = Vec::new();
        walk(self.0.path(), &mut all);
        all.sort();
        all
    }

    pub(crate) fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).unwrap()
    }

    pub(crate) fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(self.path(name)).unwrap()
    }

    /// Runs a mutual TLS handshake in memory, and sends a byte each way. Returns the Common Name
    /// that the server sees.
    pub(crate) fn handshake(
        &self,
        client: &str,
        server_name: &str,
    ) -> Result<String, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("ca.crt"))?;
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .unwrap();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate("server.crt")], self.key("server.key"))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![self.certificate(&format!("{client}/client.crt"))],
                self.key(&format!("{client}/client.key")),
            )?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        client.writer().write_all(b"?").unwrap();
        server.writer().write_all(b"!").unwrap();
        while client.wants_write() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut input = &wire[..];
            while !input.is_empty() {
                server.read_tls(&mut input).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut input = &wire[..];
            while !input.is_empty() {
                client.read_tls(&mut input).unwrap();
                client.process_new_packets()?;
            }
        }
        let mut byte = [0];
        server.reader().read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"?");
        client.reader().read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"!");
        let chain = server.peer_certificates().unwrap();
        assert_eq!(chain.len(), 1);
        let (_, certificate) = X509Certificate::from_der(&chain[0]).unwrap();
        let names: Vec<_> = certificate.subject().iter_common_name().collect();
        assert_eq!(names.len(), 1);
        Ok(names[0].as_str().unwrap().to_owned())
    }

    /// Runs OpenSSL in the folder, which must succeed, and returns its output.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let output = Command::new("openssl")
            .current_dir(self.root())
            .args(arguments.split(' '))
            .output();
        let output = output.unwrap_or_else(|error| {
            panic!("this test needs the program `openssl`; install it: {error}")
        });
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
        text.into_owned()
    }
}
