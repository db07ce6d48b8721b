//! Keys in files: base64 of the 32 bytes, one line. A newline at the end is written, and may be missing.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::file::{Access, Existing, FileError, NewFiles};
use crate::keys::{PrivateKey, PublicKey};

/// The usual name of a receiver's private key file.
pub const PRIVATE_KEY_FILE: &str = "receiver_private.key";
/// The usual name of a receiver's public key file.
pub const PUBLIC_KEY_FILE: &str = "receiver_public.key";

/// More than any key file has; what is longer is not read to its end.
const MAX_FILE_BYTES: u64 = 4096;

/// Why a key file was not read or written. The text says what happened, [`KeyFileError::help`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no key file {}", .0.display())]
    NotFound(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A private key file that others than its owner may read.
    #[error("the private key file {} may be read by others than its owner (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else than a key.
    #[error("the key file {} holds no key: {source}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The file holds no text, or too much of it.
    #[error("the key file {} holds no key: it is no short text", .0.display())]
    NoText(PathBuf),
    /// The files were not written.
    #[error(transparent)]
    Write(#[from] FileError),
}

impl KeyFileError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotFound(path) => format!(
                "make a key pair with `keygen --out {}`, or name the file where your key is",
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).display()
            ),
            Self::Read { .. } => "check that the file is there and that you may read it".to_owned(),
            Self::Exposed { path, .. } => format!("run: chmod 600 {}", path.display()),
            Self::NoKey { .. } | Self::NoText(_) => {
                "a key file holds base64 of 32 bytes, 44 characters; restore it from a backup, or make a new pair with `keygen`"
                    .to_owned()
            }
            Self::Write(FileError::Exists(_)) => {
                "choose another folder, or say --force to replace it: what was sealed for the old key can then no longer be opened"
                    .to_owned()
            }
            Self::Write(FileError::Io { .. }) => "check that the folder is there and that you may write to it".to_owned(),
        }
    }
}

/// Reads a private key.
///
/// # Errors
///
/// [`KeyFileError`]; among others if the file's mode lets anybody but its owner read it (Unix only).
pub fn read_private(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let file = open(path)?;
    refuse_exposed(path, &file)?;
    parse(path, file, PrivateKey::from_base64)
}

/// Reads a public key.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    parse(path, open(path)?, PublicKey::from_base64)
}

/// Writes a key pair, both files or none, into a folder that exists: the private key with mode 0600.
///
/// # Errors
///
/// [`KeyFileError::Write`]; with [`Existing::Keep`] also if one of the files exists.
pub fn write_pair(
    private_path: &Path,
    public_path: &Path,
    key: &PrivateKey,
    existing: Existing,
) -> Result<(), KeyFileError> {
    let mut private = key.to_base64();
    private.push('\n');
    let public = key.public_key().to_base64() + "\n";
    let mut files = NewFiles::new();
    files.stage(private_path, private.as_bytes(), Access::Private, existing)?;
    files.stage(public_path, public.as_bytes(), Access::Public, existing)?;
    files.commit()?;
    Ok(())
}

fn open(path: &Path) -> Result<File, KeyFileError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::NotFound(path.to_owned()),
        _ => KeyFileError::Read {
            path: path.to_owned(),
            source,
        },
    })
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, file: &File) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    // Of the file that was opened, not of the name: it cannot be exchanged in between.
    let metadata = file.metadata().map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        })
    }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &File) -> Result<(), KeyFileError> {
    Ok(())
}

