//! Both databases answer queries alike.

use ciphermq_tests::{Database, Postgres};

async fn answers_as_text(database: &Database) {
    database
        .execute("CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT)")
        .await;
    let changed = database
        .execute("INSERT INTO things VALUES (1, 'one'), (2, NULL)")
        .await;
    assert_eq!(changed, 2);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        database
            .rows("SELECT id, name FROM things ORDER BY id")
            .await,
        [[text("1"), text("one")], [text("2"), None]]
    );
    assert_eq!(database.number("SELECT count(*) FROM things").await, 2);
    database.eventually("SELECT max(id) FROM things", 2).await;
}

#[tokio::test]
async fn sqlite_answers_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    std::fs::write(&file, "").unwrap();
    answers_as_text(&Database::connect(&format!("sqlite://{}", file.display())).await).await;
}

#[tokio::test]
async fn postgres_answers_as_text() {
    let postgres = Postgres::start().await;
    let name = postgres.create_database().await;
    answers_as_text(&Database::connect(&postgres.url(&name)).await).await;
}
