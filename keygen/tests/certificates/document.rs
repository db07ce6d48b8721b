//! The commands in docs/certificates.md, played as they are.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::folder::Folder;

const DOCUMENT: &str = include_str!("../../../docs/certificates.md");

/// Returns the blocks of commands, in order.
fn blocks() -> impl Iterator<Item = &'static str> {
    let blocks = DOCUMENT.split("\n```sh\n").skip(1);
    blocks.map(|rest| rest.split_once("\n```\n").unwrap().0)
}

/// Plays the blocks in a folder. Every command must succeed; one after `! ` must fail, and say why.
fn play(folder: &Folder) {
    let programs = folder.path("programs");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keygen"), programs.join("keygen")).unwrap();
    // bash does not end after a command with `!`, whatever it returns.
    let mut script =
        "set -eu\nfails() { if \"$@\"; then echo \"it succeeds: $*\"; exit 9; fi; }\n".to_owned();
    for (index, block) in blocks().enumerate() {
        let block = block.replace("\n! ", "\nfails ");
        let block = block
            .strip_prefix("! ")
            .map_or(block.clone(), |rest| format!("fails {rest}"));
        write!(script, "echo '# block {index}'\n{block}\n").unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.root())
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // Each refusal is the expected one.
    for refusal in [
        "is for the client `sender_1`, not for `receiver_1`",
        "server/server.csr asks for a server's certificate",
        "certificate revoked",
    ] {
        assert!(stderr.contains(refusal), "{refusal}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn the_documents_commands_work_in_order() {
    assert!(blocks().count() >= 15, "the blocks are found");
    let folder = Folder::new();
    play(&folder);
    for (root, server, client, name) in [
        (
            "client/ca.crt",
            "server/server",
            "client/sender_1/client",
            "sender_1",
        ),
        (
            "openssl/ca.crt",
            "openssl/server",
            "openssl/client",
            "sender_1",
        ),
        (
            "openssl/ca.crt",
            "openssl/server",
            "client/receiver_1/client",
            "receiver_1",
        ),
    ] {
        for host in ["mq.example.org", "localhost", "127.0.0.1"] {
            let seen = folder.handshake_between(root, server, client, host);
            assert_eq!(seen.unwrap(), name, "{root} {server} {client} {host}");
        }
    }
    folder.copy("openssl/client-x509.crt", "openssl/client.crt");
    let seen = folder.handshake_between(
        "openssl/ca.crt",
        "openssl/server",
        "openssl/client",
        "localhost",
    );
    assert_eq!(seen.unwrap(), "sender_1");
    // Neither `.new` files nor requests of other names are left.
    let names = fs::read_dir(folder.path("client/sender_1")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["client.crt", "client.csr", "client.key"]);
}
