//! The SDK: what an administrator does, and what its clients see.

use ciphermq_client::{
    Client, ClientsRequest, ConnectErrorKind, ConnectionsRequest, ConsumeError, Event, Keyring,
    PublishErrorKind, QueueName, RequestErrorKind,
};
use ciphermq_tests::{Backend, PATIENCE, Server};
use tokio::time::timeout;

use crate::server;

pub(super) async fn connect(server: &Server, id: &str) -> Client {
    let identity = server.pki().client(id);
    let client = Client::builder(format!("localhost:{}", server.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(identity.certificate, identity.key);
    client
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{id} cannot connect: {error}"))
}

pub(super) fn keyring() -> Keyring {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_owned();
    let arguments = keygen::KeysArgs {
        out,
        force: false,
        post_quantum: false,
    };
    keygen::keys::run(&arguments).unwrap();
    let path = folder.path().join("receiver_private.key");
    Keyring::new(ciphermq_client::keys::read_private(&path).unwrap())
}

fn queue() -> QueueName {
    "q".parse().unwrap()
}

#[tokio::test]
async fn a_closed_connection_is_followed_by_another() {
    let server = server(&Backend::Sqlite).await;
    let (ops, owner) = (
        connect(&server, "ops").await,
        connect(&server, "owner").await,
    );
    let mut events = owner.events();
    let request = ConnectionsRequest {
        client: Some(owner.id().clone()),
        ..ConnectionsRequest::default()
    };
    let before = ops.connections(request.clone()).await.unwrap().connections;
    assert_eq!(before.len(), 1);
    assert!(before[0].packed && before[0].program.is_some());
    ops.close_connection(before[0].connection).await.unwrap();
    let error = ops
        .close_connection(before[0].connection)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::NotFound);
    loop {
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
            Event::Disconnected { reason } => {
                assert!(reason.to_string().contains("an administrator"), "{reason}");
            }
            Event::Connected => break,
            _ => {}
        }
    }
    owner.ping().await.unwrap();
    let after = ops.connections(request).await.unwrap().connections;
    assert!(after[0].connection > before[0].connection);
    let error = owner.clients(ClientsRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::NotAuthorized);
}

#[tokio::test]
async fn a_blocked_client_stops_with_a_definite_error() {
    let server = server(&Backend::Sqlite).await;
    let (ops, owner) = (
        connect(&server, "ops").await,
        connect(&server, "owner").await,
    );
    let keyring = keyring();
    let consumer = owner.consumer(&queue()).keyring(keyring).register_key(true);
    let mut consumer = consumer.start().await.unwrap();
    let publisher = owner.publisher(owner.id()).start().await.unwrap();
    ops.block_client(owner.id()).await.unwrap();
    let end = timeout(PATIENCE, consumer.next()).await.unwrap();
    let Some(Err(ConsumeError::Ended(reason))) = end else {
        panic!("the consumer ends with the reason");
    };
    assert_eq!(reason.kind(), ConnectErrorKind::Blocked);
    assert!(
        reason
            .advice()
            .is_some_and(|advice| advice.contains("unblock"))
    );
    assert!(timeout(PATIENCE, consumer.next()).await.unwrap().is_none());
    let error = timeout(PATIENCE, owner.ping()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Blocked);
    let error = timeout(PATIENCE, publisher.submit("late"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::Blocked, "{error}");
    let clients = ops
        .clients(ClientsRequest::default())
        .await
        .unwrap()
        .clients;
    let blocked = clients
        .iter()
        .find(|client| client.client == *owner.id())
        .unwrap();
    assert_eq!(blocked.blocked.as_ref().unwrap().by, *ops.id());
    ops.unblock_client(owner.id()).await.unwrap();
    connect(&server, "owner").await.ping().await.unwrap();
}
