//! Names of key files, which derive from that of the X25519 private key.

use std::path::{Path, PathBuf};

use super::{KeyFileError, Kind};
use crate::keys::KeyId;

const PRIVATE_END: &str = "_private.key";

/// The names of a receiver's key files, in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyNames {
    folder: PathBuf,
    /// The name before `_private.key`: `receiver`.
    stem: String,
}

impl KeyNames {
    /// Returns the names that derive from an X25519 private key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Unnamed`] if it is not named `<something>_private.key`.
    pub fn of(private: &Path) -> Result<Self, KeyFileError> {
        Self::find(private).ok_or_else(|| KeyFileError::Unnamed(private.to_owned()))
    }

    /// Returns the names that derive from a file; `None` if it is not named
    /// `<something>_private.key`.
    pub(super) fn find(private: &Path) -> Option<Self> {
        let stem = private.file_name()?.to_str()?.strip_suffix(PRIVATE_END)?;
        (!stem.is_empty()).then(|| Self {
            folder: private.parent().unwrap_or(Path::new("")).to_owned(),
            stem: stem.to_owned(),
        })
    }

    /// Returns the folder, as a path that can be opened.
    pub(super) fn folder(&self) -> &Path {
        if self.folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.folder
        }
    }

    /// Returns the path of the X25519 private key.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.file("_private.key")
    }

    /// Returns the path of the X25519 public key.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        self.file("_public.key")
    }

    /// Returns the path of the X-Wing private key.
    #[must_use]
    pub fn x_wing_private(&self) -> PathBuf {
        self.file("_xwing_private.key")
    }

    /// Returns the path of the X-Wing public key.
    #[must_use]
    pub fn x_wing_public(&self) -> PathBuf {
        self.file("_xwing_public.key")
    }

    /// Returns the path of an older private key.
    #[must_use]
    pub fn archived(&self, kind: Kind, id: KeyId) -> PathBuf {
        self.file(&format!("{}{id}.key", archive_begin(kind)))
    }

    /// Returns the older key that a file's name denotes; `None` for other names.
    pub(super) fn parse_archived(&self, name: &str) -> Option<(Kind, KeyId)> {
        let end = name.strip_prefix(&self.stem)?.strip_suffix(".key")?;
        [Kind::X25519, Kind::XWing].into_iter().find_map(|kind| {
            let id = end.strip_prefix(archive_begin(kind))?;
            Some((kind, id.parse().ok()?))
        })
    }

    fn file(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}{end}", self.stem))
    }
}

/// Returns the text between the stem and the key id.
fn archive_begin(kind: Kind) -> &'static str {
    match kind {
        Kind::X25519 => "_private.",
        Kind::XWing => "_xwing_private.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_derive_from_the_private_key() {
        let names = KeyNames::of(Path::new("certs/receiver_private.key")).unwrap();
        let id: KeyId = "66687aadf862bd77".parse().unwrap();
        for (path, name) in [
            (names.private(), "receiver_private.key"),
            (names.public(), "receiver_public.key"),
            (names.x_wing_private(), "receiver_xwing_private.key"),
            (names.x_wing_public(), "receiver_xwing_public.key"),
            (
                names.archived(Kind::X25519, id),
                "receiver_private.66687aadf862bd77.key",
            ),
            (
                names.archived(Kind::XWing, id),
                "receiver_xwing_private.66687aadf862bd77.key",
            ),
        ] {
            assert_eq!(path, Path::new("certs").join(name));
        }
        for kind in [Kind::X25519, Kind::XWing] {
            let path = names.archived(kind, id);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(names.parse_archived(name), Some((kind, id)));
        }
        let bare = KeyNames::of(Path::new("x_private.key")).unwrap();
        assert_eq!(bare.x_wing_private(), Path::new("x_xwing_private.key"));
        assert_eq!(bare.folder(), Path::new("."));
    }

    #[test]
    fn other_names_are_ignored() {
        let names = KeyNames::of(Path::new("receiver_private.key")).unwrap();
        for name in [
            "receiver_private.key",
            "receiver_xwing_private.key",
            "receiver_private.backup.key",
            "receiver_private.66687AADF862BD77.key",
            "receiver_private.66687aadf862bd77",
            "receiver_private.66687aadf862bd77.key~",
            "receiver_public.66687aadf862bd77.key",
            "other_private.66687aadf862bd77.key",
            ".new-abcdef",
        ] {
            assert_eq!(names.parse_archived(name), None, "{name}");
        }
        for path in ["receiver.key", "_private.key", "private.key", "..", ""] {
            let error = KeyNames::of(Path::new(path)).unwrap_err();
            assert!(matches!(error, KeyFileError::Unnamed(_)), "{path}");
            assert!(error.advice().contains("receiver_private.key"));
        }
    }
}
