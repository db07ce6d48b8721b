//! The text of valid and invalid envelopes, so that what is sent is known byte for byte.

use std::fmt;

use serde_json::Value;

/// Builder for an envelope's JSON, whose fields are written in the order in which they were set.
#[derive(Debug, Clone)]
pub struct EnvelopeText {
    fields: Vec<(String, Value)>,
}

impl EnvelopeText {
    /// An envelope with the fields of an older client, which no key can open.
    pub fn older(message_id: &str, receiver: &str) -> Self {
        Self { fields: Vec::new() }
            .set("message_id", message_id)
            .set("receiver_client_id", receiver)
            .set("enc_session_key", "c2Vzc2lvbiBrZXk=")
            .set("nonce", "AAAAAAAAAAAAAAAA")
            .set("tag", "AAAAAAAAAAAAAAAAAAAAAA==")
            .set("ciphertext", "Y2lwaGVydGV4dA==")
    }

    /// An envelope with the field `suite`, as current clients write it, which no key can open.
    pub fn modern(message_id: &str, receiver: &str) -> Self {
        Self::older(message_id, receiver).set("suite", "X25519-AES256GCM")
    }

    /// Sets a field. A field that was set before keeps its position.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
        self
    }

    /// Removes a field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(field, _)| field != name);
        self
    }
}

impl fmt::Display for EnvelopeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.fields.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{value}", Value::from(name.as_str()))?;
        }
        f.write_str("}")
    }
}
