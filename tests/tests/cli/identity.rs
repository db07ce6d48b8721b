//! Unusable certificates and keys: each is reported with advice before anything is sent or
//! received.

use std::os::unix::fs::PermissionsExt as _;

use ciphermq_tests::pki::Request;
use ciphermq_tests::{Authority, Fixture, ports};
use rcgen::ExtendedKeyUsagePurpose;

use ciphermq_tests::workspace::{Workspace, failed};

/// Runs a sender and a receiver with the same flags, and returns the error and advice of each.
async fn both_fail(workspace: &Workspace, flags: &[&str]) -> [(String, String); 2] {
    let send = workspace.send().args(["--message", "x"]).args(flags).run();
    let receive = workspace.cli("receive").args(flags).run();
    let (sent, received) = tokio::join!(send, receive);
    [failed(sent), failed(received)]
}

pub(crate) async fn a_server_of_another_authority(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.write("other.crt", Authority::new("Another CA").certificate_pem());
    for (what, advice) in both_fail(&workspace, &["--ca", "other.crt"]).await {
        assert!(what.contains("certificate"), "{what}");
        assert!(
            advice.contains("other.crt") || advice.contains("CA") || advice.contains("authority"),
            "{advice}"
        );
    }
}

pub(crate) async fn a_client_of_another_authority(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let identity = Authority::new("Another CA").client(&workspace.sender);
    let folder = workspace.path("other");
    identity.write(&folder, "client");
    for (what, _) in both_fail(&workspace, &["--cert", "other/client.crt"]).await {
        assert!(what.contains("certificate"), "{what}");
    }
}

pub(crate) async fn a_certificate_and_a_key_that_do_not_match(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let flags = [
        "--cert",
        "certs/sender_1/client.crt",
        "--key",
        "certs/receiver_1/client.key",
    ];
    for (what, advice) in both_fail(&workspace, &flags).await {
        assert!(
            what.contains("client.crt") && what.contains("client.key"),
            "{what}"
        );
        assert!(!advice.is_empty());
    }
}

pub(crate) async fn an_expired_certificate(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let request = Request::named(&workspace.sender)
        .usage(ExtendedKeyUsagePurpose::ClientAuth)
        .expired();
    let identity = fixture.server.pki().authority().issue(request);
    identity.write(&workspace.path("expired"), "client");
    for (what, advice) in both_fail(&workspace, &["--cert", "expired/client.crt"]).await {
        assert!(what.contains("expired"), "{what}");
        assert!(advice.contains("Issue a new one"), "{advice}");
    }
}

pub(crate) async fn missing_files(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    for flag in ["--ca", "--cert", "--key"] {
        for (what, advice) in both_fail(&workspace, &[flag, "nowhere.pem"]).await {
            assert!(what.contains("nowhere"), "{flag}: {what}");
            assert!(!advice.is_empty());
        }
    }
    let receive = workspace
        .cli("receive")
        .args(["--private-key", "nowhere.key"]);
    let (what, advice) = failed(receive.run().await);
    assert!(what.contains("nowhere.key"), "{what}");
    assert!(advice.contains("keygen"), "{advice}");
}

