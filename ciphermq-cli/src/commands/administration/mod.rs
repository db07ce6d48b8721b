//! `connections` and `clients`: what administrators list, close and block.

pub(crate) mod clients;
pub(crate) mod connections;
