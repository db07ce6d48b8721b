//! Certificates like those of older clients: issued with the `openssl` program, ECDSA P-384,
//! without extended key usage, and for clients sometimes without subject alternative names.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Files;
use crate::files;

/// A certificate authority that uses the `openssl` program.
pub struct OpensslAuthority {
    folder: TempDir,
}

impl OpensslAuthority {
    /// Creates a CA with a self-signed certificate.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    #[expect(
        clippy::new_without_default,
        reason = "running programs should not happen by default"
    )]
    pub fn new() -> Self {
        let folder = files::folder("openssl");
        let authority = Self { folder };
        authority.run(&[
            "ecparam",
            "-name",
            "secp384r1",
            "-genkey",
            "-noout",
            "-out",
            "ca.key",
        ]);
        authority.run(&[
            "req",
            "-new",
            "-x509",
            "-sha384",
            "-days",
            "3650",
            "-key",
            "ca.key",
            "-subj",
            "/CN=Older CA",
            "-out",
            "ca.crt",
        ]);
        authority
    }

    /// Path of the CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Issues a certificate with this Common Name, with these subject alternative names
    /// (`DNS:localhost,IP:127.0.0.1`) or none, and without extended key usage. The key has the SEC
    /// 1 format, `BEGIN EC PRIVATE KEY`.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    pub fn issue(&self, common_name: &str, alternative_names: Option<&str>) -> Files {
        let file = |ending: &str| format!("{common_name}.{ending}");
        // An extension makes it an X.509 v3 certificate; webpki accepts no other version.
        let names = alternative_names
            .map(|names| format!("subjectAltName={names}\n"))
            .unwrap_or_default();
        let extensions = format!("basicConstraints=CA:FALSE\n{names}");
        std::fs::write(self.folder.path().join(file("ext")), extensions)
            .expect("a file can be written");
        let subject = format!("/CN={common_name}");
        self.run(&[
            "ecparam",
            "-name",
            "secp384r1",
            "-genkey",
            "-noout",
            "-out",
            &file("key"),
        ]);
        self.run(&[
            "req",
            "-new",
            "-sha384",
            "-key",
            &file("key"),
            "-subj",
            &subject,
            "-out",
            &file("csr"),
        ]);
        self.run(&[
            "x509",
            "-req",
            "-sha384",
            "-days",
            "365",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-in",
            &file("csr"),
            "-extfile",
            &file("ext"),
            "-out",
            &file("crt"),
        ]);
        Files {
            certificate: self.path(&file("crt")),
            key: self.path(&file("key")),
        }
    }

    /// Issues any certificate that `openssl` can, valid or not. The files are named after `name`.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    pub fn make(&self, name: &str, spec: &CertificateSpec<'_>) -> Files {
        let file = |ending: &str| format!("{name}.{ending}");
        let mut key = vec!["genpkey"];
        key.extend(spec.key.split(' '));
        let key_file = file("key");
        key.extend(["-out", &key_file]);
        self.run(&key);
        // With the string types that OpenSSL chose before version 3.
        let config = "[req]\nstring_mask = default\nutf8 = yes\nprompt = no\ndistinguished_name = \
                      dn\n[dn]\nO = unused\n";
        std::fs::write(self.path("older.cnf"), config).expect("a file can be written");
        let (csr, crt, ext) = (file("csr"), file("crt"), file("ext"));
        self.run(&[
            "req",
            "-new",
            "-utf8",
            "-config",
            "older.cnf",
            "-key",
            &key_file,
            "-subj",
            spec.subject,
            "-out",
            &csr,
        ]);
        let mut x509 = vec![
            "x509",
            "-req",
            "-days",
            "365",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-in",
            &csr,
            "-out",
            &crt,
            spec.digest,
        ];
        if let Some(extensions) = spec.extensions {
            std::fs::write(self.path(&ext), extensions).expect("a file can be written");
            x509.extend(["-extfile", &ext]);
        }
        self.run(&x509);
        let files = Files {
            certificate: self.path(&crt),
            key: self.path(&key_file),
        };
        std::fs::set_permissions(&files.key, Permissions::from_mode(0o600))
            .expect("a mode can be set");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) {
        run(self.folder.path(), arguments);
    }
}

/// Content of a certificate that [`OpensslAuthority::make`] issues.
#[derive(Debug, Clone, Copy)]
pub struct CertificateSpec<'a> {
    /// Arguments of `openssl genpkey`: `-algorithm RSA -pkeyopt rsa_keygen_bits:2048`.
    pub key: &'a str,
    /// Subject: `/CN=sender_1`.
    pub subject: &'a str,
    /// Extensions, or `None` for an X.509 v1 certificate.
    pub extensions: Option<&'a str>,
    /// Option for the digest of the signature: `-sha384`.
    pub digest: &'a str,
}

impl Default for CertificateSpec<'_> {
    fn default() -> Self {
        Self {
            key: "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            subject: "/CN=client",
            extensions: Some("basicConstraints=CA:FALSE"),
            digest: "-sha384",
        }
    }
}

/// Runs `openssl` in a folder, and returns its standard output.
///
/// # Panics
///
/// If it is missing or fails.
pub fn run(folder: &Path, arguments: &[&str]) -> String {
    // scripts/test installs it there if the system has none.
    let own = crate::binaries::tools().join("openssl");
    let program = if own.is_file() {
        own
    } else {
        PathBuf::from("openssl")
    };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("openssl cannot be run: {error}. scripts/test installs it.")
        });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "openssl {}: {}\n{stderr}",
        arguments.join(" "),
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
