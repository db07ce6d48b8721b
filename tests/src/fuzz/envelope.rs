use bytes::Bytes;
use ciphermq_protocol::Envelope;

/// An envelope keeps its bytes, agrees with a JSON parser about its fields, and reads back as
/// itself.
pub fn envelope(data: &[u8]) {
    let raw = Bytes::copy_from_slice(data);
    let Ok(envelope) = Envelope::parse(raw.clone()) else {
        return;
    };
    assert_eq!(envelope.raw().to_bytes(), raw, "byte for byte");

    match serde_json::from_slice::<serde_json::Value>(data) {
        Ok(json) => agree(&envelope, &json),
        // In a field that nobody knows: what the grammar of JSON allows, and not every reader
        // takes.
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

    let fields = envelope.fields().expect("what was read once is read again");
    let rebuilt = Envelope::build(&fields).expect("its fields make an envelope");
    assert_eq!(rebuilt.fields().expect("which can be read"), fields);
}

/// A JSON parser finds the same names in it.
fn agree(envelope: &Envelope, json: &serde_json::Value) {
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
