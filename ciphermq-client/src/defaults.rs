//! Names that fit together by themselves, so that a sender and a receiver need to agree on nothing
//! but the receiver's client id.

use ciphermq_protocol::name::{NameError, StaticName};
use ciphermq_protocol::{ClientId, QueueName, RoutingKey};

/// The exchange that is used when none is named.
pub const DEFAULT_EXCHANGE: StaticName = StaticName::new("ciphermq_exchange");

/// `<receiver>_key`: the routing key that is used when none is named.
///
/// # Errors
///
/// [`NameError`] if the receiver's id is so long that the name would be too long.
pub fn default_routing_key(receiver: &ClientId) -> Result<RoutingKey, NameError> {
    RoutingKey::new(&format!("{receiver}_key"))
}

/// `<receiver>_queue`: the queue that is used when none is named.
///
/// # Errors
///
/// [`NameError`] if the receiver's id is so long that the name would be too long.
pub fn default_queue(receiver: &ClientId) -> Result<QueueName, NameError> {
    QueueName::new(&format!("{receiver}_queue"))
}
