//! The table of limits: the name, kind, default, bounds and documentation of each.
//!
//! An entry defines the field of [`Limits`] and its default, the field of the configuration file
//! and its check, the environment variable, and the row in `docs/configuration.md`.

use std::time::Duration;

use super::client::{ClientSection, ClientsSection};
#[cfg(test)]
use super::row::Row;
use crate::config::{
    Error,
    quantity::{Number, Retention, Size, Time},
    section::section,
    setting::{Quantity, Setting},
    validator::Validator,
};

/// Defines every limit.
///
/// An entry is `field: type = Kind(default, min..=max)`, below its documentation.
macro_rules! limits {
    ($(
        $(#[doc = $line:literal])+
        $field:ident: $Type:ty = $Kind:ident($default:expr, $range:expr);
    )*) => {
        /// The limits in force.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $line])+ pub $field: $Type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Limits {
            /// Returns the names of the limits that differ in `other`.
            pub(in crate::config) fn changed<'a>(
                &'a self,
                other: &'a Self,
            ) -> impl Iterator<Item = &'static str> + 'a {
                let differ = [$((stringify!($field), self.$field != other.$field),)*];
                differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
            }
        }

        section! {
            /// The section `[limits]` as written.
            LimitsSection("limits") { $($field: Quantity,)* }
            with {
                client: ClientSection,
                clients: Vec<Setting<ClientsSection>>,
            }
        }

        impl LimitsSection {
            /// Fills in defaults, and checks each limit against its bounds.
            ///
            /// # Errors
            ///
            /// [`Error::Setting`] for the first limit that is invalid or out of its bounds.
            pub(in crate::config) fn within_bounds(
                &self,
                validator: &Validator<'_>,
            ) -> Result<Limits, Error> {
                Ok(Limits {
                    $($field: validator.quantity::<$Kind, _>(
                        ("limits", stringify!($field)),
                        self.$field.as_ref(),
                        $default,
                        $range,
                    )?,)*
                })
            }
        }

        /// Returns the documentation of every limit.
        #[cfg(test)]
        pub(super) fn rows() -> Vec<Row> {
            vec![$(Row::new::<$Kind, $Type>(
                ("limits", stringify!($field)),
                $default,
                &($range),
                concat!($($line),+),
            ),)*]
        }
    };
}

limits! {
    /// The longest command line, and therefore the largest message or batch. A longer one is
    /// answered with `line_too_long`, and the connection is closed.
    max_line_bytes: usize = Size(16 << 20, 1 << 10..=256 << 20);

    /// A connection that holds unacknowledged messages, and is silent this long, loses them to
    /// others; the messages are [deferred](protocol.md#deferred-messages).
    redelivery_timeout: Duration =
        Time(Duration::from_secs(30), Duration::from_millis(100)..=Duration::from_hours(24));

    /// How long a publish waits for the database before it is answered with `storage_unavailable`.
    storage_wait: Duration =
        Time(Duration::from_secs(8), Duration::from_millis(100)..=Duration::from_mins(10));

    /// Publishes are refused with `storage_full` while less is free on the disk of an SQLite
    /// database, so that acks keep working. While less than twice as much is free, those of clients
    /// that hold more than their share are.
    disk_reserve: u64 = Size(64 << 20, 0..=1 << 40);

    /// The longest TLS handshake.
    handshake_timeout: Duration =
        Time(Duration::from_secs(10), Duration::from_millis(100)..=Duration::from_mins(10));

    /// The most handshakes in progress. When there are more, the oldest of the address that has
    /// most gives way.
    max_handshakes: usize = Number(2000, 1..=1_000_000);

    /// The most handshakes in progress from one address; of IPv6, from one /64 network. When there
    /// are more, the oldest of them gives way.
    max_handshakes_per_address: usize = Number(1000, 1..=1_000_000);

    /// The most connections at once. Further ones are answered with `overloaded`, and closed.
    max_connections: usize = Number(10_000, 1..=1_000_000);

    /// The older name of `connections` in [`[limits.client]`](#limitsclient), which is this unless
    /// it is written: the most connections of one client; 0 for no limit.
    max_connections_per_client: usize = Number(2000, 0..=1_000_000);

    /// The most connections from one address; of IPv6, from one /64 network. 0 for no limit: any
    /// number of clients may be behind one address.
    max_connections_per_address: usize = Number(0, 0..=1_000_000);

    /// Further connections, beyond `max_connections`, that only administrators get.
    reserved_connections: usize = Number(8, 0..=10_000);

    /// Memory for unfinished and unprocessed lines, over all connections; half of it for each
    /// client. When it is short, slow lines are ended. At least `max_line_bytes`.
    max_buffered_bytes: usize = Size(256 << 20, 1 << 10..=1 << 40);

    /// Memory for replies that are not read yet, over all connections, and as much again for
    /// deliveries; a quarter of each for each client. A client that has used up its part is not
    /// read from, and gets little at a time. When it is short, connections that do not read are
    /// ended.
    max_unread_bytes: usize = Size(64 << 20, 4 << 20..=1 << 40);

    /// The lowest rate of an unfinished line of more than 64 KiB, in bytes a second over ten
    /// seconds; 0 for none. The connection of a slower one is answered with `overloaded`, and
    /// closed.
    min_line_rate: u64 = Size(4 << 10, 0..=1 << 30);

    /// Memory for messages not yet committed, over all connections; a quarter of it for each
    /// client. At least `max_line_bytes`.
    max_pending_bytes: usize = Size(64 << 20, 1 << 10..=1 << 40);

    /// Memory for messages ready for delivery, over all queues; the others wait in the database.
    /// At least `max_line_bytes`.
    max_ready_bytes: usize = Size(64 << 20, 1 << 10..=1 << 40);

    /// The largest prefetch of a consumer; larger requests are reduced to it.
    max_prefetch: u32 = Number(65_535, 1..=65_535);

    /// How long the server may take to finish its work when it stops.
    shutdown_timeout: Duration =
        Time(Duration::from_secs(10), Duration::ZERO..=Duration::from_hours(1));

    /// A message that lost connections have returned this often is deferred behind all others. It
    /// is never dropped.
    max_redeliveries: u32 = Number(10, 1..=1_000_000);

    /// The most queues that are bound to an exchange by one routing key; each of them gets every
    /// message. 0 for no limit. What is bound already stays.
    max_queues_per_route: u32 = Number(64, 0..=1_000_000);

    /// The part of `max_queues_per_route` that one client may bind which is not an administrator. 0
    /// for no limit.
    max_queues_per_route_and_client: u32 = Number(4, 0..=1_000_000);

    /// How long the metadata of acknowledged messages is kept. Their ids are forgotten with it: a
    /// later retry of a publish is stored as a new message.
    metadata_retention: Option<Duration> =
        Retention(None, MIN_METADATA_RETENTION..=Duration::from_secs(100 * 31_557_600));
}

/// The minimum of `metadata_retention`.
///
/// It exceeds the total time of a client's retries of a publish, by default 3 of 10 seconds each,
/// since a retry after the id is forgotten would be stored as a new message.
const MIN_METADATA_RETENTION: Duration = Duration::from_mins(1);
