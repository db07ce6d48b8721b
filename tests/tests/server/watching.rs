//! `[tls] watch`: files of certificates that change are read again by themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use ciphermq_tests::pki::Identity;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, Pki, RawClient, Server};

use crate::certificates::{connect, expect_ended, replace, shown_certificate};

/// Writes a certificate and its key as Kubernetes does: into a new folder, to which a link is then
/// set in one step.
fn publish(folder: &Path, generation: &str, identity: &Identity) {
    identity.write(&folder.join(generation), "server");
    symlink(generation, folder.join("..new")).unwrap();
    fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
}

async fn expect_in_force(server: &Server, mark: usize, what: &str) {
    let expected = format!("Files of certificates have changed, and are in force: {what}");
    let found = |line: &str| line.contains(&expected).then_some(());
    let found = server
        .console()
        .find(mark, ciphermq_tests::PATIENCE, found)
        .await;
    assert_eq!(found, Some(()), "{expected}");
}

#[tokio::test]
async fn renewed_certificates_and_swapped_links_are_noticed() {
    let pki = Arc::new(Pki::new());
    let secret = tempfile::tempdir().unwrap();
    let issue = || pki.authority().server(&["localhost", "127.0.0.1"]);
    let first = issue();
    publish(secret.path(), "..1", &first);
    let mut options = Options::sqlite().set("tls", "watch", true);
    for (field, name) in [("cert_path", "server.crt"), ("key_path", "server.key")] {
        symlink(Path::new("..data").join(name), secret.path().join(name)).unwrap();
        let path = secret.path().join(name).display().to_string();
        options = options.set("tls", field, path);
    }
    let server = Server::start(options.pki(Arc::clone(&pki))).await;
    assert_eq!(
        shown_certificate(&server).await,
        first.certificate_der().to_vec()
    );
    let mut open = RawClient::connect(&server, "open").await;

    let mark = server.console().mark();
    let second = issue();
    publish(secret.path(), "..2", &second);
    expect_in_force(&server, mark, "certificate").await;
    assert_eq!(
        shown_certificate(&server).await,
        second.certificate_der().to_vec()
    );

    // A certificate whose key is not there yet is not used, and it is said once.
    let mark = server.console().mark();
    let third = issue();
    let file = |name: &str| secret.path().join("..2").join(name);
    replace(&file("server.crt"), &third.certificate_pem());
    let failed = |line: &str| {
        let failed = "Certificates that have changed cannot be read, and everything stays as it is";
        line.contains(failed).then(|| line.to_owned())
    };
    let console = server.console();
    let line = console.find(mark, ciphermq_tests::PATIENCE, failed).await;
    assert!(line.unwrap().contains("do not belong together"));
    assert_eq!(
        shown_certificate(&server).await,
        second.certificate_der().to_vec()
    );
    let mark_of_key = server.console().mark();
    replace(&file("server.key"), &third.key_pem());
    expect_in_force(&server, mark_of_key, "certificate").await;
    assert_eq!(
        shown_certificate(&server).await,
        third.certificate_der().to_vec()
    );
    let text = server.console().text();
    assert_eq!(text.matches("cannot be read, and everything").count(), 1);

    // Authorities count as well.
    let next = Authority::new("the next authority");
    let client = next.client("new").write(secret.path(), "new");
    let mark = server.console().mark();
    let both = [pki.authority(), &next].map(Authority::certificate_pem);
    let old = fs::read_to_string(pki.ca()).unwrap();
    replace(&pki.ca(), &both.concat());
    expect_in_force(&server, mark, "authorities").await;
    open.ask("ping", "PONG").await;
    let trusted = Pki::new();
    replace(&trusted.ca(), &old);
    let tls = ciphermq_tests::raw::Tls::trusting(&trusted.ca()).identity(client);
    let mut new = RawClient::handshake(server.address(), &tls).await.unwrap();
    new.ask("ping", "PONG").await;
    let mark = server.console().mark();
    replace(&pki.ca(), &old);
    expect_in_force(&server, mark, "authorities").await;
    expect_ended(new, "was not issued by an authority that is trusted here").await;
    connect(&server, &pki.client("open")).await;
}
