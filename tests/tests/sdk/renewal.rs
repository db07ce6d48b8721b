//! Certificates that are renewed while a client runs.

use std::time::{SystemTime, UNIX_EPOCH};

use ciphermq_client::{ConnectErrorKind, Events};
use ciphermq_tests::pki::{Files, Identity, List, Request};
use ciphermq_tests::{Authority, Pki};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::timeout;

use super::*;

/// A client's certificate and key, which are replaced.
struct Renewed {
    folder: tempfile::TempDir,
    id: &'static str,
}

impl Renewed {
    fn new(authority: &Authority, id: &'static str, seconds: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        issue(authority, id, seconds).write(folder.path(), id);
        Self { folder, id }
    }

    fn files(&self) -> Files {
        let path = |end| self.folder.path().join(format!("{}.{end}", self.id));
        Files {
            certificate: path("crt"),
            key: path("key"),
        }
    }

    /// Replaces the key, and the certificate a moment later: in between they do not belong
    /// together.
    async fn renew(&self, authority: &Authority, seconds: u64) {
        let new = issue(authority, self.id, seconds);
        let files = self.files();
        std::fs::write(files.key, new.key_pem()).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(files.certificate, new.certificate_pem()).unwrap();
    }

    fn write(&self, identity: &Identity) {
        let files = self.files();
        std::fs::write(files.key, identity.key_pem()).unwrap();
        std::fs::write(files.certificate, identity.certificate_pem()).unwrap();
    }
}

/// Issues a client's certificate that is valid for some seconds from now on.
fn issue(authority: &Authority, id: &str, seconds: u64) -> Identity {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    authority.issue(Request::client(id).until(now.as_secs() + seconds))
}

/// Waits for an event.
async fn expect(events: &mut Events, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
    let waiting = async {
        loop {
            let event = events.next().await.expect("the client is open");
            assert!(!matches!(event, Event::Disconnected { .. }), "{event:?}");
            if is_it(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("no event: {what}"))
}

async fn expect_renewed(events: &mut Events) {
    expect(events, "renewed", |event| {
        matches!(event, Event::CertificateRenewed { .. })
    })
    .await;
}

/// Sender and receiver get new certificates again and again while messages flow, for much longer
/// than one is valid: nothing is lost or doubled, and nobody is cut off.
pub(crate) async fn renewed_certificates_lose_and_double_nothing(backend: Backend) {
    const SECONDS: u64 = 8;
    const ROUNDS: usize = 5;
    let pki = Arc::new(Pki::new());
    let server = Server::start(backend.options().await.pki(Arc::clone(&pki))).await;
    let clients = ["sender", "receiver"].map(|id| Renewed::new(pki.authority(), id, SECONDS));
    let connect = |client: &Renewed| sdk::builder(&server, &client.files()).connect();
    let sender = connect(&clients[0]).await.unwrap();
    let receiver = connect(&clients[1]).await.unwrap();
    let keys = Keys::new();
    let consumer = sdk::consumer(&receiver, keys.keyring());
    let mut consumer = consumer
        .prefetch(NonZeroU32::new(100).unwrap())
        .start()
        .await
        .unwrap();
    let mut events = [sender.events(), receiver.events(), consumer.events()];
    let publisher = sender.publisher(receiver.id()).start().await.unwrap();

    let renewing = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            tokio::time::sleep(Duration::from_secs(2)).await;
            for client in &clients {
                client.renew(pki.authority(), SECONDS).await;
            }
            for events in &mut events {
                expect_renewed(events).await;
            }
            // The keys are signed anew.
            expect(&mut events[2], "announced", |event| {
                matches!(event, Event::KeysAnnounced { .. })
            })
            .await;
        }
    });
    let mut sending = tokio::spawn(async move {
        let mut sent = 0;
        while !renewing.is_finished() {
            submit(&publisher, sent..sent + 20).await;
            sent += 20;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let summary = publisher.finish().await;
        assert_eq!((summary.acknowledged, summary.unacknowledged), (sent, 0));
        renewing.await.unwrap();
        sent
    });
    let received = receive_all(&mut consumer, &mut sending).await;
    let acks = consumer.flush_acks().await;
    assert_eq!((acks.confirmed, acks.unconfirmed), (received, 0));
    assert_eq!(stored_messages(&server).await, 0);

    // The keys are signed by the last certificate, so that senders accept them as long as it lives.
    let in_use = receiver.certificate_ends()[0].validity.clone();
    let signed = sender.verified_keys(receiver.id()).await.unwrap().unwrap();
    assert_eq!(signed.unwrap().announcement.not_after, in_use.not_after);
}

