//! Messages under consecutive ids are stored together, and each is still handled by itself.

use std::sync::Arc;

use ciphermq_protocol::envelope::EnvelopeBytes;
use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::{Envelope, MessageId};

use super::fixture::*;
use crate::model::{
    Ack, AckOutcome, PageLimit, Publish, PublishOutcome, QueueId, Rejection, Seq, Transaction,
};

async fn messages_of_a_batch_are_independent(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2"]).await;
    let stream = Ids::new(1);
    publish_all(&mut store, stream.publishes(0..300, &queue)).await;
    assert_eq!(number(database, "SELECT COUNT(*) FROM batches").await, 3);
    assert_eq!(number(database, "SELECT COUNT(*) FROM messages").await, 600);
    assert_eq!(waiting(&store, queue[0], "r").await, stream.texts(0..300));
    assert_eq!(waiting(&store, queue[1], "r").await, stream.texts(0..300));

    // A retry that goes further than the first attempt.
    let again = publish_all(&mut store, stream.publishes(200..310, &queue)).await;
    let stored = |outcome: &PublishOutcome| matches!(outcome, PublishOutcome::Stored { .. });
    assert!(
        again.publishes[..100]
            .iter()
            .all(|o| *o == PublishOutcome::Duplicate)
    );
    assert!(again.publishes[100..].iter().all(stored));
    let other = Arc::new(Publish {
        sender: client("somebody"),
        ..stream.publish(299, &queue)
    });
    let taken = publish_all(&mut store, vec![other]).await;
    assert_eq!(taken.publishes, [PublishOutcome::IdInUse]);

    // Every third message is acked, backwards, one of them twice and one by somebody else.
    let acked: Vec<u64> = (0..310).step_by(3).collect();
    let mut acks: Vec<Ack> = acked.iter().rev().map(|&at| stream.ack(at)).collect();
    acks.push(stream.ack(3));
    acks.push(Ack {
        client_id: client("other"),
        ..stream.ack(4)
    });
    let outcomes = ack_all(&mut store, acks).await.acks;
    let last = outcomes.len() - 2;
    assert_eq!(
        outcomes[last..],
        [AckOutcome::AlreadyDone, AckOutcome::NotAuthorized]
    );
    let done = AckOutcome::Done(vec![(queue[0], Seq(1 + 2 * 6)), (queue[1], Seq(2 + 2 * 6))]);
    assert_eq!(outcomes[last - 1 - 2], done);
    let left = |range: std::ops::Range<u64>| -> Vec<String> {
        range
            .filter(|at| at % 3 != 0)
            .map(|at| stream.id(at).to_string())
            .collect()
    };
    assert_eq!(waiting(&store, queue[1], "r").await, left(0..310));
    assert_eq!(
        number(database, "SELECT COUNT(*) FROM messages").await,
        2 * 206
    );

    // Page by page, and by number.
    let (mut after, mut seen) = (Seq(0), Vec::new());
    let limit = PageLimit {
        messages: 7,
        bytes: usize::MAX,
    };
    loop {
        let page = store
            .reader
            .lane(&lane(queue[0], "r"), after, limit)
            .await
            .unwrap();
        for message in &page.messages {
            assert_eq!(message.envelope, stream.envelope_of(&message.message_id));
            after = message.seq;
        }
        seen.extend(
            page.messages
                .iter()
                .map(|message| message.message_id.to_string()),
        );
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, left(0..310));
    let seqs = [Seq(601), Seq(3), Seq(1), Seq(4), Seq(256), Seq(259)];
    let page = store.reader.messages(&seqs, usize::MAX).await.unwrap();
    let found: Vec<(i64, MessageId)> = page
        .messages
        .iter()
        .map(|message| (message.seq.0, message.message_id.clone()))
        .collect();
    // 1 and 601 are acked.
    let expected = [(3, 1), (4, 1), (256, 127), (259, 129)].map(|(seq, at)| (seq, stream.id(at)));
    let expected: Vec<_> = expected
        .into_iter()
        .filter(|(_, id)| left(0..310).contains(&id.to_string()))
        .collect();
    assert_eq!(found, expected);
    close(store).await;
}

