use std::sync::OnceLock;
use std::time::Duration;

use ciphermq_crypto::signed_key::verify;
use ciphermq_crypto::{Announcement, Authority, ClientId, Identity, PrivateKey, RecipientKey};
use jiff::Timestamp;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

/// A receiver, the authority that issued its certificate, and its signed key.
struct Signed {
    authority: Authority,
    receiver: ClientId,
    now: Timestamp,
    text: String,
}

impl Signed {
    fn new() -> Self {
        let issuer = crate::Authority::new("CA");
        let client = issuer.client("receiver_1");
        let key = PrivateKeyDer::from_pem_slice(client.key_pem().as_bytes()).expect("a key in PEM");
        let identity =
            Identity::new(vec![client.certificate_der()], &key).expect("certificate and key match");
        let own = *PrivateKey::from_bytes(&[7; 32]).public_key();
        let now = Timestamp::now();
        let validity = Duration::from_secs(3600);
        let announcement = Announcement::new(
            &identity,
            vec![RecipientKey::X25519(own)],
            now,
            validity,
            None,
        );
        let authority = issuer.certificate_der();
        Self {
            authority: Authority::new([authority]).expect("a CA certificate"),
            receiver: identity.client_id().clone(),
            now,
            text: announcement
                .sign(&identity)
                .expect("the announcement can be signed"),
        }
    }
}

/// Checks that only the receiver's own signed key is accepted. In the input, `{H}`, `{P}` and `{S}`
/// are replaced by the header, the payload and the signature of a valid one.
pub fn signed_key(data: &[u8]) {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    let signed = SIGNED.get_or_init(Signed::new);
    let Ok(pattern) = std::str::from_utf8(data) else {
        return;
    };
    let mut text = pattern.to_owned();
    for (mark, part) in ["{H}", "{P}", "{S}"]
        .into_iter()
        .zip(signed.text.split('.'))
    {
        text = text.replace(mark, part);
    }
    let verified = verify(&text, &signed.receiver, &signed.authority, signed.now);
    assert_eq!(verified.is_ok(), text == signed.text, "{verified:?}");
    let other = ClientId::new("receiver_2").expect("a valid client id");
    assert!(verify(&text, &other, &signed.authority, signed.now).is_err());
}
