//! Lists of queues, exchanges and bindings.

use super::*;

on_both! {
    lists_show_what_a_client_may_see,
}

async fn lists_show_what_a_client_may_see(database: &Database) {
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q1", "q2", "q3"]).await;
    done(&mut store, declare("q4", "t")).await;
    done(&mut store, declare_exchange("e1", "s")).await;
    done(&mut store, declare_exchange("e2", "t")).await;
    done(&mut store, bind(queue[1], "e1", "k", "t", NO_LIMITS)).await;
    done(&mut store, bind(queue[0], "e1", "k", "s", NO_LIMITS)).await;
    done(&mut store, bind(queue[2], "e2", "k", "s", NO_LIMITS)).await;
    publish_all(
        &mut store,
        vec![to(&queue, "m"), to(&queue[..1], "n"), to(&queue[..1], "o")],
    )
    .await;
    ack_all(&mut store, vec![ack("n", "r")]).await;
    let scope = |client_id: Option<&str>, limit| ListScope {
        visible_to: client_id.map(client),
        limit,
    };
    let all = store
        .reader
        .list_queues(&scope(None, 100), None, None)
        .await
        .unwrap();
    assert_eq!(all.next, None);
    let shown: Vec<_> = all
        .rows
        .iter()
        .map(|queue| {
            let maker = queue.made_by.as_ref().unwrap().as_str();
            (queue.name.as_str(), maker, queue.bindings, queue.messages)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("q1", "s", 1, 2),
            ("q2", "s", 1, 1),
            ("q3", "s", 1, 1),
            ("q4", "t", 0, 0)
        ]
    );
    for (who, wanted) in [
        // What it made, or has bound.
        ("t", vec![("q2", 0), ("q4", 0)]),
        // Where messages wait for it, which are all that it learns of.
        ("r", vec![("q1", 2), ("q2", 1), ("q3", 1)]),
        ("s", vec![("q1", 2), ("q2", 1), ("q3", 1)]),
        ("nobody", vec![]),
    ] {
        let listed = store
            .reader
            .list_queues(&scope(Some(who), 100), None, None)
            .await
            .unwrap();
        assert_eq!(listed.rows.len(), 4);
        let visible = listed.rows.iter().filter(|queue| queue.is_visible);
        let shown: Vec<_> = visible
            .map(|queue| (queue.name.as_str(), queue.messages))
            .collect();
        assert_eq!(shown, wanted, "{who}");
    }
    // Page by page, and one alone.
    let mut names = Vec::new();
    let mut after: Option<QueueName> = None;
    loop {
        let page = scope(None, 3);
        let page = store
            .reader
            .list_queues(&page, after.as_ref(), None)
            .await
            .unwrap();
        names.extend(page.rows.iter().map(|queue| queue.name.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["q1", "q2", "q3", "q4"]);
    let only = QueueName::new("q2").unwrap();
    let one = store
        .reader
        .list_queues(&scope(None, 9), None, Some(&only))
        .await
        .unwrap();
    assert_eq!(
        (one.rows.len(), &one.rows[0].name, one.next),
        (1, &only, None)
    );

    for (who, wanted) in [
        (None, vec![("e1", 2), ("e2", 1)]),
        (Some("s"), vec![("e1", 2), ("e2", 1)]),
        (Some("t"), vec![("e1", 2), ("e2", 1)]),
        (Some("r"), vec![]),
    ] {
        let listed = store
            .reader
            .list_exchanges(&scope(who, 9), None, None)
            .await
            .unwrap();
        let shown: Vec<_> = listed
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.bindings))
            .collect();
        assert_eq!(shown, wanted, "{who:?}");
    }
    let bindings = async |who, limit, only: Option<&str>, queue: Option<&str>| {
        let (mut shown, mut after): (Vec<(String, String)>, Option<BindingCursor>) =
            Default::default();
        loop {
            let (only, queue) = (
                only.map(exchange),
                queue.map(|q| QueueName::new(q).unwrap()),
            );
            let scope = scope(who, limit);
            let page = store
                .reader
                .list_bindings(&scope, after.as_ref(), only.as_ref(), queue.as_ref())
                .await
                .unwrap();
            let row = page.rows.into_iter();
            shown.extend(row.map(|row| (row.exchange.to_string(), row.queue.to_string())));
            after = page.next;
            if after.is_none() {
                return shown;
            }
        }
    };
    let pair = |exchange: &str, queue: &str| (exchange.to_owned(), queue.to_owned());
    for limit in [1, 2, 9] {
        assert_eq!(
            bindings(None, limit, None, None).await,
            [pair("e1", "q1"), pair("e1", "q2"), pair("e2", "q3")]
        );
        assert_eq!(
            bindings(None, limit, Some("e2"), None).await,
            [pair("e2", "q3")]
        );
        assert_eq!(bindings(None, limit, Some("e"), None).await, []);
        assert_eq!(
            bindings(None, limit, None, Some("q2")).await,
            [pair("e1", "q2")]
        );
        assert_eq!(
            bindings(Some("t"), limit, None, None).await,
            [pair("e1", "q2"), pair("e2", "q3")],
            "made by it, or to its exchange"
        );
        assert_eq!(bindings(Some("r"), limit, None, None).await, []);
    }
    close(store).await;
}
