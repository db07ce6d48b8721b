//! Randomness from the operating system.
//!
//! Only the operating system knows when a virtual machine was copied or restored, so no generator's
//! state is kept.

use rand::rngs::{StdRng, SysError, SysRng};
use rand::{SeedableRng, TryRng};

/// An error about missing randomness of the operating system.
#[derive(Clone, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct RandomError(#[from] SysError);

ciphermq_protocol::debug_as_report!(RandomError);

/// Fills `out` with random bytes.
pub(crate) fn fill(out: &mut [u8]) -> Result<(), RandomError> {
    Ok(SysRng.try_fill_bytes(out)?)
}

/// Seeds a generator for callers that cannot handle an error, for a single use.
pub(crate) fn generator() -> Result<StdRng, RandomError> {
    Ok(StdRng::try_from_rng(&mut SysRng)?)
}
