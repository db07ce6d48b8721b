//! Messages of senders whose certificate comes from an intermediate authority.

use super::*;
use crate::identity::{CertificateError, testing::Ca};
use crate::keys::PrivateKey;
use crate::payload::Header;
use crate::seal::SendingSession;
use crate::sender::SenderError;
use crate::vector_tests::name;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 1_800_000_000;
/// When the lists of these tests were made.
const MADE: i64 = 1_700_000_000;

#[test]
fn a_message_is_opened_once_the_lists_about_its_sender_are_known() {
    let root = Ca::new("root");
    let department = root.intermediate("department");
    let sender = department.issue("sender_1");
    let key = PrivateKey::generate().unwrap();
    let receiver: ClientId = name("receiver_1");
    let public = (*key.public_key()).into();
    let session = SendingSession::start(&sender.identity(), &receiver, &public, at(NOW));
    let message_id: MessageId = name("01992a3b-4c5d-8fff-bfff-ff0000000000");
    let header = Header {
        message_id: &message_id,
        exchange: &name("exchange"),
        routing_key: &name("key"),
        content_type: "",
        sent_time: at(NOW),
    };
    let envelope = session.unwrap().seal(&header, b"payload").unwrap();

    let mut authority = root.authority().refuse_unknown_issuers(true);
    let policy = OpenPolicy::default();
    let mut opener = Opener::new(receiver, Keyring::new(key), authority.clone(), policy);
    opener.add_sender_chain(vec![sender.chain[0].clone(), department.certificate()]);
    let refused = |opener: &mut Opener| match opener.open(&envelope) {
        Err(OpenError::Sender(SenderError::Certificate(error))) => error,
        other => panic!("{other:?}"),
    };
    let CertificateError::UnknownIssuers(issuers) = refused(&mut opener) else {
        panic!("they are not known");
    };
    authority.learn(&issuers);
    let list = authority.read_list(&department.list(1, &[])).unwrap();
    opener.set_authority(authority.with_lists(vec![list]));
    assert!(opener.open(&envelope).is_ok());

    // The session is known, and its list becomes too old.
    opener.require_lists_made_in(Some(at(MADE)..=at(NOW)));
    assert!(opener.open(&envelope).is_ok());
    opener.require_lists_made_in(Some(at(MADE + 1)..=at(NOW)));
    let old = CertificateError::OldList {
        issuer: "CN=department".to_owned(),
        made: Some(at(MADE)),
    };
    assert_eq!(refused(&mut opener), old);
    opener.require_lists_made_in(None);
    assert!(opener.open(&envelope).is_ok());
}
