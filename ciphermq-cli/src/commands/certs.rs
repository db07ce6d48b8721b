//! `certs`: a certificate authority and certificates, as the program `keygen certs` makes them.

use ciphermq_client::Timestamp;
use keygen::CertsArgs;

use super::keygen::{failure, print};
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Makes certificates: an authority's unless it is there, the server's unless it is there, and the clients'.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    certs: CertsArgs,
}

pub(crate) fn run(args: Args, console: &Console) -> Result<Exit, Failure> {
    let report = keygen::certs::run(&args.certs, Timestamp::now()).map_err(failure)?;
    print(&report, console)
}
