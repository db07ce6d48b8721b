//! PEM texts and the files that hold them.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ciphermq_certificates::PemError;
use ciphermq_files::exposed_mode;
use ciphermq_protocol::text::{holds_key, shown};
use zeroize::Zeroizing;

use crate::error::{ConnectError, ConnectErrorKind};

/// Size limit of a private key in PEM, in bytes.
const KEY_BYTES: usize = 16 * 1024;

/// The source of a PEM text.
#[derive(Clone)]
pub(crate) enum Pem {
    File(PathBuf),
    Text(Zeroizing<Vec<u8>>),
}

/// Never shows a text: it may be a private key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => fmt::Debug::fmt(path, f),
            Self::Text(_) => f.write_str("Text(..)"),
        }
    }
}

impl Pem {
    /// Reads a private key, whose file only its owner may have been able to read.
    pub(super) fn read_private(
        &self,
        what: &str,
    ) -> Result<(Zeroizing<Vec<u8>>, String), ConnectError> {
        let path = match self {
            Self::Text(text) => return Ok((text.clone(), what.to_owned())),
            Self::File(path) => path,
        };
        let failed = |error| unreadable(what, path, error);
        let mut file = File::open(path).map_err(failed)?;
        if let Some(mode) = exposed_mode(&file).map_err(failed)? {
            let path = shown(path);
            return Err(ConnectError::new(
                ConnectErrorKind::FileExposed,
                format!(
                    "{} `{path}` may be read by others than its owner (mode {mode:04o}).",
                    upper_first(what)
                ),
            )
            .advise(format!("Run: chmod 600 {path}")));
        }
        // Capacity for everything that is read: a growing buffer would leave copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
        file.read_to_end(&mut text).map_err(failed)?;
        Ok((text, format!("{what} `{}`", shown(path))))
    }

    /// Reads the PEM text; returns its name for errors as well.
    pub(super) fn read(&self, what: &str) -> Result<(Vec<u8>, String), ConnectError> {
        match self {
            Self::Text(text) => Ok((text.to_vec(), what.to_owned())),
            Self::File(path) => match std::fs::read(path) {
                Ok(text) => Ok((text, format!("{what} `{}`", shown(path)))),
                Err(error) => Err(unreadable(what, path, error)),
            },
        }
    }

    /// Returns its name for commands.
    fn file(&self) -> String {
        match self {
            Self::File(path) => shown(path).to_string(),
            Self::Text(_) => "FILE".to_owned(),
        }
    }

    pub(super) fn not_pem(&self, what: &str, error: &PemError) -> ConnectError {
        broken(what, error.reason()).advise(error.advice(&self.file()))
    }
}

fn unreadable(what: &str, path: &Path, error: std::io::Error) -> ConnectError {
    let shown = shown(path);
    let (reason, advice) = match error.kind() {
        _ if holds_key(path) => (
            error.to_string(),
            "Name the file that holds it, not its text.".to_owned(),
        ),
        std::io::ErrorKind::NotFound => (
            "there is no such file".to_owned(),
            "Name the right file, or make certificates with `ciphermq-cli certs`.".to_owned(),
        ),
        std::io::ErrorKind::PermissionDenied => (
            "this user may not read it".to_owned(),
            format!("Let this user read it (chown or chmod), or name another file than `{shown}`."),
        ),
        _ => (
            error.to_string(),
            "Make sure that the file is readable.".to_owned(),
        ),
    };
    ConnectError::new(
        ConnectErrorKind::FileUnreadable,
        format!("Cannot read {what} `{shown}`: {reason}."),
    )
    .advise(advice)
    .caused_by(error)
}

pub(super) fn broken(what: &str, reason: &str) -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::BadCertificate,
        format!("There is {reason} in {what}."),
    )
}

/// Returns the text with an upper-case first letter.
pub(crate) fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_private_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        std::fs::write(&path, "a key").unwrap();
        let pem = Pem::File(path.clone());
        for mode in [0o640, 0o604, 0o620, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = pem.read_private("the key").unwrap_err();
            assert_eq!(error.kind(), ConnectErrorKind::FileExposed);
            assert_eq!(
                error.advice().unwrap(),
                format!("Run: chmod 600 {}", path.display())
            );
        }
        for mode in [0o600, 0o400] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(*pem.read_private("the key").unwrap().0, b"a key");
        }
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(
            format!("{:?}", Pem::Text(b"secret".to_vec().into())),
            "Text(..)"
        );
    }
}
