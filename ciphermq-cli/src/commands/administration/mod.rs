//! `connections`, `clients` and `reload`: what administrators list, close and block, and that the
//! server reads its configuration again.

pub(crate) mod clients;
pub(crate) mod connections;
pub(crate) mod reload;