/// The server is killed while it reads its certificates and lists again and messages flow: nothing
/// is lost or doubled, and it starts with what it was to read.
pub(crate) async fn kills_during_reloads_lose_and_double_nothing(backend: Backend) {
    const ROUNDS: u64 = 6;
    let pki = Arc::new(Pki::new());
    let path = pki.folder().join("ca.crl");
    let list = |number| {
        pki.authority().list(&List {
            number,
            ..List::default()
        })
    };
    std::fs::write(&path, list(1)).unwrap();
    let options = backend.options().await.pki(Arc::clone(&pki));
    let lists = vec![path.display().to_string()];
    let mut server = Server::start(options.set("tls", "crl_paths", lists)).await;
    let pair = Pair::new(&server).await;
    let mut consumer = pair.consumer().start().await.unwrap();
    let publisher = pair.publisher().start().await.unwrap();
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut sending = tokio::spawn(async move {
        let mut sent = 0;
        while !*stopped.borrow_and_update() {
            submit(&publisher, sent..sent + 10).await;
            sent += 10;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let summary = publisher.finish().await;
        assert_eq!((summary.acknowledged, summary.unacknowledged), (sent, 0));
        sent
    });
    let killing = async {
        for round in 0..ROUNDS {
            std::fs::write(&path, list(round + 2)).unwrap();
            let certificate = pki.authority().server(&["localhost", "127.0.0.1"]);
            let [crt, key] = ["server.crt", "server.key"].map(|name| pki.folder().join(name));
            std::fs::write(key, certificate.key_pem()).unwrap();
            std::fs::write(crt, certificate.certificate_pem()).unwrap();
            server.process().signal(Signal::HUP);
            tokio::time::sleep(Duration::from_millis(round * 2)).await;
            server.kill9().await;
            server.restart().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        stop.send(true).unwrap();
    };
    let ((), received) = tokio::join!(killing, receive_all(&mut consumer, &mut sending));
    let acks = consumer.flush_acks().await;
    assert_eq!((acks.confirmed, acks.unconfirmed), (received, 0));
    assert_eq!(stored_messages(&server).await, 0);
    let lists = pair.receiver.revocation_lists().await.unwrap();
    let last = pki.authority().list_der(&List {
        number: ROUNDS + 1,
        ..List::default()
    });
    assert_eq!(lists.len(), 1);
    // Another signature, the same number.
    let numbers = [&lists[0], &last].map(|der| list_number(der));
    assert_eq!(numbers[0], numbers[1]);
}

/// Receives all that is sent, once and in order, and acknowledges it. Returns how much that is,
/// which `sending` returns as well.
async fn receive_all(consumer: &mut Consumer, sending: &mut tokio::task::JoinHandle<u64>) -> u64 {
    let (mut received, mut end) = (0, None);
    while end.is_none_or(|sent| received < sent) {
        tokio::select! {
            message = next(consumer) => {
                assert_eq!(number(&message), received, "once, and in order");
                received += 1;
                message.ack_later().unwrap();
            }
            ended = &mut *sending, if end.is_none() => end = Some(ended.unwrap()),
        }
    }
    received
}

fn list_number(der: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::{CertificateRevocationList, FromDer as _};
    let (_, list) = CertificateRevocationList::from_der(der).unwrap();
    list.crl_number().unwrap().to_bytes_be()
}

/// A certificate of an authority that the server does not trust yet is not used before it does, and
/// the connection goes on with the old one.
#[tokio::test]
async fn a_new_certificate_that_the_server_refuses_is_not_used() {
    let pki = Arc::new(Pki::new());
    let server = Server::start(Options::sqlite().pki(Arc::clone(&pki))).await;
    let next_authority = Authority::new("the next authority");
    let client = Renewed::new(pki.authority(), "client", 3600);
    let ca = client.folder.path().join("ca.crt");
    std::fs::copy(pki.ca(), &ca).unwrap();
    let connecting = sdk::builder(&server, &client.files())
        .ca_file(&ca)
        .connect();
    let connected = connecting.await.unwrap();
    let mut events = connected.events();

    // Its own authorities do not vouch for it: it is not even tried.
    client.write(&issue(&next_authority, "client", 3600));
    let error = connected.reload_certificates().await.unwrap_err();
    assert_eq!(
        error.kind(),
        ConnectErrorKind::CertificateRefused,
        "{error}"
    );
    connected.ping().await.unwrap();

    let both = [pki.authority(), &next_authority].map(Authority::certificate_pem);
    std::fs::write(&ca, both.concat()).unwrap();
    assert!(connected.reload_certificates().await.unwrap());
    let refused = expect(&mut events, "refused", |event| {
        matches!(event, Event::CertificateNotRenewed { .. })
    });
    let Event::CertificateNotRenewed { reason } = refused.await else {
        unreachable!()
    };
    assert_eq!(
        reason.kind(),
        ConnectErrorKind::CertificateRefused,
        "{reason}"
    );
    connected.ping().await.unwrap();

    std::fs::write(pki.ca(), both.concat()).unwrap();
    server.hang_up().await;
    expect_renewed(&mut events).await;
    connected.ping().await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let pki = Arc::new(Pki::new());
    let server = Server::start(Options::sqlite().pki(Arc::clone(&pki))).await;
    let client = Renewed::new(pki.authority(), "client", 3600);
    let connected = sdk::builder(&server, &client.files());
    let connected = connected.connect().await.unwrap();
    assert!(!connected.reload_certificates().await.unwrap());
    let original = client.files();
    let texts = [&original.certificate, &original.key].map(|path| std::fs::read(path).unwrap());

    let other = issue(pki.authority(), "other", 3600);
    client.write(&other);
    let error = connected.reload_certificates().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::OtherClient, "{error}");
    std::fs::write(&original.certificate, "").unwrap();
    let error = connected.reload_certificates().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::BadCertificate, "{error}");
    std::fs::remove_file(&original.certificate).unwrap();
    let error = connected.reload_certificates().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::FileUnreadable, "{error}");
    let expired = pki.authority().issue(Request::client("client").expired());
    client.write(&expired);
    let error = connected.reload_certificates().await.unwrap_err();
    assert_eq!(
        error.kind(),
        ConnectErrorKind::CertificateRefused,
        "{error}"
    );
    connected.ping().await.unwrap();

    std::fs::write(&original.certificate, &texts[0]).unwrap();
    std::fs::write(&original.key, &texts[1]).unwrap();
    assert!(!connected.reload_certificates().await.unwrap());
    client.write(&issue(pki.authority(), "client", 7200));
    assert!(connected.reload_certificates().await.unwrap());
    expect_renewed(&mut connected.events()).await;
}