async fn a_batch_is_removed_once_all_of_it_is_settled(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await;
    let stream = Ids::new(2);
    publish_all(&mut store, stream.publishes(0..100, &queue)).await;
    let delivered = time("2025-09-08T07:03:30Z");
    commit(
        &mut store,
        Transaction {
            deliveries: (0..50).map(|at| (stream.id(at), delivered)).collect(),
            ..Transaction::default()
        },
    )
    .await;
    let rejected = commit(
        &mut store,
        Transaction {
            acks: (0..40).map(|at| stream.ack(at)).collect(),
            rejections: vec![
                stream.rejection(60),
                stream.rejection(3),
                stream.rejection(60),
            ],
            ..Transaction::default()
        },
    )
    .await;
    assert_eq!(
        rejected.rejections,
        [
            AckOutcome::Done(vec![(queue[0], Seq(61))]),
            AckOutcome::NotFound,
            AckOutcome::AlreadyDone
        ]
    );
    let aside = database
        .texts("SELECT message_id, CAST(LENGTH(envelope) AS TEXT) FROM rejected_messages")
        .await;
    let length = stream.envelope_of(&stream.id(60)).len().to_string();
    assert_eq!(aside, [Some(stream.id(60).to_string()), Some(length)]);
    assert_eq!(number(database, "SELECT COUNT(*) FROM envelopes").await, 1);
    let rest: Vec<Ack> = (40..100).map(|at| stream.ack(at)).collect();
    let outcomes = ack_all(&mut store, rest).await.acks;
    assert_eq!(outcomes[20], AckOutcome::AlreadyDone);
    for table in ["envelopes", "waiting", "messages"] {
        assert_eq!(
            number(database, &format!("SELECT COUNT(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
    // Messages with the same times share one row: acked after a recorded delivery, after an
    // unrecorded one, rejected.
    for (delivered, messages, rejected) in [("07:03:30", "50", "0"), ("07:04:00", "50", "1")] {
        let times = database
            .texts(&format!(
                "SELECT CAST(COUNT(*) AS TEXT), CAST(COUNT(rejected_time) AS TEXT) FROM \
                 message_metadata \
                 WHERE delivered_time = '2025-09-08T{delivered}.000000Z'"
            ))
            .await;
        assert_eq!(
            times,
            [messages, rejected].map(|text| Some(text.to_owned()))
        );
    }
    assert!(number(database, "SELECT COUNT(*) FROM fates").await <= 4);
    close(store).await;
}

async fn a_message_can_be_acked_in_the_commit_that_publishes_it(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await;
    let stream = Ids::new(3);
    let outcomes = commit(
        &mut store,
        Transaction {
            publishes: stream.publishes(0..3, &queue),
            acks: vec![stream.ack(1), stream.ack(7)],
            ..Transaction::default()
        },
    )
    .await;
    assert_eq!(
        outcomes.acks,
        [
            AckOutcome::Done(vec![(queue[0], Seq(2))]),
            AckOutcome::NotFound
        ]
    );
    let left = [stream.id(0), stream.id(2)].map(|id| id.to_string());
    assert_eq!(waiting(&store, queue[0], "r").await, left);
    close(store).await;
}

async fn messages_of_different_kinds_are_not_joined(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2"]).await;
    let stream = Ids::new(4);
    let mut publishes: Vec<Publish> = (0..6).map(|at| stream.publish(at, &queue[..1])).collect();
    publishes[1].sender = client("s2");
    publishes[2].sent_time = time("2025-09-08T07:03:01Z");
    publishes[3].queues = queue[1..].into();
    publishes[4].envelope = envelope(stream.id(4).as_str(), "r2", true, "AAAA");
    publishes[5].exchange = ciphermq_protocol::ExchangeName::new("e2").unwrap();
    let outcomes = publish_all(&mut store, publishes.into_iter().map(Arc::new).collect()).await;
    assert_eq!(
        outcomes.publishes[5],
        PublishOutcome::Stored { first: Seq(6) }
    );
    assert_eq!(number(database, "SELECT COUNT(*) FROM batches").await, 6);
    assert_eq!(waiting(&store, queue[1], "r").await, stream.texts(3..4));
    assert_eq!(waiting(&store, queue[0], "r2").await, stream.texts(4..5));
    close(store).await;
}

/// The piece that packed messages share is stored once; each message is read as a whole.
async fn packed_messages_share_a_stored_piece(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await;
    let stream = Ids::new(5);
    let mut publishes: Vec<Publish> = (0..6).map(|at| stream.publish(at, &queue)).collect();
    for at in [2, 3] {
        publishes[at].envelope = whole(&publishes[at].envelope);
    }
    let shared = publishes[0].envelope.raw().shared().unwrap().len();
    publish_all(&mut store, publishes.into_iter().map(Arc::new).collect()).await;
    assert_eq!(number(database, "SELECT COUNT(*) FROM batches").await, 3);
    assert_eq!(
        number(database, "SELECT SUM(LENGTH(shared)) FROM envelopes").await,
        i64::try_from(2 * shared).unwrap()
    );
    let page = PageLimit {
        messages: 100,
        bytes: usize::MAX,
    };
    let page = store
        .reader
        .lane(&lane(queue[0], "r"), Seq(0), page)
        .await
        .unwrap();
    assert_eq!(page.messages.len(), 6);
    for (at, message) in (0..).zip(&page.messages) {
        let expected = stream.envelope_of(&stream.id(at));
        assert_eq!(message.envelope, expected);
        assert_eq!(message.envelope.shared().is_some(), at != 2 && at != 3);
        let text = String::from_utf8(expected.to_bytes().to_vec()).unwrap();
        let found = format!(
            "SELECT COUNT(*) FROM messages WHERE message_id = '{}' AND envelope_bytes = {} AND {} \
             = '{text}'",
            stream.id(at),
            text.len(),
            database.text_of("envelope"),
        );
        assert_eq!(number(database, &found).await, 1, "{text}");
    }
    let rejections = vec![stream.rejection(1), stream.rejection(2)];
    commit(
        &mut store,
        Transaction {
            rejections,
            ..Transaction::default()
        },
    )
    .await;
    for at in [1, 2] {
        let text =
            String::from_utf8(stream.envelope_of(&stream.id(at)).to_bytes().to_vec()).unwrap();
        let found = format!(
            "SELECT COUNT(*) FROM rejected_messages WHERE {} = '{text}'",
            database.text_of("envelope")
        );
        assert_eq!(number(database, &found).await, 1, "{text}");
    }
    close(store).await;
}

/// Messages in the binary form are stored as they are; people and rejections get their text.
async fn binary_messages_are_read_as_they_are_and_shown_as_texts(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await;
    let stream = Ids::new(6);
    let lengths = [0, 1, 2, 3, 767, 768, 769, 2000];
    let envelopes: Vec<Envelope> = (0..)
        .zip(lengths)
        .map(|(at, length)| {
            let ciphertext: Vec<u8> = (0..=255).cycle().take(length).collect();
            binary(stream.id(at).as_str(), "r", &ciphertext)
        })
        .collect();
    let publishes = envelopes
        .iter()
        .map(|envelope| publish("s", &queue, envelope.clone()));
    publish_all(&mut store, publishes.collect()).await;
    let page = PageLimit {
        messages: 100,
        bytes: usize::MAX,
    };
    let lane = lane(queue[0], "r");
    let read = store.reader.lane(&lane, Seq(0), page).await.unwrap();
    let read = read.messages;
    assert_eq!(read.len(), envelopes.len());
    for (message, envelope) in read.iter().zip(&envelopes) {
        assert_eq!(message.envelope.own(), envelope.raw().own());
        let text = String::from_utf8(envelope.raw().to_bytes().to_vec()).unwrap();
        let found = format!(
            "SELECT COUNT(*) FROM messages WHERE message_id = '{}' AND envelope_bytes = {} AND {} \
             = '{text}'",
            envelope.message_id,
            envelope.raw().stored_len(),
            database.text_of("envelope"),
        );
        assert_eq!(number(database, &found).await, 1, "{text}");
    }
    let rejections = (0..8).map(|at| stream.rejection(at)).collect();
    let transaction = Transaction {
        rejections,
        ..Transaction::default()
    };
    commit(&mut store, transaction).await;
    for envelope in &envelopes {
        let text = String::from_utf8(envelope.raw().to_bytes().to_vec()).unwrap();
        let found = format!(
            "SELECT COUNT(*) FROM rejected_messages WHERE {} = '{text}'",
            database.text_of("envelope")
        );
        assert_eq!(number(database, &found).await, 1, "{text}");
    }
    close(store).await;
}

on_both! {
    messages_of_a_batch_are_independent,
    a_batch_is_removed_once_all_of_it_is_settled,
    a_message_can_be_acked_in_the_commit_that_publishes_it,
    messages_of_different_kinds_are_not_joined,
    packed_messages_share_a_stored_piece,
    binary_messages_are_read_as_they_are_and_shown_as_texts,
}

async fn number(database: &Database, sql: &str) -> i64 {
    let text = database
        .texts(&format!("SELECT CAST(({sql}) AS TEXT)"))
        .await;
    text[0].as_deref().unwrap().parse().unwrap()
}

/// A sender's stream.
struct Ids(StreamId);

impl Ids {
    fn new(random: u64) -> Self {
        Self(StreamId::new(1_757_315_000_000, random))
    }

    fn id(&self, at: u64) -> MessageId {
        self.0.message_id(at).unwrap()
    }

    fn texts(&self, range: std::ops::Range<u64>) -> Vec<String> {
        range.map(|at| self.id(at).to_string()).collect()
    }

    fn publish(&self, at: u64, queues: &[QueueId]) -> Publish {
        let id = self.id(at);
        // Payloads of different lengths.
        let payload = "A".repeat(4 * (1 + usize::try_from(at % 5).unwrap()));
        let publish = publish("s", queues, envelope(id.as_str(), "r", true, &payload));
        Arc::into_inner(publish).unwrap()
    }

    fn publishes(&self, range: std::ops::Range<u64>, queues: &[QueueId]) -> Vec<Arc<Publish>> {
        range.map(|at| Arc::new(self.publish(at, queues))).collect()
    }

    fn envelope_of(&self, id: &MessageId) -> EnvelopeBytes {
        let (_, at) = StreamId::split(id).unwrap();
        self.publish(at, &[]).envelope.raw().clone()
    }

    fn ack(&self, at: u64) -> Ack {
        ack(self.id(at).as_str(), "r")
    }

    fn rejection(&self, at: u64) -> Rejection {
        Rejection {
            ack: self.ack(at),
            reason: "why".to_owned(),
        }
    }
}
