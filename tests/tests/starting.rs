//! Failures to start: the server's error reports the cause and the fix.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ciphermq_tests::server::Options;
use ciphermq_tests::{Database, RawClient, Server};

async fn expect_refusal(options: Options, texts: &[&str]) {
    let refusal = Server::refused(options).await;
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.stderr);
    for text in texts {
        assert!(
            refusal.stderr.contains(text),
            "{text:?} is not in:\n{}",
            refusal.stderr
        );
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The server refuses an exposed TLS key and an exposed at-rest key.
#[tokio::test]
async fn exposed_private_keys_are_refused() {
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
            let fix = format!("`chmod 600 {}`", path.display());
            expect_refusal(options(), &[setting, &format!("(mode {mode:04o})"), &fix]).await;
        }
        chmod(path, 0o400);
    }
    Server::start(options()).await.terminate().await;
}

/// A file system of two megabytes, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Result<Self, String> {
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "none"])
            .arg(&path)
            .output()
            .map_err(|error| format!("cannot run mount: {error}"))?;
        match output.status.success() {
            true => Ok(Self(path)),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Fills the file system, except for `free` bytes.
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
        // Lazily: the server is dropped later, and may still have files open in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// If there is no space for a new database, or for an existing one's log, the error states how much
/// is free and how much is needed. With enough space the server starts, with its data intact.
#[tokio::test]
async fn mounted_a_start_on_a_full_disk_reports_the_space_needed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path().join("disk"))
        .unwrap_or_else(|reason| panic!("this test needs the permission to mount: {reason}"));
    let url = format!("sqlite://{}", disk.0.join("mq.db").display());
    let options = || {
        Options::sqlite()
            .set("database", "url", url.as_str())
            .set("limits", "disk_reserve", "0")
    };
    for free in [0, 40_000, 100_000] {
        disk.fill(free);
        let texts = [
            "is full: ",
            "bytes are free",
            "Free space there",
            "1048576 bytes",
            "disk_reserve",
        ];
        expect_refusal(options(), &texts).await;
        disk.free();
    }
    let mut server = Server::start(options()).await;
    let mut client = RawClient::connect(&server, "client").await;
    client.ask("declare_queue q", "Queue declared").await;
    drop(client);
    server.terminate().await;
    disk.fill(0);
    expect_refusal(
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

    // There is no space for the at-rest key either.
    disk.fill(0);
    let nowhere = format!("sqlite://{}", disk.0.join("new/mq.db").display());
    let refusal = Server::refused(options().set("database", "url", nowhere.as_str())).await;
    assert!(refusal.stderr.contains("Free space"), "{}", refusal.stderr);
}