pub(crate) async fn invalid_private_keys(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.write_private("short.key", "c2hvcnQ=\n");
    workspace.write_private("long.key", format!("{}=\n", "A".repeat(47)));
    workspace.write_private("text.key", "not base64 at all!\n");
    workspace.write_private("empty.key", "");
    for name in ["short.key", "long.key", "text.key", "empty.key"] {
        for command in ["receive", "register-key", "fetch"] {
            let (what, advice) = failed(
                workspace
                    .cli(command)
                    .args(["--private-key", name])
                    .run()
                    .await,
            );
            assert!(what.contains(name), "{what}");
            assert!(!advice.is_empty());
        }
    }
    // A key is accepted with or without a newline, but refused if other users can read it.
    let key = std::fs::read_to_string(workspace.path("certs/receiver_private.key")).unwrap();
    workspace.write_private("bare.key", key.trim());
    workspace
        .cli("register-key")
        .args(["--private-key", "bare.key"])
        .run()
        .await
        .success();
    let public = workspace.write("public.key", &key);
    std::fs::set_permissions(public, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (what, advice) = failed(
        workspace
            .cli("receive")
            .args(["--private-key", "public.key"])
            .run()
            .await,
    );
    assert!(what.contains("public.key"), "{what}");
    assert!(advice.contains("chmod 600"), "{advice}");
}

pub(crate) async fn a_server_that_is_not_running(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let address = format!("localhost:{}", ports::free());
    for (what, advice) in both_fail(&workspace, &["--server", &address]).await {
        assert!(what.contains(&address), "{what}");
        assert!(advice.contains("server"), "{advice}");
    }
    let (what, _) = failed(
        workspace
            .cli("status")
            .args(["--server", &address])
            .run()
            .await,
    );
    assert!(what.contains(&address), "{what}");
}

pub(crate) async fn pins_in_another_folder(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    // Characters that are not allowed in file names are percent-encoded.
    let pin = format!("{}_public.pin.json", workspace.receiver.replace(':', "%3a"));
    let send = || workspace.send().args(["--message", "pinned"]);
    // Not even root can write to the first folder, and the second one cannot be created.
    for (folder, because) in [
        ("/proc", "cannot be"),
        ("certs/ca.crt/pins", "cannot be created"),
    ] {
        let (what, advice) = failed(send().args(["--pins", folder]).run().await);
        assert!(what.contains(folder) || what.contains(because), "{what}");
        assert!(advice.contains("--pins"), "{advice}");
    }
    workspace.expect_empty_queue(&fixture.server).await;

    send().args(["--pins", "state/pins"]).run().await.success();
    assert!(workspace.path("state/pins").join(&pin).is_file());
    assert!(!workspace.path("certs").join(&pin).exists());
    workspace.write("client.toml", "pins = \"of-the-file\"\n");
    send()
        .args(["--config", "client.toml"])
        .run()
        .await
        .success();
    assert!(workspace.path("of-the-file").join(&pin).is_file());
    // A pin in that folder is respected: here, that of a newer key than the server's.
    std::fs::create_dir(workspace.path("newer")).unwrap();
    let known = std::fs::read_to_string(workspace.path("state/pins").join(&pin)).unwrap();
    let mut known: serde_json::Value = serde_json::from_str(&known).unwrap();
    known["epoch"] = (known["epoch"].as_u64().unwrap() + 1).into();
    workspace.write(&format!("newer/{pin}"), known.to_string());
    let (what, _) = failed(send().env("CIPHERMQ_PINS", "newer").run().await);
    assert!(what.contains("older"), "{what}");
}

pub(crate) async fn a_second_client_has_its_own_private_key(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let second = fixture.id("second");
    let identity = fixture.server.pki().authority().client(&second);
    identity.write(&workspace.path("certs/receiver_2"), "client");
    let cert = ["--cert", "certs/receiver_2/client.crt"];
    for command in ["receive", "register-key", "fetch", "keys"] {
        let by_flag = workspace.cli(command).args(cert);
        let by_variable = workspace.cli(command).env("CIPHERMQ_CERT", cert[1]);
        for command in [by_flag, by_variable] {
            let (what, advice) = failed(command.run().await);
            assert!(
                what.contains("certs/receiver_2/receiver_private.key does not exist"),
                "{what}"
            );
            assert!(advice.contains("keygen --out certs/receiver_2"), "{advice}");
        }
    }
    // With its own key it needs no flag, and a key that is named explicitly is used.
    workspace
        .cli("keygen")
        .args(["--out", "certs/receiver_2"])
        .run()
        .await
        .success();
    workspace
        .cli("register-key")
        .args(cert)
        .run()
        .await
        .success();
    let key_of = async |client: &str| {
        workspace
            .cli("get-key")
            .arg(client)
            .run()
            .await
            .success()
            .stdout
    };
    let own =
        std::fs::read_to_string(workspace.path("certs/receiver_2/receiver_public.key")).unwrap();
    assert_eq!(key_of(&second).await.trim(), own.trim());
    let shared = ["--private-key", "certs/receiver_private.key"];
    workspace
        .cli("register-key")
        .args(cert)
        .args(shared)
        .run()
        .await
        .success();

    // The first client may use another certificate with its key.
    let renewed = fixture.server.pki().authority().client(&workspace.receiver);
    renewed.write(&workspace.path("certs/renewed"), "client");
    let cert = ["--cert", "certs/renewed/client.crt"];
    workspace
        .cli("register-key")
        .args(cert)
        .run()
        .await
        .success();
    let first = std::fs::read_to_string(workspace.path("certs/receiver_public.key")).unwrap();
    assert_eq!(key_of(&workspace.receiver).await.trim(), first.trim());
}

/// A client's private key is not used for another client, in any layout of the files.
pub(crate) async fn a_private_key_that_another_client_has_announced_is_refused(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let second = fixture.id("second");
    let pki = fixture.server.pki();
    let identity = pki.authority().client(&second);
    let register = || workspace.cli("register-key");

    // The second client's certificate is next to the first one's private key, which was not
    // announced yet.
    identity.write(&workspace.path("certs"), "second");
    let beside = ["--cert", "certs/second.crt"];
    for command in ["register-key", "receive", "fetch", "keys"] {
        let (what, advice) = failed(workspace.cli(command).args(beside).run().await);
        assert!(
            what.contains(&workspace.receiver) && what.contains(&second),
            "{what}"
        );
        assert!(
            advice.contains("keygen --out") && advice.contains("--private-key"),
            "{advice}"
        );
    }
    // An explicitly named key is used, with a warning.
    let named = register()
        .args(beside)
        .args(["--private-key", "certs/receiver_private.key"]);
    let outcome = named.run().await.success();
    assert!(
        outcome.stderr.contains("warning: The private key"),
        "{outcome:?}"
    );

    // All files are in one folder, and neither client has the default name.
    let third = fixture.id("third");
    for client in [&third, &second] {
        pki.authority()
            .client(client)
            .write(&workspace.path("flat"), client);
    }
    workspace
        .cli("keygen")
        .args(["--out", "flat"])
        .run()
        .await
        .success();
    let flat = |client: &str| register().args(["--cert", &format!("flat/{client}.crt")]);
    flat(&third).run().await.success();
    let (what, _) = failed(flat(&second).run().await);
    assert!(what.contains(&third) && what.contains(&second), "{what}");
    flat(&third).run().await.success();

    // A damaged record still shows by its name that the key has an owner.
    let record = std::fs::read_dir(workspace.path("flat"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("_announced.json"))
        .unwrap();
    std::fs::write(&record, "").unwrap();
    let (what, advice) = failed(flat(&second).run().await);
    assert!(
        what.contains("may be another client's") && what.contains("_announced.json"),
        "{what}"
    );
    assert!(advice.contains("--private-key"), "{advice}");
    flat(&third).run().await.success();

    // The second client's certificate replaces the first one's.
    let workspace = Workspace::of(&fixture);
    workspace.cli("register-key").run().await.success();
    std::fs::remove_dir_all(workspace.path("certs/receiver_1")).unwrap();
    identity.write(&workspace.path("certs/receiver_1"), "client");
    let (what, _) = failed(workspace.cli("register-key").run().await);
    assert!(
        what.contains(&workspace.receiver) && what.contains(&second),
        "{what}"
    );

    // Sharing it on purpose once leaves a record of the second client beside the key. The first
    // one's still counts: there is a warning each time, for both.
    let register = || workspace.cli("register-key");
    let warning = format!("is also that of the client {}", workspace.receiver);
    let shared = register().args(["--private-key", "certs/receiver_private.key"]);
    let outcome = shared.run().await.success();
    assert!(outcome.stderr.contains(&warning), "{}", outcome.stderr);
    let receive = workspace.cli("receive").args(["--idle-exit", "0.05"]);
    for command in [receive, register(), workspace.cli("keys")] {
        let outcome = command.run().await.success();
        assert!(outcome.stderr.contains(&warning), "{}", outcome.stderr);
    }
    let first = pki.authority().client(&workspace.receiver);
    std::fs::remove_dir_all(workspace.path("certs/receiver_1")).unwrap();
    first.write(&workspace.path("certs/receiver_1"), "client");
    let outcome = register().run().await.success();
    let warning = format!("is also that of the client {second}");
    assert!(outcome.stderr.contains(&warning), "{}", outcome.stderr);
    // An older key is named, so there is a warning.
    let keygen = workspace.cli("keygen").args(["--out", "own"]);
    keygen.run().await.success();
    let mut both = register().args(["--private-key", "own/receiver_private.key"]);
    both = both.args(["--private-key", "certs/receiver_private.key"]);
    let outcome = both.run().await.success();
    assert!(outcome.stderr.contains(&warning), "{}", outcome.stderr);
}
