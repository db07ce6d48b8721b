//! Files that are named after clients.

use std::path::{Path, PathBuf};

use ciphermq_crypto::identity::fingerprint;
use ciphermq_files::{encode_name, fit_name};
use ciphermq_protocol::ClientId;

/// The longest name that versions before [`ciphermq_files::fit_name`] wrote in full; they replaced
/// longer ones by a hash alone.
const MAX_HASHLESS_BYTES: usize = 200;

/// Returns the path of a client's file in a folder: `<client><end>`.
///
/// Every client has a file of its own. Characters that cannot be part of a file name are written as
/// `%` and two hexadecimal digits; a name that is too long for the file system is truncated and
/// followed by `~` and its hash. `~` is in no name that was not truncated.
pub(super) fn client_file(folder: &Path, client: &ClientId, end: &str) -> PathBuf {
    folder.join(fit_name(folder, encode_name(client.as_str()), end))
}

/// Returns the path where earlier versions kept the file of a client with a long name. A client
/// whose name is that hash has its own file there, so the path may be read, but never written.
pub(super) fn legacy_client_file(folder: &Path, client: &ClientId, end: &str) -> Option<PathBuf> {
    (encode_name(client.as_str()).len() > MAX_HASHLESS_BYTES).then(|| {
        let hash = fingerprint(client.as_str().as_bytes());
        folder.join(format!("{hash}{end}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    #[test]
    fn every_client_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (long, longer) = ("x".repeat(254), "x".repeat(255));
        let cyrillic = "Ж".repeat(120);
        let mut names: Vec<String> = [
            "receiver",
            "receiver_1",
            "../x",
            "/etc/x",
            ".hidden",
            "a/b",
            "a%2fb",
            "a~b",
            "..",
            "Zürich",
        ]
        .map(str::to_owned)
        .into();
        // Clients whose names equal other clients' file names.
        for name in [&long, &longer, &cyrillic] {
            names.push(fingerprint(name.as_bytes()).to_string());
            let cut = client_file(folder, &client(name), "");
            names.push(cut.file_name().unwrap().to_str().unwrap().to_owned());
            names.push(name.clone());
        }
        let names: BTreeSet<String> = names.into_iter().collect();
        let mut paths = BTreeSet::new();
        for name in &names {
            let path = client_file(folder, &client(name), ".json");
            assert_eq!(path.parent(), Some(folder), "{name}");
            std::fs::write(&path, "").unwrap();
            paths.insert(path);
        }
        assert_eq!(paths.len(), names.len());
        assert!(paths.contains(&folder.join("receiver_1.json")));
        assert!(paths.contains(&folder.join("a%2fb.json")));
        assert!(paths.contains(&folder.join("a%7eb.json")));
    }

    #[test]
    fn long_names_have_a_legacy_path() {
        let folder = Path::new("certs");
        let name = "x".repeat(201);
        let hash = fingerprint(name.as_bytes());
        assert_eq!(
            legacy_client_file(folder, &client(&name), ".json"),
            Some(folder.join(format!("{hash}.json")))
        );
        assert_eq!(
            legacy_client_file(folder, &client(&name[1..]), ".json"),
            None
        );
    }
}
