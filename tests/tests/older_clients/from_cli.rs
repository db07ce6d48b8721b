//! `ciphermq-cli send` to receivers of older generations, in the form that each of them reads.

use ciphermq_client::{Form, Keyring, PrivateKey};
use ciphermq_crypto::{Authority, OpenPolicy, Opener};
use ciphermq_protocol::Envelope;
use ciphermq_tests::Cli;
use ciphermq_tests::data::older_envelopes;
use serde_json::{Map, Value};

use crate::deployment::{BINDING, Deployment, delivery};

const TEXTS: [&str; 3] = ["Température: 47,8 °F", r#"{"temperature_f": 47.8}"#, "0"];

/// The fields of generations B, C and D: the tag is at the end of the ciphertext.
const WITHOUT_TAG: &[&str] = &[
    "ciphertext",
    "enc_session_key",
    "message_id",
    "nonce",
    "receiver_client_id",
    "sent_time",
];

/// The fields of an envelope of each form, in any order: the ones that its receivers look for.
const FORMS: [(&str, &[&str]); 4] = [
    (
        "LEGACY-0",
        &[
            "ciphertext",
            "enc_session_key",
            "message_id",
            "nonce",
            "receiver_client_id",
            "tag",
        ],
    ),
    (
        "LEGACY-A",
        &[
            "ciphertext",
            "enc_session_key",
            "message_id",
            "nonce",
            "receiver_client_id",
            "routing_key",
            "sent_time",
            "tag",
        ],
    ),
    ("LEGACY-B", WITHOUT_TAG),
    ("LEGACY-C", WITHOUT_TAG),
];

fn send(deployment: &Deployment, folder: &std::path::Path) -> Cli {
    let send = Cli::new("send")
        .current_dir(folder)
        .args(["--to", "receiver_1"]);
    let send = deployment
        .options()
        .into_iter()
        .fold(send, |send, option| send.arg(option));
    TEXTS
        .iter()
        .fold(send, |send, text| send.args(["--message", text]))
}

pub(crate) async fn sent_in_each_form(deployment: &Deployment) {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = deployment.receiver().await;
    receiver
        .ask(&format!("consume {}", BINDING.0), "Subscribed to queue")
        .await;

    // Nothing is sent without both options.
    let refused = send(deployment, folder.path()).run().await.code(1);
    assert!(
        refused.stderr.contains("is not signed") && refused.stderr.contains("--suite LEGACY-A"),
        "{}",
        refused.stderr
    );
    let form = ["--suite", "LEGACY-A"];
    send(deployment, folder.path())
        .args(form)
        .run()
        .await
        .code(2);
    send(deployment, folder.path())
        .arg("--allow-unsigned-keys")
        .run()
        .await
        .code(2);

    let private = older_envelopes()["receiver_private_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let policy = OpenPolicy {
        unverified_senders: true,
        ..OpenPolicy::default()
    };
    let keyring = Keyring::new(PrivateKey::from_base64(&private).unwrap());
    let mut opener = Opener::new(
        "receiver_1".parse().unwrap(),
        keyring,
        Authority::nobody(),
        policy,
    );
    for (form, names) in FORMS {
        let sending = send(deployment, folder.path())
            .args(["--allow-unsigned-keys", "--suite", form])
            .run();
        let receiving = async {
            let mut texts = Vec::new();
            for _ in TEXTS {
                let line = receiver.line().await;
                let (id, json) = delivery(&line).unwrap_or_else(|| panic!("unexpected: {line}"));
                let fields: Map<String, Value> = serde_json::from_str(json).unwrap();
                let mut seen: Vec<&str> = fields.keys().map(String::as_str).collect();
                seen.sort_unstable();
                assert_eq!(seen, names, "{form}");
                assert_eq!(fields["message_id"], id);
                assert_eq!(fields["receiver_client_id"], "receiver_1");
                let sent_time = fields.get("sent_time").and_then(Value::as_str);
                match form {
                    "LEGACY-0" => assert_eq!(sent_time, None),
                    "LEGACY-A" => assert!(sent_time.unwrap().ends_with('Z')),
                    _ => assert!(sent_time.unwrap().ends_with("+00:00")),
                }
                let envelope = Envelope::parse(json.to_owned().into()).unwrap();
                let opened = opener.open(&envelope).unwrap();
                let Form::Older(seen) = opened.form else {
                    panic!("{:?}", opened.form)
                };
                assert_eq!(seen.as_str(), form);
                texts.push(String::from_utf8(opened.payload).unwrap());
                receiver.ack(id).await;
            }
            texts
        };
        let (sent, texts) = tokio::join!(sending, receiving);
        sent.success();
        assert_eq!(texts, TEXTS, "{form}");
    }
}
