//! Advice about roles and rights, for a server that is not the owner of its database.

use super::*;

/// A role with a database of its own, numbered, and connections for it and for the superuser.
struct Tenant {
    role: String,
    database: String,
    url: String,
    admin: PgConnection,
}

impl Tenant {
    async fn new(postgres: &Postgres, number: usize) -> Self {
        let (role, database) = (format!("role_{number}"), format!("database_{number}"));
        let elsewhere = postgres.create_database().await;
        let mut admin = PgConnection::connect(&postgres.url(&elsewhere))
            .await
            .unwrap();
        for statement in [
            "SET default_transaction_read_only = off".to_owned(),
            format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'"),
            format!("CREATE DATABASE {database} OWNER {role} ENCODING 'UTF8' TEMPLATE template0"),
        ] {
            run(&mut admin, &statement).await;
        }
        let url = format!(
            "postgres://{role}:pw@127.0.0.1:{}/{database}",
            postgres.port()
        );
        Self {
            role,
            database,
            url,
            admin,
        }
    }

    fn named(&self, text: &str) -> String {
        text.replace("{role}", &self.role)
            .replace("{database}", &self.database)
    }
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Each piece of advice is followed, and then the server starts.
#[tokio::test]
async fn postgres_advice_about_settings_works() {
    const READ_ONLY: &str = "default_transaction_read_only";
    let postgres = Postgres::start().await;
    for (number, (setting, told)) in [
        (
            "ALTER ROLE {role} SET default_transaction_read_only = on",
            "set for the role)",
        ),
        (
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "set for the database)",
        ),
        (
            "ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on",
            "set for the role in this database)",
        ),
        (
            "ALTER ROLE {role} SET search_path = missing",
            "has no schema",
        ),
        (
            "ALTER DATABASE {database} SET search_path = pg_catalog",
            "has no schema",
        ),
        (
            "ALTER ROLE {role} IN DATABASE {database} SET search_path = ''",
            "has no schema",
        ),
        (
            "ALTER ROLE ALL SET default_transaction_read_only = on",
            "set for all roles)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut tenant = Tenant::new(&postgres, number).await;
        let setting = tenant.named(setting);
        run(&mut tenant.admin, &setting).await;
        let text = refused(at(tenant.url.clone())).await;
        assert!(text.contains(told), "{text}");
        let (_, advice) = text.split_once("; ").unwrap();
        for statement in advice.split(", and ") {
            if statement.starts_with("GRANT") {
                let url = postgres.url(&tenant.database);
                let mut inside = PgConnection::connect(&url).await.unwrap();
                run(&mut inside, statement).await;
            } else {
                run(&mut tenant.admin, statement).await;
            }
        }
        close(
            open(&DatabaseSettings::Postgres(at(tenant.url)))
                .await
                .unwrap(),
        )
        .await;
        // It would keep the next database from being made.
        let reset = format!("ALTER ROLE ALL RESET {READ_ONLY}");
        run(&mut tenant.admin, &reset).await;
    }
    // A setting in the URL takes precedence over all statements.
    let tenant = Tenant::new(&postgres, 100).await;
    for setting in [READ_ONLY, "search_path"] {
        let url = format!("{}?options=-c%20{setting}%3Don", tenant.url);
        let text = refused(at(url)).await;
        assert!(
            text.contains(&format!("take {setting} out of `options`")),
            "{text}"
        );
        assert!(!text.contains("ALTER"), "{text}");
    }
}

#[tokio::test]
async fn postgres_a_missing_right_is_named() {
    let postgres = Postgres::start().await;
    let mut owner = Tenant::new(&postgres, 1).await;
    let settings = DatabaseSettings::Postgres(at(owner.url.clone()));
    close(open(&settings).await.unwrap()).await;

    let mut inside = PgConnection::connect(&postgres.url(&owner.database))
        .await
        .unwrap();
    run(&mut owner.admin, "CREATE ROLE second LOGIN PASSWORD 'pw'").await;
    run(
        &mut inside,
        "GRANT USAGE, CREATE ON SCHEMA public TO second",
    )
    .await;
    run(
        &mut inside,
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO second",
    )
    .await;
    let second = at(owner.url.replace("role_1", "second"));
    let text = refused(second.clone()).await;
    assert!(text.contains("batches, bindings"), "{text}");
    let (_, advice) = text.split_once("; ").unwrap();
    run(&mut inside, advice.split(", or ").next().unwrap()).await;
    close(open(&DatabaseSettings::Postgres(second)).await.unwrap()).await;

    // While it runs.
    let store = open(&settings).await.unwrap();
    run(
        &mut inside,
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM role_1",
    )
    .await;
    let error = store
        .reader
        .public_key(&client("receiver_1"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let text = chain(&error);
    assert!(
        text.contains("permission denied") && text.contains("GRANT SELECT"),
        "{text}"
    );
    close(store).await;
}
