//! The commands beside the creation of key pairs, for all programs that have them.

use clap::Subcommand;
use jiff::Timestamp;

use crate::error::Error;
use crate::report::Report;
use crate::{
    AuthorityArgs, CertsArgs, CsrArgs, ListArgs, RenewArgs, RevokeArgs, RotateArgs, SignArgs,
    certs, csr, hierarchy, renew, revocation, rotate, sign,
};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Creates new keys in place of the existing ones, which are kept for messages sealed for them
    Rotate(RotateArgs),
    /// Creates certificates: the authority's and the server's unless they exist, and the clients'
    Certs(CertsArgs),
    /// Creates an authority alone, or an intermediate one below it
    Authority(AuthorityArgs),
    /// Creates a private key, and a request to have it certified elsewhere
    Csr(CsrArgs),
    /// Issues a certificate for a request, where the authority's key is
    Sign(SignArgs),
    /// Renews a certificate for its own names, or makes a request for that
    Renew(RenewArgs),
    /// Revokes a client's or the server's certificate: adds it to the authority's revocation list
    Revoke(RevokeArgs),
    /// Signs the authority's revocation list anew, before it ends; creates it if there is none
    Crl(ListArgs),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn run(&self, now: Timestamp) -> Result<Report, Error> {
        match self {
            Self::Rotate(args) => rotate::run(args),
            Self::Certs(args) => certs::run(args, now),
            Self::Authority(args) => hierarchy::run(args, now),
            Self::Csr(args) => csr::run(args),
            Self::Sign(args) => sign::run(args, now),
            Self::Renew(args) => renew::run(args, now),
            Self::Revoke(args) => revocation::revoke(args, now),
            Self::Crl(args) => revocation::renew(args, now),
        }
    }
}
