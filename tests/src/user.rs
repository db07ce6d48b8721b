//! Whom PostgreSQL runs as when the tests run as root.
//!
//! PostgreSQL refuses to run as root, and containers often run everything as root. Its programs
//! then run as the user `postgres` if there is one, else as `nobody`, in a folder that this user
//! owns and can get to.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::files;

/// An unprivileged user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
}

impl User {
    /// The user to run as instead of root; nothing if the tests don't run as root.
    ///
    /// # Panics
    ///
    /// If they do, and there is neither a user `postgres` nor `nobody`.
    pub fn unprivileged() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::parse(&users, name));
        Some(user.expect(
            "the tests run as root, and PostgreSQL refuses to: add a user `postgres` or `nobody`",
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

    /// Lets `command` run as this user, without root's supplementary groups.
    pub fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives the file or folder to this user.
    ///
    /// # Panics
    ///
    /// If it cannot be given.
    pub fn own(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap_or_else(|error| {
            panic!(
                "{} cannot be given to {}: {error}",
                path.display(),
                self.name
            )
        });
    }
}

/// A new folder, removed with the value, for programs that run as `user`, or as the tests do.
///
/// # Panics
///
/// If no temporary folder can be made that this user can get to.
pub fn folder(user: Option<&User>) -> TempDir {
    let Some(user) = user else {
        return files::folder("postgres");
    };
    // TMPDIR may lie where only root gets to, as the checkout may.
    let places = [
        std::env::temp_dir(),
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
    ];
    let place = places
        .iter()
        .find(|place| anybody_enters(place))
        .unwrap_or_else(|| {
            panic!(
                "user {} can enter none of {places:?}: set TMPDIR to a folder that everybody can \
                 enter",
                user.name
            )
        });
    let folder = files::folder_in(place, "postgres");
    user.own(folder.path());
    folder
}

/// Whether everybody may pass through the folder and all above it.
fn anybody_enters(folder: &Path) -> bool {
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
    fn users_are_read_by_their_whole_name_and_never_root() {
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
    fn a_folder_below_a_closed_one_is_entered_by_its_owner_only() {
        let closed = files::folder("closed");
        let open = closed.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!anybody_enters(&open));
        assert!(anybody_enters(Path::new("/")));
    }
}
