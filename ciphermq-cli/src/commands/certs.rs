//! `certs`: makes a certificate authority and certificates, like the program `keygen certs`.

use ciphermq_client::Timestamp;
use keygen::CertsArgs;

use super::keygen::{failure, print};
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Make a certificate authority, and certificates for the server and for clients
///
/// An existing authority is used, and an existing server certificate is kept, so that clients can
/// be added later.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    certs: CertsArgs,
}

pub(crate) fn run(args: Args, console: &Console) -> Result<Exit, Failure> {
    let report = keygen::certs::run(&args.certs, Timestamp::now()).map_err(failure)?;
    print(&report, console)
}
