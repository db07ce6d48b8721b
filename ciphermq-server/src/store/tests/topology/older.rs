//! A database of the version before queues could be deleted.

use super::*;

on_both! {
    a_database_of_the_version_before_opens,
}

/// Creates a database with the migrations of the version before, and something in it.
async fn older(database: &Database) {
    const ROWS: &str = "INSERT INTO queues (queue_name) VALUES ('a'), ('b'); \
        INSERT INTO exchanges (exchange_name) VALUES ('e'); \
        INSERT INTO bindings (exchange_name, routing_key, queue_id) VALUES ('e', 'k', 1), ('e', \
        'k', 2)";
    let before = |all: Migrator| Migrator {
        migrations: Cow::Owned(all.iter().filter(|one| one.version <= 2).cloned().collect()),
        ..Migrator::DEFAULT
    };
    match database {
        Database::Sqlite(folder) => {
            let path = folder.path().join("data/mq.db");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let url = format!("sqlite://{}?mode=rwc", path.display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            let migrations = before(sqlx::migrate!("src/store/sqlite/migrations"));
            migrations.run(&mut connection).await.unwrap();
            sqlx::raw_sql(ROWS).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
        Database::Postgres(postgres, name) => {
            let mut connection = PgConnection::connect(&postgres.url(name)).await.unwrap();
            let migrations = before(sqlx::migrate!("src/store/postgres/migrations"));
            migrations.run(&mut connection).await.unwrap();
            sqlx::raw_sql(ROWS).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

async fn a_database_of_the_version_before_opens(database: &Database) {
    older(database).await;
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
