//! The requests about public keys, whose answers nobody has verified.

use ciphermq_crypto::PublicKey;
use ciphermq_protocol::{ClientId, Command, Reply};

use crate::driver::Handle;
use crate::error::{RequestError, RequestErrorKind};

/// Fetches the bare public key of a client.
pub(crate) async fn public_key_of(
    handle: &Handle,
    client: &ClientId,
) -> Result<Option<PublicKey>, RequestError> {
    let command = Command::GetPublicKey {
        client_id: client.clone(),
    };
    let text = handle
        .expect(command, |reply| match reply {
            Reply::PublicKey(key) => Some(Some(key)),
            Reply::PublicKeyNotFound => Some(None),
            _ => None,
        })
        .await?;
    text.map(|text| PublicKey::from_base64(&text))
        .transpose()
        .map_err(|error| {
            RequestError::new(
                RequestErrorKind::BadKey,
                format!("The server's public key of `{client}` is invalid: {error}."),
            )
            .advise(format!("Let `{client}` register its key again."))
        })
}

/// Registers the bare public key of this client.
pub(crate) async fn register_public(handle: &Handle, key: &PublicKey) -> Result<(), RequestError> {
    let command = Command::RegisterPublicKey {
        client_id: None,
        key: key.to_base64(),
    };
    handle.confirm(command, is_registered).await
}

/// Fetches the signed key of a client as it is.
pub(crate) async fn signed_key_of(
    handle: &Handle,
    client: &ClientId,
) -> Result<Option<String>, RequestError> {
    let command = Command::GetSignedKey {
        client_id: client.clone(),
    };
    handle
        .expect(command, |reply| match reply {
            Reply::SignedKey(key) => Some(Some(key)),
            Reply::PublicKeyNotFound => Some(None),
            _ => None,
        })
        .await
}

/// Registers a signed key as it is.
pub(crate) async fn register_signed(handle: &Handle, signed_key: &str) -> Result<(), RequestError> {
    let command = Command::RegisterSignedKey {
        signed_key: signed_key.to_owned(),
    };
    handle.confirm(command, is_registered).await
}

fn is_registered(reply: &Reply) -> bool {
    matches!(reply, Reply::PublicKeyRegistered)
}
