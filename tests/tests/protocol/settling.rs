//! `ack`, `reject` and `resend`: effects and permissions.

use ciphermq_tests::Fixture;

const UNKNOWN: &str = "Error: not_found: no such message waits or was acknowledged for message ";
const FOREIGN: &str = "Error: not_authorized: only the message's receiver may say so for message ";

pub(super) async fn only_the_receiver_acks(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (envelope, id) = (fixture.envelope("m"), fixture.id("m"));
    sender
        .ask(&format!("ack {id}"), &format!("{UNKNOWN}{id}"))
        .await;
    sender
        .ask(&fixture.publish(&envelope), &format!("ACK {id}"))
        .await;
    let mut stranger = fixture.client("stranger").await;
    for client in [&mut sender, &mut stranger] {
        client
            .ask(&format!("ack {id}"), &format!("{FOREIGN}{id}"))
            .await;
        client
            .ask(&format!("reject {id} for fun"), &format!("{FOREIGN}{id}"))
            .await;
    }
    let mut receiver = fixture.receiver(1).await;
    receiver.expect(&fixture.delivery("m", &envelope)).await;
    receiver.ack(&id).await;
    receiver.ack(&id).await;
    stranger
        .ask(&format!("ack {id}"), &format!("{FOREIGN}{id}"))
        .await;
}

pub(super) async fn acks_of_several_messages(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let envelopes: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|id| fixture.envelope(id))
        .collect();
    let [a, b, c] = ["a", "b", "c"].map(|id| fixture.id(id));
    sender.send_line(&fixture.publish_batch(&envelopes)).await;
    for id in [&a, &b, &c] {
        sender.expect(&format!("ACK {id}")).await;
    }
    let mut receiver = fixture.receiver(2).await;
    receiver.expect(&fixture.delivery("a", &envelopes[0])).await;
    receiver.expect(&fixture.delivery("b", &envelopes[1])).await;
    let never = fixture.id("never");
    // All acks are confirmed before the delivery that they make room for.
    receiver
        .send_line(&format!("ack {b} {never} {a} {b}"))
        .await;
    receiver.expect(&format!("ACK_CONFIRMED {b}")).await;
    receiver.expect(&format!("{UNKNOWN}{never}")).await;
    receiver.expect(&format!("ACK_CONFIRMED {a}")).await;
    receiver.expect(&format!("ACK_CONFIRMED {b}")).await;
    receiver.expect(&fixture.delivery("c", &envelopes[2])).await;
    receiver.send_line(&format!("ack {c}  {a}")).await;
    receiver.expect("Missing message ID").await;
    // A message that was not acked is still there.
    drop(receiver);
    let mut again = fixture.receiver(5).await;
    again.expect(&fixture.delivery("c", &envelopes[2])).await;
    again.ask("ping", "PONG").await;
}

pub(super) async fn one_ack_counts_for_every_queue(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    fixture.bind_queue(&mut sender, "second").await;
    let (envelope, id) = (fixture.envelope("m"), fixture.id("m"));
    sender
        .ask(&fixture.publish(&envelope), &format!("ACK {id}"))
        .await;
    let mut receiver = fixture.receiver(1).await;
    receiver.expect(&fixture.delivery("m", &envelope)).await;
    receiver.ack(&id).await;
    let second = format!("consume {} 5", fixture.id("second"));
    receiver.ask(&second, "Subscribed to queue").await;
    receiver.ask("ping", "PONG").await;
    let waiting = format!("SELECT count(*) FROM messages WHERE message_id = '{id}'");
    assert_eq!(fixture.server.database().await.number(&waiting).await, 0);
}

