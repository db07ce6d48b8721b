//! Messages and keys that a certificate would make unacceptable are not sent.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_no_receiver_would_accept_are_sent_only_on_request() {
    let deployment = TwoAuthorities::start().await;
    let receiver = deployment.issue_with_rcgen("receiver", Request::client("receiver"));
    keygen(&deployment, "keys");
    let receive = || {
        deployment
            .cli("receive", &receiver)
            .arg("--private-key")
            .arg(deployment.path("keys/receiver_private.key"))
            .args(["--output", "out.jsonl", "--idle-exit", "0.05"])
    };
    receive().run().await.success();
    let no_signing = "basicConstraints=CA:FALSE\nkeyUsage=keyAgreement";
    for (name, key, extensions) in [
        ("rsa", RSA, "basicConstraints=CA:FALSE"),
        (
            "p521",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            "basicConstraints=CA:FALSE",
        ),
        ("usage", CertificateSpec::default().key, no_signing),
    ] {
        let subject = format!("/CN={name}");
        let sender = deployment.issue_with_openssl(
            name,
            CertificateSpec {
                key,
                subject: &subject,
                extensions: Some(extensions),
                ..CertificateSpec::default()
            },
        );
        let send = || {
            deployment
                .cli("send", &sender)
                .args(["--to", "receiver", "--message", name])
        };
        let refused = send().run().await.code(1);
        let lacks_usage = extensions == no_signing;
        assert_eq!(refused.stderr.contains("digitalSignature"), lacks_usage);
        assert!(!refused.stderr.contains("clientAuth"), "{}", refused.stderr);
        for text in [
            "No receiver would accept",
            "Issue one",
            "--allow-unsigned-sessions",
        ] {
            assert!(
                refused.stderr.contains(text),
                "{text:?} is not in:\n{}",
                refused.stderr
            );
        }
        send()
            .arg("--allow-unsigned-sessions")
            .run()
            .await
            .success();

        // As receivers, these clients warn that senders will not accept their key.
        keygen(&deployment, name);
        for command in [
            &["register-key"][..],
            &["receive", "--idle-exit", "0.05", "--output", "-"],
        ] {
            let outcome = deployment
                .cli(command[0], &sender)
                .args(&command[1..])
                .arg("--private-key")
                .arg(deployment.path(name).join("receiver_private.key"))
                .run()
                .await
                .success();
            assert!(
                outcome.stderr.contains("without a signature"),
                "{}",
                outcome.stderr
            );
        }
    }
    let received = receive()
        .arg("--allow-unverified-senders")
        .run()
        .await
        .success();
    assert!(
        received.stderr.contains("3 received"),
        "{}",
        received.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_key_is_not_replaced_by_one_that_the_certificate_cannot_sign() {
    let deployment = TwoAuthorities::start().await;
    keygen(&deployment, "first");
    keygen(&deployment, "second");
    let as_client = |command: &str, certificate: &Files, keys: &str| {
        deployment
            .cli(command, certificate)
            .arg("--private-key")
            .arg(deployment.path(keys).join("receiver_private.key"))
    };
    let receive = |certificate: &Files, keys: &str| {
        as_client("receive", certificate, keys).args([
            "--output",
            "out.jsonl",
            "--idle-exit",
            "0.05",
        ])
    };
    let signing = deployment.issue_with_rcgen("signing", Request::client("receiver"));
    receive(&signing, "first").run().await.success();
    let sender = deployment.issue_with_rcgen("sender", Request::client("sender"));
    let send = |text: &str| {
        deployment
            .cli("send", &sender)
            .args(["--to", "receiver", "--message", text])
    };
    send("before").run().await.success();

    let rsa = deployment.issue_with_openssl(
        "receiver-rsa",
        CertificateSpec {
            key: RSA,
            subject: "/CN=receiver",
            ..CertificateSpec::default()
        },
    );
    // Senders continue to use the first key pair: a receiver that has only the second one could not
    // open their messages.
    for command in [
        as_client("register-key", &rsa, "second"),
        receive(&rsa, "second"),
    ] {
        let refused = command.run().await.code(1);
        for text in ["another key pair", "can sign", "--private-key"] {
            assert!(refused.stderr.contains(text), "{}", refused.stderr);
        }
    }
    let shown = deployment
        .cli("get-key", &sender)
        .arg("receiver")
        .run()
        .await
        .success();
    assert!(
        !shown.stderr.contains("none of the signed ones"),
        "{}",
        shown.stderr
    );

    // With the signed key pair everything continues to work, and the warning is correct.
    for command in [
        as_client("register-key", &rsa, "first"),
        receive(&rsa, "first"),
    ] {
        let outcome = command.run().await.success();
        assert!(
            outcome
                .stderr
                .contains("senders continue to use the signed key"),
            "{}",
            outcome.stderr
        );
    }
    send("after").run().await.success();
    let received = receive(&rsa, "first").run().await.success();
    assert!(
        received.stderr.contains("1 received"),
        "{}",
        received.stderr
    );
}

fn keygen(deployment: &TwoAuthorities, folder: &str) {
    let out = deployment.path(folder);
    keygen::keys::run(&keygen::KeysArgs {
        out,
        force: true,
        post_quantum: false,
    })
    .unwrap();
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Connects a client whose certificate expires soon, and returns it with the time of expiry, in
/// Unix seconds.
///
/// On a slow machine connecting may take longer than that, so it retries with a longer validity.
async fn client_that_expires_soon(server: &Server, folder: &Path) -> (Client, u64) {
    let mut seconds = 4;
    loop {
        let end = now() + seconds;
        let identity = server
            .pki()
            .authority()
            .issue(Request::client("leaving").until(end))
            .write(folder, "leaving");
        let connected = Client::builder(format!("localhost:{}", server.address().port()))
            .ca_file(server.pki().ca())
            .identity_files(&identity.certificate, &identity.key)
            .connect()
            .await;
        match connected {
            Ok(client) if now() < end => return (client, end),
            _ => std::fs::remove_file(&identity.certificate)
                .and(std::fs::remove_file(&identity.key))
                .unwrap(),
        }
        seconds *= 2;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_whose_certificate_has_expired_begins_no_new_session() {
    let server = Server::start(Options::sqlite()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = ClientId::new("receiver").unwrap();
    let key = ciphermq_client::PrivateKey::generate().unwrap();
    let (client, end) = client_that_expires_soon(&server, folder.path()).await;
    let publisher = || {
        client
            .publisher(&receiver)
            .receiver_key(*key.public_key())
            .start()
    };
    let started = publisher().await.unwrap();
    while now() <= end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A running publisher, and one that is started now.
    for error in [
        started.send(&b"late"[..]).await.unwrap_err(),
        publisher().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), PublishErrorKind::SenderCertificate);
        assert!(error.to_string().contains("expired at"), "{error}");
        assert!(error.advice().unwrap().contains("Issue a new one"));
    }
}
