//! The user that PostgreSQL runs as when the tests run as root.
//!
//! PostgreSQL refuses to run as root, and containers often run everything as root. Its programs
//! then run as the user `postgres` if it exists, else as `nobody`, in a folder that this user owns
//! and can access.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::files;

/// An unprivileged user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Id of the user's primary group.
    pub gid: u32,
}

impl User {
    /// The user to run as instead of root, or `None` if the tests do not run as root.
    ///
    /// # Panics
    ///
    /// If they do, and neither of the users `postgres` and `nobody` exists.
    pub fn unprivileged() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::parse(&users, name));
        Some(user.expect(
            "the tests run as root, which PostgreSQL refuses: add a user `postgres` or `nobody`",
        ))
    }

    fn parse(users: &str, name: &str) -> Option<Self> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (uid != 0).then(|| Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }

    /// Makes `command` run as this user, without root's supplementary groups.
    pub fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this user the owner of the file or folder.
    ///
    /// # Panics
    ///
    /// If the owner cannot be changed.
    pub fn make_owner_of(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap_or_else(|error| {
            panic!(
                "the owner of {} cannot be changed to {}: {error}",
                path.display(),
                self.name
            )
        });
    }
}

/// Creates a temporary folder for programs that run as `user`, or as the user of the tests if
/// `None`. It is removed when the value is dropped.
///
/// # Panics
///
/// If no folder can be created that this user can access.
pub fn folder(user: Option<&User>) -> TempDir {
    let Some(user) = user else {
        return files::folder("postgres");
    };
    // TMPDIR may be in a folder that only root can access, like the checkout.
    let places = [
        std::env::temp_dir(),
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
    ];
    let place = places
        .iter()
        .find(|place| is_accessible_to_all(place))
        .unwrap_or_else(|| {
            panic!(
                "user {} can access none of {places:?}: set TMPDIR to a folder that all users can \
                 access",
                user.name
            )
        });
    let folder = files::folder_in(place, "postgres");
    user.make_owner_of(folder.path());
    folder
}

/// Whether the folder and all of its ancestors grant search permission to all users.
fn is_accessible_to_all(folder: &Path) -> bool {
    folder.canonicalize().is_ok_and(|folder| {
        folder.ancestors().all(|folder| {
            folder
                .metadata()
                .is_ok_and(|metadata| metadata.mode() & 0o001 != 0)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn users_are_found_by_their_full_name_and_root_is_never_one() {
        let users = "root:x:0:0::/root:/bin/sh\npostgresx:x:7:8::/:\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\ntoor:x:0:0::/:\n";
        assert_eq!(
            User::parse(users, "postgres"),
            Some(User {
                name: "postgres".to_owned(),
                uid: 101,
                gid: 104
            })
        );
        assert_eq!(User::parse(users, "nobody"), None);
        assert_eq!(User::parse(users, "toor"), None);
    }

    #[test]
    fn a_folder_inside_a_private_one_is_inaccessible() {
        let closed = files::folder("closed");
        let open = closed.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_accessible_to_all(&open));
        assert!(is_accessible_to_all(Path::new("/")));
    }
}
