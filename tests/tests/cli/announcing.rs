//! Receivers' keys when the server's database is exchanged or set back, when clocks were wrong, and
//! when others are in the way: no success is told that is none, and the advice helps.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::{Announcement, Identity, PrivateKey, RecipientKey, Timestamp};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, RawClient, Server};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::workspace::{Workspace, failed};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server, a desk, and two databases of the server.
struct Exchange {
    server: Server,
    workspace: Workspace,
    databases: [String; 2],
}

impl Exchange {
    /// With SQLite first, and the other database as `second` says.
    async fn with(second: &Backend) -> Self {
        let server = Server::start(Options::sqlite()).await;
        let workspace = Workspace::named(&server, "sender", "receiver");
        let second = if second.is_postgres() {
            second.options().await
        } else {
            Options::sqlite()
        };
        let first = server.database_url();
        let second = match second.store {
            ciphermq_tests::server::Store::Postgres(url) => url,
            _ => format!("sqlite://{}", server.folder().join("second.db").display()),
        };
        Self {
            server,
            workspace,
            databases: [first, second],
        }
    }

    async fn use_database(&mut self, number: usize) {
        self.server
            .configure("database", "url", self.databases[number].as_str());
        self.server.restart().await;
    }

    async fn sends(&self) {
        self.workspace.send_messages(&["text"]).await;
    }

    async fn is_refused(&self, because: &str) -> String {
        let (what, advice) = failed(
            self.workspace
                .send()
                .args(["--message", "text"])
                .run()
                .await,
        );
        assert!(what.contains(because), "{what}");
        advice
    }

    async fn registers(&self) {
        self.workspace.cli("register-key").run().await.success();
    }

    /// Starts the receiver, which registers its keys and takes what waits.
    async fn receives_once(&self) {
        let receive = self.workspace.cli("receive");
        receive
            .args(["--idle-exit", "0.05", "--ignore-gaps"])
            .run()
            .await
            .success();
    }
}

/// The queue is bound in both databases, and senders remember a key of the second; then the first
/// one is back.
async fn senders_have_seen_newer_keys(exchange: &mut Exchange) {
    exchange.workspace.introduce().await;
    exchange.sends().await;
    exchange.use_database(1).await;
    exchange.receives_once().await;
    exchange.sends().await;
    exchange.use_database(0).await;
    let advice = exchange.is_refused("older").await;
    assert!(advice.contains("register-key"), "{advice}");
}

pub(crate) async fn a_database_is_exchanged_and_comes_back(second: Backend) {
    let mut exchange = Exchange::with(&second).await;
    senders_have_seen_newer_keys(&mut exchange).await;
    // What the advice says helps.
    exchange.registers().await;
    exchange.sends().await;
    // And so does what it says of starting the receiver.
    exchange.use_database(1).await;
    exchange.is_refused("older").await;
    exchange.receives_once().await;
    exchange.sends().await;
    // A receiver that runs notices by itself. (What it acks may be in the database that has just
    // gone.)
    let receiver = exchange.workspace.receiving(&["--ignore-gaps"]).await;
    exchange.use_database(0).await;
    receiver.stderr.expect("Public keys registered again").await;
    exchange.sends().await;
    // Both have its last key now.
    for database in [1, 0] {
        exchange.use_database(database).await;
        exchange.sends().await;
    }
}

/// Two machines have the client's certificate and key, and the database is set back to what the
/// first one knows.
pub(crate) async fn another_machine_has_announced_later() {
    let mut exchange = Exchange::with(&Backend::Sqlite).await;
    exchange.workspace.introduce().await;
    let other = Workspace::named(&exchange.server, "sender", "receiver");
    for file in ["receiver_private.key", "receiver_public.key"] {
        std::fs::copy(
            exchange.workspace.path("certs").join(file),
            other.path("certs").join(file),
        )
        .unwrap();
    }
    exchange.server.terminate().await;
    let backup = copy_of(&exchange.server);
    exchange.server.restart().await;
    other.introduce().await;
    exchange.sends().await;
    exchange.server.terminate().await;
    put_back(&exchange.server, &backup);
    exchange.server.restart().await;
    exchange.is_refused("older").await;
    exchange.workspace.introduce().await;
    exchange.sends().await;
}

/// The server's database, while the server does not run.
fn copy_of(server: &Server) -> Vec<(PathBuf, Vec<u8>)> {
    let path = server.database_url();
    let path = Path::new(path.strip_prefix("sqlite://").unwrap_or(&path));
    let path = path
        .to_str()
        .unwrap()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    ["", "-wal", "-shm"]
        .iter()
        .filter_map(|end| {
            let path = PathBuf::from(format!("{path}{end}"));
            Some((path.clone(), std::fs::read(&path).ok()?))
        })
        .collect()
}

fn put_back(server: &Server, backup: &[(PathBuf, Vec<u8>)]) {
    for (path, _) in copy_of(server) {
        std::fs::remove_file(path).unwrap();
    }
    for (path, bytes) in backup {
        std::fs::write(path, bytes).unwrap();
    }
}

/// A key that this identity has signed at that time.
fn signed(server: &Server, by: &str, at: Timestamp) -> String {
    let files = server.pki().client(by);
    let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let chain = rustls_pki_types::CertificateDer::pem_file_iter(files.certificate).unwrap();
    let identity = Identity::new(chain.map(Result::unwrap).collect(), &key).unwrap();
    let key = RecipientKey::X25519(*PrivateKey::generate().unwrap().public_key());
    let announcement = Announcement::new(&identity, vec![key], at, DAY, None);
    announcement.sign(&identity).unwrap()
}

