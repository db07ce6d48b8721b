//! Certificates of all kinds, with the built programs: for each unusable one, the client reports
//! the cause and the fix, and so does the server's log. Messages that no receiver would accept are
//! not sent.

mod clients;
mod identity;
mod sending;
mod servers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciphermq_client::{Client, ClientId, PublishErrorKind};
use ciphermq_tests::pki::openssl::{CertificateSpec, OpensslAuthority};
use ciphermq_tests::pki::{Files, Request};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, Cli, PATIENCE, Pki, Server};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

/// A server that trusts two authorities: one generated with rcgen, and one with OpenSSL.
struct TwoAuthorities {
    server: Server,
    openssl: OpensslAuthority,
    folder: TempDir,
}

impl TwoAuthorities {
    async fn start() -> Self {
        Self::start_with(|options| options).await
    }

    async fn start_with(settings: impl FnOnce(Options) -> Options) -> Self {
        let (pki, openssl, folder) = (
            Pki::new(),
            OpensslAuthority::new(),
            tempfile::tempdir().unwrap(),
        );
        let both = [pki.ca(), openssl.ca()].map(|path| std::fs::read_to_string(path).unwrap());
        let ca = folder.path().join("ca.crt");
        std::fs::write(&ca, both.concat()).unwrap();
        let options = Options::sqlite().pki(Arc::new(pki)).set(
            "tls",
            "ca_cert_path",
            ca.display().to_string(),
        );
        let server = Server::start(settings(options)).await;
        Self {
            server,
            openssl,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue_with_rcgen(&self, name: &str, request: Request) -> Files {
        self.server
            .pki()
            .authority()
            .issue(request)
            .write(self.folder.path(), name)
    }

    fn issue_with_openssl(&self, name: &str, spec: CertificateSpec<'_>) -> Files {
        self.openssl.make(name, &spec)
    }

    fn cli(&self, subcommand: &str, identity: &Files) -> Cli {
        Cli::new(subcommand)
            .current_dir(self.folder.path())
            .arg("--server")
            .arg(format!("localhost:{}", self.server.address().port()))
            .arg("--ca")
            .arg(self.path("ca.crt"))
            .arg("--cert")
            .arg(&identity.certificate)
            .arg("--key")
            .arg(&identity.key)
    }

    /// Expects that both sides report the cause and the fix.
    async fn expect_refused(&self, identity: &Files, client: &[&str], log: &[&str]) {
        let mark = self.server.console().mark();
        let refused = self.cli("status", identity).run().await.code(1);
        for text in client {
            assert!(
                refused.stderr.contains(text),
                "{text:?} is not in:\n{}",
                refused.stderr
            );
        }
        let found = |line: &str| log.iter().all(|text| line.contains(text)).then_some(());
        assert_eq!(
            self.server.console().find(mark, PATIENCE, found).await,
            Some(()),
            "no line of the server's log contains {log:?}; the client reports:\n{}",
            refused.stderr
        );
    }
}
