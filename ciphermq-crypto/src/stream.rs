//! How a stream of message ids starts: with the time, and with randomness of the operating system.

use ciphermq_protocol::StreamId;
use jiff::Timestamp;

use crate::error::RandomError;
use crate::random;

/// A new stream that starts at `now`, told from all others of the same millisecond by 34 random
/// bits.
///
/// # Errors
///
/// [`RandomError`] if the operating system has no randomness.
pub fn start(now: Timestamp) -> Result<StreamId, RandomError> {
    let mut random = [0; 8];
    random::fill(&mut random)?;
    // A clock before 1970 is wrong anyway, and ids need not tell the time: they must only differ.
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Ok(StreamId::new(millis, u64::from_be_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_its_time_and_differs() {
        let now = Timestamp::from_millisecond(1_757_314_980_007).unwrap();
        let [one, other] = [(); 2].map(|()| start(now).unwrap());
        assert_eq!(one.started_millis(), 1_757_314_980_007);
        assert_ne!(one, other);
        assert_eq!(start(Timestamp::MIN).unwrap().started_millis(), 0);
    }
}
