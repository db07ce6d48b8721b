//! Revocation lists: fetched from the server, verified, and kept.
//!
//! The server is not trusted with them. A list counts if the client's own authority has signed it
//! (RFC 5280, section 5), and if its number is not lower than that of one that was seen before: so
//! a server can withhold a new list, which its age shows, and cannot go back to an old one.
//!
//! - `kept`: the lists that were accepted, in memory or in a folder
//! - `fetch`: gets the server's lists, at the start and from time to time
//! - `error`: why a list is not used

mod error;
mod fetch;
mod kept;

pub use error::RevocationError;

pub(crate) use fetch::{Fetcher, keep_fetching};
pub(crate) use kept::KeptLists;
