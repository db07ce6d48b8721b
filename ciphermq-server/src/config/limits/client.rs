//! The limits of each client: `[limits.client]`, and `[[limits.clients]]` for certain clients.
//!
//! As in the table of limits, an entry defines a field of [`ClientLimits`] and its default, the
//! fields of the configuration file and their check, the environment variable, and the row in
//! `docs/configuration.md`.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::text::shown;
use serde::Deserialize;

#[cfg(test)]
use super::row::Row;
use crate::authorization::Pattern;
use crate::config::{
    Error,
    quantity::{Number, Retention, Size, Time},
    section::section,
    setting::{List, Quantity, Setting},
    validator::Validator,
};
use crate::quota::{ClientEntry, Quotas};

/// Defines every limit of a client, as the macro of `table.rs` does for those of the server.
macro_rules! client_limits {
    ($(
        $(#[doc = $line:literal])+
        $field:ident: $Type:ty = $Kind:ident($default:expr, $range:expr);
    )*) => {
        /// The limits of one client.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct ClientLimits {
            $($(#[doc = $line])+ pub $field: $Type,)*
        }

        impl Default for ClientLimits {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        section! {
            /// The section `[limits.client]` as written.
            ClientSection("limits.client") { $($field: Quantity,)* }
        }

        /// An element of `[[limits.clients]]` as written.
        #[derive(Debug, Default, Deserialize)]
        #[serde(
            default,
            deny_unknown_fields,
            expecting = "limits of certain clients: [[limits.clients]], and its fields below"
        )]
        pub(in crate::config) struct ClientsSection {
            clients: Option<Setting<List>>,
            $($field: Option<Setting<Quantity>>,)*
        }

        impl ClientSection {
            /// Fills in defaults, and checks each limit against its bounds.
            ///
            /// # Errors
            ///
            /// [`Error::Setting`] for the first limit that is invalid or out of its bounds.
            fn within_bounds(&self, validator: &Validator<'_>) -> Result<ClientLimits, Error> {
                Ok(ClientLimits {
                    $($field: validator.quantity::<$Kind, _>(
                        ("limits.client", stringify!($field)),
                        self.$field.as_ref(),
                        $default,
                        $range,
                    )?,)*
                })
            }
        }

        impl ClientsSection {
            /// Whether it has a limit.
            fn has_limit(&self) -> bool {
                false $(|| self.$field.is_some())*
            }

            /// Fills in the limits of other clients where it has none of its own.
            ///
            /// # Errors
            ///
            /// [`Error::Setting`] for the first limit that is invalid or out of its bounds.
            fn within_bounds(
                &self,
                others: &ClientLimits,
                validator: &Validator<'_>,
            ) -> Result<ClientLimits, Error> {
                Ok(ClientLimits {
                    $($field: validator.quantity::<$Kind, _>(
                        ("limits.clients", stringify!($field)),
                        self.$field.as_ref(),
                        others.$field,
                        $range,
                    )?,)*
                })
            }
        }

        /// Returns the documentation of every limit.
        #[cfg(test)]
        pub(super) fn rows() -> Vec<Row> {
            vec![$(Row::new::<$Kind, $Type>(
                ("limits.client", stringify!($field)),
                $default,
                &($range),
                concat!($($line),+),
            ),)*]
        }
    };
}

client_limits! {
    /// The most connections at once; further ones are answered with `overloaded`, and closed. If it
    /// is left out, it is `max_connections_per_client`.
    connections: usize = Number(2000, 0..=1_000_000);

    /// The most queues that the client has made.
    queues: u64 = Number(10_000, 0..=1_000_000_000);

    /// The most exchanges that the client has made.
    exchanges: u64 = Number(1000, 0..=1_000_000_000);

    /// The most bindings that the client has made.
    bindings: u64 = Number(20_000, 0..=1_000_000_000);

    /// The most consumers at once: each queue that a connection consumes from is one.
    consumers: u64 = Number(10_000, 0..=1_000_000_000);

    /// The messages that the client may publish in a second, over all its connections. See [rate
    /// limits](#rate-limits).
    publish_messages_per_second: u64 = Number(0, 0..=1_000_000_000);

    /// The bytes of envelopes that the client may publish in a second.
    publish_bytes_per_second: u64 = Size(0, 0..=1 << 40);

    /// The time whose messages and bytes a client that was silent so long may publish at once.
    publish_burst: Duration =
        Time(Duration::from_secs(1), Duration::from_millis(10)..=Duration::from_hours(24));

    /// The most messages of the client that wait for their receivers.
    waiting_messages: u64 = Number(100_000_000, 0..=1 << 50);

    /// The most bytes of their envelopes.
    waiting_bytes: u64 = Size(64 << 30, 0..=1 << 50);

    /// The most messages of the client that receivers have rejected; a quarter of it for each
    /// receiver. Beyond it, the client cannot publish, or not to this receiver; `reject` is never
    /// refused.
    rejected_messages: u64 = Number(100_000, 0..=1 << 50);

    /// The most bytes of their envelopes; a quarter of it for each receiver.
    rejected_bytes: u64 = Size(256 << 20, 0..=1 << 50);

    /// How long rejected messages of the client are kept. The server logs how many it removes.
    rejected_age: Option<Duration> =
        Retention(None, Duration::from_secs(1)..=Duration::from_secs(100 * 31_557_600));
}

/// Checks the limits of clients. `connections` is the most connections of a client for which the
/// section says nothing else.
///
/// # Errors
///
/// [`Error::Setting`] for a limit out of its bounds, and for an entry that names no clients or sets
/// no limit.
pub(in crate::config) fn validate(
    section: &ClientSection,
    certain_clients: &[Setting<ClientsSection>],
    connections: usize,
    validator: &Validator<'_>,
) -> Result<Quotas, Error> {
    let mut default = section.within_bounds(validator)?;
    if section.connections.is_none() {
        default.connections = connections;
    }
    let mut entries = Vec::with_capacity(certain_clients.len());
    for written in certain_clients {
        let name = ("limits.clients", "clients");
        let patterns = written.value.clients.as_ref();
        let Some(list) = patterns.filter(|list| !list.value.0.is_empty()) else {
            let location = patterns.map_or(&written.location, |list| &list.location);
            let advice = "Write clients = [\"sensor-*\"] below [[limits.clients]], with patterns \
                          of client ids.";
            return Err(validator.invalid(name, Some(location), "it names no clients", advice));
        };
        if !written.value.has_limit() {
            let advice = "Write a limit of [limits.client] below it, or remove the entry.";
            let location = Some(&written.location);
            return Err(validator.invalid(name, location, "it sets no limit", advice));
        }
        let parse = |text: &String| {
            Pattern::parse(text).map_err(|error| {
                let problem = format!("`{}`: {error}", shown(text));
                validator.invalid(name, Some(&list.location), problem, error.advice())
            })
        };
        entries.push(ClientEntry {
            clients: list.value.0.iter().map(parse).collect::<Result<_, _>>()?,
            limits: Arc::new(written.value.within_bounds(&default, validator)?),
        });
    }
    Ok(Quotas {
        default: Arc::new(default),
        entries,
    })
}
