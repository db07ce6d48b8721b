//! Revocation lists: fetched from the server, verified, and kept.
//!
//! The server is not trusted with them. A list counts if the client's own authority has signed it
//! (RFC 5280, section 5), or an intermediate one by which another client's verified certificate
//! leads there; and if its number is not lower than that of one that was seen before: so a server
//! can withhold a new list, which its age shows, and cannot go back to an old one.
//!
//! - `kept`: the lists that were accepted, in memory or in a folder
//! - `unknown`: the lists of authorities that are not known yet
//! - `fetch`: gets the server's lists, at the start and from time to time
//! - `peers`: what is needed to decide about another client's certificate
//! - `error`: why a list is not used

mod error;
mod fetch;
mod kept;
mod peers;
mod unknown;

pub use error::RevocationError;

pub(crate) use fetch::{Fetcher, keep_fetching};
pub(crate) use kept::KeptLists;
pub(crate) use peers::{Needs, Tries};
pub(crate) use unknown::UnknownLists;
