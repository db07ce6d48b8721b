//! New streams of message ids, from the time and the operating system's randomness.

use ciphermq_protocol::StreamId;
use jiff::Timestamp;

use crate::random;
use crate::random::RandomError;

/// Creates the id of a stream that starts at `now`.
///
/// 34 random bits distinguish it from other streams of the same millisecond.
///
/// # Errors
///
/// [`RandomError`] if the operating system has no randomness.
pub fn start(now: Timestamp) -> Result<StreamId, RandomError> {
    let mut random = [0; 8];
    random::fill(&mut random)?;
    // A clock before 1970 is wrong, which is harmless: ids must only differ.
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Ok(StreamId::new(millis, u64::from_be_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_start_at_their_time_and_differ() {
        let now = Timestamp::from_millisecond(1_757_314_980_007).unwrap();
        let [one, other] = [(); 2].map(|()| start(now).unwrap());
        assert_eq!(one.started_millis(), 1_757_314_980_007);
        assert_ne!(one, other);
        assert_eq!(start(Timestamp::MIN).unwrap().started_millis(), 0);
    }
}
