use std::sync::OnceLock;
use std::time::Duration;

use ciphermq_crypto::signed_key::verify;
use ciphermq_crypto::{Announcement, Authority, ClientId, Identity, PrivateKey, RecipientKey};
use jiff::Timestamp;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

/// A receiver, who names it, and what it has signed.
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
        let key = PrivateKeyDer::from_pem_slice(client.key_pem().as_bytes()).expect("it is a key");
        let identity =
            Identity::new(vec![client.certificate_der()], &key).expect("they belong together");
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
            authority: Authority::new([authority]).expect("it is an authority"),
            receiver: identity.client_id().clone(),
            now,
            text: announcement.sign(&identity).expect("it can sign"),
        }
    }
}

/// Nothing but the receiver's own text is believed. In the input, `{H}`, `{P}` and `{S}` stand for
/// the header, the payload and the signature of a good one.
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
    let other = ClientId::new("receiver_2").expect("it is a name");
    assert!(verify(&text, &other, &signed.authority, signed.now).is_err());
}