/// A certificate is revoked, not a name: with a new one its client is back by itself, and is sent
/// to again, although the server still has the key that the old one has signed.
#[tokio::test]
async fn a_revoked_client_is_back_with_a_new_certificate() {
    let pki = Arc::new(Pki::new());
    let list = pki.folder().join("ca.crl");
    std::fs::write(&list, pki.authority().list(&List::default())).unwrap();
    let lists = vec![list.display().to_string()];
    let options = Options::sqlite().pki(Arc::clone(&pki));
    let server = Server::start(options.set("tls", "crl_paths", lists)).await;
    let client = Renewed::new(pki.authority(), "receiver", 3600);
    let keys = Keys::new();
    let receiver = sdk::builder(&server, &client.files())
        .connect()
        .await
        .unwrap();
    let consumer = sdk::consumer(&receiver, keys.keyring());
    let mut consumer = consumer.start().await.unwrap();
    let mut events = consumer.events();
    let sender = connect(&server, "sender").await;
    let stolen = CertificateDer::from_pem_file(client.files().certificate).unwrap();

    let revoked = pki.authority().list(&List {
        number: 2,
        revoked: &[&stolen],
        ..List::default()
    });
    std::fs::write(&list, revoked).unwrap();
    server.hang_up().await;
    sender.fetch_lists().await.unwrap();
    let error = sender.publisher(receiver.id()).start().await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::KeyNotTrusted, "{error}");

    client.write(&issue(pki.authority(), "receiver", 3600));
    let announced =
        async { while !matches!(events.next().await, Some(Event::KeysAnnounced { .. })) {} };
    timeout(PATIENCE, announced)
        .await
        .expect("its keys are announced");
    let publisher = sender.publisher(receiver.id()).start().await.unwrap();
    submit(&publisher, 0..1).await;
    assert_eq!(publisher.finish().await.acknowledged, 1);
    next(&mut consumer).await.ack().await.unwrap();
}

