//! What keeps the server from starting, and what it says then: what happened, and what to do.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ciphermq_tests::server::Options;
use ciphermq_tests::{Database, RawClient, Server};

async fn refused(options: Options, words: &[&str]) {
    let refusal = Server::refused(options).await;
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.stderr);
    for word in words {
        assert!(
            refusal.stderr.contains(word),
            "{word:?} is not in:\n{}",
            refusal.stderr
        );
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The TLS key, and the file of the key that the database's keys are sealed with.
#[tokio::test]
async fn private_keys_that_lie_open_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at_rest = folder.path().join("at-rest.key");
    std::fs::write(&at_rest, "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=\n").unwrap();
    chmod(&at_rest, 0o600);
    let tls = ciphermq_tests::pki::Authority::new("other")
        .server(&["localhost"])
        .write(folder.path(), "server");
    let text = |path: &Path| path.display().to_string();
    let options = || {
        Options::sqlite()
            .set("tls", "cert_path", text(&tls.certificate))
            .set("tls", "key_path", text(&tls.key))
            .set("encryption", "aes_key_file", text(&at_rest))
    };
    for (path, setting) in [(&tls.key, "[tls] key_path"), (&at_rest, "the key file")] {
        for mode in [0o640, 0o604, 0o620, 0o666] {
            chmod(path, mode);
            let mend = format!("`chmod 600 {}`", path.display());
            refused(options(), &[setting, &format!("(mode {mode:04o})"), &mend]).await;
        }
        chmod(path, 0o400);
    }
    Server::start(options()).await.terminate().await;
}

/// A file system of its own, of two megabytes; unmounted with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Result<Self, String> {
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "none"])
            .arg(&path)
            .output()
            .map_err(|error| format!("mount cannot be started: {error}"))?;
        match output.status.success() {
            true => Ok(Self(path)),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Takes all that is left but so many bytes.
    fn fill(&self, free: u64) {
        let mut filling = std::fs::File::create(self.0.join("filling")).unwrap();
        while std::io::Write::write_all(&mut filling, &[1; 4096]).is_ok() {}
        let length = filling.metadata().unwrap().len();
        filling.set_len(length.saturating_sub(free)).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filling")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server, dropped later, may have files open in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// With no room for a new database, or none for an old one's log, the error says how much is free
/// and how much is needed. With room the server starts, and has what it had.
#[tokio::test]
async fn mounted_a_start_on_a_full_disk_says_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path().join("disk")).unwrap_or_else(|reason| {
        panic!("nothing can be mounted here, so this test has shown nothing: {reason}")
    });
    let url = format!("sqlite://{}", disk.0.join("mq.db").display());
    let options = || {
        Options::sqlite()
            .set("database", "url", url.as_str())
            .set("limits", "disk_reserve", "0")
    };
    for free in [0, 40_000, 100_000] {
        disk.fill(free);
        let words = [
            "is full: ",
            "bytes are free",
            "Free space there",
            "1048576 bytes",
            "disk_reserve",
        ];
        refused(options(), &words).await;
        disk.free();
    }
    let mut server = Server::start(options()).await;
    let mut client = RawClient::connect(&server, "client").await;
    client.ask("declare_queue q", "Queue declared").await;
    drop(client);
    server.terminate().await;
    disk.fill(0);
    refused(
        options(),
        &["is full: 0 bytes are free", "Free space there"],
    )
    .await;
    disk.free();
    let mut server = Server::start(options()).await;
    let queues = Database::connect(&url)
        .await
        .number("SELECT count(*) FROM queues")
        .await;
    assert_eq!(queues, 1);
    server.terminate().await;

    // The at-rest key has no room either.
    disk.fill(0);
    let nowhere = format!("sqlite://{}", disk.0.join("new/mq.db").display());
    let refusal = Server::refused(options().set("database", "url", nowhere.as_str())).await;
    assert!(refusal.stderr.contains("Free space"), "{}", refusal.stderr);
}
