//! The files of a certificate and its private key.

use std::path::{Path, PathBuf};

use crate::client_name::ClientName;
use crate::error::Error;
use crate::names::{CA_CERT, CA_KEY, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY};
use crate::profile::Profile;

/// The paths of a certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    fn new(folder: &Path, certificate: &str, key: &str) -> Self {
        Self {
            certificate: folder.join(certificate),
            key: folder.join(key),
        }
    }

    /// Returns an authority's files.
    pub(crate) fn authority(folder: &Path) -> Self {
        Self::new(folder, CA_CERT, CA_KEY)
    }

    /// Returns the files of a certificate of this profile, by their usual names in a folder.
    pub(crate) fn of(profile: &Profile, folder: &Path) -> Self {
        match profile {
            Profile::Client(name) => Self::new(&name.folder(folder), CLIENT_CERT, CLIENT_KEY),
            Profile::Server(_) => Self::new(folder, SERVER_CERT, SERVER_KEY),
        }
    }

    /// Returns which of the files exist.
    pub(crate) fn state(&self) -> State {
        match (is_there(&self.certificate), is_there(&self.key)) {
            (false, false) => State::Nothing,
            (false, true) => State::KeyAlone,
            (true, false) => State::CertificateAlone,
            (true, true) => State::Complete,
        }
    }

    /// Reports that only one file of the pair exists, and that no interruption can have left it so.
    pub(crate) fn incomplete(&self) -> Error {
        let (there, missing) = match self.state() {
            State::CertificateAlone => (&self.certificate, &self.key),
            _ => (&self.key, &self.certificate),
        };
        Error::Incomplete {
            there: there.clone(),
            missing: missing.clone(),
        }
    }

    /// Reports that one of the files exists and is not to be replaced.
    pub(crate) fn already_exists(&self) -> Error {
        let path = if is_there(&self.certificate) {
            &self.certificate
        } else {
            &self.key
        };
        Error::Exists(path.clone())
    }
}

/// The existing files of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Nothing,
    KeyAlone,
    CertificateAlone,
    Complete,
}

pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns the file of a certificate that is named on the command line: by its path, or by the name
/// of a client whose folder has it.
pub(crate) fn certificate_path(what: &Path, folder: &Path) -> Result<PathBuf, Error> {
    if what.is_file() {
        return Ok(what.to_owned());
    }
    let name = ClientName::recognize(&what.to_string_lossy())?;
    Ok(name.folder(folder).join(CLIENT_CERT))
}
