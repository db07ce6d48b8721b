//! A folder of `keygen certs`, what rustls says about its certificates, and OpenSSL in it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use jiff::Timestamp;
use keygen::client_name::FieldArg;
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
            field: FieldArg::default(),
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

    /// Reads the certificates of a file.
    pub(crate) fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let chain = CertificateDer::pem_file_iter(self.path(name)).unwrap();
        chain.map(Result::unwrap).collect()
    }

    /// Runs a mutual TLS handshake between the server and a client of this folder.
    pub(crate) fn handshake(
        &self,
        client: &str,
        server_name: &str,
    ) -> Result<String, rustls::Error> {
        let client = format!("{client}/client");
        self.handshake_between("ca.crt", "server", &client, server_name)
    }

    /// Runs a mutual TLS handshake in memory, and sends a byte each way. Both sides trust the
    /// certificates in `root` only. Returns the Common Name that the server sees.
    pub(crate) fn handshake_between(
        &self,
        root: &str,
        server: &str,
        client: &str,
        server_name: &str,
    ) -> Result<String, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for root in self.chain(root) {
            roots.add(root)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .unwrap();
        let identity = |name: &str| {
            let chain = self.chain(&format!("{name}.crt"));
            (chain, self.key(&format!("{name}.key")))
        };
        let (chain, key) = identity(server);
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        let (chain, key) = identity(client);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
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
        let (_, certificate) = X509Certificate::from_der(&chain[0]).unwrap();
        let names: Vec<_> = certificate.subject().iter_common_name().collect();
        assert_eq!(names.len(), 1);
        Ok(names[0].as_str().unwrap().to_owned())
    }

    /// Runs OpenSSL in the folder, which must succeed, and returns its output.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let (is_good, text) = self.openssl_outcome(arguments);
        assert!(is_good, "openssl {arguments}: {text}");
        text
    }

    /// Runs OpenSSL in the folder, and returns whether it succeeds, and its output.
    pub(crate) fn openssl_outcome(&self, arguments: &str) -> (bool, String) {
        let output = Command::new("openssl")
            .current_dir(self.root())
            .args(arguments.split_whitespace())
            .output();
        let output = output.unwrap_or_else(|error| {
            panic!("this test needs the program `openssl`; install it: {error}")
        });
        (output.status.success(), both(&output))
    }

    /// Runs the program in the folder, which must succeed, and returns its output.
    pub(crate) fn keygen(&self, arguments: &str) -> String {
        let output = self.program(arguments);
        let text = both(&output);
        assert!(output.status.success(), "keygen {arguments}: {text}");
        text
    }

    /// Runs the program in the folder, which must fail with advice and change nothing. Returns the
    /// error.
    pub(crate) fn refuses(&self, arguments: &str) -> String {
        let before = self.contents();
        let output = self.program(arguments);
        let text = both(&output);
        assert!(!output.status.success(), "keygen {arguments}: {text}");
        // The parser of the command line refers to its help instead.
        let advice = ["\nwhat to do: ", "'--help'"];
        assert!(
            text.starts_with("error: ") && advice.iter().any(|advice| text.contains(advice)),
            "keygen {arguments}: {text}"
        );
        assert!(output.stdout.is_empty(), "keygen {arguments}: {text}");
        assert!(
            self.contents() == before,
            "keygen {arguments}: it has changed files"
        );
        text
    }

    fn program(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keygen"))
            .current_dir(self.root())
            .args(arguments.split_whitespace())
            .output()
            .unwrap()
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }
}

/// Returns what a program has written, on standard output first.
fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
