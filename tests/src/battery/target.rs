//! The server as an attacker sees it, and the attacker's connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::battery::attack::Extent;
use crate::pki::Files;
use crate::raw::Tls;
use crate::{RawClient, Server};

/// The exchange and the routing key of the victim's first queue; see `ciphermq-cli bench`.
pub const VICTIM_ROUTE: &str = "ciphermq_bench ciphermq_bench_1";

/// The line that an attacker prints once the attack is under way.
pub const UNDER_WAY: &str = "under way";

/// The pause of an attacker that the server refuses.
const PAUSE: Duration = Duration::from_millis(50);

/// The server, and the attacker's certificate, as options of a command line.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// Address of the server
    #[arg(long)]
    pub address: SocketAddr,
    /// The authority of all certificates
    #[arg(long)]
    pub ca: PathBuf,
    /// The attacker's certificate; its key is the file `client.key` beside it
    #[arg(long)]
    pub certificate: PathBuf,
    /// The extent of the attack
    #[arg(long, value_enum)]
    pub extent: Extent,
}

impl TargetArgs {
    /// Creates the options for this server, and for a new client of this name.
    pub fn new(server: &Server, client: &str, extent: Extent) -> Self {
        Self {
            address: server.address(),
            ca: server.pki().ca(),
            certificate: server.pki().client(client).certificate,
            extent,
        }
    }

    /// Returns the options as words of a command line.
    pub fn words(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec![
            format!("--address={}", self.address),
            format!("--ca={}", path(&self.ca)),
            format!("--certificate={}", path(&self.certificate)),
            format!(
                "--extent={}",
                if self.extent == Extent::Full {
                    "full"
                } else {
                    "short"
                }
            ),
        ]
    }
}

/// The server from an attacker's point of view.
pub struct Target {
    /// The options of the command line.
    pub args: TargetArgs,
    tls: Tls,
    is_under_way: AtomicBool,
}

impl Target {
    /// Reads the certificates.
    pub fn new(args: TargetArgs) -> Self {
        let tls = Tls::trusting(&args.ca).identity(Files {
            certificate: args.certificate.clone(),
            key: args.certificate.with_file_name("client.key"),
        });
        Self {
            args,
            tls,
            is_under_way: AtomicBool::new(false),
        }
    }

    /// The attacker's client id.
    pub fn client_id(&self) -> &str {
        let folder = self.args.certificate.parent();
        folder
            .and_then(Path::file_name)
            .and_then(|name| name.to_str())
            .unwrap_or("attacker")
    }

    /// Connects, and tries again for as long as the server refuses.
    pub async fn connect(&self) -> RawClient {
        loop {
            match RawClient::handshake(self.args.address, &self.tls).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Sends lines, and reads until all are answered. Returns whether the connection has survived.
    pub async fn ask(&self, client: &mut RawClient, lines: &str) -> bool {
        if client.try_send(lines.as_bytes()).await.is_err()
            || client.try_send(b"ping\n").await.is_err()
        {
            return false;
        }
        loop {
            match client.read_line(Duration::from_secs(600)).await {
                Ok(Some(line)) if line == "PONG" => return true,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// Binds this many queues of the attacker's to a route, `<exchange> <routing key>`, or as many
    /// as the server admits.
    pub async fn bind_queues(&self, count: usize, route: &str) {
        let exchange = route.split(' ').next().unwrap_or_default();
        let mut lines = format!("declare_exchange {exchange}\n");
        for number in 0..count {
            let queue = format!("{}_{number}", self.client_id());
            lines += &format!("declare_queue {queue}\nbind {queue} {route}\n");
        }
        let mut client = self.connect().await;
        self.ask(&mut client, &lines).await;
    }

    /// Reports, at the first call, that the attack is under way.
    pub fn under_way(&self) {
        if !self.is_under_way.swap(true, Ordering::Relaxed) {
            println!("{UNDER_WAY}");
        }
    }

    /// Sends the same kind of lines on this many connections, forever. `lines` gets a number that
    /// differs each time.
    pub async fn ask_endlessly(
        &'static self,
        connections: usize,
        lines: impl Fn(usize) -> String + Send + Sync + 'static,
    ) {
        let lines = Arc::new(lines);
        let one = move |connection: usize| {
            let lines = lines.clone();
            async move {
                let mut round = connection;
                loop {
                    let mut client = self.connect().await;
                    self.under_way();
                    loop {
                        round += connections;
                        let asked = lines(round);
                        if !self.ask(&mut client, &asked).await {
                            break;
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        everywhere(connections, one).await;
    }
}

/// Runs `one` on this many connections concurrently, until the process is killed.
pub async fn everywhere<F>(connections: usize, one: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut all: JoinSet<()> = (0..connections).map(one).collect();
    while all.join_next().await.is_some() {}
}
