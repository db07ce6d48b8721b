use bytes::Bytes;
use ciphermq_protocol::Envelope;

/// Checks that an envelope keeps its bytes, that a JSON parser finds the same fields in it, and
/// that its fields round-trip.
pub fn envelope(data: &[u8]) {
    let raw = Bytes::copy_from_slice(data);
    let Ok(envelope) = Envelope::parse(raw.clone()) else {
        return;
    };
    assert_eq!(envelope.raw().to_bytes(), raw, "byte for byte");

    match serde_json::from_slice::<serde_json::Value>(data) {
        Ok(json) => assert_same(&envelope, &json),
        // An unknown field may contain what JSON's grammar allows, but serde_json refuses.
        Err(error) => {
            let text = error.to_string();
            let known = [
                "surrogate",
                "hex escape",
                "number out of range",
                "recursion limit",
            ];
            assert!(
                known.iter().any(|known| text.contains(known)),
                "an envelope is JSON: {text}"
            );
        }
    }

    let fields = envelope.fields().expect("a parsed envelope has its fields");
    let rebuilt = Envelope::build(&fields).expect("the fields make an envelope");
    assert_eq!(
        rebuilt.fields().expect("a built envelope can be parsed"),
        fields
    );
}

/// Checks that a JSON parser finds the same values.
fn assert_same(envelope: &Envelope, json: &serde_json::Value) {
    assert_eq!(
        json["message_id"].as_str(),
        Some(envelope.message_id.as_str())
    );
    assert_eq!(
        json["receiver_client_id"].as_str(),
        Some(envelope.receiver_client_id.as_str())
    );
    let named = |field: &str| json[field].as_str().map(str::to_owned);
    assert_eq!(
        named("sender_client_id"),
        envelope.sender_client_id.as_ref().map(ToString::to_string)
    );
    assert_eq!(
        named("exchange"),
        envelope.exchange.as_ref().map(ToString::to_string)
    );
    assert_eq!(
        named("routing_key"),
        envelope.routing_key.as_ref().map(ToString::to_string)
    );
    assert_eq!(json["suite"].is_string(), envelope.has_suite);
}
