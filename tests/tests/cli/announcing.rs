//! Registration of receivers' keys after the server's database was replaced or restored, with wrong
//! clocks, and with interference: every failure is reported, and the advice helps.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::{Announcement, Identity, PrivateKey, RecipientKey, Timestamp};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, RawClient, Server};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use ciphermq_tests::workspace::{Workspace, failed};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server with two databases to switch between, and a workspace.
struct DatabaseSwap {
    server: Server,
    workspace: Workspace,
    databases: [String; 2],
}

impl DatabaseSwap {
    /// Starts the server on SQLite; the other database is of the kind of `second`.
    async fn new(second: &Backend) -> Self {
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

    async fn send(&self) {
        self.workspace.send_messages(&["text"]).await;
    }

    async fn expect_send_refused(&self, cause: &str) -> String {
        let (what, advice) = failed(
            self.workspace
                .send()
                .args(["--message", "text"])
                .run()
                .await,
        );
        assert!(what.contains(cause), "{what}");
        advice
    }

    async fn register_key(&self) {
        self.workspace.cli("register-key").run().await.success();
    }

    /// Runs the receiver, which registers its keys and takes the waiting messages.
    async fn receive_once(&self) {
        let receive = self.workspace.cli("receive");
        receive
            .args(["--idle-exit", "0.05", "--ignore-gaps"])
            .run()
            .await
            .success();
    }
}

/// Binds the queue in both databases and lets the sender pin a key of the second, then returns to
/// the first one, whose key is older.
async fn pin_key_of_second_database(swap: &mut DatabaseSwap) {
    swap.workspace.register_receiver().await;
    swap.send().await;
    swap.use_database(1).await;
    swap.receive_once().await;
    swap.send().await;
    swap.use_database(0).await;
    let advice = swap.expect_send_refused("older").await;
    assert!(advice.contains("register-key"), "{advice}");
}

pub(crate) async fn a_database_is_replaced_and_restored(second: Backend) {
    let mut swap = DatabaseSwap::new(&second).await;
    pin_key_of_second_database(&mut swap).await;
    // Registering the key, as advised, helps.
    swap.register_key().await;
    swap.send().await;
    // So does starting the receiver, as advised.
    swap.use_database(1).await;
    swap.expect_send_refused("older").await;
    swap.receive_once().await;
    swap.send().await;
    // A running receiver registers its keys again by itself. (Its acks may be for messages in the
    // other database.)
    let receiver = swap.workspace.receiving(&["--ignore-gaps"]).await;
    swap.use_database(0).await;
    receiver.stderr.expect("Public keys registered again").await;
    swap.send().await;
    // Both databases have its latest key now.
    for database in [1, 0] {
        swap.use_database(database).await;
        swap.send().await;
    }
}

/// Two machines share the client's certificate and key, and the database is restored to a state
/// that only the first one has seen.
pub(crate) async fn another_machine_has_announced_later() {
    let mut swap = DatabaseSwap::new(&Backend::Sqlite).await;
    swap.workspace.register_receiver().await;
    let other = Workspace::named(&swap.server, "sender", "receiver");
    for file in ["receiver_private.key", "receiver_public.key"] {
        std::fs::copy(
            swap.workspace.path("certs").join(file),
            other.path("certs").join(file),
        )
        .unwrap();
    }
    swap.server.terminate().await;
    let backup = database_files(&swap.server);
    swap.server.restart().await;
    other.register_receiver().await;
    swap.send().await;
    swap.server.terminate().await;
    restore(&swap.server, &backup);
    swap.server.restart().await;
    swap.expect_send_refused("older").await;
    swap.workspace.register_receiver().await;
    swap.send().await;
}

/// Reads the files of the stopped server's database.
fn database_files(server: &Server) -> Vec<(PathBuf, Vec<u8>)> {
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

fn restore(server: &Server, backup: &[(PathBuf, Vec<u8>)]) {
    for (path, _) in database_files(server) {
        std::fs::remove_file(path).unwrap();
    }
    for (path, bytes) in backup {
        std::fs::write(path, bytes).unwrap();
    }
}

/// Returns a new key, signed with a client's identity at a given time.
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
    let swap = DatabaseSwap::new(&Backend::Sqlite).await;
    swap.workspace.register_receiver().await;
    let (server, workspace) = (&swap.server, &swap.workspace);
    let three_hours = Duration::from_secs(3 * 60 * 60);
    for command in ["register-key", "receive"] {
        register(
            server,
            &signed(server, "receiver", Timestamp::now() + three_hours),
        )
        .await;
        let advice = swap.expect_send_refused("valid only from").await;
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
        swap.send().await;
        // The sender's pin is now dated in the future as well, which does no harm.
        swap.register_key().await;
        swap.send().await;
        std::fs::remove_file(workspace.path("certs/receiver_announced.json")).unwrap();
        swap.register_key().await;
        swap.send().await;
    }
}

pub(crate) async fn an_epoch_that_only_senders_know() {
    let swap = DatabaseSwap::new(&Backend::Sqlite).await;
    swap.workspace.register_receiver().await;
    swap.send().await;
    let pin = swap.workspace.path("certs/receiver_public.pin.json");
    let mut known: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&pin).unwrap()).unwrap();
    let later = known["epoch"].as_u64().unwrap() + 10_800_000;
    known["epoch"] = later.into();
    std::fs::write(&pin, known.to_string()).unwrap();
    swap.register_key().await;
    let advice = swap.expect_send_refused("older").await;
    let command = format!("register-key --above {later}");
    assert!(advice.contains(&command), "{advice}");
    let later = later.to_string();
    swap.workspace
        .cli("register-key")
        .args(["--above", &later])
        .run()
        .await
        .success();
    swap.send().await;
    // The higher epoch is recorded.
    swap.register_key().await;
    swap.send().await;
    for impossible in ["18446744073709551615", "253402300800000", "-1", "x"] {
        let register = swap
            .workspace
            .cli("register-key")
            .args(["--above", impossible]);
        register.run().await.code(2);
    }
}

/// The server has a key with a higher epoch that the receiver did not sign: registering fails.
pub(crate) async fn a_key_with_a_forged_signature() {
    let swap = DatabaseSwap::new(&Backend::Sqlite).await;
    swap.workspace.register_receiver().await;
    let (server, workspace) = (&swap.server, &swap.workspace);
    let own = signed(server, "receiver", Timestamp::now() + DAY);
    // Its signature is altered: the server stores it, but no client accepts it.
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

/// If the announcement cannot be recorded, there is a warning, and the keys are registered.
pub(crate) async fn a_record_that_cannot_be_written() {
    let swap = DatabaseSwap::new(&Backend::Sqlite).await;
    let workspace = &swap.workspace;
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
    workspace.register_receiver().await;
    swap.send().await;
    // A damaged record is replaced.
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
    swap.send().await;
}

/// A process that can read the folder of the pins, and therefore lock it, cannot block senders.
pub(crate) async fn a_folder_that_another_process_has_locked() {
    let swap = DatabaseSwap::new(&Backend::Sqlite).await;
    let certs = std::fs::File::open(swap.workspace.path("certs")).unwrap();
    certs.lock().unwrap();
    swap.workspace.register_receiver().await;
    swap.send().await;
    let lock = format!(
        "certs/.ciphermq-keys.{}.lock",
        rustix::process::geteuid().as_raw()
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(swap.workspace.path(&lock))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