fn parse<K>(path: &Path, file: File, key: fn(&str) -> Result<K, KeyError>) -> Result<K, KeyFileError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(128));
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        })?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() as u64 <= MAX_FILE_BYTES => text,
        _ => return Err(KeyFileError::NoText(path.to_owned())),
    };
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    key(line).map_err(|source| KeyFileError::NoKey {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn private(&self) -> PathBuf {
            self.0.path().join(PRIVATE_KEY_FILE)
        }

        fn public(&self) -> PathBuf {
            self.0.path().join(PUBLIC_KEY_FILE)
        }

        fn write_private(&self, contents: &[u8]) {
            crate::file::write(self.private(), contents, Access::Private, Existing::Replace).unwrap();
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let folder = Folder::new();
        let key = PrivateKey::generate().unwrap();
        write_pair(&folder.private(), &folder.public(), &key, Existing::Keep).unwrap();
        assert_eq!(
            read_private(&folder.private()).unwrap().as_bytes(),
            key.as_bytes()
        );
        assert_eq!(read_public(&folder.public()).unwrap(), *key.public_key());
        assert_eq!(
            fs::read_to_string(folder.public()).unwrap(),
            format!("{}\n", key.public_key())
        );
    }

    #[test]
    fn never_overwrites_unless_told_to() {
        let folder = Folder::new();
        let [old, new] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        write_pair(&folder.private(), &folder.public(), &old, Existing::Keep).unwrap();
        fs::remove_file(folder.private()).unwrap();
        // The public one alone is enough to refuse both.
        let error = write_pair(&folder.private(), &folder.public(), &new, Existing::Keep).unwrap_err();
        assert!(matches!(&error, KeyFileError::Write(FileError::Exists(path)) if *path == folder.public()));
        assert!(error.help().contains("--force"));
        assert!(!folder.private().exists());
        write_pair(&folder.private(), &folder.public(), &new, Existing::Replace).unwrap();
        assert_eq!(read_public(&folder.public()).unwrap(), *new.public_key());
    }

    #[test]
    fn newlines_at_the_end_are_optional() {
        let folder = Folder::new();
        let key = PrivateKey::generate().unwrap();
        for ending in ["", "\n", "\r\n"] {
            folder.write_private(format!("{}{ending}", *key.to_base64()).as_bytes());
            assert_eq!(
                read_private(&folder.private()).unwrap().public_key(),
                key.public_key(),
                "{ending:?}"
            );
        }
        for (before, after) in [(" ", ""), ("", " "), ("", "\n\n"), ("\n", "")] {
            folder.write_private(format!("{before}{}{after}", *key.to_base64()).as_bytes());
            assert!(matches!(
                read_private(&folder.private()),
                Err(KeyFileError::NoKey { .. })
            ));
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = Folder::new();
        let no_key = |contents: &[u8]| {
            folder.write_private(contents);
            let error = read_private(&folder.private()).unwrap_err();
            assert!(error.to_string().contains(PRIVATE_KEY_FILE), "{error}");
            assert!(error.help().contains("44 characters"));
            error
        };
        assert!(matches!(
            no_key(b""),
            KeyFileError::NoKey {
                source: KeyError::Length(0),
                ..
            }
        ));
        assert!(matches!(
            no_key(b"AAAA\n"),
            KeyFileError::NoKey {
                source: KeyError::Length(3),
                ..
            }
        ));
        assert!(matches!(
            no_key(b"no key at all\n"),
            KeyFileError::NoKey {
                source: KeyError::NotBase64,
                ..
            }
        ));
        assert!(matches!(no_key(&[b'A'; 5000]), KeyFileError::NoText(_)));
        assert!(matches!(no_key(&[0xff; 44]), KeyFileError::NoText(_)));
        assert!(
            matches!(read_private(&folder.public()), Err(KeyFileError::NotFound(path)) if path == folder.public())
        );
        assert!(matches!(
            read_public(folder.0.path()),
            Err(KeyFileError::Read { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn private_keys_that_others_may_read_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new();
        let key = PrivateKey::generate().unwrap();
        write_pair(&folder.private(), &folder.public(), &key, Existing::Keep).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.private()), 0o600);
        for mode in [0o640, 0o604, 0o610, 0o602, 0o644, 0o660] {
            fs::set_permissions(folder.private(), fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private(&folder.private()).unwrap_err();
            assert!(
                matches!(error, KeyFileError::Exposed { mode: seen, .. } if seen == mode),
                "{error}"
            );
            assert_eq!(
                error.help(),
                format!("run: chmod 600 {}", folder.private().display())
            );
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(folder.private(), fs::Permissions::from_mode(mode)).unwrap();
            read_private(&folder.private()).unwrap();
        }
        assert!(read_public(&folder.public()).is_ok());
    }
}
