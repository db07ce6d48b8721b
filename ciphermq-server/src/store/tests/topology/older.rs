//! A database of the version before queues could be deleted.

use super::*;

on_both! {
    a_database_of_the_version_before_opens,
}

async fn a_database_of_the_version_before_opens(database: &Database) {
    const ROWS: &str = "INSERT INTO queues (queue_name) VALUES ('a'), ('b'); \
        INSERT INTO exchanges (exchange_name) VALUES ('e'); \
        INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES ('e', 'k', 1), ('e', \
        'k', 2)";
    database.make_older(2, ROWS).await;
    let mut store = database.open().await;
    let topology = store.reader.topology().await.unwrap();
    let (a, b) = (topology.queues[0].0, topology.queues[1].0);
    assert_eq!((topology.queues.len(), topology.bindings.len()), (2, 2));
    let all = ListScope {
        visible_to: None,
        limit: 10,
    };
    let listed = store.reader.list_queues(&all, None, None).await.unwrap();
    assert!(listed.rows.iter().all(|queue| queue.made_by.is_none()));
    publish_all(&mut store, vec![to(&[a, b], "m")]).await;
    assert_eq!(
        refused(&mut store, delete(b, false, "s")).await,
        Refusal::MadeByAnother
    );
    done(&mut store, delete(b, false, "admin")).await;
    finish(&mut store).await;
    assert_eq!(waiting(&store, a, "r").await, ["m"]);
    let c = queues(&mut store, &["c"]).await[0];
    assert!(c > b);
    close(store).await;
}