pub(super) async fn an_ack_counts_on_another_connection(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let envelopes: Vec<_> = ["a", "b"].iter().map(|id| fixture.envelope(id)).collect();
    let [a, b] = ["a", "b"].map(|id| fixture.id(id));
    sender.send_line(&fixture.publish_batch(&envelopes)).await;
    sender.expect(&format!("ACK {a}")).await;
    sender.expect(&format!("ACK {b}")).await;
    let mut first = fixture.receiver(2).await;
    first.expect(&fixture.delivery("a", &envelopes[0])).await;
    first.expect(&fixture.delivery("b", &envelopes[1])).await;
    drop(first);
    // The message was processed before the connection was lost, and is acked without a lease.
    let mut second = fixture.client("receiver").await;
    second.ack(&a).await;
    second
        .ask(
            &format!("consume {} 5", fixture.id("q")),
            "Subscribed to queue",
        )
        .await;
    second.expect(&fixture.delivery("b", &envelopes[1])).await;
    second.ask("ping", "PONG").await;
    // A lease of another connection does not matter either.
    let mut third = fixture.client("receiver").await;
    third.ack(&b).await;
    second.ack(&b).await;
}

pub(super) async fn rejected_messages_are_kept(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let envelopes: Vec<_> = ["a", "b"].iter().map(|id| fixture.envelope(id)).collect();
    let [a, b] = ["a", "b"].map(|id| fixture.id(id));
    sender.send_line(&fixture.publish_batch(&envelopes)).await;
    sender.expect(&format!("ACK {a}")).await;
    sender.expect(&format!("ACK {b}")).await;
    let mut receiver = fixture.receiver(1).await;
    receiver.expect(&fixture.delivery("a", &envelopes[0])).await;
    receiver
        .ask(
            &format!("reject {a} it can't be opened: Schlüssel fehlt"),
            &format!("Rejected {a}"),
        )
        .await;
    receiver.expect(&fixture.delivery("b", &envelopes[1])).await;
    let never = fixture.id("never");
    receiver
        .ask(&format!("reject {never} x"), &format!("{UNKNOWN}{never}"))
        .await;
    receiver.ask("reject", "Missing message ID").await;

    let database = fixture.server.database().await;
    // SQLite returns a BLOB unchanged, PostgreSQL in hexadecimal, so both convert it to text.
    let as_text = match &database {
        ciphermq_tests::Database::Sqlite(_) => "CAST(envelope AS TEXT)",
        ciphermq_tests::Database::Postgres(_) => "convert_from(envelope, 'UTF8')",
    };
    let rows = database
        .rows(&format!(
            "SELECT client_id, receiver_client_id, exchange_name, routing_key, reason, {as_text} \
             FROM rejected_messages WHERE message_id = '{a}'"
        ))
        .await;
    let expected = [
        fixture.id("sender"),
        fixture.id("receiver"),
        fixture.id("e"),
        "k".to_owned(),
        "it can't be opened: Schlüssel fehlt".to_owned(),
        envelopes[0].to_string(),
    ];
    assert_eq!(rows, [expected.map(Some)]);
    let waiting = format!("SELECT count(*) FROM messages WHERE message_id = '{a}'");
    assert_eq!(database.number(&waiting).await, 0);
    sender
        .ask(&format!("resend {a}"), "Message ID not found")
        .await;
}

pub(super) async fn resend(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let (envelope, id) = (fixture.envelope("m"), fixture.id("m"));
    sender
        .ask(&format!("resend {id}"), "Message ID not found")
        .await;
    sender
        .ask(&fixture.publish(&envelope), &format!("ACK {id}"))
        .await;
    // The message is still waiting: there is nothing to do, and the request succeeds.
    sender
        .ask(&format!("resend {id}"), "Resend requested")
        .await;
    let mut receiver = fixture.receiver(1).await;
    let delivery = fixture.delivery("m", &envelope);
    receiver.expect(&delivery).await;
    for other in ["receiver", "stranger"] {
        let mut other = fixture.client(other).await;
        other
            .ask(&format!("resend {id}"), "Unauthorized resend request")
            .await;
    }
    receiver.ask("ping", "PONG").await;
    sender
        .ask(&format!("resend {id}"), "Resend requested")
        .await;
    receiver.expect(&delivery).await;
    receiver.ack(&id).await;
    sender
        .ask(&format!("resend {id}"), "Message ID not found")
        .await;
    receiver.ask("ping", "PONG").await;
}
