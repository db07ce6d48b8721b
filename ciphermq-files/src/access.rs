//! The permissions of files and folders that are created.

use std::fs::File;
use std::io;

/// The users who may read a new file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner only: mode 0600, folders 0700.
    Private,
    /// All users, as far as the user's umask allows: mode 0644, folders 0755.
    Public,
}

impl Access {
    #[cfg(unix)]
    pub(crate) fn file_mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }

    #[cfg(unix)]
    pub(crate) fn folder_mode(self) -> u32 {
        match self {
            Self::Private => 0o700,
            Self::Public => 0o755,
        }
    }
}

/// Returns the permission bits of a private key's file if users other than its owner have access.
///
/// Examines the open file rather than its path, which could lead to another file by now. Always
/// `None` on systems other than Unix.
///
/// # Errors
///
/// The operating system's error if the file's metadata cannot be read.
#[cfg_attr(not(unix), expect(unused_variables))]
pub fn exposed_mode(file: &File) -> io::Result<Option<u32>> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        Ok((mode & 0o077 != 0).then_some(mode))
    }
    #[cfg(not(unix))]
    Ok(None)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_write_under_any_umask() {
        for access in [Access::Private, Access::Public] {
            assert_eq!((access.file_mode() | access.folder_mode()) & 0o022, 0);
        }
    }
}
