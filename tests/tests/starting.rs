//! Failures to start: the server's error reports the cause and the fix.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, Database, RawClient, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

async fn expect_refusal(options: Options, texts: &[&str]) {
    Server::refused(options).await.expect_error(texts);
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

/// The help and the version are data: if they cannot be written, that is an error.
#[test]
fn help_that_cannot_be_printed_is_an_error() {
    let program = ciphermq_tests::binaries::binary("ciphermq-server");
    for option in ["--help", "--version"] {
        for (to, code) in [
            (">&-", 1),
            (">/dev/full", 1),
            (">/dev/null", 0),
            ("| true", 0),
        ] {
            let script = format!("\"$0\" {option} {to}; exit ${{PIPESTATUS[0]}}");
            let ran = Command::new("bash")
                .args(["-c", &script])
                .arg(&program)
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(code), "{option} {to}: {error}");
            assert_eq!(error.is_empty(), code == 0, "{option} {to}: {error}");
        }
    }
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

/// Escape sequences that clear the screen and set the title, a mark that changes the text's
/// direction, and a forged line.
const ESCAPES: &str = "\x1b[2J\x1b]0;title\x07\u{9b}31m\u{202e}\u{2028}x";

#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    let is_unsafe = |c| c != '\n' && ciphermq_client::text::is_unsafe(c);
    assert!(!text.contains(is_unsafe), "{what}: {text:?}");
    assert!(text.contains("u{202e}"), "{what}: {text}");
}

/// A database server that refuses every connection with this message.
async fn hostile_database(message: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8];
            let read = stream.read_exact(&mut request).await;
            // The request for TLS (protocol 1234.5679), and then the start-up message.
            if read.is_ok() && request[4..] == [4, 0xd2, 0x16, 0x2f] {
                let _ = stream.write_all(b"N").await;
            }
            let _ = stream.read(&mut [0; 4096]).await;
            let fields = format!(
                "SFATAL\0VFATAL\0C28000\0M{message}\nerror: forged\0D{message}\0H{message}\0\0"
            );
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            let response = [b"E", &length[..], fields.as_bytes()].concat();
            let _ = stream.write_all(&response).await;
        }
    });
    port
}

/// Neither the configuration, nor the command line, nor a database server that anybody may have
/// started controls the terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_cannot_control_the_terminal() {
    for (section, field) in [
        ("server", "address"),
        ("tls", "cert_path"),
        ("logging", "level"),
        ("encryption", "aes_key_file"),
        ("database", "url"),
    ] {
        let value = match field {
            "url" => format!("sqlite:///dev/null/{ESCAPES}"),
            _ => ESCAPES.to_owned(),
        };
        let refused = Server::refused(Options::sqlite().set(section, field, value)).await;
        assert_harmless(field, &refused.stderr);
    }
    let port = hostile_database(ESCAPES.to_owned()).await;
    let url = format!("postgres://u:hidden@127.0.0.1:{port}/d");
    let refused = Server::refused(Options::postgres(url)).await.stderr;
    assert_harmless("database", &refused);
    assert!(!refused.contains("\nerror: forged"), "{refused}");
    assert!(!refused.contains("hidden"), "{refused}");

    let server = || Cli::program(ciphermq_tests::binaries::binary("ciphermq-server"));
    for (arguments, code) in [(["--config", ESCAPES], 1), ([ESCAPES, "x"], 2)] {
        let outcome = server().args(arguments).run().await.code(code);
        assert_harmless("command line", &outcome.stderr);
    }
}

/// A key in place of its path is not shown, by any of the programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_place_of_paths_are_not_shown() {
    let base64 = "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=";
    let pem = "-----BEGIN PRIVATE KEY-----\n4IZCJdI0yQ8u\n-----END PRIVATE KEY-----\n";
    let program = |name| Cli::program(ciphermq_tests::binaries::binary(name));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "").unwrap();
    for key in [base64, pem] {
        let server = || program("ciphermq-server").arg("--config");
        let variable = |name| server().arg(&config).env(name, key);
        for outcome in [
            variable("CIPHERMQ_TLS_KEY_PATH").run().await.code(1),
            variable("CIPHERMQ_ENCRYPTION_AES_KEY_FILE")
                .run()
                .await
                .code(1),
            variable("CIPHERMQ_ENCRYPTION_ALGORITHM")
                .run()
                .await
                .code(1),
            program("ciphermq-server")
                .arg(format!("--config={key}"))
                .run()
                .await
                .code(1),
            server().arg(&config).arg(key).run().await.code(2),
            Cli::keygen().arg(key).run().await.code(2),
            Cli::keygen().args(["--out", key]).run().await.code(2),
            Cli::new("status")
                .env("CIPHERMQ_CERT", key)
                .run()
                .await
                .code(2),
            Cli::new("status")
                .env("CIPHERMQ_KEY", key)
                .run()
                .await
                .code(2),
            Cli::new("register-key")
                .args(["--private-key", key])
                .run()
                .await
                .code(2),
            Cli::new("register-key").arg(key).run().await.code(2),
        ] {
            let text = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!text.contains("4IZCJ"), "{text}");
            assert!(text.contains("key"), "{text}");
        }
    }
    let spawn = ["--spawn", "mysql://u:hidden@h/d"];
    let refused = Cli::new("bench").args(spawn).run().await.code(2).stderr;
    assert!(!refused.contains("hidden"), "{refused}");
}

