//! A server with an injected defect: `faulty-server <behaviour> <path of the real server, unused>
//! --config <file>`.
//!
//! It is the real server, with a faulty layer in front of its store. It shows that the fault
//! harness detects violated guarantees.

use std::path::PathBuf;
use std::process::ExitCode;

use async_trait::async_trait;
use ciphermq_server::config::{self, Config};
use ciphermq_server::model::{CommitNumber, Outcomes, Publish, PublishOutcome, Seq, Transaction};
use ciphermq_server::server;
use ciphermq_server::signals::Signals;
use ciphermq_server::store::{CommitError, Committer, Error, Maintained, Retention, Space, Store};
use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Arguments {
    behaviour: Behaviour,
    _server: PathBuf,
    #[arg(long)]
    config: PathBuf,
}

/// Defect of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Behaviour {
    /// No defect.
    Honest,
    /// The last message of each commit is acknowledged and delivered, but only stored by the next
    /// commit.
    AcknowledgesBeforeTheCommit,
    /// Every fiftieth message is acknowledged, but not stored.
    Drops,
}

struct FaultyCommitter {
    behaviour: Behaviour,
    inner: Box<dyn Committer>,
    /// A message that was acknowledged, but is not stored yet.
    held: Option<std::sync::Arc<Publish>>,
    /// The last sequence number that was assigned.
    last: i64,
    counted: u64,
}

#[async_trait]
impl Committer for FaultyCommitter {
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        match self.behaviour {
            Behaviour::Honest => self.inner.commit(transaction).await,
            Behaviour::AcknowledgesBeforeTheCommit => self.commit_later(transaction).await,
            Behaviour::Drops => self.commit_most(transaction).await,
        }
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        self.inner.reopen().await
    }

    fn space(&self) -> Space {
        self.inner.space()
    }

    async fn maintain(&mut self, retention: &Retention) -> Result<Maintained, Error> {
        self.inner.maintain(retention).await
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

impl FaultyCommitter {
    async fn commit_later(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        let mut stored = transaction.clone();
        let held = stored.publishes.pop();
        let before = self.held.take();
        stored.publishes.splice(0..0, before.clone());
        let mut outcomes = self.inner.commit(&stored).await?;
        self.note(&outcomes);
        if before.is_some() {
            outcomes.publishes.remove(0);
        }
        if held.is_some() {
            // It will be assigned this number, because the next commit stores it first.
            let first = Seq(self.last + 1);
            outcomes.publishes.push(PublishOutcome::Stored { first });
        }
        self.held = held;
        Ok(outcomes)
    }

    async fn commit_most(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        let mut stored = transaction.clone();
        let mut dropped = Vec::new();
        for at in 0..transaction.publishes.len() {
            self.counted += 1;
            if self.counted.is_multiple_of(50) {
                stored.publishes.remove(at - dropped.len());
                dropped.push(at);
            }
        }
        let mut outcomes = self.inner.commit(&stored).await?;
        for at in dropped {
            outcomes.publishes.insert(at, PublishOutcome::Duplicate);
        }
        Ok(outcomes)
    }

    fn note(&mut self, outcomes: &Outcomes) {
        for outcome in &outcomes.publishes {
            if let PublishOutcome::Stored { first } = outcome {
                self.last = self.last.max(first.0);
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&arguments.config, config::environment())?;
    let guard = ciphermq_logging::init(&config.logging, config.log_reserve(), config::WARNINGS)?;
    let behaviour = arguments.behaviour;
    let with_defect = |store: Store| Store {
        committer: Box::new(FaultyCommitter {
            behaviour,
            inner: store.committer,
            held: None,
            last: 0,
            counted: 0,
        }),
        reader: store.reader,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let prepared = server::prepare(&config).await?;
        server::run_with(config, prepared, guard.handle(), signals, with_defect).await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(())
}
