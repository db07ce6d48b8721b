//! Default names, derived from the receiver's client id, so that a sender and a receiver need to
//! agree on nothing else.

use ciphermq_protocol::name::{NameError, StaticName};
use ciphermq_protocol::{ClientId, QueueName, RoutingKey};

/// The default exchange.
pub const DEFAULT_EXCHANGE: StaticName = StaticName::new("ciphermq_exchange");

/// Returns the default routing key: `<receiver>_key`.
///
/// # Errors
///
/// [`NameError`] if the receiver's id is so long that the name would be too long.
pub fn default_routing_key(receiver: &ClientId) -> Result<RoutingKey, NameError> {
    RoutingKey::new(&format!("{receiver}_key"))
}

/// Returns the default queue: `<receiver>_queue`.
///
/// # Errors
///
/// [`NameError`] if the receiver's id is so long that the name would be too long.
pub fn default_queue(receiver: &ClientId) -> Result<QueueName, NameError> {
    QueueName::new(&format!("{receiver}_queue"))
}