/// A new signing certificate is used from the first message on that is signed with it: the server
/// has been told of it before, and one that the server or the client's own authority refuses is not
/// used.
#[tokio::test]
async fn a_signing_certificate_is_replaced_while_messages_flow() {
    let pki = Arc::new(Pki::new());
    let server = Server::start(Options::sqlite().pki(Arc::clone(&pki))).await;
    let next_authority = Authority::new("the next authority");
    let both = [pki.authority(), &next_authority].map(Authority::certificate_pem);
    let signing = Renewed::new(pki.authority(), "sender", 3600);
    let ca = signing.folder.path().join("ca.crt");
    std::fs::write(&ca, both.concat()).unwrap();
    let files = signing.files();
    let sender = sdk::builder(&server, &pki.client("sender"))
        .ca_file(&ca)
        .signing_files(&files.certificate, &files.key)
        .connect()
        .await
        .unwrap();
    let mut events = sender.events();
    let keys = Keys::new();
    let receiver = sdk::builder(&server, &pki.client("receiver")).ca_file(&ca);
    let receiver = receiver.connect().await.unwrap();
    let consumer = sdk::consumer(&receiver, keys.keyring());
    let mut consumer = consumer.start().await.unwrap();
    let publisher = sender.publisher(receiver.id()).start().await.unwrap();
    let mut sent = 0;
    let mut exchange = async |consumer: &mut Consumer| {
        submit(&publisher, sent..sent + 10).await;
        for expected in sent..sent + 10 {
            let message = next(consumer).await;
            assert_eq!(number(&message), expected);
            message.ack().await.unwrap();
        }
        sent += 10;
    };
    exchange(&mut consumer).await;

    // What its own authority refuses is not even tried.
    let early = pki
        .authority()
        .issue(Request::client("sender").not_yet_valid());
    let stranger = Authority::new("another authority").client("sender");
    for refused in [early, stranger] {
        signing.write(&refused);
        let error = sender.reload_certificates().await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::BadCertificate, "{error}");
        exchange(&mut consumer).await;
    }

    signing.write(&issue(pki.authority(), "sender", 7200));
    assert!(sender.reload_certificates().await.unwrap());
    expect_renewed(&mut events).await;
    exchange(&mut consumer).await;

    // The server does not trust its authority yet.
    signing.write(&issue(&next_authority, "sender", 7200));
    assert!(sender.reload_certificates().await.unwrap());
    let refused = expect(&mut events, "refused", |event| {
        matches!(event, Event::CertificateNotRenewed { .. })
    });
    refused.await;
    exchange(&mut consumer).await;
    assert!(sender.cannot_sign().is_none());
    std::fs::write(pki.ca(), both.concat()).unwrap();
    server.hang_up().await;
    expect_renewed(&mut events).await;
    exchange(&mut consumer).await;
    assert_eq!(publisher.finish().await.unacknowledged, 0);
}
