//! Notices that files have changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Tls;

/// The time between two looks. Files that are the same for as long are taken as complete.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What distinguishes a file from another one, or from an older state of it. Symbolic links are
/// followed: a link to another file is another file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for FileState {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Files as they were at one moment; `None` for one that is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot(Vec<(PathBuf, Option<FileState>)>);

impl Snapshot {
    /// Looks at the files of certificates, authorities and revocation lists.
    pub(super) fn take(tls: &Tls) -> Self {
        let paths = [&tls.cert_path, &tls.key_path, &tls.ca_cert_path];
        let paths = paths.into_iter().chain(&tls.crl_paths);
        let state = |path: &PathBuf| path.metadata().ok().map(FileState::from);
        Self(paths.map(|path| (path.clone(), state(path))).collect())
    }
}

/// What was seen of files, without I/O.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The last look.
    seen: Snapshot,
    /// The state that was read, or tried to.
    acted_on: Option<Snapshot>,
}

impl Watch {
    /// Takes what is there now. Returns whether it is to be read: once for each change, when the
    /// files no longer change.
    pub(super) fn look(&mut self, now: Snapshot) -> bool {
        let is_settled = self.seen == now;
        let is_new = self.acted_on.as_ref() != Some(&now);
        if is_settled && is_new {
            self.acted_on = Some(now);
            return true;
        }
        self.seen = now;
        false
    }

    /// Has the files read again at the next look at which they no longer change.
    pub(super) fn try_again(&mut self) {
        self.acted_on = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::CrlPolicy;
    use ciphermq_certificates::ClientIdFrom;

    #[test]
    fn a_change_is_acted_on_once_and_only_when_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for generation in ["1", "2"] {
            fs::create_dir(path(generation)).unwrap();
            fs::write(path(generation).join("server.crt"), "c").unwrap();
            fs::write(path(generation).join("server.key"), "k").unwrap();
        }
        fs::write(path("ca.crt"), "a").unwrap();
        // As Kubernetes has it: what is named is a link into a folder that is a link.
        symlink("1", path("..data")).unwrap();
        symlink("..data/server.crt", path("server.crt")).unwrap();
        symlink("..data/server.key", path("server.key")).unwrap();
        let tls = Tls {
            cert_path: path("server.crt"),
            key_path: path("server.key"),
            ca_cert_path: path("ca.crt"),
            crl_paths: vec![path("ca.crl")],
            crl_policy: CrlPolicy::IfPresent,
            client_id_from: ClientIdFrom::default(),
            watch: true,
        };
        let mut watch = Watch::default();
        let mut look = || watch.look(Snapshot::take(&tls));
        // What a start has read may have changed since.
        assert_eq!([look(), look(), look()], [false, true, false]);

        symlink("2", path("new")).unwrap();
        fs::rename(path("new"), path("..data")).unwrap();
        assert_eq!([look(), look(), look()], [false, true, false]);

        // A file that is being written, and one that comes later.
        fs::write(path("ca.crl"), "b").unwrap();
        assert!(!look());
        fs::write(path("ca.crl"), "be").unwrap();
        assert!(!look());
        fs::write(path("ca.crt"), "aa").unwrap();
        assert_eq!([look(), look(), look()], [false, true, false]);
        fs::remove_file(path("ca.crl")).unwrap();
        assert_eq!([look(), look(), look()], [false, true, false]);
    }
}
