//! The commands that send the server a single request.

use ciphermq_tests::{Fixture, Received};

use ciphermq_tests::workspace::{Workspace, error_parts, failed};

/// Runs `fetch`, and returns the message that it prints.
async fn fetched(workspace: &Workspace, flags: &[&str]) -> Received {
    let fetched = workspace.cli("fetch").args(flags).run().await.success();
    assert_eq!(fetched.stdout.lines().count(), 1, "{}", fetched.stdout);
    Received::parse(fetched.stdout.trim_end())
}

pub(crate) async fn fetch_and_ack(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let empty = workspace.cli("fetch").run().await.code(4);
    assert_eq!(empty.stdout, "");
    workspace.send_messages(&["one", "{\"two\": 2.0}"]).await;

    let one = fetched(&workspace, &[]).await;
    assert_eq!(
        (one.text().as_str(), one.sender.as_deref()),
        ("one", Some(workspace.sender.as_str()))
    );
    assert_eq!(
        fetched(&workspace, &[]).await.message_id,
        one.message_id,
        "it stays in the queue"
    );
    assert_eq!(
        fetched(&workspace, &["--ack"]).await.message_id,
        one.message_id
    );
    let queue = format!("{}_queue", workspace.receiver);
    let two = fetched(&workspace, &["--queue", &queue]).await;
    assert_eq!(two.json(), Some("{\"two\": 2.0}"));

    let ids = [two.message_id.as_str(), one.message_id.as_str()];
    let wrong = workspace
        .cli("ack")
        .args(["never-seen", ids[0]])
        .run()
        .await
        .code(3);
    assert_eq!(
        wrong.stdout, "never-seen\n",
        "unacknowledged ids are listed"
    );
    assert!(
        error_parts(&wrong).0.contains("not_found"),
        "{}",
        wrong.stderr
    );
    let acked = workspace.cli("ack").args(ids).run().await.success();
    assert_eq!(acked.stdout, "", "repeating an ack succeeds silently");
    workspace.cli("fetch").run().await.code(4);
}

pub(crate) async fn resend(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["one"]).await;
    let id = fetched(&workspace, &[]).await.message_id;

    // Only its sender may have it resent, and only its receiver may ack it.
    let cert = ["--cert", "certs/receiver_1/client.crt"];
    let (what, advice) = failed(workspace.cli("resend").arg(&id).args(cert).run().await);
    assert!(
        what.contains(&id) && what.contains(&workspace.receiver),
        "{what}"
    );
    assert!(advice.contains("sender"), "{advice}");
    let cert = ["--cert", "certs/sender_1/client.crt"];
    let refused = workspace.cli("ack").arg(&id).args(cert).run().await.code(3);
    assert!(
        error_parts(&refused).0.contains("not_authorized"),
        "{}",
        refused.stderr
    );

    let resent = workspace.cli("resend").arg(&id).run().await.success();
    assert_eq!(resent.stdout, "");
    assert_eq!(fetched(&workspace, &["--ack"]).await.message_id, id);
    let (what, _) = failed(workspace.cli("resend").arg(&id).run().await);
    assert!(what.contains(&id), "{what}");
    failed(workspace.cli("resend").arg("never-seen").run().await);
}

pub(crate) async fn register_key_and_get_key(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let none = workspace
        .cli("get-key")
        .arg(&workspace.receiver)
        .run()
        .await
        .code(4);
    assert_eq!(none.stdout, "");
    let (what, advice) = error_parts(&none);
    assert!(what.contains(&workspace.receiver), "{what}");
    assert!(advice.contains("register-key"), "{advice}");

    let registered = workspace.cli("register-key").run().await.success();
    assert_eq!(registered.stdout, "");
    let ours = std::fs::read_to_string(workspace.path("certs/receiver_public.key")).unwrap();
    let got = workspace
        .cli("get-key")
        .args([workspace.receiver.as_str(), "--save"])
        .run()
        .await;
    assert_eq!(got.success().stdout.trim_end(), ours.trim_end());
    let saved = workspace
        .path("certs")
        .join(format!("{}_public.key", workspace.receiver));
    assert_eq!(
        std::fs::read_to_string(saved).unwrap().trim_end(),
        ours.trim_end()
    );

    // The newest key is returned.
    workspace.new_key_pair();
    workspace.cli("register-key").run().await.success();
    let got = workspace
        .cli("get-key")
        .arg(&workspace.receiver)
        .run()
        .await
        .success();
    assert_ne!(got.stdout.trim_end(), ours.trim_end());
}

