//! Refuses private key files that other users can read or write.
//!
//! The rule is PostgreSQL's: a file that the server's own user owns is closed to all others (mode
//! 0600 or less); one that root owns may be readable by its group (0640 or less), so that several
//! services can share a certificate.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The user id of root, who may read every file anyway.
const ROOT: u32 = 0;
/// The permission bits of a file's group and of all others.
const GROUP_AND_OTHERS: u32 = 0o077;
/// The permission bits of a file's group and of all others, except reading by the group.
const BEYOND_READING_BY_GROUP: u32 = 0o037;

/// The error of a private key file that other users can read or write.
#[derive(Debug, thiserror::Error)]
#[error("{} is open to other users (mode {mode:04o})\nClose it: \
         `{}`.", path.display(), self.advice())]
pub struct Exposed {
    path: PathBuf,
    /// The permission bits of the file.
    mode: u32,
    owner: u32,
    user: u32,
}

impl Exposed {
    fn advice(&self) -> String {
        let path = self.path.display();
        match self.owner {
            owner if owner == self.user => format!("chmod 600 {path}"),
            ROOT => format!("chmod 640 {path}"),
            // Closed in its present ownership, this user could not read it either.
            _ => format!("chown {} {path} && chmod 600 {path}", self.user),
        }
    }
}

/// The reason why a private key's file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others can read or write it.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The operating system does not report its permissions.
    #[error(transparent)]
    Unknown(#[from] io::Error),
}

/// Refuses a private key's file that others than its owner can read or write.
///
/// It checks the open file, which is the one that is read, whatever its path leads to by now.
///
/// # Errors
///
/// [`Exposed`], which names the command that fixes it.
pub fn refuse_exposed(path: &Path, file: &File) -> Result<(), Error> {
    let metadata = file.metadata()?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let user = rustix::process::geteuid().as_raw();
    if is_exposed(mode, owner, user) {
        let path = path.to_owned();
        return Err(Exposed {
            path,
            mode,
            owner,
            user,
        }
        .into());
    }
    Ok(())
}

fn is_exposed(mode: u32, owner: u32, user: u32) -> bool {
    let refused = if owner == ROOT && user != ROOT {
        BEYOND_READING_BY_GROUP
    } else {
        GROUP_AND_OTHERS
    };
    mode & refused != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn own_key_files_are_private_and_roots_may_be_group_readable() {
        let (me, other) = (1000, 1001);
        for mode in [0o600, 0o400, 0o700] {
            for owner in [me, ROOT, other] {
                assert!(!is_exposed(mode, owner, me), "{mode:o} of {owner}");
            }
        }
        for mode in [0o640, 0o440] {
            assert!(!is_exposed(mode, ROOT, me));
            assert!(is_exposed(mode, me, me) && is_exposed(mode, other, me));
            // A server that runs as root needs no group.
            assert!(is_exposed(mode, ROOT, ROOT));
        }
        for mode in [0o644, 0o604, 0o660, 0o620, 0o610, 0o601, 0o602, 0o777] {
            for (owner, user) in [(me, me), (ROOT, me), (other, me), (ROOT, ROOT)] {
                assert!(
                    is_exposed(mode, owner, user),
                    "{mode:o} of {owner} for {user}"
                );
            }
        }
    }

    #[test]
    fn the_error_names_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.key");
        std::fs::write(&path, "secret").unwrap();
        let file = File::open(&path).unwrap();
        let set =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o644);
        let text = refuse_exposed(&path, &file).unwrap_err().to_string();
        let name = path.display();
        assert_eq!(
            text,
            format!("{name} is open to other users (mode 0644)\nClose it: `chmod 600 {name}`.")
        );
        set(0o600);
        refuse_exposed(&path, &file).unwrap();
        let advice = |owner, user| {
            let path = PathBuf::from("k");
            Exposed {
                path,
                mode: 0o644,
                owner,
                user,
            }
            .advice()
        };
        assert_eq!(advice(ROOT, 1000), "chmod 640 k");
        assert_eq!(advice(1001, 1000), "chown 1000 k && chmod 600 k");
    }
}
