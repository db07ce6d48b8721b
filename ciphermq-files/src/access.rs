//! Who may read what is made.

use std::fs::File;
use std::io;

/// Who may read a file or look into a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner alone: mode 0600, folders 0700.
    Private,
    /// Everybody may read, as far as the user's umask allows: mode 0644, folders 0755.
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

/// The permission bits of a file with a private key, if they let others than its owner do anything
/// with it.
///
/// Asks the open file, not its name: it cannot be exchanged in between. `None` on other systems
/// than Unix.
///
/// # Errors
///
/// What the system says if it cannot tell.
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
    fn nobody_but_the_owner_may_write_whatever_the_umask_is() {
        for access in [Access::Private, Access::Public] {
            assert_eq!((access.file_mode() | access.folder_mode()) & 0o022, 0);
        }
    }
}