pub(crate) async fn status(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let status = workspace.cli("status").run().await.success();
    let value = |name: &str| -> String {
        let line = status
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{}", status.stdout))
            .trim()
            .to_owned()
    };
    assert!(
        value("server").starts_with("ciphermq-server 1."),
        "{}",
        status.stdout
    );
    assert_eq!(value("client id"), workspace.sender);
    assert!(value("address").contains(&fixture.server.address().port().to_string()));
    assert!(
        value("tls").contains("TLSv1.3") && value("tls").contains("X25519MLKEM768"),
        "{}",
        status.stdout
    );
    assert!(value("longest line").starts_with("16777216 bytes"));
    assert!(
        value("round trip").contains(" ms median"),
        "{}",
        status.stdout
    );
    assert_eq!(status.stderr, "");

    let status = workspace.cli("status").arg("--json").run().await.success();
    assert_eq!(status.stdout.lines().count(), 1, "{}", status.stdout);
    let object: serde_json::Value = serde_json::from_str(&status.stdout).expect("one JSON object");
    assert_eq!(object["server"]["name"], "ciphermq-server");
    assert_eq!(object["server"]["protocol"], 1);
    assert_eq!(object["client_id"], *workspace.sender);
    let address = object["address"].as_str().expect("an address");
    assert!(
        address.ends_with(&fixture.server.address().port().to_string()),
        "{address}"
    );
    assert_eq!(object["tls"]["version"], "TLSv1.3");
    assert_eq!(object["tls"]["key_exchange"], "X25519MLKEM768");
    assert_eq!(object["limits"]["max_line_bytes"], 16_777_216);
    assert!(object["limits"]["redelivery_timeout_ms"].is_u64());
    let trip = &object["round_trip_ms"];
    assert!(
        trip["min"].as_f64() <= trip["median"].as_f64() && trip["pings"] == 11,
        "{trip}"
    );
    // The fields match the documented ones.
    let documented = include_str!("../../../docs/cli.md").lines();
    let documented = documented
        .filter(|line| line.starts_with("{\"address\""))
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an example"))
        .next()
        .expect("the example of `status --json`");
    let names = |value: &serde_json::Value| {
        let object = value.as_object().expect("an object");
        let names = object.iter().flat_map(|(name, value)| {
            let inner = value
                .as_object()
                .into_iter()
                .flat_map(serde_json::Map::keys);
            std::iter::once(name.clone()).chain(inner.map(move |field| format!("{name}.{field}")))
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&object), names(&documented));
}

/// Flags take precedence over environment variables, and those over the configuration file.
pub(crate) async fn options_in_a_file(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    let port = fixture.server.address().port();
    let file = format!(
        "server = \"localhost:{port}\"\nca = \"certs/ca.crt\"\ncert = \
         \"certs/receiver_1/client.crt\"\nkey = \"certs/receiver_1/client.key\"\n"
    );
    workspace.write("client.toml", &file);
    let status = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut status = workspace
            .cli("status")
            .env("CIPHERMQ_SERVER", "")
            .args(flags);
        for (name, value) in variables {
            status = status.env(name, value);
        }
        status.run()
    };
    let of_file = status(&["--config", "client.toml"], &[]).await.success();
    assert!(
        of_file.stdout.contains(&workspace.receiver),
        "{}",
        of_file.stdout
    );
    let sender = [
        ("CIPHERMQ_CERT", "certs/sender_1/client.crt"),
        ("CIPHERMQ_KEY", "certs/sender_1/client.key"),
        ("CIPHERMQ_CONFIG", "client.toml"),
    ];
    let of_variable = status(&[], &sender).await.success();
    assert!(
        of_variable.stdout.contains(&workspace.sender),
        "{}",
        of_variable.stdout
    );
    let flags = [
        "--cert",
        "certs/receiver_1/client.crt",
        "--key",
        "certs/receiver_1/client.key",
    ];
    let of_flag = status(&flags, &sender).await.success();
    assert!(
        of_flag.stdout.contains(&workspace.receiver),
        "{}",
        of_flag.stdout
    );

    workspace.write("broken.toml", format!("{file}sever = 1\n"));
    let broken = status(&["--config", "broken.toml"], &[]).await.code(2);
    let (what, advice) = error_parts(&broken);
    assert!(
        what.contains("broken.toml") && what.contains("line 5") && what.contains("sever"),
        "{what}"
    );
    assert!(advice.contains("server"), "{advice}");
}
