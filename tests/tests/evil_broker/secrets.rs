//! Neither what was sent nor a private key can be found anywhere on its way.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_tests::evil::stage::{opened, text};
use ciphermq_tests::evil::{Stage, search};
use ciphermq_tests::server::Options;
use serde_json::Value;

use crate::published;

const CANARY: &str = "canary: the vault opens at 04:17 with 58-02-93";

/// Every place that the broker's operator can look into.
fn places(stage: &Stage) -> Vec<(String, Vec<u8>)> {
    let files = search::files(stage.server.folder());
    let mut places: Vec<_> = files
        .into_iter()
        .map(|(path, bytes)| (path.display().to_string(), bytes))
        .collect();
    let lines: Vec<String> = stage.evil.recorded().into_iter().map(|line| line.text).collect();
    places.push(("traffic behind TLS".to_owned(), lines.join("\n").into_bytes()));
    places
}

fn found(places: &[(String, Vec<u8>)], secret: &[u8]) -> Vec<String> {
    let forms = search::forms(secret);
    places
        .iter()
        .filter(|(_, bytes)| forms.iter().any(|form| search::contains(bytes, form)))
        .map(|(name, _)| name.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_stored_logged_or_sent() {
    let mut stage = Stage::with(Options::sqlite().set("logging", "level", "debug")).await;
    let ids = stage.publish([CANARY, CANARY]).await;
    // One is delivered and acked, one waits.
    let mut consumer = stage.consumer().start().await.unwrap();
    let message = opened(&mut consumer).await;
    assert_eq!(text(&message), CANARY);
    message.ack().await.unwrap();
    consumer.close().await;

    let fields: Value = serde_json::from_str(&published(&stage, "sender")[1]).unwrap();
    let ciphertext = BASE64_STANDARD
        .decode(fields["ciphertext"].as_str().unwrap())
        .unwrap();
    let key = BASE64_STANDARD.decode(stage.private_key_text()).unwrap();
    assert_eq!(key.len(), 32);
    let running = places(&stage);
    let console = stage.server.terminate().await;
    let mut ended = places(&stage);
    ended.push(("console".to_owned(), console.into_bytes()));
    for places in [&running, &ended] {
        // What is there is found: in the database, the traffic and, of the id, in the log.
        let seen = found(places, &ciphertext);
        assert!(seen.iter().any(|name| name.contains("ciphermq.db")), "{seen:?}");
        assert!(seen.iter().any(|name| name == "traffic behind TLS"), "{seen:?}");
        assert!(!found(places, ids[0].as_str().as_bytes()).is_empty());
        for (what, secret) in [("the payload", CANARY.as_bytes()), ("the private key", &key)] {
            assert_eq!(found(places, secret), [""; 0], "{what}");
        }
    }
    assert!(
        ended
            .iter()
            .any(|(name, bytes)| name.ends_with(".log") && !bytes.is_empty()),
        "there are logs to search"
    );
}
