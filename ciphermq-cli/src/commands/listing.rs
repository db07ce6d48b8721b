//! What commands share that list things and change them: tables, consent, the connection.

use std::io::{IsTerminal as _, stdin};

use ciphermq_client::{Client, RequestError};
use serde::Serialize;

use crate::connection::{ConnectionArgs, Identity};
use crate::console::columns::Columns;
use crate::console::{Console, stderr};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// How a list is printed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ListArgs<C: clap::ValueEnum + Send + Sync + 'static> {
    /// The columns of the table, in this order, separated by commas [default: all]
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "COLUMN",
        conflicts_with = "json"
    )]
    columns: Vec<C>,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    json: bool,
}

/// The consent to what cannot be undone.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Consent {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Asks, on a terminal, whether to do it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if nobody can be asked, or the answer is no.
    pub(super) fn ask(self, what: &str) -> Result<(), Failure> {
        self.ask_about(what, "That cannot be undone.")
    }

    /// Asks like [`Consent::ask`], with the consequence in a sentence.
    ///
    /// # Errors
    ///
    /// As for [`Consent::ask`].
    pub(super) fn ask_about(self, what: &str, consequence: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !stdin().is_terminal() {
            return Err(Failure::usage(
                format!("{what}: nobody can be asked. {consequence}"),
                "Add --yes to do it without asking.",
            ));
        }
        stderr::line(format_args!("{what}? {consequence} Do it? [y/N]"));
        let mut answer = String::new();
        let read = stdin().read_line(&mut answer);
        match read.is_ok() && ["y", "yes"].contains(&&*answer.trim().to_lowercase()) {
            true => Ok(()),
            false => Err(Failure::plain("Nothing was done.")),
        }
    }
}

/// A row of a list, with its cell for each column.
pub(super) trait Row<C>: Serialize {
    fn cell(&self, column: C) -> String;
}

impl<C: clap::ValueEnum + Copy + Send + Sync + 'static> ListArgs<C> {
    /// Prints rows.
    pub(super) fn print<R: Row<C>>(&self, rows: &[R]) -> Result<(), Failure> {
        if self.json {
            let mut lines = String::new();
            for row in rows {
                lines += &serde_json::to_string(row)
                    .map_err(|error| Failure::plain(format!("A row cannot be shown: {error}.")))?;
                lines.push('\n');
            }
            return stdout::print(lines);
        }
        let columns = match self.columns.is_empty() {
            true => C::value_variants().to_vec(),
            false => self.columns.clone(),
        };
        let heading = |column: &C| {
            let name = column.to_possible_value();
            name.map(|name| name.get_name().to_owned())
                .unwrap_or_default()
        };
        let mut table = Columns::new(columns.iter().map(heading));
        for row in rows {
            table.row(columns.iter().map(|column| row.cell(*column)));
        }
        table.print()
    }
}

/// The options of a command that prints a list.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Listing<C: clap::ValueEnum + Send + Sync + 'static> {
    #[command(flatten)]
    list: ListArgs<C>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The rows of a page, and the position of the next one.
pub(super) type Page<R, N> = Result<(Vec<R>, Option<N>), RequestError>;

impl<C: clap::ValueEnum + Copy + Send + Sync + 'static> Listing<C> {
    /// Prints the rows of all pages. `page` asks the server for the page at a position.
    pub(super) async fn print<R: Row<C>, N: Clone + PartialOrd>(
        self,
        page: impl AsyncFn(&Client, Option<N>) -> Page<R, N>,
    ) -> Result<Exit, Failure> {
        let rows = all(self.connection, page).await?;
        self.list.print(&rows)?;
        Ok(Exit::Done)
    }

    /// Prints the only row, as [`print`](Self::print) does.
    ///
    /// # Errors
    ///
    /// [`Failure`] with the text `none` also if there is no row.
    pub(super) async fn print_one<R: Row<C>, N: Clone + PartialOrd>(
        self,
        none: String,
        page: impl AsyncFn(&Client, Option<N>) -> Page<R, N>,
    ) -> Result<Exit, Failure> {
        let rows = all(self.connection, page).await?;
        if rows.is_empty() {
            return Err(Failure::plain(none).with_exit(Exit::Less));
        }
        self.list.print(&rows)?;
        Ok(Exit::Done)
    }
}

async fn all<R, N: Clone + PartialOrd>(
    connection: ConnectionArgs,
    page: impl AsyncFn(&Client, Option<N>) -> Page<R, N>,
) -> Result<Vec<R>, Failure> {
    let client = connect(connection).await?;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (rows, next) = page(&client, after.clone()).await?;
        all.extend(rows);
        // A server that returns the same page again would keep us here indefinitely.
        if next.is_none() || next <= after {
            break;
        }
        after = next;
    }
    client.close().await;
    Ok(all)
}

/// Connects as the client of the connection options.
pub(super) async fn connect(connection: ConnectionArgs) -> Result<Client, Failure> {
    connection.connect(Identity::Sender).await
}

/// Says what was done, once the connection is closed.
pub(super) async fn done(client: Client, console: &Console, what: String) -> Result<Exit, Failure> {
    client.close().await;
    console.info(what);
    Ok(Exit::Done)
}