async fn register(server: &Server, signed_key: &str) {
    let mut client = RawClient::connect(server, "receiver").await;
    let command = format!("register_signed_key {signed_key}");
    client.ask(&command, "Public key registered").await;
}

pub(crate) async fn a_key_is_dated_in_the_future() {
    let exchange = Exchange::with(&Backend::Sqlite).await;
    exchange.workspace.introduce().await;
    let (server, workspace) = (&exchange.server, &exchange.workspace);
    let three_hours = Duration::from_secs(3 * 60 * 60);
    for command in ["register-key", "receive"] {
        register(
            server,
            &signed(server, "receiver", Timestamp::now() + three_hours),
        )
        .await;
        let advice = exchange.is_refused("valid only from").await;
        assert!(
            advice.contains("clock") && advice.contains("register-key"),
            "{advice}"
        );
        let cli = workspace.cli(command);
        let cli = if command == "receive" {
            cli.args(["--idle-exit", "0.05"])
        } else {
            cli
        };
        cli.run().await.success();
        exchange.sends().await;
        // What the sender remembers now lies in the future, too: nothing comes of that.
        exchange.registers().await;
        exchange.sends().await;
        std::fs::remove_file(workspace.path("certs/receiver_announced.json")).unwrap();
        exchange.registers().await;
        exchange.sends().await;
    }
}

pub(crate) async fn an_epoch_that_only_senders_know() {
    let exchange = Exchange::with(&Backend::Sqlite).await;
    exchange.workspace.introduce().await;
    exchange.sends().await;
    let pin = exchange.workspace.path("certs/receiver_public.pin.json");
    let mut known: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&pin).unwrap()).unwrap();
    let later = known["epoch"].as_u64().unwrap() + 10_800_000;
    known["epoch"] = later.into();
    std::fs::write(&pin, known.to_string()).unwrap();
    exchange.registers().await;
    let advice = exchange.is_refused("older").await;
    let command = format!("register-key --above {later}");
    assert!(advice.contains(&command), "{advice}");
    let later = later.to_string();
    exchange
        .workspace
        .cli("register-key")
        .args(["--above", &later])
        .run()
        .await
        .success();
    exchange.sends().await;
    // It is remembered.
    exchange.registers().await;
    exchange.sends().await;
    for impossible in ["18446744073709551615", "253402300800000", "-1", "x"] {
        let register = exchange
            .workspace
            .cli("register-key")
            .args(["--above", impossible]);
        register.run().await.code(2);
    }
}

/// What the server has is of a higher epoch, and nothing that the receiver signed: no success is
/// told.
pub(crate) async fn a_key_that_somebody_else_has_signed() {
    let exchange = Exchange::with(&Backend::Sqlite).await;
    exchange.workspace.introduce().await;
    let (server, workspace) = (&exchange.server, &exchange.workspace);
    let own = signed(server, "receiver", Timestamp::now() + DAY);
    // Its signature is altered: the server keeps it, and nobody believes it.
    let (rest, signature) = own.rsplit_once('.').unwrap();
    let forged = format!("{rest}.{}", signature.chars().rev().collect::<String>());
    register(server, &forged).await;
    for command in ["register-key", "receive"] {
        let (what, advice) = failed(workspace.cli(command).run().await);
        assert!(what.contains("did not sign"), "{what}");
        assert!(advice.contains("--above"), "{advice}");
    }
    assert!(!workspace.path("certs/receiver_public.pin.json").exists());
}

/// Where it cannot be remembered what was announced there is a warning, and the keys are
/// registered.
pub(crate) async fn a_record_that_cannot_be_kept() {
    let exchange = Exchange::with(&Backend::Sqlite).await;
    let workspace = &exchange.workspace;
    std::fs::create_dir(workspace.path("certs/receiver_announced.json")).unwrap();
    for _ in 0..2 {
        let registered = workspace.cli("register-key").run().await.success();
        assert!(
            registered
                .stderr
                .contains("Warning: the announcement is not recorded"),
            "{}",
            registered.stderr
        );
    }
    workspace.introduce().await;
    exchange.sends().await;
    // A damaged one is replaced.
    std::fs::remove_dir(workspace.path("certs/receiver_announced.json")).unwrap();
    workspace.write("certs/receiver_announced.json", "{\"epoch\":");
    let registered = workspace.cli("register-key").run().await.success();
    assert!(
        registered.stderr.contains("could not be read"),
        "{}",
        registered.stderr
    );
    let registered = workspace.cli("register-key").run().await.success();
    assert!(
        !registered.stderr.contains("Warning"),
        "{}",
        registered.stderr
    );
    exchange.sends().await;
}

/// Whoever can read the folder with the pins cannot hold up senders.
pub(crate) async fn a_folder_that_others_have_locked() {
    let exchange = Exchange::with(&Backend::Sqlite).await;
    let certs = std::fs::File::open(exchange.workspace.path("certs")).unwrap();
    certs.lock().unwrap();
    exchange.workspace.introduce().await;
    exchange.sends().await;
    let lock = format!(
        "certs/.ciphermq-keys.{}.lock",
        rustix::process::geteuid().as_raw()
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(exchange.workspace.path(&lock))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