/// A key in any spelling, in place of an address, a name or a number, is not shown, and makes no
/// file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_any_spelling_are_refused_and_not_shown() {
    const KEY: &str = "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g";
    const HEX: &str = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
    let pairs = |separator: &str| {
        let pairs: Vec<&str> = (0..32).map(|at| &HEX[2 * at..2 * at + 2]).collect();
        pairs.join(separator)
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "").unwrap();
    let keys = [
        KEY.to_owned(),
        format!("{KEY}="),
        format!("{KEY}:6801"),
        format!("key={KEY}="),
        format!("KEY={HEX}"),
        format!("0x{HEX}"),
        pairs(":"),
        pairs(" "),
        format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n"),
    ];
    let program = |name| Cli::program(ciphermq_tests::binaries::binary(name));
    let send = ["--to", "r", "--file", "in"];
    let lines: &[(&str, &[&str])] = &[
        ("status", &["--server"]),
        ("status", &["--server-name"]),
        ("status", &["--retries"]),
        ("status", &["--connect-timeout"]),
        ("status", &["--key"]),
        ("status", &["--cert"]),
        ("status", &["--ca"]),
        ("status", &["--pins"]),
        ("status", &["--config"]),
        ("send", &["--to"]),
        ("send", &["--to", "r", "--message", "m", "--exchange"]),
        ("send", &["--to", "r", "--message", "m", "--routing-key"]),
        ("send", &["--to", "r", "--message", "m", "--suite"]),
        ("send", &["--to", "r", "--file"]),
        (
            "send",
            &[send[0], send[1], send[2], send[3], "--checkpoint"],
        ),
        ("receive", &["--queue"]),
        ("receive", &["--output"]),
        ("receive", &["--checkpoint"]),
        ("receive", &["--quarantine"]),
        ("receive", &["--private-key"]),
        ("fetch", &["--queue"]),
        ("ack", &[]),
        ("resend", &[]),
        ("get-key", &[]),
        ("verify-key", &[]),
        ("rejected", &[]),
        ("completions", &[]),
        ("bench", &["--mode"]),
        ("bench", &["--spawn"]),
        ("demo", &["--file"]),
        ("demo", &["--out"]),
        ("keygen", &["--out"]),
        ("certs", &["--out"]),
        ("certs", &["--client"]),
        ("certs", &["--server-name"]),
        ("certs", &["--days"]),
    ];
    let is_hidden = |outcome: &ciphermq_tests::cli::Outcome, what: &str| {
        let text = format!("{}{}", outcome.stdout, outcome.stderr);
        for part in [
            &KEY[..12],
            &HEX[..12],
            "66:68:7a",
            "66 68 7a",
            "8e:20:08",
            "8e 20 08",
        ] {
            assert!(!text.contains(part), "{what}: {text}");
        }
    };
    for key in &keys {
        let mut commands: Vec<(String, Cli, i32)> = Vec::new();
        for (command, options) in lines {
            let cli = Cli::new(command).args(*options).arg(key);
            commands.push((format!("{command} {options:?}"), cli, 2));
        }
        for options in [
            &["--out"][..],
            &["certs", "--out"],
            &["certs", "--client"],
            &["certs", "--days"],
        ] {
            let keygen = Cli::keygen().args(options).arg(key);
            commands.push((format!("keygen {options:?}"), keygen, 2));
        }
        for name in [
            "SERVER",
            "CA",
            "CERT",
            "KEY",
            "CONFIG",
            "RETRIES",
            "RETRY_TIMEOUT",
        ] {
            let cli = Cli::new("status").env(&format!("CIPHERMQ_{name}"), key);
            commands.push((name.to_owned(), cli, 2));
        }
        for name in [
            "SERVER_ADDRESS",
            "TLS_KEY_PATH",
            "LOGGING_LEVEL",
            "DATABASE_SQLITE_PATH",
        ] {
            let server = program("ciphermq-server").arg("--config").arg(&config);
            let server = server.env(&format!("CIPHERMQ_{name}"), key);
            commands.push((name.to_owned(), server, 1));
        }
        for (what, command, code) in commands {
            let outcome = command.current_dir(folder.path()).run().await;
            is_hidden(&outcome, &what);
            assert_eq!(outcome.code, Some(code), "{what} {key}: {}", outcome.stderr);
        }
    }
    let files = std::fs::read_dir(folder.path()).unwrap();
    assert_eq!(files.count(), 1, "no file got a key's name");
    // A client may be named after a fingerprint.
    let certs = Cli::keygen().args(["certs", "--client", HEX]);
    certs.current_dir(folder.path()).run().await.success();
}
